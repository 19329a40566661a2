//! SIGTERM: everything begun is answered, everything accepted is handled later or now, and the process ends in time.

use anyhow::Result;
use partita_tests::{
    checkers::{self, Bounds},
    client::{Answer, hand_fed},
    history::Outcome,
    load::Load,
    observe::Observer,
    random::Random,
    server::{Server, Setup},
    wait,
};
use std::{
    io,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinHandle};

type Feed = mpsc::Sender<io::Result<bytes::Bytes>>;

/// `shutdown.deadline`, and a little for a busy machine.
const DEADLINE: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_loses_nothing_and_ends_with_0_within_the_deadline() {
    let mut random = Random::from_env();
    let setup = Setup::embedded();
    let load = Load { tasks: 600, keys: 40, clients: 8, sizes: 1_000..=200_000, ..Load::default() };
    let mut server = setup.start().await.unwrap();
    let mut running = load.start(setup.front(), Random::new(random.bits()));
    for stop in 1..=2 {
        running.accepted_at_least(stop * 200).await.unwrap();
        let start = Instant::now();
        let status = server.stop(DEADLINE).await.unwrap();
        assert_eq!(status.code(), Some(0), "after {:?}", start.elapsed());
        server = setup.start().await.unwrap();
    }
    let ledger = running.finish().await.unwrap();
    server.committed_is_end(16, &ledger.acknowledged(), Duration::from_secs(60)).await.unwrap();
    let mut observer = Observer::default();
    observer.look(&server.client(), &[]).await.unwrap();
    assert_eq!(checkers::violations(&observer.history(&ledger), Bounds::default()), Vec::<String>::new());
    server.is_sound().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_begun_before_sigterm_is_answered() {
    let (server, feed, request) = with_a_request_begun().await;
    server.signal("TERM").unwrap();
    feed.send(Ok(", and ended later".into())).await.unwrap();
    drop(feed);
    let outcome = request.await.unwrap().expect("an answer").outcome().unwrap();
    assert!(matches!(outcome, Outcome::Ok(_) | Outcome::Failed), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_process_at_once() {
    // A request whose body does not end keeps the first signal's stop waiting.
    let (mut server, _feed, _request) = with_a_request_begun().await;
    server.signal("TERM").unwrap();
    server.not_ready_or_gone(Duration::from_secs(5)).await.unwrap();
    let start = Instant::now();
    server.signal("TERM").unwrap();
    server.ended(Duration::from_secs(2)).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

/// A server, the feed of a request that it has begun to receive, and that request.
async fn with_a_request_begun() -> (Server, Feed, JoinHandle<Result<Answer>>) {
    let server = Setup::embedded().start().await.unwrap();
    let client = server.client();
    let (feed, body) = hand_fed();
    let request = tokio::spawn(async move { client.post("slow", body).await });
    feed.send(Ok("begun".into())).await.unwrap();
    wait::until("the request has begun", Duration::from_secs(10), async || {
        let in_flight = server.metrics().await?.sum("partita_http_requests_in_flight");
        Ok((in_flight.unwrap_or(0.0) >= 1.0).then_some(()))
    })
    .await
    .unwrap();
    (server, feed, request)
}
