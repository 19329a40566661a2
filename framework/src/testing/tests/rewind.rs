//! A partition that an operator has read from another offset on.

use super::*;
use crate::{OperationError, RewindTo, status::Activity};
use partita_core::Offset;

#[actix_rt::test]
async fn tasks_are_handled_again_from_where_an_operator_says() {
    let (pipeline, ledger) = pipeline(config(), 2, |_| Act::Succeed).await;
    send(&pipeline, 0, 5).await;
    send(&pipeline, 1, 2).await;
    pipeline.settled().await;
    let rewound = pipeline.operations().rewind(0, RewindTo::Offset(2)).await.unwrap();
    assert_eq!((rewound.from, rewound.to, rewound.end), (5, 2, 5));
    pipeline.settled().await;
    assert_eq!(ledger.offsets(What::Done, 0), [0, 1, 2, 3, 4, 2, 3, 4]);
    assert_eq!(ledger.offsets(What::Done, 1), [0, 1]);
    let epochs: Vec<u64> =
        ledger.of(What::Done).iter().filter(|entry| entry.partition == 0).map(|entry| entry.epoch).collect();
    assert!(epochs[4] < epochs[5], "{epochs:?}");
    assert_eq!(pipeline.log().foreign_commits(), []);
}

#[actix_rt::test]
async fn a_halted_partition_goes_on_where_an_operator_says() {
    let (pipeline, ledger) = pipeline_by_hand(config(), 1, |_| Act::Succeed);
    pipeline.log().assign(&[0]);
    pipeline.owns(&[0]).await;
    send(&pipeline, 0, 6).await;
    pipeline.log().deliver(0, 2);
    pipeline.wait_until("two are done", |_| ledger.offsets(What::Done, 0).len() == 2).await;
    pipeline.log().break_off(0, "2 tasks were deleted");
    let halted = |pipeline: &TestPipeline| {
        pipeline.status().partitions()[0].halted.as_deref() == Some("2 tasks were deleted")
    };
    pipeline.wait_until("it is halted", halted).await;
    pipeline.operations().rewind(0, RewindTo::Offset(4)).await.unwrap();
    pipeline.log().deliver(0, usize::MAX);
    pipeline.settled().await;
    assert_eq!(ledger.offsets(What::Done, 0), [0, 1, 4, 5]);
    let status = &pipeline.status().partitions()[0];
    assert_eq!((status.activity, status.halted.as_deref()), (Activity::Running, None));
}

#[actix_rt::test]
async fn a_task_in_hand_is_given_up_and_what_is_parked_stays_parked() {
    let (pipeline, ledger) = pipeline(config(), 1, |ctx| match ctx.offset() {
        1 => Act::Park,
        4 => Act::After(Duration::from_secs(1000)),
        _ => Act::Succeed,
    })
    .await;
    for n in [0, 1, 0, 1, 2] {
        pipeline.send((key_of(0, 1, n), "payload")).await;
    }
    pipeline.wait_until("the last has begun", |_| ledger.offsets(What::Start, 0).contains(&4)).await;
    pipeline.operations().rewind(0, RewindTo::Earliest).await.unwrap();
    pipeline
        .wait_until("it has begun again", |_| {
            ledger.offsets(What::Start, 0).iter().filter(|&&offset| offset == 4).count() == 2
        })
        .await;
    assert_eq!(ledger.offsets(What::Start, 0), [0, 1, 2, 4, 0, 2, 4], "1 and 3 are parked");
    let committed = |pipeline: &TestPipeline| pipeline.log().committed(0) == Some(Offset(4));
    pipeline.wait_until("what is done is committed", committed).await;
}

#[actix_rt::test]
async fn an_offset_that_the_log_does_not_have_is_refused() {
    let (pipeline, _) = pipeline(config(), 2, |_| Act::Succeed).await;
    send(&pipeline, 0, 3).await;
    pipeline.settled().await;
    let refused = pipeline.operations().rewind(0, RewindTo::Offset(4)).await;
    assert_eq!(refused, Err(OperationError::OutOfRange { partition: 0, first: 0, end: 3, asked: 4 }));
    assert_eq!(
        pipeline.operations().rewind(7, RewindTo::Latest).await,
        Err(OperationError::NoPartition(7, 2))
    );
}
