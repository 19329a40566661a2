//! Partitions come and go: drained, committed, released; lost; assigned again under a new epoch.

use super::*;
use crate::{
    actor::Report,
    log::{NewRecord, TaskLog, Tenure},
    testing::Step,
};
use partita_core::{Epoch, Event, Exit, Offset, Partition};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const SLOW: Duration = Duration::from_millis(400);

#[actix_rt::test]
async fn a_drain_overtakes_ten_thousand_queued_records() {
    let (pipeline, ledger) = pipeline_by_hand(config(), 1, |_| Act::After(SLOW));
    send(&pipeline, 0, 10_000).await;
    pipeline.log().assign(&[0]);
    pipeline.owns(&[0]).await;
    assert_eq!(pipeline.log().deliver(0, usize::MAX), 10_000);
    tokio::time::sleep(SLOW / 2).await;
    pipeline.log().revoke(&[0]);
    pipeline.wait_until("it is released", |pipeline| !pipeline.log().owns(0)).await;
    assert_eq!(ledger.offsets(What::Start, 0), [0], "no other task was begun");
}

#[actix_rt::test]
async fn a_revoked_partition_ends_its_task_in_hand_commits_it_and_is_released() {
    let (pipeline, ledger) = pipeline(config(), 2, |_| Act::After(SLOW)).await;
    send(&pipeline, 0, 3).await;
    tokio::time::sleep(SLOW * 3 / 2).await;
    pipeline.log().revoke(&[0]);
    pipeline.wait_until("it is released", |pipeline| !pipeline.log().owns(0)).await;
    assert_eq!(ledger.offsets(What::Done, 0), [0, 1]);
    assert_eq!(ledger.of(What::Revoked).len(), 1);
    assert_eq!(pipeline.log().committed(0), Some(Offset(2)));
    assert!(pipeline.status().partition(Partition(0)).is_none());
    assert!(pipeline.log().owns(1), "the other stays");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(ledger.offsets(What::Start, 0), [0, 1], "nothing starts after the release");
    pipeline.log().assign(&[0]);
    pipeline.settled().await;
    assert_eq!(ledger.offsets(What::Done, 0), [0, 1, 2]);
}

#[actix_rt::test]
async fn a_task_that_outlasts_the_drain_is_given_up_and_comes_again() {
    let tries = AtomicU32::new(0);
    let (pipeline, ledger) = pipeline(config(), 1, move |_| match tries.fetch_add(1, Relaxed) {
        0 => Act::After(Duration::from_secs(3600)),
        _ => Act::Succeed,
    })
    .await;
    send(&pipeline, 0, 1).await;
    tokio::time::sleep(SLOW).await;
    let began = tokio::time::Instant::now();
    pipeline.rebalance().await;
    assert!(began.elapsed() < Duration::from_secs(10), "bounded by worker.drain_timeout");
    pipeline.settled().await;
    let starts = ledger.of(What::Start);
    assert_eq!(starts.len(), 2);
    assert!(starts[0].epoch < starts[1].epoch);
}

#[actix_rt::test]
async fn nothing_is_committed_for_lost_partitions() {
    let (pipeline, ledger) = pipeline(config(), 1, |_| Act::After(SLOW)).await;
    send(&pipeline, 0, 3).await;
    tokio::time::sleep(SLOW * 3 / 2).await;
    let committed = pipeline.log().committed(0);
    pipeline.log().lose(&[0]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(ledger.offsets(What::Done, 0), [0]);
    assert_eq!(ledger.of(What::Revoked).len(), 0, "there was no good order");
    assert_eq!(pipeline.log().committed(0), committed);
    assert_eq!(pipeline.log().foreign_commits(), []);
}

#[actix_rt::test]
async fn a_later_owner_has_the_greater_epoch_also_where_generations_begin_anew() {
    let (ledger, log) = (Ledger::default(), ScriptedLog::new(1));
    let script: Script = Arc::new(|_| Act::Succeed);
    tokio::time::pause();
    for life in 0..4 {
        let (kept, script) = (ledger.clone(), script.clone());
        let make = move |assignment: &Assignment| Single(Scripted::new(&kept, &script, assignment));
        let spawner = spawner(Arc::new(make));
        let pipeline = TestPipeline::over(log.clone(), config(), spawner, vec![actix_rt::Arbiter::current()]);
        for _ in 0..4 - life {
            log.assign(&[0]);
            pipeline.owns(&[0]).await;
            send(&pipeline, 0, 2).await;
            pipeline.wait_until("all is committed", |pipeline| pipeline.log().is_settled()).await;
            log.revoke(&[0]);
            pipeline.wait_until("it is given back", |pipeline| !pipeline.log().owns(0)).await;
        }
        drop(pipeline);
        log.restart_generations();
    }
    let starts = ledger.of(What::Start);
    assert_eq!(starts.iter().map(|start| start.offset).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    let epochs: Vec<u64> = starts.iter().step_by(2).map(|start| start.epoch).collect();
    assert!(epochs.is_sorted_by(|former, later| former < later), "{epochs:?}");
}

#[actix_rt::test]
async fn late_reports_of_a_former_assignment_are_ignored() {
    let (pipeline, ledger) = pipeline(config(), 1, |_| Act::After(SLOW)).await;
    send(&pipeline, 0, 3).await;
    tokio::time::sleep(SLOW / 2).await;
    let former = Epoch(ledger.of(What::Start)[0].epoch);
    pipeline.log().lose(&[0]);
    pipeline.log().assign(&[0]);
    let late = Event::Finished { partition: Partition(0), epoch: former, offsets: Offset(0)..Offset(3) };
    pipeline.supervisor.do_send(Report(late));
    pipeline.supervisor.do_send(Report(Event::ActorFailed { partition: Partition(0), epoch: former }));
    tokio::time::sleep(SLOW / 2).await;
    assert_eq!(pipeline.log().committed(0), None);
    pipeline.settled().await;
    let mut starts = ledger.of(What::Start);
    assert_eq!(starts.remove(0).epoch, former.0);
    assert!(starts.iter().all(|entry| entry.epoch > former.0), "{starts:?}");
    assert_eq!(ledger.offsets(What::Done, 0), [0, 1, 2]);
}

#[actix_rt::test]
async fn an_actor_that_broke_is_started_again_where_its_work_ended() {
    tokio::time::pause();
    let (ledger, makes) = (Ledger::default(), AtomicU32::new(0));
    let script: Script = Arc::new(|ctx| {
        if ctx.offset() == 3 && ctx.attempt() == 1 && ctx.epoch() as u32 == 1 {
            Act::Panic
        } else {
            Act::Succeed
        }
    });
    let kept = ledger.clone();
    let make = move |assignment: &Assignment| {
        // The second instance, wanted after the panic, cannot be made.
        if makes.fetch_add(1, Relaxed) == 1 {
            std::panic::resume_unwind(Box::new("no handler today"));
        }
        Single(Scripted::new(&ledger, &script, assignment))
    };
    let log = ScriptedLog::new(1);
    let arbiters = vec![actix_rt::Arbiter::current()];
    let pipeline = TestPipeline::over(log, config(), spawner(Arc::new(make)), arbiters);
    send(&pipeline, 0, 6).await;
    pipeline.log().assign(&[0]);
    pipeline.settled().await;
    assert_eq!(kept.offsets(What::Start, 0), [0, 1, 2, 3, 3, 4, 5]);
    let epochs: Vec<u64> = kept.of(What::Start).iter().map(|entry| entry.epoch & 0xffff_ffff).collect();
    assert_eq!(epochs, [1, 1, 1, 1, 2, 2, 2]);
}

#[actix_rt::test]
async fn a_partition_whose_records_do_not_continue_is_halted_and_says_why() {
    let (pipeline, _) = pipeline(config(), 2, |_| Act::Succeed).await;
    pipeline.log().break_off(1, "expected 5, found 9");
    pipeline.wait_until("it is halted", |pipeline| pipeline.status().is_stuck(Partition(1))).await;
    assert!(!pipeline.status().is_stuck(Partition(0)));
    let status = pipeline.status().partition(Partition(1)).unwrap();
    assert_eq!(status.halted.as_deref(), Some("expected 5, found 9"));
}

#[actix_rt::test]
async fn a_failed_commit_is_tried_again() {
    let (pipeline, _) = pipeline(config(), 1, |_| Act::Succeed).await;
    pipeline.log().fail_commits(3);
    send(&pipeline, 0, 5).await;
    pipeline.settled().await;
    assert_eq!(pipeline.log().history(), [Step::Committed(Partition(0), Offset(5))]);
}

#[actix_rt::test]
async fn a_shutdown_ends_the_tasks_in_hand_and_commits_them() {
    let (pipeline, ledger) = pipeline(config(), 3, |_| Act::After(SLOW)).await;
    for partition in 0..3 {
        send(&pipeline, partition, 3).await;
    }
    tokio::time::sleep(SLOW / 2).await;
    assert_eq!(pipeline.shutdown().await, Exit::Clean);
    assert_eq!(ledger.of(What::Done).len(), 3);
    assert_eq!(ledger.of(What::Revoked).len(), 3);
    for partition in 0..3 {
        assert_eq!(pipeline.log().committed(partition), Some(Offset(1)));
    }
}

#[actix_rt::test]
async fn a_fatal_client_stops_every_actor_and_commits_nothing() {
    let (pipeline, ledger) = pipeline(config(), 1, |_| Act::After(SLOW)).await;
    send(&pipeline, 0, 5).await;
    tokio::time::sleep(SLOW * 3 / 2).await;
    let committed = pipeline.log().committed(0);
    pipeline.log().fail_for_good("fenced");
    pipeline.wait_until("it has ended", |pipeline| pipeline.status().exit().is_some()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(pipeline.status().exit(), Some(Exit::Fatal));
    assert_eq!(pipeline.status().fatal().as_deref(), Some("fenced"));
    assert_eq!(ledger.of(What::Done).len(), 1);
    assert_eq!(pipeline.log().committed(0), committed);
}

#[actix_rt::test]
async fn no_task_begins_and_none_is_put_aside_before_the_partition_may_be_taken_for_its_own() {
    tokio::time::pause();
    let (ledger, script): (_, Script) = (Ledger::default(), Arc::new(|_: &TaskContext| Act::Succeed));
    let kept = ledger.clone();
    let make = move |assignment: &Assignment| Single(Scripted::new(&ledger, &script, assignment));
    let tenure = Tenure::limited();
    let log = ScriptedLog::new(2).for_as_long_as(tenure.clone());
    let arbiters = vec![actix_rt::Arbiter::current()];
    let pipeline = TestPipeline::over(log, config(), spawner(Arc::new(make)), arbiters);
    pipeline.log().assign(&[0, 1]);
    let garbage = NewRecord {
        key: "k".into(),
        value: Bytes::from_static(b"\xff"),
        reservation: None,
        idempotency: None,
    };
    pipeline.log().append(Partition(1), garbage).await.unwrap();
    send(&pipeline, 0, 2).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(kept.of(What::Start).is_empty() && pipeline.log().parked(1).is_empty());
    tenure.renew(std::time::Instant::now() + Duration::from_secs(3600));
    pipeline.settled().await;
    assert_eq!((kept.offsets(What::Start, 0), pipeline.log().parked(1).len()), (vec![0, 1], 1));
}
