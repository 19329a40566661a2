//! Records that are not there any more: the partition halts and says what is lost, and goes on where an operator says. A topic that
//! is another one: nothing goes on.

use crate::created;
use anyhow::{Result, bail, ensure};
use partita_core::{Offset, Partition};
use partita_tests::{
    checkers::{self, Bounds},
    history::{History, Outcome, Position},
    journal::{self, Line},
    kafka::Kafka,
    load::Load,
    random::Random,
    server::Server,
    wait,
};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const PARTITIONS: u32 = 4;

async fn accept(server: &Server, tasks: std::ops::Range<u32>) -> u32 {
    let mut partition = 0;
    for task in tasks {
        partition = server.client().accept("key", format!("task {task}")).await.unwrap().partition;
    }
    partition
}

async fn until_recorded(server: &Server, chunks: usize) {
    wait::until("the tasks are recorded", SOON, async || {
        let recorded = server.client().recording("key").await?.map_or(0, |recording| recording.chunks.len());
        ensure!(recorded == chunks, "{recorded}");
        Ok(Some(()))
    })
    .await
    .unwrap();
}

async fn halted(server: &Server, partition: u32) -> Result<Option<String>> {
    let status = server.partitions().await?;
    Ok(status.into_iter().find(|one| one.partition == partition).and_then(|one| one.halted))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_tasks_were_deleted_halts_and_goes_on_where_an_operator_says() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, PARTITIONS).await;
    let server = setup.start().await.unwrap();
    let partition = accept(&server, 0..20).await;
    until_recorded(&server, 20).await;
    assert_eq!(server.stop(SOON).await.unwrap().code(), Some(0));

    // Ten tasks that nobody handles, and retention that takes six of them.
    let door = setup.clone().role("front-door").start().await.unwrap();
    accept(&door, 20..30).await;
    assert_eq!(door.stop(SOON).await.unwrap().code(), Some(0));
    kafka.delete_before("tasks", partition, 26).unwrap();

    let server = setup.start().await.unwrap();
    let detail = wait::until("the partition is halted", SOON, async || halted(&server, partition).await);
    let detail = detail.await.unwrap();
    assert!(detail.contains("6 tasks were deleted") && detail.contains("partita rewind"), "{detail}");
    let refused = server.client().post("key", "one more").await.unwrap();
    assert_eq!(
        (refused.status, refused.json::<partita_tests::client::Problem>().unwrap().code),
        (503, "partition_stuck".into())
    );
    let others = server.partitions().await.unwrap();
    assert!(others.iter().all(|one| one.partition == partition || one.halted.is_none()));

    let number = partition.to_string();
    let admin = format!("http://{}", server.setup().admin());
    let arguments = ["rewind", "--partition", &number, "--to", "earliest", "--admin", &admin];
    let unasked = setup.command(&arguments).await.unwrap();
    assert!(unasked.code == Some(1) && unasked.said().contains("--yes"), "{}", unasked.said());
    assert!(unasked.said().contains("6 tasks are NEVER handled"), "{}", unasked.said());
    let done = setup.command(&[&arguments[..], &["--yes"]].concat()).await.unwrap();
    assert_eq!(done.code, Some(0), "{}", done.said());
    assert!(done.said().contains("from 20 to 26 of 30"), "{}", done.said());
    until_recorded(&server, 24).await;
    accept(&server, 30..31).await;
    until_recorded(&server, 25).await;
    assert!(server.log().contains("an operator's verb"), "the verb leaves a line");

    // The new offset holds for the next life, and a time is a place too.
    let server = server.kill().start().await.unwrap();
    accept(&server, 31..32).await;
    until_recorded(&server, 26).await;
    assert_eq!(halted(&server, partition).await.unwrap(), None);
    crate::committed_is_end(&kafka, PARTITIONS).await;
    let admin = format!("http://{}", server.setup().admin());
    let again = ["rewind", "--all", "--to", "2020-01-01T00:00:00Z", "--yes", "--admin", &admin];
    let again = setup.command(&again).await.unwrap();
    assert!(again.code == Some(0) && again.said().contains("6 tasks are handled again"), "{}", again.said());
    until_recorded(&server, 26).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_again_is_not_taken_for_the_former_one() {
    made_again(PARTITIONS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_again_with_more_partitions_is_not_taken_for_one_that_has_grown() {
    made_again(2 * PARTITIONS).await;
}

async fn made_again(partitions: u32) {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, PARTITIONS).await;
    let server = setup.start().await.unwrap();
    accept(&server, 0..20).await;
    until_recorded(&server, 20).await;
    kafka.run(&["topics", "--delete", "--topic", "tasks"]).unwrap();
    wait::until("the topic is gone", SOON, async || {
        match kafka.run(&["topics", "--list"])?.lines().any(|line| line == "tasks") {
            true => bail!("it is there"),
            false => Ok(Some(())),
        }
    })
    .await
    .unwrap();
    let again = setup.clone().set("log.kafka.partitions", partitions.to_string());
    let made = again.command(&["topics", "create"]).await.unwrap();
    assert_eq!(made.code, Some(0), "{}", made.said());
    if partitions != PARTITIONS {
        let number = partitions.to_string();
        kafka.run(&["topics", "--alter", "--topic", "tasks.parked", "--partitions", &number]).unwrap();
    }
    let reason = server.not_ready_or_gone(SOON).await;
    reason.unwrap();
    // It may have seen that the topic was gone; then it sees the other one.
    wait::until("the other topic is seen", SOON, async || {
        Ok(server.readiness().await?.body.contains("made again").then_some(()))
    })
    .await
    .unwrap();
    // Records of the other topic, below what was committed of the former one, are not read.
    let other = again.beside().role("front-door").start().await.unwrap();
    for key in 0..40 {
        other.client().accept(&format!("other-{key}"), "of the other topic").await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(server.client().keys().await.unwrap(), ["key"]);
    assert!(server.partitions().await.unwrap().iter().all(|one| one.halted.is_some()));
    // Whatever it still accepts is not handled under offsets that meant other tasks.
    let readiness = server.readiness().await.unwrap();
    assert!(
        readiness.body.contains("made again") || readiness.body.contains("does not exist"),
        "{readiness:?}"
    );
    let refused = server.client().post("key", "to nobody").await.unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text());
    server.is_sound().await.unwrap();
    let _ = server.stop(SOON).await;
}

/// Kafka drops a topic's offsets with it. There are others all the same: those of a commit that came late, or of a backup.
#[tokio::test(flavor = "multi_thread")]
async fn an_offset_of_a_former_topic_stays_that_ones_until_an_operator_has_spoken() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, PARTITIONS).await;
    let door = setup.clone().role("front-door").start().await.unwrap();
    let partition = accept(&door, 0..25).await;
    assert_eq!(door.stop(SOON).await.unwrap().code(), Some(0));
    kafka.commit("tasks", partition, 20, "partita-mark-1 0 @the-former-one").unwrap();
    for _ in 0..2 {
        let server = setup.start().await.unwrap();
        let detail = wait::until("the partition is halted", SOON, async || halted(&server, partition).await);
        let detail = detail.await.unwrap();
        assert!(detail.contains("committed is 20, of a topic whose id was the-former-one"), "{detail}");
        until_recorded(&server, 0).await;
        assert_eq!(server.stop(SOON).await.unwrap().code(), Some(0));
    }
    let server = setup.start().await.unwrap();
    wait::until("the partition is halted", SOON, async || halted(&server, partition).await).await.unwrap();
    let admin = format!("http://{}", server.setup().admin());
    let number = partition.to_string();
    let arguments = ["rewind", "--partition", &number, "--to", "committed", "--yes", "--admin", &admin];
    let done = setup.command(&arguments).await.unwrap();
    assert!(done.code == Some(0) && done.said().contains("from 20 to 20 of 25"), "{}", done.said());
    until_recorded(&server, 5).await;
    let server = server.kill().start().await.unwrap();
    accept(&server, 25..26).await;
    until_recorded(&server, 6).await;
    assert_eq!(halted(&server, partition).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_retention_will_delete_unhandled_raise_an_alarm_in_time() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, PARTITIONS).await;
    kafka.run(&["configs", "--alter", "--topic", "tasks", "--add-config", "retention.ms=20000"]).unwrap();
    // The recorder cannot write: its tasks wait.
    let fences = setup.home().join("partita-data/recordings/.fences");
    std::fs::create_dir_all(fences.parent().unwrap()).unwrap();
    std::fs::write(&fences, "").unwrap();
    let server = setup.start().await.unwrap();
    accept(&server, 0..5).await;
    let began = std::time::Instant::now();
    let endangered = async || {
        anyhow::Ok(
            server.metrics().await?.sum("partita_partition_endangered_tasks").unwrap_or_default() as u64
        )
    };
    wait::until("the alarm", SOON, async || Ok((endangered().await? == 5).then_some(()))).await.unwrap();
    let after = began.elapsed();
    assert!((9..20).contains(&after.as_secs()), "after {after:?}, of 20 s that the tasks are kept");
    assert!(server.log().contains("retention may soon delete"));
    // Both mends end it: a longer retention, and the tasks' end.
    let keep = |ms: &str| {
        let setting = format!("retention.ms={ms}");
        kafka.run(&["configs", "--alter", "--topic", "tasks", "--add-config", &setting]).unwrap();
    };
    keep("-1");
    wait::until("the alarm's end", SOON, async || Ok((endangered().await? == 0).then_some(())))
        .await
        .unwrap();
    std::fs::remove_file(&fences).unwrap();
    until_recorded(&server, 5).await;
    wait::until("the alarm's end", SOON, async || Ok((endangered().await? == 0).then_some(())))
        .await
        .unwrap();
    server.is_sound().await.unwrap();
}

/// Keys would go to other partitions, beside what is left of them in the present ones.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_under_load_stop_the_front_door_until_all_of_before_is_handled() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, PARTITIONS).await.set("retry.breaker_tasks", "0");
    let door = setup.clone().role("front-door").start().await.unwrap();
    let manners = ["--delay-ms", "20", "--every", "40", "park"];
    let worker = |name| setup.journal_worker(name, &manners);
    let workers = [worker("one").start().await.unwrap(), worker("two").start().await.unwrap()];
    let load = Load { tasks: u64::MAX, keys: 40, clients: 8, sizes: 100..=2_000, ..Load::default() };
    let mut running = load.start(door.setup().front(), Random::from_env());
    running.accepted_at_least(3000).await.unwrap();
    let handled = || journal::read(setup.home()).unwrap().iter().filter_map(Line::end).count();
    let before = handled();
    kafka.run(&["topics", "--alter", "--topic", "tasks", "--partitions", "8"]).unwrap();
    for server in workers.iter().chain([&door]) {
        let reason = server.not_ready(SOON).await.unwrap();
        assert!(reason.contains("has 8 partitions and log.kafka.partitions is 4"), "{reason}");
    }
    let refused = door.client().post("key", "one more").await.unwrap();
    assert_eq!(
        (refused.status, refused.json::<partita_tests::client::Problem>().unwrap().code),
        (503, "log_mismatch".into())
    );
    // What was accepted is worked off, parked tasks included, also by a worker that is alone now.
    let [one, two] = workers;
    assert_eq!(two.stop(SOON).await.unwrap().code(), Some(0));
    wait::until("committed = end on every partition", Duration::from_secs(120), async || {
        kafka.committed_is_end("tasks", PARTITIONS).map(Some)
    })
    .await
    .unwrap();
    // Who waits for a lag of 0 must not see one that is not there.
    wait::until("the worker sees that all is handled", SOON, async || {
        let seen = one.partitions().await?;
        let ends: u64 = seen.iter().filter_map(|partition| partition.high_watermark).sum();
        let (lag, end) = (seen.iter().filter_map(|partition| partition.lag).sum::<u64>(), kafka_end(&kafka)?);
        ensure!(seen.len() == PARTITIONS as usize && ends == end, "{ends} of {end}");
        Ok((lag == 0).then_some(()))
    })
    .await
    .unwrap();
    assert!(handled() > before + 500, "{before} tasks were handled before, {} now", handled());
    std::fs::write(setup.home().join("mended"), "").unwrap();
    let admin = format!("http://{}", one.setup().admin());
    let redriven = setup.command(&["parked", "redrive", "--all", "--admin", &admin]).await.unwrap();
    assert_eq!(redriven.code, Some(0), "{}", redriven.said());
    // Nearly all of what was accepted, 20 ms each: how much that is depends on how fast this machine is.
    wait::until("nothing is parked", Duration::from_secs(240), async || {
        let parked: u64 = one.partitions().await?.iter().map(|one| one.parked_tasks).sum();
        Ok((parked == 0).then_some(()))
    })
    .await
    .unwrap();
    for server in [&one, &door] {
        server.is_sound().await.unwrap();
        assert_eq!(server.readiness().await.unwrap().status, 503);
    }

    // Then every process is told of the new number, and goes on; so do the clients, which waited.
    assert_eq!(one.stop(SOON).await.unwrap().code(), Some(0));
    kafka.run(&["topics", "--alter", "--topic", "tasks.parked", "--partitions", "8"]).unwrap();
    let door = door.kill().set("log.kafka.partitions", "8").start().await.unwrap();
    let worker = worker("three").set("log.kafka.partitions", "8").start().await.unwrap();
    let accepted = running.accepted();
    running.accepted_at_least(accepted + 500).await.unwrap();
    running.stop();
    let ledger = running.finish().await.unwrap();
    wait::until("committed = end on every partition", Duration::from_secs(60), async || {
        kafka.committed_is_end("tasks", 8).map(Some)
    })
    .await
    .unwrap();
    // A key's tasks of before and after are in two partitions: the order is the same all the same.
    let mut ends: Vec<_> = journal::read(setup.home()).unwrap().iter().filter_map(Line::end).collect();
    let moved = ends.iter().filter(|end| end.position.partition.0 >= PARTITIONS).count();
    assert!(moved > 100, "{moved} tasks in new partitions: too tame");
    ends.iter_mut().for_each(|end| end.position = place_of(end.position));
    let mut attempts = ledger.attempts();
    for attempt in &mut attempts {
        if let Outcome::Ok(position) = &mut attempt.outcome {
            *position = place_of(*position);
        }
    }
    let history = History { attempts, ends, steps: Vec::new() };
    assert_eq!(checkers::violations(&history, Bounds::default()), Vec::<String>::new());
    for server in [&worker, &door] {
        server.is_sound().await.unwrap();
    }
}

fn kafka_end(kafka: &Kafka) -> Result<u64> {
    Ok(kafka.ends("tasks", PARTITIONS)?.values().map(|end| end.0).sum())
}

/// As if all were one partition: the checker takes a key that is in two for a mistake, and here it is none.
fn place_of(position: Position) -> Position {
    let Position { partition, offset } = position;
    Position { partition: Partition(0), offset: Offset(offset.0 << 8 | u64::from(partition.0)) }
}
