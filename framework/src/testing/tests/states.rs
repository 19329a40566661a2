//! What is told of tasks, from their coming to their end.

use super::*;
use crate::{ParkedSelection, task_state::TaskState};
use partita_core::{Offset, Partition};
use tokio::time::{Instant, timeout};

async fn state(pipeline: &TestPipeline, partition: u32, offset: u64) -> Option<TaskState> {
    pipeline.task_states().of(Partition(partition), Offset(offset)).await.unwrap()
}

async fn label(pipeline: &TestPipeline, offset: u64) -> &'static str {
    state(pipeline, 0, offset).await.map_or("none", |state| state.label())
}

#[actix_rt::test]
async fn a_task_is_queued_then_running_then_done() {
    let (pipeline, _) = pipeline(config(), 2, |_| Act::After(Duration::from_secs(10))).await;
    send(&pipeline, 0, 3).await;
    pipeline
        .wait_until("the first is in hand", |pipeline| pipeline.status().in_hand(Partition(0)).is_some())
        .await;
    match state(&pipeline, 0, 0).await {
        Some(TaskState::Running { since_ms: Some(_), attempt: 1 }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(label(&pipeline, 1).await, "queued");
    assert_eq!(label(&pipeline, 3).await, "none");
    assert_eq!(state(&pipeline, 1, 0).await, None);
    assert_eq!(state(&pipeline, 2, 0).await, None, "there is no such partition");
    pipeline.settled().await;
    for offset in 0..3 {
        assert_eq!(state(&pipeline, 0, offset).await, Some(TaskState::Done));
    }
}

#[actix_rt::test]
async fn whoever_waits_hears_of_the_end_before_the_commits_interval_is_over() {
    let mut config = config();
    config.commit.interval = Duration::from_secs(100);
    let (pipeline, _) = pipeline(config, 1, |_| Act::After(Duration::from_secs(3))).await;
    send(&pipeline, 0, 2).await;
    let began = Instant::now();
    let far = began + Duration::from_secs(60);
    let wait =
        |offset| pipeline.task_states().settled(Partition(0), Offset(offset), far, std::future::pending());
    assert_eq!(wait(0).await.unwrap(), Some(TaskState::Done));
    assert_eq!(wait(1).await.unwrap(), Some(TaskState::Done));
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    assert_eq!(wait(2).await.unwrap(), None, "one that is not there is not waited for");
}

#[actix_rt::test]
async fn a_wait_ends_at_its_deadline_and_when_it_is_told_to() {
    let (pipeline, _) = pipeline(config(), 1, |_| Act::After(Duration::from_secs(1000))).await;
    send(&pipeline, 0, 2).await;
    let states = pipeline.task_states();
    let (began, soon) = (Instant::now(), Instant::now() + Duration::from_secs(5));
    let state = states.settled(Partition(0), Offset(1), soon, std::future::pending()).await.unwrap();
    assert_eq!((state, began.elapsed().as_secs()), (Some(TaskState::Queued), 5));
    let told = timeout(
        Duration::from_secs(1),
        states.settled(Partition(0), Offset(0), soon + Duration::from_secs(100), async {}),
    );
    assert!(matches!(told.await.unwrap().unwrap(), Some(TaskState::Running { .. })));
}

#[actix_rt::test]
async fn what_was_put_aside_is_told_with_its_reason_until_an_operator_ends_it() {
    let mended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = mended.clone();
    let (pipeline, _) = pipeline(config(), 1, move |ctx| match ctx.offset() {
        0 => Act::Reject,
        1 if !seen.load(std::sync::atomic::Ordering::Relaxed) => Act::Park,
        _ => Act::Succeed,
    })
    .await;
    for key in ["rejected", "parked", "parked", "fine"] {
        pipeline.send((key, "task")).await;
    }
    pipeline.settled().await;
    let Some(TaskState::Rejected(aside)) = state(&pipeline, 0, 0).await else { panic!() };
    assert_eq!((aside.cause.as_str(), aside.attempts), ("rejected", 1));
    assert!(aside.reason.contains("the script says so"), "{aside:?}");
    let Some(TaskState::Parked(aside)) = state(&pipeline, 0, 1).await else { panic!() };
    assert_eq!(aside.cause, "parked");
    let Some(TaskState::Parked(aside)) = state(&pipeline, 0, 2).await else { panic!() };
    assert_eq!(aside.cause, "behind");
    assert_eq!(label(&pipeline, 3).await, "done");
    let operations = pipeline.operations();
    operations.drop_parked(&ParkedSelection::Task(0, 2), "not needed").await.unwrap();
    let Some(TaskState::Dropped(aside)) = state(&pipeline, 0, 2).await else { panic!() };
    assert!(aside.reason.contains("not needed"), "{aside:?}");
    mended.store(true, std::sync::atomic::Ordering::Relaxed);
    operations.redrive(&ParkedSelection::All).unwrap();
    let none_is_parked = |_: &TestPipeline| operations.list_parked(&ParkedSelection::All).unwrap().is_empty();
    pipeline.wait_until("nothing is parked", none_is_parked).await;
    assert_eq!(label(&pipeline, 1).await, "done");
}

#[actix_rt::test]
async fn without_memory_for_what_the_journal_says_it_is_read_again_for_each_question() {
    let (pipeline, _) =
        pipeline(config(), 1, |ctx| if ctx.offset() % 2 == 0 { Act::Reject } else { Act::Succeed }).await;
    for n in 0..80 {
        pipeline.send((format!("key {n}"), "task")).await;
    }
    pipeline.settled().await;
    let parked = &pipeline.memory().parked;
    let _all = parked.try_reserve(parked.capacity() / 1024 * 1024 - parked.reserved() - 2048).unwrap();
    for offset in (0..80).chain(0..80) {
        let expected = if offset % 2 == 0 { "rejected" } else { "done" };
        assert_eq!(label(&pipeline, offset).await, expected, "{offset}");
    }
}
