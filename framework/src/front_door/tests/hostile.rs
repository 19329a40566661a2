//! Senders that are slow, smuggle or flood: each gets an answer or is hung up on, and those beside it do not notice.

use super::support::{Connection, Running, Script, Setup, await_that};
use crate::config::FrontDoorConfig;
use bytesize::ByteSize;
use std::{
    io::Write,
    time::{Duration, Instant},
};

fn is_well(door: &Running) {
    let began = Instant::now();
    assert_eq!(door.post("neighbour", "", b"x").status, 202);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn a_body_that_trickles_is_408_once_it_has_been_waited_for_too_long() {
    let config = FrontDoorConfig {
        body_timeout: Duration::from_millis(600),
        min_body_rate: ByteSize::b(1000),
        ..Setup::default().config
    };
    let door = Setup { config, keep: false, ..Setup::default() }.start();
    let mut slow = door.connect();
    slow.send("POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
    let began = Instant::now();
    let mut response = None;
    // Never silent for long.
    for _ in 0..40 {
        if slow.try_send(b"x").is_err() || slow.has_answer(Duration::from_millis(50)) {
            response = Some(slow.response());
            break;
        }
    }
    let response = response.unwrap();
    assert_eq!((response.status, response.problem().as_str()), (408, "body_timeout"));
    let detail = response.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("min_body_rate"), "{detail}");
    assert!(began.elapsed() < Duration::from_millis(1600), "{:?}", began.elapsed());
    is_well(&door);
    door.await_idle_pool();
}

#[test]
fn lines_may_trickle() {
    let config = FrontDoorConfig { body_timeout: Duration::from_millis(400), ..Setup::default().config };
    let door = Setup { config, ..Setup::default() }.start();
    let mut slow = door.connect();
    slow.send("POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n");
    let line = b"{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\",\"subject\":\"k\",\"data\":1}\n";
    for byte in line {
        slow.send(format!("1\r\n{}\r\n", *byte as char));
        std::thread::sleep(Duration::from_millis(15));
    }
    slow.send("0\r\n\r\n");
    assert_eq!(slow.response().json()["accepted"], 1);
}

/// The first head of a connection, and one that comes after a request, or with it.
#[test]
fn a_head_that_trickles_is_hung_up_on() {
    let door = Setup::default().start();
    let mut slow: Vec<Connection> = (0..60).map(|_| door.connect()).collect();
    for (number, connection) in slow.iter_mut().enumerate().filter(|(number, _)| number % 3 > 0) {
        let next = if number % 3 == 1 { "" } else { "POST /v1/tasks/k HTTP/1.1\r\nX: " };
        connection.send(format!("POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx{next}"));
        assert_eq!(connection.response().status, 202);
    }
    let began = Instant::now();
    let mut open = slow.len();
    while open > 0 && began.elapsed() < Duration::from_secs(20) {
        slow.retain_mut(|connection| connection.try_send(b"G").is_ok() && !connection.is_over());
        open = slow.len();
        is_well(&door);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(open, 0, "within the time for a head, which is 10 s");
    // Who stops and listens hears why; who never began is closed without a word.
    let (mut halted, mut silent) = (door.connect(), door.connect());
    halted.send("POST /v1/tasks/k HTTP/1.1\r\nHos");
    let response = halted.response();
    assert_eq!((response.status, response.problem().as_str()), (408, "head_timeout"));
    assert!(halted.is_over());
    assert_eq!(silent.status_or_end(), None);
    assert!(began.elapsed() > Duration::from_secs(5));
}

#[test]
fn long_heads_are_within_the_budget() {
    let door = Setup { pool: 1 << 20, ..Setup::default() }.start();
    let mut long: Vec<Connection> = (0..20).map(|_| door.connect()).collect();
    for connection in &mut long {
        connection.send_post("k", "", b"x");
        assert_eq!(connection.response().status, 202);
        let _ = connection.try_send(
            format!("POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(60_000)).as_bytes(),
        );
    }
    await_that("the memory of heads", || {
        is_well(&door);
        long.iter_mut().map(Connection::is_over).filter(|is_over| *is_over).count() > 10
    });
    let mut served = 0;
    for mut connection in long {
        if connection.try_send(b"\r\nContent-Length: 1\r\n\r\nx").is_ok()
            && let Some(status) = connection.status_or_end()
        {
            assert_eq!(status, 202);
            served += 1;
        }
    }
    assert!((5..10).contains(&served), "{served}");
    assert!(door.pool.reserved() <= 1 << 20);
}

/// Requests that are sent before the one in front of them is answered: each is answered, in order, and none holds memory before that. What
/// they take otherwise is looked at in the system tests.
#[test]
fn requests_behind_one_that_waits_are_answered_in_order() {
    const BEHIND: usize = 20_000;
    let door = Setup { keep: false, ..Setup::default() }.start();
    door.log.script(Script::Wait);
    let mut connection = door.connect();
    let mut writer = connection.writer();
    let sender = std::thread::spawn(move || {
        writer.write_all(b"POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx").unwrap();
        writer.write_all("GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(BEHIND).as_bytes()).unwrap();
    });
    door.log.await_appends(1);
    std::thread::sleep(Duration::from_millis(300));
    assert!(door.pool.reserved() < 64 << 10, "{}", door.pool.reserved());
    door.log.script(Script::Ok);
    assert_eq!(connection.response().status, 202);
    for _ in 0..BEHIND {
        assert_eq!(connection.response().status, 404);
    }
    sender.join().unwrap();
    door.await_idle_pool();
}

/// What two servers in a row could read differently is refused as a whole, and nothing of it is taken for a request.
#[test]
fn what_could_smuggle_a_request_is_refused() {
    let door = Setup::default().start();
    let smuggled = "POST /v1/tasks/smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx";
    let chunked = format!("0\r\n\r\n{smuggled}");
    for head in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", chunked.len()),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {}\r\n", chunked.len()),
        "Content-Length: 4\r\nContent-Length: 5\r\n".into(),
        "Content-Length: +4\r\n".into(),
        "Content-Length: 4, 4\r\n".into(),
        "Content-Length: -1\r\n".into(),
        "Transfer-Encoding: xchunked\r\n".into(),
        "Transfer-Encoding: chunked, identity\r\n".into(),
        "Transfer-Encoding : chunked\r\n".into(),
        "X: a\r\n Transfer-Encoding: chunked\r\n".into(),
    ] {
        let mut connection = door.connect();
        connection.send(format!("POST /v1/tasks/first HTTP/1.1\r\nHost: x\r\n{head}\r\n{chunked}"));
        if let Some(status) = connection.status_or_end() {
            assert!((400..500).contains(&status), "{status}: {head}");
        }
        is_well(&door);
        let keys: Vec<_> = door.log.payloads().into_iter().map(|(key, _)| key).collect();
        assert!(!keys.iter().any(|key| key == "smuggled"), "{head}");
    }
}

#[test]
fn a_flood_of_headers_is_refused() {
    let door = Setup::default().start();
    for flood in [
        (0..20_000).map(|number| format!("X-{number}: {number}\r\n")).collect::<String>(),
        format!("X: {}\r\n", "x".repeat(10 << 20)),
        format!("POST /v1/tasks/{} HTTP/1.1\r\n", "k".repeat(1 << 20)),
    ] {
        let mut connection = door.connect();
        connection.send("POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\n");
        // It may be hung up on before it has sent everything.
        let _ = connection.try_send(flood.as_bytes());
        let _ = connection.try_send(b"\r\n");
        if let Some(status) = connection.status_or_end() {
            assert!((400..500).contains(&status), "{status}");
        }
        is_well(&door);
    }
    assert!(door.log.payloads().iter().all(|(key, _)| key == "neighbour"));
}

/// Each of them is memory, also without a body.
#[test]
fn more_requests_than_there_is_memory_for_are_503_and_end_with_it() {
    let door = Setup { pool: 256 << 10, keep: false, ..Setup::default() }.start();
    let mut slow: Vec<Connection> = (0..100).map(|_| door.connect()).collect();
    let head = "POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n";
    slow.iter_mut().for_each(|connection| connection.send(head));
    await_that("a refusal", || {
        let response = door.post("another", "", b"x");
        response.status == 503 && response.problem() == "out_of_memory_budget"
    });
    let mut accepted = 0;
    for connection in &mut slow {
        connection.send("x");
        match connection.response().status {
            202 => accepted += 1,
            status => assert_eq!(status, 503),
        }
    }
    assert!(accepted > 20, "{accepted} were accepted");
    door.await_idle_pool();
    is_well(&door);
}

#[test]
fn who_takes_no_answers_is_hung_up_on() {
    let config = FrontDoorConfig { body_timeout: Duration::from_millis(400), ..Setup::default().config };
    let door = Setup { config, ..Setup::default() }.start();
    let mut deaf = door.connect();
    deaf.set_write_timeout(Duration::from_secs(20));
    let began = Instant::now();
    let asks = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    while deaf.try_send(asks.as_bytes()).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    is_well(&door);
}

#[test]
fn more_connections_than_allowed_wait_and_are_served_when_others_end() {
    let config = FrontDoorConfig { max_connections: 8, threads: Some(2), ..Setup::default().config };
    let door = Setup { config, ..Setup::default() }.start();
    let idle: Vec<_> = (0..40).map(|_| door.connect()).collect();
    std::thread::sleep(Duration::from_millis(200));
    let mut waiting = door.connect();
    waiting.send_post("k", "", b"x");
    assert!(!waiting.has_answer(Duration::from_millis(500)));
    drop(idle);
    await_that("an answer", || door.log.payloads().len() == 1);
    assert_eq!(waiting.response().status, 202);
}
