//! One at a time, in order, and only its own partition is held up.

use super::*;

#[actix_rt::test]
async fn tasks_of_a_partition_run_one_at_a_time_and_in_order_beside_the_other_partitions() {
    let (pipeline, ledger) = pipeline(config(), 3, |ctx| match (ctx.partition() + ctx.offset() as u32) % 3 {
        0 => Act::Succeed,
        n => Act::After(Duration::from_millis(u64::from(n) * 7)),
    })
    .await;
    for _ in 0..20 {
        for partition in 0..3 {
            send(&pipeline, partition, 1).await;
        }
    }
    pipeline.settled().await;
    let mut in_hand = [None; 3];
    let mut together = 0;
    for entry in ledger.entries() {
        let mine = &mut in_hand[entry.partition as usize];
        match entry.what {
            What::Start => assert_eq!(mine.replace(entry.offset), None, "{entry:?} began beside another"),
            What::Done => assert_eq!(mine.take(), Some(entry.offset)),
            _ => {}
        }
        together = together.max(in_hand.iter().flatten().count());
    }
    assert_eq!(together, 3, "the partitions waited for each other");
    for partition in 0..3 {
        assert_eq!(ledger.offsets(What::Start, partition), (0..20).collect::<Vec<_>>());
        assert_eq!(pipeline.log().committed(partition), Some(pipeline.log().end(partition)));
    }
}

#[actix_rt::test]
async fn a_retry_holds_up_its_own_partition_and_no_other() {
    let (pipeline, ledger) = pipeline(config(), 2, |ctx| {
        if ctx.partition() == 0 && ctx.offset() == 1 && ctx.attempt() < 4 { Act::Fail } else { Act::Succeed }
    })
    .await;
    send(&pipeline, 0, 3).await;
    send(&pipeline, 1, 3).await;
    pipeline.settled().await;
    assert_eq!(ledger.offsets(What::Start, 0), [0, 1, 1, 1, 1, 2]);
    let entries = ledger.entries();
    let at = |partition, offset| {
        entries
            .iter()
            .position(|e| e.what == What::Done && e.partition == partition && e.offset == offset)
            .unwrap()
    };
    assert!(at(1, 2) < at(0, 1), "partition 1 waited for partition 0's retries");
}

#[actix_rt::test]
async fn waiting_for_a_dependency_spends_no_attempts() {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    let waits = AtomicU32::new(0);
    let (pipeline, ledger) =
        pipeline(
            config(),
            1,
            move |_| {
                if waits.fetch_add(1, Relaxed) < 50 { Act::Unavailable } else { Act::Succeed }
            },
        )
        .await;
    send(&pipeline, 0, 1).await;
    assert_eq!(pipeline.settled().await.done(), 1);
    assert_eq!(ledger.of(What::Start).len(), 51);
    assert!(ledger.of(What::Start).iter().all(|entry| entry.attempt == 1));
}

#[actix_rt::test]
async fn a_handler_that_never_waits_does_not_keep_its_siblings_waiting() {
    // All on one arbiter: while partition 0 has thousands of tasks to go, partition 1's single one is done.
    let (pipeline, ledger) = pipeline_by_hand(config(), 2, |_| Act::Succeed);
    send(&pipeline, 0, 5000).await;
    send(&pipeline, 1, 1).await;
    pipeline.log().assign(&[0, 1]);
    pipeline.owns(&[0, 1]).await;
    pipeline.log().deliver(0, usize::MAX);
    pipeline.log().deliver(1, usize::MAX);
    pipeline.settled().await;
    let done = ledger.of(What::Done);
    let place = done.iter().position(|entry| entry.partition == 1).unwrap();
    assert!(place < 1000, "partition 1 was served after {place} tasks of partition 0");
}

#[actix_rt::test]
async fn each_payload_type_goes_to_its_own_handler_and_an_unknown_one_is_parked() {
    struct Text(Ledger);
    impl TaskHandler for Text {
        type Payload = String;
        async fn handle(&mut self, task: Task<String>, ctx: &TaskContext) -> Result<(), TaskError> {
            assert_eq!(task.payload, "text");
            self.0.write(What::Done, &ctx.assignment, ctx.offset(), 1);
            Ok(())
        }
    }
    struct Number(Ledger);
    impl TaskHandler for Number {
        type Payload = u64;
        async fn handle(&mut self, task: Task<u64>, ctx: &TaskContext) -> Result<(), TaskError> {
            self.0.write(What::Failed, &ctx.assignment, ctx.offset(), task.payload as u32);
            Ok(())
        }
    }
    let ledger = Ledger::default();
    let (text, number) = (ledger.clone(), ledger.clone());
    let routes = crate::Routes::new()
        .on("demo.Text", move |_| Text(text.clone()))
        .on("demo.Number", move |_| Number(number.clone()));
    let pipeline = TestPipeline::routes(config(), 1, routes).await;
    pipeline.send(TestTask::message("k", &"text".to_owned()).type_name("demo.Text")).await;
    pipeline.send(TestTask::message("k", &7_u64).type_name("demo.Number")).await;
    pipeline.send(TestTask::message("other", &7_u64).type_name("demo.Other")).await;
    pipeline.send(TestTask::message("none", &7_u64)).await;
    pipeline.send(TestTask::new("broken", &b"\xff"[..]).type_name("demo.Text")).await;
    let settled = pipeline.settled().await;
    assert_eq!(ledger.offsets(What::Done, 0), [0]);
    assert_eq!(ledger.of(What::Failed)[0].attempt, 7);
    assert_eq!(settled.done(), 2);
    assert_eq!(settled.tasks[2].reason(), Some("no handler for tasks of type \"demo.Other\""));
    assert!(settled.tasks[3].reason().unwrap().contains("no type"));
    assert!(matches!(settled.tasks[4].outcome, crate::testing::Outcome::Parked(_)));
}
