//! Who may enter, to do what, and how often.

use super::support::{Response, Running, Setup, await_that};
use crate::{
    Error,
    config::FrontDoorConfig,
    front_door::{FrontDoor, Routes, may_read},
};
use actix_web::{HttpRequest, HttpResponse, web};
use sha2::{Digest, Sha256};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

fn entry(name: &str, token: &str, more: &str) -> String {
    let hash: String = Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[[token]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{more}\n")
}

struct Guarded {
    door: Running,
    file: tempfile::NamedTempFile,
}

fn guarded(tokens: &[String]) -> Guarded {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), tokens.concat()).unwrap();
    let config = FrontDoorConfig {
        token: Some("the one".into()),
        tokens_file: Some(file.path().to_owned()),
        ..Setup::default().config
    };
    let routes: Routes = Arc::new(|services| {
        let show = async |request: HttpRequest, key: web::Path<String>| match may_read(
            &request,
            Some(key.as_bytes()),
        ) {
            Ok(()) => HttpResponse::Ok().body("shown"),
            Err(problem) => problem.respond(&request),
        };
        services.route("/shown/{key}", web::get().to(show));
    });
    Guarded { door: Setup { config, routes: vec![routes], ..Setup::default() }.start(), file }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn send(door: &Running, method: &str, path: &str, headers: &str, body: &str) -> Response {
    let mut connection = door.connect();
    connection.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    ));
    connection.response()
}

fn is(response: &Response, status: u16, code: &str) {
    assert_eq!((response.status, response.problem().as_str()), (status, code));
}

/// The event of this key.
fn event(key: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"{key}","source":"/s","type":"t","subject":"{key}","data":1}}"#)
}

#[test]
fn without_a_token_that_is_known_nobody_enters() {
    let guarded = guarded(&[entry("shop", "abc", "")]);
    for headers in [
        "",
        "Authorization: Basic YWJj\r\n",
        "Authorization: Bearer\r\n",
        &bearer("abd"),
        &format!("{0}{0}", bearer("abc")),
    ] {
        for (method, path) in
            [("POST", "/v1/tasks/k"), ("POST", "/v1/tasks"), ("GET", "/v1/tasks/0-0"), ("GET", "/shown/k")]
        {
            let response = send(&guarded.door, method, path, headers, "");
            is(&response, 401, "unauthorized");
            assert_eq!(response.header("www-authenticate"), Some("Bearer realm=\"partita\""));
        }
    }
    assert!(guarded.door.log.payloads().is_empty());
    for headers in [bearer("abc"), bearer("the one"), "authorization: bEARER abc\r\n".into()] {
        assert_eq!(guarded.door.post("k", &headers, b"x").status, 202, "{headers}");
    }
}

#[test]
fn who_asks_before_sending_is_told_before_sending() {
    let guarded = guarded(&[]);
    let mut connection = guarded.door.connect();
    connection.send(
        "POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n",
    );
    is(&connection.response(), 401, "unauthorized");
}

#[test]
fn a_token_does_what_its_verbs_and_keys_say() {
    let guarded = guarded(&[
        entry("writer", "w", "keys = [\"orders/\", \"carts/\"]"),
        entry("reader", "r", "verbs = [\"read\"]\nkeys = [\"orders/\"]"),
        entry("auditor", "a", "verbs = [\"read\"]"),
    ]);
    let door = &guarded.door;
    let [writer, reader, auditor] = ["w", "r", "a"].map(bearer);
    assert_eq!(door.post("orders%2F1", &writer, b"x").status, 202);
    is(&door.post("other", &writer, b"x"), 403, "forbidden");
    is(&door.post("orders%2F1", &reader, b"x"), 403, "forbidden");
    assert_eq!(send(door, "GET", "/shown/orders%2F1", &reader, "").status, 200);
    is(&send(door, "GET", "/shown/other", &reader, ""), 403, "forbidden");
    is(&send(door, "GET", "/shown/orders%2F1", &writer, ""), 403, "forbidden");
    assert_eq!(send(door, "GET", "/shown/other", &auditor, "").status, 200);
    is(&send(door, "GET", "/v1/tasks/0-0", &reader, ""), 403, "forbidden");
    is(&send(door, "GET", "/v1/tasks/0-0", &auditor, ""), 404, "not_found");
    let lines = format!("{}\n{}\n{}\n", event("orders/1"), event("other"), event("carts/2"));
    let answer =
        send(door, "POST", "/v1/tasks", &format!("{writer}Content-Type: application/x-ndjson\r\n"), &lines);
    let results: Vec<_> =
        answer.json()["results"].as_array().unwrap().iter().map(|one| one["code"].clone()).collect();
    assert_eq!(results, [().into(), "forbidden".into(), serde_json::Value::Null]);
    let structured = format!("{writer}Content-Type: application/cloudevents+json\r\n");
    is(&send(door, "POST", "/v1/tasks", &structured, &event("other")), 403, "forbidden");
}

#[test]
fn tokens_come_and_go_without_a_restart_and_a_broken_file_changes_nothing() {
    let guarded = guarded(&[entry("old", "old", "")]);
    let status = |token: &str| guarded.door.post("k", &bearer(token), b"x").status;
    assert_eq!((status("old"), status("new")), (202, 401));
    std::fs::write(guarded.file.path(), "[[token]]\nname = ").unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!((status("old"), status("new")), (202, 401));
    std::fs::write(guarded.file.path(), entry("new", "new", "")).unwrap();
    await_that("the new token", || status("new") == 202);
    assert_eq!(status("old"), 401);
}

#[test]
fn a_file_of_tokens_that_cannot_be_read_is_an_error_with_its_name() {
    let config =
        FrontDoorConfig { tokens_file: Some("/nowhere/tokens.toml".into()), ..FrontDoorConfig::default() };
    let Err(Error::Config(error)) = FrontDoor::check(&config) else { panic!() };
    assert!(error.to_string().contains("/nowhere/tokens.toml"), "{error}");
}

#[test]
fn who_comes_too_often_is_429_and_told_when_to_come_again() {
    let guarded = guarded(&[entry("slow", "s", "tasks_per_second = 5"), entry("fast", "f", "")]);
    let post = |token: &str| guarded.door.post("k", &bearer(token), b"x");
    let first = post("s");
    assert_eq!(first.header("ratelimit-policy"), Some("\"tasks\";q=5;w=1"));
    assert_eq!(first.header("ratelimit"), Some("\"tasks\";r=4;t=1"));
    let refused = (0..50).map(|_| post("s")).find(|response| response.status != 202).unwrap();
    is(&refused, 429, "rate_limited");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(post("f").status, 202);
    assert_eq!(post("f").header("ratelimit"), None);
    await_that("its next task", || post("s").status == 202);
}

#[test]
fn bytes_are_charged_when_they_have_come_and_waited_for() {
    let guarded = guarded(&[entry("slow", "s", "bytes_per_second = 10000")]);
    let post = |size: usize| guarded.door.post("k", &bearer("s"), &vec![b'x'; size]);
    assert_eq!(post(45_000).status, 202, "a task may be larger than what is allowed in a second");
    let refused = post(1);
    is(&refused, 429, "rate_limited");
    assert_eq!(refused.header("retry-after"), Some("4"));
}

#[test]
fn lines_are_slowed_down_to_their_senders_rate() {
    let guarded = guarded(&[entry("slow", "s", "tasks_per_second = 20")]);
    let event = |id: usize| event(&format!("k{id}")) + "\n";
    let began = Instant::now();
    let headers = format!("{}Content-Type: application/x-ndjson\r\n", bearer("s"));
    let answer = send(&guarded.door, "POST", "/v1/tasks", &headers, &(0..50).map(event).collect::<String>());
    assert_eq!(answer.json()["accepted"], 50);
    assert!((1.4..4.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
}

#[test]
fn a_page_of_an_origin_that_is_allowed_may_ask_and_hear_and_no_other() {
    let config = FrontDoorConfig {
        cors_origins: "https://app.example.com, http://localhost:3000".into(),
        token: Some("the one".into()),
        ..Setup::default().config
    };
    let door = Setup { config, ..Setup::default() }.start();
    let preflight = |origin: &str| {
        let headers = format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization, content-type, idempotency-key\r\n"
        );
        send(&door, "OPTIONS", "/v1/tasks/k", &headers, "")
    };
    for origin in ["https://app.example.com", "http://localhost:3000"] {
        let answer = preflight(origin);
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(origin)));
        let allowed = answer.header("access-control-allow-headers").unwrap().to_lowercase();
        assert!(
            ["authorization", "content-type", "idempotency-key"].iter().all(|name| allowed.contains(name)),
            "{allowed}"
        );
        assert!(answer.header("access-control-allow-methods").unwrap().contains("POST"));
        // Also a refusal is heard.
        let refused = door.post("k", &format!("Origin: {origin}\r\n"), b"x");
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, Some(origin)));
        let taken = door.post("k", &format!("Origin: {origin}\r\n{}", bearer("the one")), b"x");
        assert_eq!((taken.status, taken.header("access-control-allow-origin")), (202, Some(origin)));
        assert!(
            taken.header("access-control-expose-headers").unwrap().to_lowercase().contains("retry-after")
        );
    }
    let evil = preflight("https://evil.example.com");
    assert_eq!(evil.header("access-control-allow-origin"), None);
    is(&evil, 403, "forbidden");
    let plain = Setup::default().start();
    assert_eq!(
        send(
            &plain,
            "OPTIONS",
            "/v1/tasks/k",
            "Origin: https://app.example.com\r\nAccess-Control-Request-Method: POST\r\n",
            ""
        )
        .status,
        405
    );
}

#[test]
fn who_begins_many_at_once_has_no_more_than_his_rate() {
    let guarded = guarded(&[entry("slow", "s", "tasks_per_second = 5")]);
    let mut begun: Vec<_> = (0..40).map(|_| guarded.door.connect()).collect();
    for connection in &mut begun {
        connection.send(format!(
            "POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n{}\r\na",
            bearer("s")
        ));
    }
    std::thread::sleep(Duration::from_millis(200));
    begun.iter_mut().for_each(|connection| _ = connection.try_send(b"b"));
    let taken = begun
        .iter_mut()
        .filter_map(|connection| connection.status_or_end())
        .filter(|status| *status == 202)
        .count();
    assert!((5..=12).contains(&taken), "{taken}");
}

#[test]
fn what_is_refused_costs_what_came() {
    let guarded = guarded(&[entry("slow", "s", "bytes_per_second = 10000")]);
    let refused =
        guarded.door.post("k", &format!("{}Content-Encoding: gzip\r\n", bearer("s")), &vec![b'x'; 50_000]);
    is(&refused, 400, "invalid_encoding");
    let next = guarded.door.post("k", &bearer("s"), b"x");
    is(&next, 429, "rate_limited");
    assert!(next.header("ratelimit").unwrap().contains("r=0"), "{next:?}");
}

#[test]
fn a_batch_beyond_its_senders_rate_is_told_to_come_again_and_holds_nothing() {
    let guarded = guarded(&[entry("slow", "s", "tasks_per_second = 5")]);
    let event = |id: usize| event(&format!("k{id}"));
    let headers = format!("{}Content-Type: application/cloudevents-batch+json\r\n", bearer("s"));
    let body = format!("[{}]", (0..30).map(event).collect::<Vec<_>>().join(","));
    let began = Instant::now();
    let answer = send(&guarded.door, "POST", "/v1/tasks", &headers, &body).json();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!((answer["accepted"].as_u64(), answer["retry"].as_u64()), (Some(5), Some(25)));
    assert_eq!(answer["results"][29]["code"], "rate_limited");
}

#[test]
fn a_token_that_is_taken_away_ends_the_lines_it_began() {
    let guarded = guarded(&[entry("old", "old", "")]);
    let line = |id: usize| {
        let line = format!(
            "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/s\",\"type\":\"t\",\"subject\":\"k\",\"data\":1}}\n"
        );
        format!("{:x}\r\n{line}\r\n", line.len())
    };
    let mut lines = guarded.door.connect();
    lines.send(format!("POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n{}\r\n", bearer("old")));
    lines.send(line(1));
    await_that("the first", || guarded.door.log.payloads().len() == 1);
    std::fs::write(guarded.file.path(), entry("new", "new", "")).unwrap();
    await_that("the new token", || guarded.door.post("other", &bearer("new"), b"x").status == 202);
    lines.send(line(2));
    lines.send("0\r\n\r\n");
    let answer = lines.response().json();
    assert_eq!(answer["results"][1]["code"], "unauthorized", "{answer}");
    assert_eq!((answer["accepted"].as_u64(), answer["retry"].as_u64()), (Some(1), Some(1)));
}

/// Also where nobody else sends anything.
#[test]
fn a_token_that_is_taken_away_is_noticed_by_the_lines_it_began() {
    let guarded = guarded(&[entry("old", "old", "")]);
    let mut lines = guarded.door.connect();
    lines.send(format!("POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nAccept: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n{}\r\n", bearer("old")));
    std::fs::write(guarded.file.path(), "").unwrap();
    let (mut answer, began) = (Vec::new(), Instant::now());
    while !String::from_utf8_lossy(&answer).contains("unauthorized") {
        assert!(began.elapsed() < Duration::from_secs(20));
        let line = format!("{}\n", event("k"));
        lines.send(format!("{:x}\r\n{line}\r\n", line.len()));
        if answer.is_empty() {
            assert_eq!(lines.head().status, 202);
        }
        lines.chunk(&mut answer).unwrap();
    }
}

#[test]
fn who_hangs_up_in_the_middle_pays_for_what_came() {
    let guarded = guarded(&[entry("slow", "s", "bytes_per_second = 10000")]);
    let mut connection = guarded.door.connect();
    let head = "POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\nExpect: 100-continue\r\n";
    connection.send(format!("{head}{}\r\n", bearer("s")));
    connection.send(vec![b'x'; 50_000]);
    std::thread::sleep(Duration::from_millis(300));
    // With something unread, which is the interim answer, a connection is reset.
    drop(connection);
    guarded.door.await_idle_pool();
    is(&guarded.door.post("k", &bearer("s"), b"x"), 429, "rate_limited");
}

#[test]
fn what_is_refused_of_a_batch_costs_what_came() {
    let guarded = guarded(&[entry("slow", "s", "bytes_per_second = 10000")]);
    let headers = format!("{}Content-Type: application/cloudevents-batch+json\r\n", bearer("s"));
    let nonsense = format!("[\"{}\"]", "x".repeat(50_000));
    let refused = send(&guarded.door, "POST", "/v1/tasks", &headers, &nonsense).json();
    assert_eq!(refused["rejected"], 1, "{refused}");
    is(&guarded.door.post("k", &bearer("s"), b"x"), 429, "rate_limited");
}
