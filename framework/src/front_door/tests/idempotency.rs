//! Requests that come again.

use super::{
    bodies::noise,
    support::{Response, Running, Script, Setup},
};
use std::io::Write;

const KEYED: &str = "Idempotency-Key: \"8e03978e-40d5\"\r\n";

fn place(response: &Response) -> (u64, u64) {
    assert_eq!(response.status, 202, "{}", String::from_utf8_lossy(&response.body));
    let receipt = response.json();
    (receipt["partition"].as_u64().unwrap(), receipt["offset"].as_u64().unwrap())
}

fn events(door: &Running, headers: &str, body: &str) -> Response {
    let mut connection = door.connect();
    connection.send(format!(
        "POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    ));
    connection.response()
}

#[test]
fn the_same_request_gets_the_first_receipt_and_is_stored_once() {
    let door = Setup::default().start();
    let payload = noise(300_000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&payload).unwrap();
    let zstd = zstd::encode_all(&payload[..], 1).unwrap();
    let first = door.post("k", KEYED, &payload);
    assert_eq!(first.header("idempotent-replayed"), None);
    let unquoted = KEYED.replace('"', "");
    // The payload is what counts, and not how it was sent.
    for (headers, body) in [
        (KEYED.to_owned(), &payload[..]),
        (unquoted, &payload[..]),
        (format!("{KEYED}Content-Encoding: gzip\r\n"), &gzip.finish().unwrap()[..]),
        (format!("{KEYED}Content-Encoding: zstd\r\n"), &zstd[..]),
    ] {
        let again = door.post("k", &headers, body);
        assert_eq!(place(&again), place(&first), "{headers}");
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
    }
    assert_eq!(door.log.payloads().len(), 1);
    assert!(!place(&door.post("other", KEYED, &payload)).eq(&place(&first)), "another key's is another");
    assert_eq!(door.log.payloads().len(), 2);
}

#[test]
fn another_payload_under_the_same_idempotency_key_is_422() {
    let door = Setup::default().start();
    assert_eq!(door.post("k", KEYED, b"one").status, 202);
    let response = door.post("k", KEYED, b"two");
    assert_eq!((response.status, response.problem().as_str()), (422, "idempotency_key_reused"));
    assert_eq!(door.log.payloads().len(), 1);
}

#[test]
fn a_request_under_way_is_409_and_free_again_when_its_sender_is_gone() {
    let door = Setup::default().start();
    let mut slow = door.connect();
    slow.send(format!("POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n{KEYED}\r\nhalf"));
    super::support::await_that("the first is under way", || door.pool.reserved() > 0);
    let response = door.post("k", KEYED, b"half-whole");
    assert_eq!((response.status, response.problem().as_str()), (409, "idempotency_key_in_flight"));
    assert_eq!(response.header("retry-after"), Some("1"));
    assert_eq!(door.post("k", "Idempotency-Key: another\r\n", b"x").status, 202);
    drop(slow);
    super::support::await_that("the key is free", || door.post("k", KEYED, b"half-whole").status == 202);
}

#[test]
fn what_was_not_stored_is_not_remembered() {
    let door = Setup::default().start();
    door.log.script(Script::NotWritten(crate::log::NotWritten::Full));
    assert_eq!(door.post("k", KEYED, b"x").status, 503);
    door.log.script(Script::Ok);
    let response = door.post("k", KEYED, b"x");
    assert_eq!((response.status, response.header("idempotent-replayed")), (202, None));
}

#[test]
fn an_idempotency_key_that_cannot_be_used_is_400() {
    let door = Setup::default().start();
    for value in ["", "\"\"", "é", &"x".repeat(256), "a\r\nIdempotency-Key: b"] {
        let response = door.post("k", &format!("Idempotency-Key: {value}\r\n"), b"x");
        assert_eq!((response.status, response.problem().as_str()), (400, "invalid_header"), "{value}");
    }
}

#[test]
fn an_event_is_known_by_its_source_and_id_in_every_mode() {
    let door = Setup::default().start();
    let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"k","data":[1]}"#;
    let binary = "ce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: t\r\nce-subject: k\r\nContent-Type: application/json\r\n";
    let first = events(&door, binary, "[1]");
    let structured = events(&door, "Content-Type: application/cloudevents+json\r\n", event);
    assert_eq!(place(&structured), place(&first));
    assert_eq!(structured.header("idempotent-replayed"), Some("true"));
    let lines = events(
        &door,
        "Content-Type: application/x-ndjson\r\n",
        &format!("{event}\n{event}\n{}", event.replace("[1]", "[2]")),
    );
    let lines = lines.json();
    for result in &lines["results"].as_array().unwrap()[..2] {
        assert_eq!((result["status"].as_str(), result["offset"].as_u64()), (Some("accepted"), Some(0)));
    }
    assert_eq!(lines["results"][2]["code"], "idempotency_key_reused");
    assert_eq!(lines["results"][2]["status"], "rejected");
    assert_eq!(door.log.payloads().len(), 1);
}

#[test]
fn a_batch_that_comes_again_under_its_own_name_is_stored_once() {
    use partita_proto::v1::{Task, TaskBatch};
    use prost::Message;
    let door = Setup::default().start();
    let task = |key: &str, payload: &'static [u8]| Task {
        key: key.into(),
        payload: payload.into(),
        ..Task::default()
    };
    let batch = TaskBatch { tasks: vec![task("a", b"1"), task("a", b"1"), task("b", b"2")] }.encode_to_vec();
    let send = |headers: &str| {
        let mut connection = door.connect();
        connection.send(format!(
            "POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n{headers}\r\n",
            batch.len()
        ));
        connection.send(&batch);
        connection.response().json()
    };
    let first = send(KEYED);
    assert_eq!(send(KEYED), first);
    assert_eq!(door.log.payloads().len(), 3, "equal tasks of one batch are different tasks");
    send("");
    send("");
    assert_eq!(door.log.payloads().len(), 9);
}
