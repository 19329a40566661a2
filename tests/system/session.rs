//! The real input: a browser session recorded by rrweb, its batches as they were sent (tests/data/session).

use partita_tests::{client::Answer, load::Load, observe, payload, random::Random, server::Setup};
use serde_json::Value;
use std::{fs, time::Duration};

fn batches() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/data/session");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_session_comes_back_whole_and_in_order_beside_a_load() {
    let batches = batches();
    assert!(batches.len() >= 5);
    let setup = Setup::embedded();
    let server = setup.start().await.unwrap();
    let load = Load { tasks: 60, sizes: 10_000..=5_000_000, ..Load::default() };
    let mut running = load.start(setup.front(), Random::from_env());
    let client = server.client();
    for batch in &batches {
        let request = client.http().post(client.url(&["v1", "tasks", "session-1"]));
        let request = request.header("content-type", "application/json").body(batch.clone());
        assert_eq!(Answer::of(request.send().await.unwrap()).await.unwrap().status, 202);
    }
    let chunks = observe::chunks(&client, "session-1", batches.len(), Duration::from_secs(30)).await.unwrap();
    running.finish().await.unwrap();

    let digests: Vec<_> = chunks.iter().map(|chunk| chunk.sha256.clone()).collect();
    assert_eq!(digests, batches.iter().map(|batch| payload::digest(batch)).collect::<Vec<_>>());
    assert!(chunks.iter().all(|chunk| chunk.content_type.as_deref() == Some("application/json")));
    assert!(client.content("session-1").await.unwrap() == batches.concat());

    // As the player reads it: one list of events, from the full snapshot on, whose time never goes back.
    let mut times = Vec::new();
    for chunk in &chunks {
        let events: Vec<Value> =
            serde_json::from_slice(&client.chunk("session-1", chunk.position()).await.unwrap()).unwrap();
        times.extend(events.iter().map(|event| event["timestamp"].as_u64().unwrap()));
    }
    assert!(times.is_sorted(), "the events' times go back");
    assert!(times.len() > 100, "{} events", times.len());
}
