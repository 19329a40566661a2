//! `POST /v1/tasks`: many tasks in one request, over the embedded log.

use partita_tests::{
    client::hand_fed,
    observe, process,
    server::Setup,
    wait,
    ways_in::{self, LINES, event},
};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_keeps_the_order_of_each_key() {
    let server = Setup::embedded().start().await.unwrap();
    ways_in::every_way_in_keeps_the_order(&server).await.unwrap();
    server.is_sound().await.unwrap();
}

/// A body of lines needs memory for what is on its way only.
#[tokio::test(flavor = "multi_thread")]
async fn thirty_thousand_lines_in_one_request_stay_within_a_small_budget() {
    const COUNT: usize = 30_000;
    const KEYS: usize = 100;
    let setup = Setup::embedded().set("memory.budget", "\"64MiB\"").set("limits.max_task", "\"10MB\"");
    let server = setup.start().await.unwrap();
    let client = server.client();
    let (pieces, body) = hand_fed();
    let sending = tokio::spawn(async move {
        let data = "x".repeat(700);
        for start in (0..COUNT).step_by(500) {
            let line = |index: usize| event(&format!("many-{}", index % KEYS), &format!("{index} {data}"));
            let lines: String = (start..start + 500).map(|index| line(index).to_string() + "\n").collect();
            pieces.send(Ok(lines.into())).await.unwrap();
        }
    });
    let entries = ways_in::accept(&client, LINES, body).await.unwrap();
    sending.await.unwrap();
    assert_eq!(entries.len(), COUNT);
    for key in 0..KEYS {
        let key = format!("many-{key}");
        let chunks = observe::chunks(&client, &key, COUNT / KEYS, Duration::from_secs(300)).await.unwrap();
        assert!(chunks.is_sorted_by_key(|chunk| chunk.offset), "{key}");
    }
    let peak = process::peak_resident(server.pid()).unwrap();
    assert!(peak < 128 << 20, "{peak} bytes were resident");
    server.is_sound().await.unwrap();
}

/// The sender goes away in the middle: what was stored is a beginning of what was sent, of every key.
#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_goes_away_in_the_middle_leaves_a_beginning_of_each_key() {
    let server = Setup::embedded().start().await.unwrap();
    let client = server.client();
    let (pieces, body) = hand_fed();
    let posting = tokio::spawn({
        let client = client.clone();
        async move { ways_in::post(&client, LINES, body).await }
    });
    for start in (0..5000).step_by(100) {
        let line =
            |index: usize| event(&format!("cut-{}", index % 10), &index.to_string()).to_string() + "\n";
        let lines: String = (start..start + 100).map(line).collect();
        pieces.send(Ok(lines.into())).await.unwrap();
    }
    observe::chunks(&client, "cut-9", 100, Duration::from_secs(60)).await.unwrap();
    let cut = event("cut-0", "5000").to_string();
    pieces.send(Ok(cut[..cut.len() / 2].to_owned().into())).await.unwrap();
    pieces.send(Err(std::io::Error::other("gone"))).await.unwrap();
    assert!(posting.await.unwrap().is_err());
    // What was on its way has come to its end by then.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut stored = 0;
    for key in 0..10 {
        let name = format!("cut-{key}");
        client.accept(&name, "last").await.unwrap();
        let chunks = wait::until("the last of a key", Duration::from_secs(60), async || {
            let content = client.content(&name).await?;
            anyhow::ensure!(content.ends_with(b"last"), "it is not there yet");
            Ok(client.recording(&name).await?.map(|recording| recording.chunks))
        });
        let before = chunks.await.unwrap().len() - 1;
        let expected: String = (0..before).map(|index| (index * 10 + key).to_string()).collect();
        assert_eq!(client.content(&name).await.unwrap(), expected + "last", "{name}");
        stored += before;
    }
    assert!(stored >= 1000, "{stored} of 5000 were stored, and a thousand had been before");
    server.is_sound().await.unwrap();
}
