//! No payload and no secret reaches a log, at whatever level.

use partita_tests::{client::Answer, server::Setup};
use std::time::Duration;

/// Would be found in whatever quotes it.
const PAYLOAD: &str = "PAYLOAD-a1b2c3d4e5f6";
const SECRET: &str = "SECRET-f6e5d4c3b2a1";

#[tokio::test(flavor = "multi_thread")]
async fn no_payload_and_no_token_reaches_the_log_of_a_task_that_is_handled_refused_or_tried_again() {
    let setup = Setup::embedded().set("admin.token", format!("\"{SECRET}\"")).log_filter("trace");
    let server = setup.set("limits.max_task", "\"100kB\"").start().await.unwrap();
    let (client, http) = (server.client(), server.client().http().clone());
    let url = client.url(&["v1", "tasks", "key"]);
    let post = async |encoding: &str, body: Vec<u8>| {
        let request = http.post(url.clone()).header("Content-Encoding", encoding).body(body);
        Answer::of(request.send().await.unwrap()).await.unwrap().status
    };
    client.accept("key", PAYLOAD).await.unwrap();
    assert_eq!(post("gzip", PAYLOAD.into()).await, 400);
    assert_eq!(post("zstd", PAYLOAD.into()).await, 400);
    assert_eq!(post("identity", PAYLOAD.repeat(10_000).into()).await, 413);
    // A recording that is not there, so that its task fails and is tried again.
    let recordings = setup_dir(&server).join("partita-data/recordings");
    std::fs::rename(&recordings, recordings.with_extension("gone")).unwrap();
    std::fs::write(&recordings, "").unwrap();
    client.accept("other", PAYLOAD).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Verbs with the token, with another one and with none.
    let admin = format!("http://{}/admin/v1/parked/redrive", server.setup().admin());
    for (token, status) in [(Some(SECRET), 202), (Some("another"), 403), (None, 401)] {
        let mut request = http.post(&admin).json(&serde_json::json!({ "all": true }));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{token:?}: {}", answer.text().await.unwrap());
    }
    let log = server.log();
    assert!(log.contains("TRACE") && log.contains("an attempt failed"), "this is not the whole log");
    for hidden in [PAYLOAD, SECRET] {
        let line = log.lines().find(|line| line.contains(hidden));
        assert_eq!(line, None, "{hidden} is in the log");
    }
}

fn setup_dir(server: &partita_tests::server::Server) -> std::path::PathBuf {
    server.setup().home().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_the_configuration_is_printed_or_logged() {
    let setup = Setup::embedded()
        .set("admin.token", format!("\"{SECRET}\""))
        .set("log.kind", "\"kafka\"")
        .set("log.kafka.bootstrap_servers", "\"127.0.0.1:1\"")
        .set("log.kafka.properties.\"security.protocol\"", "\"sasl_plaintext\"")
        .set("log.kafka.properties.\"sasl.mechanism\"", "\"PLAIN\"")
        .set("log.kafka.properties.\"sasl.username\"", "\"me\"")
        .set("log.kafka.properties.\"sasl.password\"", format!("\"{SECRET}\""));
    for command in [&["config", "print"][..], &["check"], &["topics", "create"]] {
        let finished = setup.command(command).await.unwrap();
        assert!(!finished.said().is_empty() && !finished.said().contains(SECRET), "{}", finished.said());
    }
    let server = setup.log_filter("trace").spawn().unwrap();
    server.not_ready(Duration::from_secs(30)).await.unwrap();
    assert!(server.log().contains("TRACE"));
    assert_eq!(server.log().lines().find(|line| line.contains(SECRET)), None);
}
