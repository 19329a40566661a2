//! Handlers that fail, payloads that cannot be read, a parking store that refuses, memory that is short.

use super::*;
use crate::{
    log::{NewRecord, TaskLog},
    memory::MemoryBudget,
    testing::{Outcome, Step},
};
use bytesize::ByteSize;
use partita_core::{Offset, Partition};
use partita_proto::v1::parked::Kind;
use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

fn attempts(attempts: u32) -> Config {
    let mut config = config();
    config.retry.attempts = attempts;
    config
}

#[actix_rt::test]
async fn a_panic_is_a_failed_attempt_and_the_handler_is_made_anew() {
    let (pipeline, ledger) =
        pipeline(attempts(3), 1, |ctx| if ctx.offset() == 1 { Act::Panic } else { Act::Succeed }).await;
    send(&pipeline, 0, 2).await;
    pipeline.send((key_of(0, 1, 1), "another key's")).await;
    let settled = pipeline.settled().await;
    assert_eq!(ledger.offsets(What::Start, 0), [0, 1, 1, 1, 2]);
    assert!(
        matches!(&settled.tasks[1].outcome, Outcome::Parked(reason) if reason.contains("the script says so"))
    );
    assert_eq!((settled.done(), ledger.of(What::Made).len(), ledger.of(What::Assigned).len()), (2, 4, 4));
    let parked = &pipeline.log().parked(0)[0];
    assert_eq!((parked.attempts, parked.offset, parked.topic.as_str()), (3, 1, "scripted"));
}

#[actix_rt::test]
async fn a_hung_handler_is_given_up_at_its_deadline_and_its_task_parked() {
    let mut config = attempts(2);
    config.worker.task_timeout = Some(Duration::from_secs(3));
    let (pipeline, ledger) =
        pipeline(
            config,
            1,
            |ctx| {
                if ctx.offset() == 0 { Act::After(Duration::MAX / 4) } else { Act::Succeed }
            },
        )
        .await;
    let began = tokio::time::Instant::now();
    send(&pipeline, 0, 1).await;
    pipeline.send((key_of(0, 1, 1), "another key's")).await;
    let settled = pipeline.settled().await;
    assert!(matches!(&settled.tasks[0].outcome, Outcome::Parked(reason) if reason.contains("task_timeout")));
    assert_eq!(ledger.offsets(What::Done, 0), [1]);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(6) && took < Duration::from_secs(10), "{took:?}");
}

#[actix_rt::test]
async fn a_put_aside_task_is_stored_before_its_offset_is_committed() {
    let (pipeline, _) = pipeline(config(), 1, |ctx| match ctx.offset() {
        2 => Act::Reject,
        4 => Act::Park,
        _ => Act::Succeed,
    })
    .await;
    pipeline.log().fail_parks(5);
    send(&pipeline, 0, 6).await;
    pipeline.wait_until("parking is tried", |pipeline| pipeline.log().failing_parks() < 3).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let settled = pipeline.settled().await;
    assert!(matches!(settled.tasks[2].outcome, Outcome::Rejected(_)));
    assert!(matches!(settled.tasks[4].outcome, Outcome::Parked(_)));
    let mut stored = Vec::new();
    for step in pipeline.log().history() {
        match step {
            Step::Parked(_, offset) => stored.push(offset),
            Step::Closed(..) => {}
            Step::Committed(_, next) => {
                for offset in [Offset(2), Offset(4)] {
                    assert!(
                        next <= offset || stored.contains(&offset),
                        "{next} was committed before {offset} was stored"
                    );
                }
            }
        }
    }
    assert_eq!(stored, [Offset(2), Offset(4), Offset(5)], "5 waits behind 4");
}

#[actix_rt::test]
async fn a_drain_is_not_held_up_by_a_parking_store_that_refuses() {
    let (pipeline, _) = pipeline(config(), 1, |_| Act::Reject).await;
    pipeline.log().fail_parks(u32::MAX);
    send(&pipeline, 0, 2).await;
    pipeline.wait_until("parking is tried", |pipeline| pipeline.log().failing_parks() < u32::MAX - 3).await;
    pipeline.log().revoke(&[0]);
    pipeline.wait_until("it is released", |pipeline| !pipeline.log().owns(0)).await;
    assert_eq!(pipeline.log().committed(0), None, "nothing has ended");
}

#[actix_rt::test]
async fn what_cannot_be_read_is_put_aside_as_it_was_found() {
    let (pipeline, ledger) = pipeline(config(), 1, |_| Act::Succeed).await;
    for (key, value) in [("k", &b"\xff\xff\xff"[..]), ("", b"")] {
        let garbage = NewRecord {
            key: key.into(),
            value: Bytes::from_static(value),
            reservation: None,
            idempotency: None,
        };
        pipeline.log().append(Partition(0), garbage).await.unwrap();
    }
    pipeline.send(("k", "behind")).await;
    pipeline.send(("other", "not behind")).await;
    pipeline.settled().await;
    assert_eq!(ledger.offsets(What::Start, 0), [3]);
    let parked = pipeline.log().parked(0);
    assert!(parked[0].reason.contains("not a partita.v1.Envelope"), "{}", parked[0].reason);
    assert!(parked[1].reason.contains("no key"), "{}", parked[1].reason);
    assert_eq!(parked.iter().map(|parked| parked.attempts).collect::<Vec<_>>(), [0, 0, 0]);
    let kinds: Vec<_> = parked.iter().map(|parked| parked.kind()).collect();
    assert_eq!(kinds, [Kind::Parked, Kind::Rejected, Kind::Parked], "without a key there is nobody to wait");
}

#[actix_rt::test]
async fn a_compressed_payload_reaches_the_handler_as_it_was_sent() {
    struct Check;
    impl TaskHandler for Check {
        type Payload = Bytes;
        async fn handle(&mut self, task: Task<Bytes>, _: &TaskContext) -> Result<(), TaskError> {
            let right =
                task.payload.len() as u64 == task.size && task.payload.iter().all(|&byte| byte == b'x');
            if right { Ok(()) } else { Err(TaskError::reject("not what was sent")) }
        }
    }
    let pipeline = TestPipeline::start(|_| Check).await;
    for size in [0, 1, 1000, 3_000_000] {
        pipeline.send(TestTask::new("k", vec![b'x'; size]).compressed()).await;
    }
    assert_eq!(pipeline.settled().await.done(), 4);
}

#[actix_rt::test]
async fn decompression_waits_for_memory_rather_than_overshoot() {
    struct Hold(Arc<OnceLock<MemoryBudget>>, Arc<AtomicU64>);
    impl TaskHandler for Hold {
        type Payload = Bytes;
        async fn handle(&mut self, _: Task<Bytes>, _: &TaskContext) -> Result<(), TaskError> {
            let reserved = self.0.get().map_or(0, |memory| memory.decode.reserved());
            self.1.fetch_max(reserved, Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(())
        }
    }
    let mut config = config();
    config.limits.max_task = ByteSize::b(1_000_000);
    config.memory.budget = ByteSize::b(10_600_000);
    let (memory, most) = (Arc::new(OnceLock::new()), Arc::new(AtomicU64::new(0)));
    let (known, seen) = (memory.clone(), most.clone());
    let pipeline = TestPipeline::with(config, 8, move |_| Hold(known.clone(), seen.clone())).await;
    memory.set(pipeline.memory().clone()).unwrap();
    for partition in 0..8 {
        let key = key_of(partition, 8, 0);
        pipeline.send(TestTask::new(key, vec![0; 1_000_000]).compressed()).await;
    }
    assert_eq!(pipeline.settled().await.done(), 8);
    assert_eq!(most.load(Relaxed), 2_000_000, "two fit at a time, and no more");
    assert!(most.load(Relaxed) <= pipeline.memory().decode.capacity());
    assert_eq!(pipeline.memory().decode.reserved(), 0);
}
