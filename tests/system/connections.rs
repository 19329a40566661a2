//! Idle connections and a slow upload cost the others neither time nor memory.

use partita_tests::{
    connections::{BUDGET, a_crowd_costs_the_others_nothing, what_is_sent_behind_a_wait_costs_little},
    pace,
    server::Setup,
};

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_idle_connections_and_a_slow_upload_leave_the_others_their_pace() {
    let _alone = pace::measured().await;
    let setup = || Setup::embedded().set("memory.budget", BUDGET);
    let (crowded, alone) = (setup().start().await.unwrap(), setup().start().await.unwrap());
    a_crowd_costs_the_others_nothing(&crowded, &alone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_behind_a_request_that_waits_costs_little() {
    let setup = Setup::embedded().journal_worker("gated", &["--serve", "--gated"]);
    let server = setup.start().await.unwrap();
    what_is_sent_behind_a_wait_costs_little(&server).await.unwrap();
}
