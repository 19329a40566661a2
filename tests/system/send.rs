//! `partita send` while the server is killed: everything is stored once, in order, and a run that was cut short goes on.

use partita_tests::{client::Client, server::Setup, wait, ways_in::event};
use std::{collections::BTreeMap, time::Duration};

const KEYS: usize = 50;
const EVENTS: usize = 30_000;

async fn recorded(client: &Client, key: &str, count: usize) -> String {
    wait::until("all of a key's events are handled", Duration::from_secs(60), async || {
        let chunks = client.recording(key).await?.map_or(0, |recording| recording.chunks.len());
        Ok((chunks >= count).then_some(()))
    })
    .await
    .unwrap();
    String::from_utf8(client.content(key).await.unwrap().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_stored_once_and_in_order_whoever_is_killed() {
    let setup = Setup::embedded();
    let file = setup.home().join("events.ndjson");
    let (mut text, mut expected) = (String::new(), BTreeMap::<String, String>::new());
    for number in 0..EVENTS {
        let (key, data) = (format!("sent {}", number % KEYS), format!("{number};"));
        text += &format!("{}\n", event(&key, &data));
        expected.entry(key).or_default().push_str(&data);
    }
    let middle = text.len() / 2 + text[text.len() / 2..].find('\n').unwrap();
    text.insert_str(middle, "\n\n");
    std::fs::write(&file, text).unwrap();
    let (url, path) = (format!("http://{}", setup.front()), file.to_str().unwrap().to_owned());
    let send = async || {
        let arguments = ["send", "--lines", "--url", &url, "--resume", "note.json", &path];
        setup.run(&arguments).await.unwrap()
    };
    let server = setup.start().await.unwrap();
    let kills = async {
        let mut server = server;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            server = server.kill().start().await.unwrap();
        }
        server
    };
    let (finished, server) = tokio::join!(send(), kills);
    assert_eq!(finished.code, Some(0), "{}", finished.said());
    assert!(finished.stdout.contains("0 were rejected"), "{}", finished.said());
    let client = server.client();
    for (key, expected) in &expected {
        assert_eq!(recorded(&client, key, EVENTS / KEYS).await, *expected, "{key}");
    }
    // From the start, without the note: nothing is stored again.
    assert!(!setup.home().join("note.json").exists(), "there is nothing to go on with");
    let count = async |name| server.metrics().await.unwrap().sum(name).unwrap_or(0.0);
    let (accepted, repeated) = ("partita_tasks_accepted_total", "partita_tasks_repeated_total");
    let before = (count(accepted).await, count(repeated).await);
    assert_eq!(send().await.code, Some(0));
    let after = (count(accepted).await, count(repeated).await);
    assert_eq!(after, (before.0, before.1 + EVENTS as f64));
    server.is_sound().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_tasks_and_the_same_file_is_one() {
    let setup = Setup::embedded();
    let server = setup.start().await.unwrap();
    let url = format!("http://{}", setup.front());
    let paths: Vec<_> =
        ["one", "two"].map(|name| setup.home().join(name).to_str().unwrap().to_owned()).into();
    paths.iter().for_each(|path| std::fs::write(path, path.rsplit('/').next().unwrap()).unwrap());
    for (repeated, code) in [(false, Some(0)), (true, Some(0))] {
        let sent = setup.run(&["send", "--url", &url, "--key", "files", &paths[0], &paths[1]]).await.unwrap();
        assert_eq!(sent.code, code, "{}", sent.said());
        assert_eq!(
            sent.stdout.matches("stored before").count(),
            if repeated { 2 } else { 0 },
            "{}",
            sent.said()
        );
    }
    assert_eq!(recorded(&server.client(), "files", 2).await, "onetwo");
    let missing = setup.run(&["send", "--url", &url, "--key", "files", "/nowhere"]).await.unwrap();
    assert_eq!(missing.code, Some(1));
    assert!(missing.said().contains("/nowhere"), "{}", missing.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interrupted_run_had_rejected_is_not_forgotten_by_the_one_that_goes_on() {
    let setup = Setup::embedded();
    let server = setup.start().await.unwrap();
    let (url, home) = (format!("http://{}", setup.front()), setup.home());
    let paths = ["first", "second"].map(|name| home.join(name));
    paths.iter().for_each(|path| std::fs::write(path, format!("{}\n", event("goes on", "x"))).unwrap());
    let (paths, note) = (paths.each_ref().map(|path| path.to_str().unwrap()), home.join("note"));
    let half = serde_json::json!({
        "files": paths, "file": 1, "mark": { "offset": 0, "sha256": "" }, "totals": { "accepted": 5, "rejected": 1 },
    });
    std::fs::write(&note, half.to_string()).unwrap();
    let arguments =
        ["send", "--lines", "--url", &url, "--resume", note.to_str().unwrap(), paths[0], paths[1]];
    let went_on = setup.run(&arguments).await.unwrap();
    assert_eq!(went_on.code, Some(1), "{}", went_on.said());
    assert!(went_on.stdout.contains("6 events are stored, 1 were rejected"), "{}", went_on.said());
    assert_eq!(recorded(&server.client(), "goes on", 1).await, "x");
    let usage = setup.run(&["send", "--url", "nonsense", "--key", "k", paths[0]]).await.unwrap();
    assert_eq!(usage.code, Some(2), "{}", usage.said());
}
