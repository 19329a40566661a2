//! `POST /v1/tasks`: CloudEvents one at a time and in batches, lines, and `TaskBatch`.

use super::{
    bodies::noise,
    support::{Connection, Response, Running, Script, Setup},
};
use crate::{config::FrontDoorConfig, log::NotWritten};
use base64::{Engine, prelude::BASE64_STANDARD};
use partita_core::PartitionHealth;
use partita_proto::v1;
use prost::Message;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::Write,
    time::{Duration, Instant},
};

const STRUCTURED: &str = "Content-Type: application/cloudevents+json; charset=utf-8\r\n";
const BATCH: &str = "Content-Type: application/cloudevents-batch+json\r\n";
const LINES: &str = "Content-Type: application/x-ndjson\r\n";
const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";

fn post(door: &Running, headers: &str, body: impl AsRef<[u8]>) -> Response {
    let mut connection = door.connect();
    send(&mut connection, headers, body);
    connection.response()
}

fn send(connection: &mut Connection, headers: &str, body: impl AsRef<[u8]>) {
    let body = body.as_ref();
    connection.send(format!(
        "POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    ));
    connection.send(body);
}

fn send_chunked_head(connection: &mut Connection, headers: &str) {
    connection
        .send(format!("POST /v1/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{headers}\r\n"));
}

fn event(id: &str, key: &str, data: Value) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t", "subject": key, "data": data})
}

fn lines(events: impl IntoIterator<Item = Value>) -> String {
    events.into_iter().map(|event| format!("{event}\n")).collect()
}

/// What became of each: its status, and its code where it has one.
fn results(response: &Response) -> Vec<String> {
    assert_eq!(response.status, 202, "{}", String::from_utf8_lossy(&response.body));
    let body = response.json();
    let results = body["results"].as_array().unwrap();
    let counted = |status: &str| results.iter().filter(|result| result["status"] == status).count();
    for status in ["accepted", "retry", "rejected"] {
        assert_eq!(body[status], counted(status), "{body}");
    }
    let said = |result: &Value| match result["code"].as_str() {
        Some(code) => format!("{} {code}", result["status"].as_str().unwrap()),
        None => result["status"].as_str().unwrap().to_owned(),
    };
    results.iter().map(said).collect()
}

#[test]
fn a_binary_event_is_a_task_with_its_attributes() {
    let door = Setup::default().start();
    let response = post(
        &door,
        "ce-specversion: 1.0\r\nce-id: a%201\r\nce-source: /s\r\nce-type: com.example.t\r\nce-partitionkey: k%2F1\r\nce-tenant: x\r\n\
         Content-Type: application/json\r\n",
        "{}",
    );
    assert_eq!(response.status, 202);
    let receipt = response.json();
    assert_eq!(receipt["id"], "a 1");
    assert_eq!(receipt["partition"], door.log.partition_of_only().0);
    assert_eq!(door.log.payloads()[0].0, "k/1");
    let (envelope, payload) = door.log.only();
    assert_eq!(payload, "{}");
    assert_eq!(envelope.id, "a 1");
    assert_eq!(envelope.r#type.as_deref(), Some("com.example.t"));
    assert_eq!(envelope.content_type.as_deref(), Some("application/json"));
    assert!(envelope.headers.iter().any(|header| header.name == "ce-tenant" && header.value == "x"));
}

#[test]
fn a_structured_event_is_a_task_of_its_data_however_it_is_sent() {
    let door = Setup::default().start();
    let large = noise(700_000);
    let mut encoded = event("2", "k", Value::Null);
    encoded.as_object_mut().unwrap().remove("data");
    encoded["data_base64"] = BASE64_STANDARD.encode(&large).into();
    encoded["datacontenttype"] = "image/png".into();
    assert_eq!(post(&door, STRUCTURED, event("1", "k", json!({"a": 1})).to_string()).json()["id"], "1");
    assert_eq!(post(&door, STRUCTURED, encoded.to_string()).status, 202);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoded["id"] = "3".into();
    gzip.write_all(encoded.to_string().as_bytes()).unwrap();
    let headers = format!("{STRUCTURED}Content-Encoding: gzip\r\n");
    assert_eq!(post(&door, &headers, gzip.finish().unwrap()).status, 202);
    encoded["id"] = "4".into();
    let zstd = zstd::encode_all(encoded.to_string().as_bytes(), 1).unwrap();
    let headers = format!("{STRUCTURED}Content-Encoding: zstd\r\n");
    assert_eq!(post(&door, &headers, zstd).status, 202);
    let payloads = door.log.payloads();
    assert_eq!(payloads[0].1, "{\"a\":1}");
    assert!(payloads[1..].len() == 3 && payloads[1..].iter().all(|(_, payload)| *payload == large));
    drop(payloads);
}

#[test]
fn a_batch_of_too_many_tasks_is_413_and_one_whose_places_have_no_room_now_503() {
    let door = Setup::default().start();
    let many = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
    let response = post(&door, BATCH, many(100_001));
    assert_eq!((response.status, response.problem().as_str()), (413, "batch_too_large"));
    let response = post(&door, PROTOBUF, [0x0a, 0].repeat(100_001));
    assert_eq!((response.status, response.problem().as_str()), (413, "batch_too_large"));
    door.await_idle_pool();
    let rest = door.pool.try_reserve(door.pool.capacity() - (2 << 20)).unwrap();
    let response = post(&door, BATCH, many(60_000));
    assert_eq!((response.status, response.problem().as_str()), (503, "out_of_memory_budget"));
    drop(rest);
    door.await_idle_pool();
    assert_eq!(post(&door, BATCH, many(60_000)).status, 202);
    door.await_idle_pool();
}

#[test]
fn the_data_of_an_event_may_be_as_large_as_a_task_and_no_larger() {
    let door = Setup::default().start();
    let of = |size: usize| {
        let mut event = event("1", "k", Value::Null);
        event.as_object_mut().unwrap().remove("data");
        event["data_base64"] = BASE64_STANDARD.encode(noise(size)).into();
        event.to_string()
    };
    assert_eq!(post(&door, STRUCTURED, of(1 << 20)).status, 202);
    let response = post(&door, STRUCTURED, of((1 << 20) + 1));
    assert_eq!((response.status, response.problem().as_str()), (413, "too_large"));
    let response = post(&door, STRUCTURED, of(3 << 20));
    assert_eq!((response.status, response.problem().as_str()), (413, "batch_too_large"));
    assert_eq!(door.log.payloads().len(), 1);
}

#[test]
fn a_batch_answers_each_in_its_place_and_nothing_overtakes_what_was_refused() {
    let door = Setup::default().start();
    let bad = json!({"specversion": "1.0", "id": "3", "source": "/s", "subject": "b"});
    let batch = json!([
        event("1", "a", 1.into()),
        event("2", "b", 2.into()),
        bad,
        event("4", "b", 4.into()),
        event("5", "a", 5.into()),
        7,
        {"specversion": "1.0", "id": "6", "source": "/s", "type": "t"},
    ]);
    let response = post(&door, BATCH, batch.to_string());
    assert_eq!(
        results(&response),
        [
            "accepted",
            "accepted",
            "rejected invalid_event",
            "retry earlier_failed",
            "accepted",
            "rejected invalid_document",
            "rejected no_key",
        ]
    );
    let ids: Vec<_> =
        response.json()["results"].as_array().unwrap().iter().map(|r| r["id"].clone()).collect();
    assert_eq!(json!(ids), json!(["1", "2", "3", "4", "5", null, "6"]));
    let stored: Vec<_> = door.log.payloads().into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(stored.len(), 3);
    assert_eq!(results(&post(&door, BATCH, "[]")), [] as [&str; 0]);
}

#[test]
fn a_short_answer_has_what_was_not_accepted_and_the_counts() {
    let door = Setup::default().start();
    let all = [event("1", "a", 1.into()), json!({"id": "2"}), event("3", "b", 3.into()), json!(7)];
    for (headers, body) in [(BATCH, json!(all).to_string()), (LINES, lines(all.clone()))] {
        let response = post(&door, &format!("{headers}Prefer: respond-async, return=minimal\r\n"), body);
        assert_eq!(response.header("preference-applied"), Some("return=minimal"));
        let answer = response.json();
        let indices: Vec<_> = answer["results"].as_array().unwrap().iter().map(|one| &one["index"]).collect();
        assert_eq!(indices, [1, 3], "{answer}");
        assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(2)));
    }
    let minimal = format!("{LINES}Accept: application/x-ndjson\r\nPrefer: return=minimal\r\n");
    let response = post(&door, &minimal, lines(all.clone()));
    let text = String::from_utf8(response.body).unwrap();
    let (last, failures) =
        text.lines().collect::<Vec<_>>().split_last().map(|(a, b)| (a.to_string(), b.len())).unwrap();
    assert_eq!((&last[..], failures), (r#"{"accepted":2,"retry":0,"rejected":2}"#, 2));
    let none = post(&door, &format!("{BATCH}Prefer: return=minimal\r\n"), "[]");
    assert_eq!(none.json(), json!({"results": [], "accepted": 0, "retry": 0, "rejected": 0}));
    assert!(post(&door, BATCH, json!(all).to_string()).json()["results"][1].get("index").is_none());
}

/// What holds the memory is of others: nobody on the same thread waits for it, and it ends.
#[test]
fn lines_whose_window_finds_no_memory_hold_nobody_up() {
    let (threads, body_timeout) = (Some(1), Duration::from_millis(800));
    let config = FrontDoorConfig { threads, body_timeout, ..Setup::default().config };
    let door = Setup { config, pool: 2_000_000, keep: false, ..Setup::default() }.start();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(21).unwrap();
    encoder.write_all(lines([event("1", "k", "x".into())]).as_bytes()).unwrap();
    let body = encoder.finish().unwrap();
    let mut connection = door.connect();
    let began = Instant::now();
    send(&mut connection, &format!("{LINES}Content-Encoding: zstd\r\n"), body);
    while !connection.has_answer(Duration::from_millis(50)) {
        let asked = Instant::now();
        assert_eq!(door.post("neighbour", "", b"x").status, 202);
        assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
        assert!(began.elapsed() < Duration::from_secs(20), "it never ends");
    }
    assert_eq!(results(&connection.response()), ["retry out_of_memory_budget"]);
    door.await_idle_pool();
}

#[test]
fn a_document_that_cannot_be_parsed_is_400_and_nothing_of_it_is_stored() {
    let door = Setup::default().start();
    let whole = json!([event("1", "a", 1.into())]).to_string();
    for (headers, body) in [
        (BATCH, format!("{whole},")),
        (BATCH, whole[..whole.len() - 1].to_owned()),
        (BATCH, "{}".into()),
        (BATCH, String::new()),
        (STRUCTURED, String::new()),
        (STRUCTURED, "[".into()),
        (PROTOBUF, "\x0a\x05ab".into()),
        (PROTOBUF, "\x0f".into()),
    ] {
        let response = post(&door, headers, &body);
        assert_eq!((response.status, response.problem().as_str()), (400, "invalid_document"), "{body:?}");
    }
    assert!(door.log.payloads().is_empty());
}

#[test]
fn a_task_batch_is_stored_task_by_task() {
    let door = Setup::default().start();
    let task = |key: &str, id: &str, payload: &'static [u8]| v1::Task {
        key: key.into(),
        id: id.into(),
        payload: payload.into(),
        r#type: Some("T".into()),
        traceparent: Some("00-1-1-00".into()),
        ..v1::Task::default()
    };
    let tasks = vec![task("a", "", b"1"), task("", "x", b"2"), task("a", "y", b"3")];
    let response = post(&door, PROTOBUF, v1::TaskBatch { tasks }.encode_to_vec());
    assert_eq!(results(&response), ["accepted", "rejected invalid_key", "accepted"]);
    let found = &response.json()["results"];
    let first = format!("{}-0", found[0]["partition"]);
    assert_eq!(json!([found[0]["id"], found[1]["id"], found[2]["id"]]), json!([first, "x", "y"]));
    let payloads: Vec<_> = door.log.payloads().into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(payloads, ["1", "3"]);
    // An entry that is no task is one entry's fault.
    let response = post(&door, PROTOBUF, b"\x0a\x02\xff\xff\x0a\x03\x0a\x01k");
    assert_eq!(results(&response), ["rejected invalid_event", "accepted"]);
}

#[test]
fn lines_are_stored_in_the_order_of_each_key_and_answered_in_the_order_they_came() {
    let door = Setup::default().start();
    let mut connection = door.connect();
    send_chunked_head(&mut connection, LINES);
    const COUNT: usize = 5000;
    let key = |index: usize| format!("k{}", (index * 7919) % 60);
    let body = lines((0..COUNT).map(|index| event(&index.to_string(), &key(index), index.into())));
    // Blank lines, ends of either kind, and a last line without one.
    let body = body.replacen('\n', "\r\n\n  \n", 20);
    for piece in body.trim_end().as_bytes().chunks(999) {
        connection.send_chunk(piece);
    }
    connection.send("0\r\n\r\n");
    let response = connection.response();
    assert_eq!(response.header("transfer-encoding"), Some("chunked"), "it is too long to be whole");
    assert_eq!(results(&response), vec!["accepted"; COUNT]);
    let ids = response.json();
    let ids = ids["results"].as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap().to_owned());
    assert!(ids.eq((0..COUNT).map(|index| index.to_string())));
    let mut of_key: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (key, payload) in door.log.payloads() {
        let index = std::str::from_utf8(&payload).unwrap().parse().unwrap();
        of_key.entry(key).or_default().push(index);
    }
    assert_eq!(of_key.values().map(Vec::len).sum::<usize>(), COUNT);
    assert!(of_key.values().all(|indices| indices.is_sorted()));
}

#[test]
fn lines_are_answered_by_lines_where_they_are_asked_for() {
    let door = Setup::default().start();
    let body = lines([event("1", "a", 1.into()), json!({}), event("2", "a", 2.into())]);
    let response = post(&door, &format!("{LINES}Accept: application/x-ndjson\r\n"), body);
    assert_eq!(response.header("content-type"), Some("application/x-ndjson"));
    let text = String::from_utf8(response.body).unwrap();
    let statuses: Vec<_> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["status"].clone()).collect();
    assert_eq!(json!(statuses), json!(["accepted", "rejected", "accepted"]));
}

#[test]
fn a_line_that_is_too_long_is_left_out_and_the_others_go_on() {
    let door = Setup::default().start();
    let long = event("2", "a", "x".repeat(2 << 20).into());
    let body = lines([event("1", "a", 1.into()), long, event("3", "a", 3.into())]);
    let response = post(&door, LINES, body);
    // Nobody knows whose it was, and sent again it is refused again.
    assert_eq!(results(&response), ["accepted", "rejected too_large", "accepted"]);
}

#[test]
fn a_line_that_goes_on_and_on_is_the_last_that_is_read() {
    let door = Setup::default().start();
    let endless = event("2", "a", "x".repeat(8 << 20).into());
    let body = lines([event("1", "a", 1.into()), endless, event("3", "a", 3.into())]);
    let response = post(&door, LINES, body);
    assert_eq!(results(&response), ["accepted", "rejected too_large", "rejected too_large"]);
    assert_eq!(door.log.payloads().len(), 1);
}

#[test]
fn a_task_of_a_key_waits_for_the_one_before_it() {
    let door = Setup::default().start();
    door.log.script(Script::Wait);
    let mut connection = door.connect();
    send(
        &mut connection,
        LINES,
        lines([event("1", "a", 1.into()), event("2", "a", 2.into()), event("3", "b", 3.into())]),
    );
    door.log.await_appends(2);
    std::thread::sleep(Duration::from_millis(50));
    let keys: Vec<_> = door.log.payloads().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["a", "b"]);
    door.log.script(Script::Ok);
    assert_eq!(results(&connection.response()), vec!["accepted"; 3]);
    let payloads: Vec<_> = door.log.payloads().into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(payloads, ["1", "3", "2"]);
}

#[test]
fn after_a_task_that_was_not_written_none_of_its_key_is_accepted() {
    let door = Setup::default().start();
    for (script, code) in [
        (Script::NotWritten(NotWritten::Busy), "retry log_busy"),
        (Script::Unknown, "retry unknown_outcome"),
        (Script::NotWritten(NotWritten::TooLarge), "rejected too_large"),
    ] {
        door.log.script(Script::Wait);
        let mut connection = door.connect();
        send(&mut connection, LINES, lines([event("1", "a", 1.into()), event("2", "a", 2.into())]));
        door.log.await_appends(1);
        door.log.script(script);
        assert_eq!(results(&connection.response()), [code, "retry earlier_failed"]);
        door.log.forget();
    }
}

#[test]
fn lines_above_the_memory_wait_for_each_other() {
    let config = FrontDoorConfig { threads: Some(1), ..Setup::default().config };
    let door = Setup { pool: 3 << 20, keep: false, config, ..Setup::default() }.start();
    let data = Value::from("x".repeat(200_000));
    let body = lines((0..100).map(|index| event(&index.to_string(), &format!("k{index}"), data.clone())));
    let response = post(&door, LINES, body);
    assert_eq!(results(&response), vec!["accepted"; 100]);
    door.await_idle_pool();
}

#[test]
fn lines_whose_encoding_breaks_say_so_last() {
    let door = Setup::default().start();
    let mut body = zstd::encode_all(lines([event("1", "a", 1.into())]).as_bytes(), 1).unwrap();
    body.extend_from_slice(b"nonsense");
    let response = post(&door, &format!("{LINES}Content-Encoding: zstd\r\n"), body);
    assert_eq!(results(&response), ["accepted", "rejected trailing_bytes"]);
}

#[test]
fn what_is_no_way_in_is_415_and_says_what_is() {
    let door = Setup::default().start();
    for headers in ["Content-Type: application/json\r\n", "", "Content-Type: application/cloudevents+xml\r\n"]
    {
        let response = post(&door, headers, "{}");
        assert_eq!((response.status, response.problem().as_str()), (415, "unsupported_media_type"));
        assert!(response.header("accept").unwrap().contains("application/cloudevents+json"));
    }
    let mut connection = door.connect();
    connection.send("GET /v1/tasks HTTP/1.1\r\nHost: x\r\n\r\n");
    let response = connection.response();
    assert_eq!((response.status, response.header("allow")), (405, Some("POST")));
    connection.send("POST /v1/tasksx HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(connection.response().status, 404);
}

#[test]
fn a_door_that_takes_nothing_says_so_before_it_takes_lines() {
    let door = Setup::default().start();
    door.log.set_health(crate::log::LogHealth::Full("no room".into()));
    let response = post(&door, LINES, lines([event("1", "a", 1.into())]));
    assert_eq!((response.status, response.problem().as_str()), (503, "log_full"));
    door.log.set_health(crate::log::LogHealth::Ready);
    door.set_partitions(PartitionHealth::Stuck);
    let response = post(&door, LINES, lines([event("1", "a", 1.into())]));
    assert_eq!(results(&response), ["retry partition_stuck"]);
}

fn zstd(body: &[u8]) -> Vec<u8> {
    zstd::encode_all(body, 1).unwrap()
}

/// What a parser says of a text, or remembers of a depth, is in proportion to it.
#[test]
fn hostile_documents_are_refused_with_short_answers() {
    let door = Setup::default().start();
    let text = format!("\"{}\"", "\u{7f}".repeat(1 << 20));
    let deep = "[".repeat(1 << 20);
    let id = v1::Task { key: "k".into(), id: "\u{1}".repeat(500_000), ..v1::Task::default() };
    for (headers, body) in [(STRUCTURED, &text), (BATCH, &text), (STRUCTURED, &deep), (BATCH, &deep)] {
        let headers = format!("{headers}Content-Encoding: zstd\r\n");
        let response = post(&door, &headers, zstd(body.as_bytes()));
        assert_eq!((response.status, response.problem().as_str()), (400, "invalid_document"));
        assert!(response.body.len() < 2000, "{} bytes", response.body.len());
    }
    let response = post(&door, LINES, format!("{text}\n{deep}\n"));
    assert_eq!(results(&response), ["rejected invalid_document"; 2]);
    let response = post(&door, PROTOBUF, v1::TaskBatch { tasks: vec![id] }.encode_to_vec());
    assert_eq!(results(&response), ["rejected invalid_event"]);
    assert!(response.body.len() < 2000, "{} bytes", response.body.len());
    door.await_idle_pool();
}

/// A task whose key is not known, for want of memory, may be of any: none after it is accepted, or it could be overtaken.
#[test]
fn what_was_left_out_for_want_of_memory_is_overtaken_by_nothing() {
    let door = Setup { pool: 3 << 20, ..Setup::default() }.start();
    let taken = door.pool.try_reserve((3 << 20) - (300 << 10)).unwrap();
    let large = event("1", "a", "x".repeat(500_000).into());
    let response = post(&door, LINES, lines([large, event("2", "a", 2.into())]));
    assert_eq!(results(&response), ["retry out_of_memory_budget", "retry earlier_failed"]);
    drop(taken);
    assert!(door.log.payloads().is_empty());
    door.await_idle_pool();
}

/// A zstd frame whose window finds no memory at first is decoded when there is some.
#[test]
fn lines_of_several_frames_wait_for_the_memory_of_their_windows() {
    let door = Setup { pool: 3_700_000, keep: false, ..Setup::default() }.start();
    door.log.script(Script::Wait);
    let large = |id: &str, size: usize| lines([event(id, id, "x".repeat(size).into())]);
    let frame = |text: String, window: u32| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window).unwrap();
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    // The second one's window takes 2.4 MB: too much beside the first one's line.
    let body = [frame(large("a", 900_000), 17), frame(large("b", 100_000), 21)].concat();
    let mut connection = door.connect();
    send(&mut connection, &format!("{LINES}Content-Encoding: zstd\r\n"), body);
    door.log.await_appends(1);
    std::thread::sleep(Duration::from_millis(50));
    door.log.script(Script::Ok);
    assert_eq!(results(&connection.response()), ["accepted", "accepted"]);
    door.await_idle_pool();
}

#[test]
fn a_key_that_fails_again_and_again_takes_memory_once() {
    let door = Setup::default().start();
    let bad =
        |key: usize| json!({"specversion": "1.0", "id": "1", "source": "/s", "subject": format!("k{key}")});
    let body = lines((0..1024).map(bad).chain((0..10_000).map(|_| bad(7))));
    let body = body + &lines([event("last", "another", 1.into())]);
    let response = post(&door, LINES, body);
    let results = results(&response);
    assert_eq!(results[..11_024], ["rejected invalid_event"; 11_024]);
    assert_eq!(results[11_024], "accepted");
}

#[test]
fn a_client_that_waits_for_each_result_gets_it() {
    let door = Setup::default().start();
    let mut connection = door.connect();
    let headers = format!("{LINES}Accept: application/x-ndjson\r\n");
    send_chunked_head(&mut connection, &headers);
    for index in 0..5 {
        connection.send_chunk(lines([event(&index.to_string(), "k", index.into())]).as_bytes());
        if index == 0 {
            assert_eq!(connection.head().status, 202);
        }
        let mut line = Vec::new();
        connection.chunk(&mut line).unwrap();
        let result: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(
            (result["status"].as_str(), result["id"].as_str()),
            (Some("accepted"), Some(&*index.to_string()))
        );
    }
    connection.send("0\r\n\r\n");
    assert_eq!(connection.chunk(&mut Vec::new()).unwrap(), 0);
}

/// What an answer that nobody reads takes is bounded, and given back.
#[test]
fn a_client_that_never_reads_gives_its_memory_back() {
    let config = FrontDoorConfig { body_timeout: Duration::from_secs(1), ..Setup::default().config };
    let door = Setup { config, keep: false, ..Setup::default() }.start();
    let mut connection = door.connect();
    send_chunked_head(&mut connection, LINES);
    connection.set_write_timeout(Duration::from_secs(2));
    let chunk = "{}\n".repeat(10_000);
    let framed = format!("{:x}\r\n{chunk}\r\n", chunk.len());
    let mut most = 0;
    for _ in 0..100 {
        if connection.try_send(framed.as_bytes()).is_err() {
            break;
        }
        most = most.max(door.pool.reserved());
    }
    assert!(most < door.pool.capacity() / 2, "{most} bytes were taken");
    door.await_idle_pool();
    assert_eq!(post(&door, LINES, lines([event("1", "a", 1.into())])).status, 202);
}

#[test]
fn lines_that_stop_coming_are_answered_and_their_connection_is_closed() {
    let config = FrontDoorConfig { body_timeout: Duration::from_millis(300), ..Setup::default().config };
    let door = Setup { config, ..Setup::default() }.start();
    let mut connection = door.connect();
    send_chunked_head(&mut connection, LINES);
    connection.send_chunk(lines([event("1", "a", 1.into())]).as_bytes());
    let response = connection.response();
    assert_eq!(results(&response), ["accepted", "retry body_timeout"]);
    assert!(connection.is_closed());
}

#[test]
fn a_door_that_stops_ends_the_lines_that_are_coming() {
    let door = Setup::default().start();
    let mut connection = door.connect();
    send_chunked_head(&mut connection, LINES);
    connection.send_chunk(lines([event("1", "a", 1.into())]).as_bytes());
    door.log.await_appends(1);
    let handle = door.handle.clone();
    let drained = door.spawn(async move { handle.drain(Duration::from_millis(200)).await });
    let response = connection.response();
    assert_eq!(results(&response), ["accepted", "retry draining"]);
    drained.recv_timeout(Duration::from_secs(5)).unwrap();
}

#[test]
fn who_asks_before_sending_is_refused_before_sending() {
    let door = Setup::default().start();
    for (headers, length, status) in [
        ("Content-Type: text/plain\r\n", 1, 415),
        (STRUCTURED, 3 << 20, 413),
        ("Content-Type: application/x-ndjson\r\nContent-Encoding: br\r\n", 1, 415),
    ] {
        let mut connection = door.connect();
        connection.send(format!(
            "POST /v1/tasks HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n{headers}\r\n"
        ));
        assert_eq!(connection.response().status, status, "{headers}");
    }
}

/// Whoever hangs up before the first result has nothing kept for it.
#[test]
fn a_sender_that_goes_away_before_any_result_leaves_nothing_behind() {
    let door = Setup { keep: false, ..Setup::default() }.start();
    door.log.script(Script::Wait);
    let mut connection = door.connect();
    send(&mut connection, BATCH, json!([event("1", "a", 1.into()), event("2", "a", 2.into())]).to_string());
    door.log.await_appends(1);
    drop(connection);
    std::thread::sleep(Duration::from_millis(300));
    door.log.script(Script::Ok);
    let since = Instant::now();
    door.await_idle_pool();
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}
