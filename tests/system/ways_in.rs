//! `POST /v1/tasks`: many tasks in one request, over the embedded log.

use partita_tests::{
    client::{Client, hand_fed},
    observe, pace, process,
    server::Setup,
    size, wait,
    ways_in::{self, Entry, LINES, event},
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// What may be resident of a server whose budget is half of it.
const RESIDENT: u64 = 128 << 20;
/// How many keys many lines have.
const KEYS: usize = 100;
const PATIENCE: Duration = Duration::from_secs(900);

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_keeps_the_order_of_each_key() {
    let server = Setup::embedded().start().await.unwrap();
    ways_in::every_way_in_keeps_the_order(&server).await.unwrap();
    server.is_sound().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_task_overtakes_one_of_its_key_that_was_refused_in_the_same_request() {
    let server = Setup::embedded().start().await.unwrap();
    ways_in::no_task_overtakes_one_of_its_key_that_was_refused(&server).await.unwrap();
    server.is_sound().await.unwrap();
}

/// A body of lines needs memory for what is on its way only: this one has several times the bytes that may be resident.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_gigabyte_of_lines_in_one_request_stays_within_a_small_budget() {
    const COUNT: u64 = 25_000;
    const BYTES: u64 = 20_000;
    const { assert!(COUNT * BYTES > 3 * RESIDENT) };
    let _busy = pace::busy().await;
    lines_stay_within_a_small_budget(COUNT as usize, BYTES as usize).await;
}

/// The results are many as well, and none is kept. `PARTITA_TEST_LINES` says how many they are.
#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_small_lines_in_one_request_stays_within_a_small_budget() {
    lines_stay_within_a_small_budget(size::number("PARTITA_TEST_LINES", 30_000) as usize, 700).await;
}

/// Sends so many lines, each with so many bytes of payload, and reads their results meanwhile.
async fn lines_stay_within_a_small_budget(count: usize, bytes: usize) {
    let setup = Setup::embedded().set("memory.budget", "\"64MiB\"").set("limits.max_task", "\"10MB\"");
    // Every byte goes through the log; the disk is not what is tried.
    let setup = setup.set("front_door.compression", "\"none\"").set("handler.recorder.sync", "false");
    let server = setup.start().await.unwrap();
    let client = server.client();
    let start = Instant::now();
    send_in_one_request(&client, count, bytes).await;
    wait::until("all of them are handled", PATIENCE, async || {
        let handled = server.metrics().await?.sum("partita_tasks_processed_total").unwrap_or(0.0);
        anyhow::ensure!(handled == count as f64, "{handled} of {count}");
        Ok(Some(()))
    })
    .await
    .unwrap();
    let peak = process::peak_resident(server.pid()).unwrap();
    eprintln!("{count} lines of {bytes} bytes in {:?}: {} MiB resident at most", start.elapsed(), peak >> 20);
    assert!(peak < RESIDENT, "{peak} bytes were resident");
    for key in 0..KEYS.min(count) {
        let name = format!("many-{key}");
        let chunks = client.recording(&name).await.unwrap().unwrap().chunks;
        assert_eq!(chunks.len(), (key..count).step_by(KEYS).len(), "{name}");
        assert!(chunks.is_sorted_by_key(|chunk| chunk.offset), "{name}");
        assert!(chunks.iter().all(|chunk| chunk.size == bytes as u64), "{name}");
    }
    server.is_sound().await.unwrap();
}

async fn send_in_one_request(client: &Client, count: usize, bytes: usize) {
    let (sent, (pieces, body)) = (Arc::new(AtomicUsize::new(0)), hand_fed());
    let sending = tokio::spawn(send_lines(pieces, count, bytes, sent.clone()));
    let request = client.http().post(client.url(&["v1", "tasks"])).timeout(PATIENCE);
    let request = request.header("content-type", LINES).header("accept", LINES);
    let mut response = request.body(body).send().await.unwrap();
    assert_eq!(response.status(), 202);
    assert!(response.headers().contains_key("x-request-id"));
    assert!(sent.load(Ordering::Relaxed) < count, "the answer began after the last line was sent");
    assert_eq!(accepted(&mut response).await, count);
    sending.await.unwrap();
}

/// Makes lines as they are taken: what is on its way is all that there is of them.
async fn send_lines(
    pieces: mpsc::Sender<io::Result<bytes::Bytes>>,
    count: usize,
    bytes: usize,
    sent: Arc<AtomicUsize>,
) {
    let filler = "x".repeat(bytes);
    for start in (0..count).step_by(50) {
        let end = count.min(start + 50);
        let line = |index: usize| {
            let number = index.to_string();
            let data = format!("{number}{}", &filler[number.len()..]);
            event(&format!("many-{}", index % KEYS), &data).to_string() + "\n"
        };
        let lines: String = (start..end).map(line).collect();
        pieces.send(Ok(lines.into())).await.unwrap();
        sent.store(end, Ordering::Relaxed);
    }
}

/// Reads results, one a line, as they come: how many tasks were accepted, which all of them must be.
async fn accepted(response: &mut reqwest::Response) -> usize {
    let (mut accepted, mut text) = (0, Vec::<u8>::new());
    while let Some(piece) = response.chunk().await.unwrap() {
        text.extend_from_slice(&piece);
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in text[..whole].split_inclusive(|byte| *byte == b'\n') {
            let entry: Entry = serde_json::from_slice(line).unwrap();
            assert_eq!(entry.status, "accepted", "{entry:?}");
            accepted += 1;
        }
        text.drain(..whole);
    }
    assert!(text.is_empty(), "{}", String::from_utf8_lossy(&text));
    accepted
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
