//! Each row of the status table.

use super::support::{Script, Setup};
use crate::{
    front_door::Routes,
    log::{LogHealth, NotWritten},
};
use actix_web::{HttpResponse, web};
use partita_core::{Behind, PartitionHealth, partition_of};
use std::sync::Arc;

#[test]
fn a_stored_task_gets_202_with_its_place() {
    let door = Setup::default().start();
    for offset in 0..3 {
        let response = door.post("key-1", "X-Request-Id: mine\r\n", b"payload");
        assert_eq!(response.status, 202);
        assert_eq!(response.header("content-type"), Some("application/json"));
        assert_eq!(response.header("x-request-id"), Some("mine"));
        let partition = partition_of(b"key-1", 16).0;
        assert_eq!(
            response.json(),
            serde_json::json!({"id": format!("{partition}-{offset}"), "topic": "fake", "partition": partition, "offset": offset})
        );
    }
}

#[test]
fn what_the_headers_say_is_stored_with_the_task() {
    let door = Setup::default().start();
    let headers = "Content-Type: text/plain; charset=utf-8\r\nPartita-Type: shop.Order\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\nAuthorization: secret\r\n";
    assert_eq!(door.post("k", headers, b"payload").status, 202);
    let (envelope, payload) = door.log.only();
    assert_eq!(payload, "payload");
    assert_eq!(door.log.partition_of_only(), partition_of(b"k", 16));
    assert_eq!(envelope.content_type.as_deref(), Some("text/plain; charset=utf-8"));
    assert_eq!(envelope.r#type.as_deref(), Some("shop.Order"));
    assert_eq!(envelope.payload_size, 7);
    let stored: Vec<_> = envelope.headers.iter().map(|h| (h.name.as_str(), h.value.as_str())).collect();
    assert_eq!(
        stored,
        [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("tracestate", "a=b")]
    );
    assert!(envelope.created_at_ms > 1_700_000_000_000);
}

#[test]
fn an_empty_body_is_a_task_of_no_bytes() {
    let door = Setup::default().start();
    for headers in ["", "Content-Encoding: gzip\r\n", "Content-Encoding: zstd\r\n"] {
        assert_eq!(door.post("k", headers, b"").status, 202);
    }
    let mut connection = door.connect();
    connection.send("POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(connection.response().status, 202);
    assert!(door.log.payloads().iter().all(|(_, payload)| payload.is_empty()));
}

#[test]
fn a_key_that_cannot_be_used_is_400() {
    let door = Setup::default().start();
    let long = "k".repeat(257);
    for key in ["", "%", "%zz", "%FF", &long] {
        let response = door.post(key, "", b"x");
        assert_eq!((response.status, response.problem().as_str()), (400, "invalid_key"), "{key}");
    }
    for (raw, key) in
        [("a%2Fb", "a/b"), ("a+b", "a+b"), ("%C3%A9%20", "é "), ("%0A", "\n"), ("a%252Fb", "a%2Fb")]
    {
        assert_eq!(door.post(raw, "", b"x").status, 202, "{raw}");
        assert_eq!(door.log.payloads().last().unwrap().0, key);
    }
    assert_eq!(door.post("k?query=1", "", b"x").status, 202);
    assert_eq!(door.log.payloads().last().unwrap().0, "k");
}

#[test]
fn a_header_that_is_too_long_to_store_is_400() {
    let door = Setup::default().start();
    for name in ["Partita-Type", "Content-Type", "traceparent", "tracestate"] {
        let response = door.post("k", &format!("{name}: {}\r\n", "x".repeat(513)), b"x");
        assert_eq!((response.status, response.problem().as_str()), (400, "invalid_header"), "{name}");
    }
}

#[test]
fn a_path_that_is_no_route_is_404() {
    let door = Setup::default().start();
    for path in ["/", "/v1/taskx", "/v1/tasks/a/b", "/v2/tasks/k", "/v1/tasks/k/"] {
        let mut connection = door.connect();
        connection.send(format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"));
        let response = connection.response();
        assert_eq!((response.status, response.problem().as_str()), (404, "not_found"), "{path}");
    }
}

#[test]
fn another_method_is_405_and_names_the_one_allowed() {
    let door = Setup::default().start();
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let mut connection = door.connect();
        connection.send(format!("{method} /v1/tasks/k HTTP/1.1\r\nHost: x\r\n\r\n"));
        let response = connection.response();
        assert_eq!((response.status, response.problem().as_str()), (405, "method_not_allowed"), "{method}");
        assert_eq!(response.header("allow"), Some("POST"));
    }
}

#[test]
fn an_unknown_or_repeated_encoding_is_415_and_names_the_known_ones() {
    let door = Setup::default().start();
    for headers in [
        "Content-Encoding: br\r\n",
        "Content-Encoding: gzip, zstd\r\n",
        "Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n",
    ] {
        let response = door.post("k", headers, b"x");
        assert_eq!((response.status, response.problem().as_str()), (415, "unsupported_encoding"));
        assert_eq!(response.header("accept-encoding"), Some("identity, gzip, zstd"));
    }
}

#[test]
fn what_the_log_did_not_write_is_503_with_its_reason_or_413() {
    let door = Setup::default().start();
    for (code, status, problem) in [
        (NotWritten::Away, 503, "log_away"),
        (NotWritten::Full, 503, "log_full"),
        (NotWritten::Busy, 503, "log_busy"),
        (NotWritten::Closing, 503, "draining"),
        (NotWritten::TooLarge, 413, "too_large"),
    ] {
        door.log.script(Script::NotWritten(code));
        let response = door.post("k", "", b"x");
        assert_eq!((response.status, response.problem().as_str()), (status, problem));
    }
}

#[test]
fn an_outcome_that_is_not_known_is_504() {
    let door = Setup::default().start();
    door.log.script(Script::Unknown);
    let response = door.post("k", "", b"x");
    assert_eq!((response.status, response.problem().as_str()), (504, "unknown_outcome"));
}

#[test]
fn what_admission_refuses_never_reaches_the_log() {
    let door = Setup::default().start();
    for (health, problem) in [
        (LogHealth::Away("broker 1 is down".into()), "log_away"),
        (LogHealth::Full("broker 1 is down".into()), "log_full"),
        (LogHealth::Mismatch("broker 1 is down".into()), "log_mismatch"),
    ] {
        door.log.set_health(health);
        let response = door.post("k", "", b"x");
        assert_eq!((response.status, response.problem().as_str()), (503, problem));
        assert_eq!(response.json()["detail"], "broker 1 is down");
    }
    door.log.set_health(LogHealth::Ready);
    door.set_partitions(PartitionHealth::Stuck);
    let response = door.post("k", "", b"x");
    assert_eq!((response.status, response.problem().as_str()), (503, "partition_stuck"));
    door.set_partitions(PartitionHealth::Open);
    assert!(door.log.payloads().is_empty());
    assert_eq!(door.post("k", "", b"x").status, 202);
}

#[test]
fn a_refused_small_task_leaves_its_connection_usable() {
    let door = Setup::default().start();
    door.set_partitions(PartitionHealth::Stuck);
    let mut connection = door.connect();
    for _ in 0..3 {
        connection.send_post("k", "", &[b'x'; 5000]);
        assert_eq!(connection.response().status, 503);
    }
    door.set_partitions(PartitionHealth::Open);
    connection.send_post("k", "", b"x");
    assert_eq!(connection.response().status, 202);
}

#[test]
fn routes_beside_the_front_doors_own_are_served_by_the_same_listener() {
    let routes: Routes = Arc::new(|services| {
        services.route("/v1/recordings", web::get().to(async || HttpResponse::Ok().body("[]")));
    });
    let door = Setup { routes: vec![routes], ..Setup::default() }.start();
    let mut connection = door.connect();
    connection.send("GET /v1/recordings HTTP/1.1\r\nHost: x\r\n\r\n");
    let response = connection.response();
    assert_eq!((response.status, &response.body[..]), (200, &b"[]"[..]));
}

#[test]
fn a_partition_that_is_too_far_behind_is_503_with_the_time_that_it_may_take() {
    let door = Setup::default().start();
    let seconds = std::time::Duration::from_secs;
    door.set_partitions(PartitionHealth::Behind(Behind {
        tasks: 5001,
        age: seconds(90),
        retry_after: seconds(17),
    }));
    let response = door.post("k", "", b"x");
    assert_eq!((response.status, response.problem().as_str()), (503, "partition_behind"));
    assert_eq!(response.header("retry-after"), Some("17"));
    let detail = response.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("5001 tasks") && detail.contains("90 s"), "{detail}");
    door.set_partitions(PartitionHealth::Open);
    assert_eq!(door.post("k", "", b"x").status, 202);
}
