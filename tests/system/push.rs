//! `handler.kind = "http"`: tasks are delivered to a service, over the embedded log.

use partita_tests::{push, server::Setup};

#[tokio::test(flavor = "multi_thread")]
async fn each_key_is_delivered_in_order_with_its_trace_context_and_partitions_side_by_side() {
    push::keys_are_in_order_and_partitions_side_by_side(&Setup::embedded()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_does_not_answer_is_parked_and_holds_up_its_key_alone() {
    let setup = Setup::embedded().set("log.embedded.partitions", "1");
    push::what_is_not_answered_is_parked_and_holds_up_its_key_alone(&setup).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_when_the_process_is_killed_is_delivered_again_under_the_same_id() {
    push::what_is_under_way_at_a_kill_is_delivered_again(&Setup::embedded()).await.unwrap();
}
