//! Keys that are parked: their later tasks wait, other keys flow on, and what an operator asks for keeps the order.

use super::*;
use crate::{OperationError, ParkedSelection, Redriven, status::Activity, testing::Outcome};
use partita_core::Exit;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A handler that parks every task of one key until it is mended.
struct Poisoned {
    pipeline: TestPipeline,
    ledger: Ledger,
    mended: Arc<AtomicBool>,
    poisoned: String,
    healthy: String,
}

impl Poisoned {
    async fn start() -> Self {
        Self::with(config()).await
    }

    async fn with(config: Config) -> Self {
        let (poisoned, healthy) = (key_of(0, 2, 0), key_of(0, 2, 1));
        let (mended, sick) = (Arc::new(AtomicBool::new(false)), poisoned.clone());
        let seen = mended.clone();
        let (pipeline, ledger) = pipeline(config, 2, move |ctx| {
            if ctx.key_str() == sick && !seen.load(Relaxed) { Act::Park } else { Act::Succeed }
        })
        .await;
        Self { pipeline, ledger, mended, poisoned, healthy }
    }

    /// Sends tasks in turn to both keys: the poisoned one gets the even offsets.
    async fn send(&self, rounds: usize) {
        for _ in 0..rounds {
            self.pipeline.send((self.poisoned.clone(), "poison")).await;
            self.pipeline.send((self.healthy.clone(), "no poison")).await;
        }
    }

    fn parked(&self) -> Vec<u64> {
        self.pipeline
            .operations()
            .list_parked(&ParkedSelection::All)
            .unwrap()
            .iter()
            .map(|task| task.offset)
            .collect()
    }

    fn key(&self) -> ParkedSelection {
        ParkedSelection::Key(self.poisoned.clone().into())
    }

    async fn until_none_is_parked(&self) {
        self.pipeline.wait_until("nothing is parked", |_| self.parked().is_empty()).await;
    }

    fn done(&self) -> Vec<u64> {
        self.ledger.offsets(What::Done, 0)
    }
}

#[actix_rt::test]
async fn a_parked_key_waits_whole_and_in_order_while_its_neighbours_flow_on() {
    let test = Poisoned::start().await;
    test.send(3).await;
    let settled = test.pipeline.settled().await;
    assert_eq!(test.done(), [1, 3, 5]);
    assert_eq!(test.ledger.offsets(What::Start, 0), [0, 1, 3, 5], "what waits is not tried");
    assert!(matches!(&settled.tasks[2].outcome, Outcome::Parked(reason) if reason.contains("earlier task")));
    let listed = test.pipeline.operations().list_parked(&test.key()).unwrap();
    let causes: Vec<_> =
        listed.iter().map(|task| (task.offset, task.cause.as_str(), task.attempts)).collect();
    assert_eq!(causes, [(0, "parked", 1), (2, "behind", 0), (4, "behind", 0)]);

    test.mended.store(true, Relaxed);
    assert_eq!(test.pipeline.operations().redrive(&test.key()), Ok(Redriven { keys: 1, tasks: 3 }));
    test.until_none_is_parked().await;
    test.send(1).await;
    test.pipeline.settled().await;
    assert_eq!(test.done(), [1, 3, 5, 0, 2, 4, 6, 7]);
}

#[actix_rt::test]
async fn tasks_that_come_during_a_redrive_wait_behind_it() {
    let test = Poisoned::start().await;
    test.send(20).await;
    test.pipeline.settled().await;
    test.mended.store(true, Relaxed);
    test.pipeline.operations().redrive(&test.key()).unwrap();
    test.send(10).await;
    test.until_none_is_parked().await;
    test.pipeline.settled().await;
    let of_key: Vec<u64> = test.done().into_iter().filter(|offset| offset % 2 == 0).collect();
    assert_eq!(of_key, (0..60).step_by(2).collect::<Vec<_>>());
}

#[actix_rt::test]
async fn a_redriven_task_that_fails_again_keeps_its_key_parked() {
    let test = Poisoned::start().await;
    test.send(2).await;
    test.pipeline.settled().await;
    test.pipeline.operations().redrive(&ParkedSelection::All).unwrap();
    test.pipeline.wait_until("it was tried again", |_| test.ledger.offsets(What::Start, 0).len() == 4).await;
    test.send(1).await;
    test.pipeline.settled().await;
    assert_eq!(test.parked(), [0, 2, 4]);
    assert_eq!(test.done(), [1, 3, 5]);
    let listed = test.pipeline.operations().list_parked(&test.key()).unwrap();
    assert!(listed.iter().all(|task| !task.redriving), "it is not tried for ever");
}

#[actix_rt::test]
async fn a_new_owner_knows_what_is_parked_before_it_begins() {
    let test = Poisoned::start().await;
    test.send(3).await;
    test.pipeline.settled().await;
    test.mended.store(true, Relaxed);
    test.pipeline.rebalance().await;
    test.send(2).await;
    test.pipeline.settled().await;
    assert_eq!(test.parked(), [0, 2, 4, 6, 8], "mended or not: nobody has asked for a redrive");
    let cause = &test.pipeline.operations().list_parked(&test.key()).unwrap()[0];
    assert_eq!((cause.cause.as_str(), cause.reason.as_str()), ("parked", "the script says so"));
    test.pipeline.operations().redrive(&test.key()).unwrap();
    test.until_none_is_parked().await;
    test.pipeline.rebalance().await;
    test.send(1).await;
    test.pipeline.settled().await;
    let of_key: Vec<u64> = test.done().into_iter().filter(|offset| offset % 2 == 0).collect();
    assert_eq!(of_key, [0, 2, 4, 6, 8, 10]);
}

#[actix_rt::test]
async fn a_partition_that_can_know_no_more_parked_tasks_waits_until_some_are_redriven() {
    let mut config = config();
    config.limits.max_task = bytesize::ByteSize::kb(1);
    config.memory.budget = bytesize::ByteSize::kb(2_700);
    let test = Poisoned::with(config).await;
    let index = test.pipeline.memory().parked.clone();
    let status = |pipeline: &TestPipeline| pipeline.status().partition(partita_core::Partition(0)).unwrap();
    let full = |pipeline: &TestPipeline| {
        let one = status(pipeline);
        one.activity == Activity::ParkingFull && one.waiting_for.unwrap().contains("redrive or drop")
    };
    test.send(6000).await;
    test.pipeline.wait_until("there is no room", full).await;
    let parked = test.parked();
    assert!((4500..6000).contains(&parked.len()), "{}", parked.len());
    assert!(index.reserved() <= index.capacity());

    test.pipeline.rebalance().await;
    test.pipeline.wait_until("there is no room for the next owner either", full).await;
    assert_eq!(test.parked(), parked);
    assert!(index.reserved() <= index.capacity());
    assert_eq!(test.pipeline.operations().unread_partitions(), Vec::<u32>::new());

    test.mended.store(true, Relaxed);
    test.pipeline.operations().redrive(&test.key()).unwrap();
    test.pipeline.wait_until("nothing is parked", |pipeline| status(pipeline).parked_tasks == 0).await;
    test.pipeline.settled().await;
    let of_key: Vec<u64> = test.done().into_iter().filter(|offset| offset % 2 == 0).collect();
    assert_eq!(of_key, (0..12_000).step_by(2).collect::<Vec<_>>());
    assert_eq!(index.reserved(), 0);
}

/// A key's old task keeps the whole journal to be read, with more in it than is still parked.
#[actix_rt::test]
async fn a_new_owner_reads_through_what_was_parked_at_once_and_is_no_more() {
    let mut config = config();
    config.limits.max_task = bytesize::ByteSize::kb(1);
    config.memory.budget = bytesize::ByteSize::kb(2_700);
    let keys = [0, 1].map(|n| key_of(0, 2, n));
    let others = [0, 1].map(|n| key_of(1, 2, n));
    let mended = Arc::new(AtomicBool::new(false));
    let seen = mended.clone();
    let (pipeline, ledger) =
        pipeline(config, 2, move |_| if seen.load(Relaxed) { Act::Succeed } else { Act::Park }).await;
    let status = |partition| pipeline.status().partition(partita_core::Partition(partition)).unwrap();
    let parked = |partition| status(partition).parked_tasks;
    let none_full = || (0..2).all(|partition| status(partition).activity == Activity::Running);
    let redrive = |key: &str| pipeline.operations().redrive(&ParkedSelection::Key(key.to_owned().into()));
    // Each partition in turn has nearly all that there is room for; both together have more.
    for [first, second] in [&keys, &others] {
        mended.store(false, Relaxed);
        pipeline.send((first.clone(), "old")).await;
        for _ in 0..3000 {
            pipeline.send((second.clone(), "later")).await;
        }
        pipeline.settled().await;
        mended.store(true, Relaxed);
        redrive(second).unwrap();
        let partition = partition_of(first.as_bytes(), 2).0;
        pipeline.wait_until("one is left", |_| parked(partition) == 1).await;
    }
    pipeline.rebalance().await;
    pipeline.wait_until("both have read their journals", |_| none_full() && parked(0) + parked(1) == 2).await;
    for [first, _] in [&keys, &others] {
        redrive(first).unwrap();
    }
    pipeline.wait_until("nothing is parked", |_| parked(0) + parked(1) == 0).await;
    assert_eq!(ledger.offsets(What::Done, 0).len() + ledger.offsets(What::Done, 1).len(), 6002);
    assert_eq!(pipeline.memory().parked.reserved(), 0);
}

/// What a first owner could hold does not fit beside what this one has.
#[actix_rt::test]
async fn an_owner_without_memory_for_what_is_parked_waits_and_others_can_still_be_redriven() {
    let mut config = config();
    config.limits.max_task = bytesize::ByteSize::kb(1);
    config.memory.budget = bytesize::ByteSize::kb(2_700);
    let ledger = Ledger::default();
    let mended = Arc::new(AtomicBool::new(false));
    let script: Script = {
        let mended = mended.clone();
        Arc::new(move |_| if mended.load(Relaxed) { Act::Succeed } else { Act::Park })
    };
    tokio::time::pause();
    let log = ScriptedLog::new(2);
    let life = |log: &ScriptedLog| {
        let (ledger, script) = (ledger.clone(), script.clone());
        let make = move |assignment: &Assignment| Single(Scripted::new(&ledger, &script, assignment));
        let arbiters = vec![actix_rt::Arbiter::current()];
        TestPipeline::over(log.clone(), config.clone(), spawner(Arc::new(make)), arbiters)
    };
    // Two owners, each with one partition and three quarters of what it has room for.
    for partition in 0..2 {
        let owner = life(&log);
        log.assign(&[partition]);
        owner.owns(&[partition]).await;
        send(&owner, partition, 3500).await;
        owner
            .wait_until("all is parked", |pipeline| {
                pipeline.log().unsettled().iter().all(|&p| p != partition)
            })
            .await;
        log.lose(&[partition]);
        drop(owner);
    }
    let one = life(&log);
    log.assign(&[0, 1]);
    one.owns(&[0, 1]).await;
    let activity = |partition| one.status().partition(partita_core::Partition(partition)).unwrap().activity;
    one.wait_until("one has read its journal and one has no room", |_| {
        let mut both = [activity(0), activity(1)];
        both.sort_by_key(|activity| activity.label());
        both == [Activity::ParkingFull, Activity::Running]
            && one.operations().list_parked(&ParkedSelection::All).is_ok_and(|parked| parked.len() == 3500)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(one.operations().unread_partitions().len(), 1);
    mended.store(true, Relaxed);
    assert_eq!(one.operations().redrive(&ParkedSelection::All), Ok(Redriven { keys: 1, tasks: 3500 }));
    one.wait_until("the other one has read its journal", |_| one.operations().unread_partitions().is_empty())
        .await;
    one.operations().redrive(&ParkedSelection::All).unwrap();
    one.wait_until("nothing is parked", |pipeline| {
        pipeline.status().partitions().iter().all(|partition| partition.parked_tasks == 0)
    })
    .await;
    assert_eq!(ledger.of(What::Done).len(), 7000);
}

#[actix_rt::test]
async fn a_dropped_task_is_never_handled_and_its_key_goes_on() {
    let test = Poisoned::start().await;
    test.send(3).await;
    test.pipeline.settled().await;
    test.mended.store(true, Relaxed);
    let desk = test.pipeline.operations();
    assert_eq!(desk.drop_parked(&ParkedSelection::Task(0, 0), "poison").await, Ok(1));
    assert_eq!(desk.drop_parked(&ParkedSelection::Task(0, 0), "poison").await, Ok(0));
    assert_eq!(test.parked(), [2, 4]);
    test.pipeline.rebalance().await;
    test.pipeline.operations().redrive(&test.key()).unwrap();
    test.until_none_is_parked().await;
    test.send(1).await;
    test.pipeline.settled().await;
    assert_eq!(test.done(), [1, 3, 5, 2, 4, 6, 7]);
    let dropped = &test.pipeline.log().journal_of(0)[3];
    assert_eq!((dropped.offset, dropped.reason.as_str()), (0, "poison"));
}

#[actix_rt::test]
async fn what_is_parked_is_shown_with_its_payload_and_its_reason() {
    let test = Poisoned::start().await;
    test.pipeline.send(TestTask::new(test.poisoned.clone(), vec![b'x'; 100_000]).compressed()).await;
    test.pipeline.settled().await;
    let shown = test.pipeline.operations().show_parked(0, 0).await.unwrap().unwrap();
    assert!(shown.payload.len() == 100_000 && shown.payload.iter().all(|&byte| byte == b'x'));
    assert_eq!((shown.task.attempts, shown.note.reason.as_str()), (1, "the script says so"));
    assert_eq!(shown.note.decompressed_size, 100_000);
    drop(shown);
    assert_eq!(test.pipeline.memory().decode.reserved(), 0);
    assert!(test.pipeline.operations().show_parked(0, 1).await.unwrap().is_none());
}

#[actix_rt::test]
async fn what_this_process_does_not_own_is_said_so() {
    let test = Poisoned::start().await;
    assert_eq!(test.pipeline.operations().redrive(&test.key()), Ok(Redriven { keys: 0, tasks: 0 }));
    test.pipeline.log().lose(&[0]);
    test.pipeline.wait_until("it is lost", |pipeline| pipeline.status().partitions().len() == 1).await;
    let desk = test.pipeline.operations();
    assert_eq!(desk.redrive(&test.key()), Err(OperationError::NotOwned(0)));
    assert_eq!(desk.list_parked(&ParkedSelection::Partition(7)), Err(OperationError::NoPartition(7, 2)));
    assert_eq!(desk.drop_parked(&ParkedSelection::Task(0, 1), "").await, Err(OperationError::NotOwned(0)));
}

#[actix_rt::test]
async fn a_shutdown_does_not_wait_for_a_redrive() {
    let test = Poisoned::start().await;
    test.send(200).await;
    test.pipeline.settled().await;
    test.mended.store(true, Relaxed);
    test.pipeline.operations().redrive(&test.key()).unwrap();
    assert_eq!(test.pipeline.shutdown().await, Exit::Clean);
}

#[actix_rt::test]
async fn a_handler_that_fails_with_everything_parks_a_few_and_then_waits() {
    let mut config = config();
    (config.retry.attempts, config.retry.breaker_tasks) = (2, 3);
    let mended = Arc::new(AtomicBool::new(false));
    let seen = mended.clone();
    let (pipeline, ledger) =
        pipeline(config, 1, move |_| if seen.load(Relaxed) { Act::Succeed } else { Act::Fail }).await;
    for n in 0..20 {
        pipeline.send((key_of(0, 1, n), "payload")).await;
    }
    let tripped = |pipeline: &TestPipeline| {
        pipeline.status().partitions().iter().any(|one| {
            let why = one.waiting_for.as_deref().unwrap_or_default();
            one.activity == Activity::Tripped
                && why.contains("3 tasks were parked")
                && why.contains("last: attempts")
        })
    };
    pipeline.wait_until("the breaker is open", tripped).await;
    tokio::time::sleep(Duration::from_secs(150)).await;
    let parked = pipeline.operations().list_parked(&ParkedSelection::All).unwrap().len();
    assert_eq!(parked, 5, "3 at once, and one in each window");
    mended.store(true, Relaxed);
    let settled = pipeline.settled().await;
    assert_eq!((settled.done(), ledger.offsets(What::Done, 0).len()), (15, 15));
    assert!(!tripped(&pipeline));
}

#[actix_rt::test]
async fn what_a_partition_waits_for_is_told() {
    let away = Arc::new(AtomicBool::new(true));
    let seen = away.clone();
    let (pipeline, _) =
        pipeline(config(), 1, move |_| if seen.load(Relaxed) { Act::Unavailable } else { Act::Succeed })
            .await;
    send(&pipeline, 0, 1).await;
    pipeline
        .wait_until("it waits", |pipeline| {
            let one = &pipeline.status().partitions()[0];
            one.activity == Activity::Unavailable
                && one.waiting_for.as_deref() == Some("the script is unavailable")
        })
        .await;
    away.store(false, Relaxed);
    pipeline.settled().await;
    let one = &pipeline.status().partitions()[0];
    assert_eq!((one.activity, one.waiting_for.as_deref()), (Activity::Running, None));
}

#[actix_rt::test]
async fn a_type_of_its_own_is_tried_as_often_as_its_policy_says() {
    let mut config = config();
    config.retry.types.insert("fragile".into(), "attempts=2 backoff=1ms".into());
    config.retry.attempts = 4;
    let (pipeline, ledger) = pipeline(config, 1, |_| Act::Fail).await;
    pipeline.send(TestTask::new("a", "x").type_name("fragile")).await;
    pipeline.send(TestTask::new("b", "x").type_name("sturdy")).await;
    pipeline.settled().await;
    assert_eq!(ledger.offsets(What::Start, 0), [0, 0, 1, 1, 1, 1]);
}

#[actix_rt::test]
async fn a_group_that_is_made_again_still_keeps_what_was_parked() {
    let script: Script = Arc::new(|ctx| if ctx.offset() % 3 == 0 { Act::Park } else { Act::Succeed });
    let ledger = Ledger::default();
    let log = ScriptedLog::new(1);
    let life = |log: &ScriptedLog| {
        let (ledger, script) = (ledger.clone(), script.clone());
        let make = move |assignment: &Assignment| Single(Scripted::new(&ledger, &script, assignment));
        TestPipeline::over(log.clone(), config(), spawner(Arc::new(make)), vec![actix_rt::Arbiter::current()])
    };
    tokio::time::pause();
    let first = life(&log);
    for _ in 0..5 {
        // Several generations, so that the journal's epochs are far above the next life's.
        log.assign(&[0]);
        first.owns(&[0]).await;
        first.send((key_of(0, 1, 0), "payload")).await;
        first.send((key_of(0, 1, 1), "payload")).await;
        first.wait_until("all is committed", |pipeline| pipeline.log().is_settled()).await;
        log.revoke(&[0]);
        first.wait_until("it is given back", |pipeline| !pipeline.log().owns(0)).await;
    }
    drop(first);
    log.forget_group();
    for _ in 0..3 {
        let next = life(&log);
        log.assign(&[0]);
        next.owns(&[0]).await;
        next.send((key_of(0, 1, 0), "payload")).await;
        next.wait_until("all is committed", |pipeline| pipeline.log().is_settled()).await;
        let parked = next.operations().list_parked(&ParkedSelection::All).unwrap();
        let (tasks, keys) =
            (parked.len() as u64, parked.iter().filter(|task| task.cause != "behind").count());
        assert_eq!((tasks, keys), (log.end(0).0 - 1, 2), "all but offset 1: {parked:?}");
        log.lose(&[0]);
        drop(next);
    }
}
