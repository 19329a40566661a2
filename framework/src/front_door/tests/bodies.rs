//! Bodies as they come: whole, chunked, in pieces, broken off, malformed, silent.

use super::support::{Connection, Setup};
use crate::config::FrontDoorConfig;
use std::time::{Duration, Instant};

fn post_chunked(connection: &mut Connection, chunks: &[&[u8]]) {
    connection.send_chunked_head("k", "");
    for chunk in chunks {
        connection.send_chunk(chunk);
    }
    connection.send("0\r\n\r\n");
}

/// Bytes that no compressor makes smaller.
pub(super) fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..size).map(|_| next()).collect()
}

#[test]
fn a_body_in_chunks_of_any_size_is_one_payload() {
    let door = Setup::default().start();
    let mut connection = door.connect();
    let large = noise(300_000);
    post_chunked(&mut connection, &[b"a", b"bc", &large, b"d"]);
    assert_eq!(connection.response().status, 202);
    post_chunked(&mut connection, &[]);
    assert_eq!(connection.response().status, 202);
    let payloads = door.log.payloads();
    assert_eq!(payloads[0].1, [b"abc", &large[..], b"d"].concat());
    assert!(payloads[1].1.is_empty());
}

#[test]
fn a_body_that_comes_byte_by_byte_is_one_payload() {
    let door = Setup::default().start();
    let mut connection = door.connect();
    for byte in b"POST /v1/tasks/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody" {
        connection.send([*byte]);
    }
    assert_eq!(connection.response().status, 202);
    assert_eq!(door.log.only().1, "body");
}

#[test]
fn a_task_of_the_largest_size_is_taken_and_one_byte_more_is_413() {
    let door = Setup::default().start();
    let largest = noise(1 << 20);
    assert_eq!(door.post("k", "", &largest).status, 202);
    let mut connection = door.connect();
    post_chunked(&mut connection, &[&largest]);
    assert_eq!(connection.response().status, 202);
    for (_, payload) in door.log.payloads() {
        assert!(payload == largest);
    }
    let response = door.post("k", "", &[&largest[..], b"x"].concat());
    assert_eq!((response.status, response.problem().as_str()), (413, "too_large"));
    let mut connection = door.connect();
    post_chunked(&mut connection, &[&largest, b"x"]);
    let response = connection.response();
    assert_eq!((response.status, response.problem().as_str()), (413, "too_large"));
    assert_eq!(door.log.payloads().len(), 2);
}

#[test]
fn a_body_that_breaks_off_is_no_task() {
    let door = Setup::default().start();
    for chunked in [false, true] {
        let mut connection = door.connect();
        if chunked {
            connection.send_chunked_head("k", "");
            connection.send_chunk(b"part");
        } else {
            connection.send("POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\npart");
        }
        connection.half_close();
        let response = connection.response();
        assert_eq!((response.status, response.problem().as_str()), (400, "incomplete_body"));
    }
    assert!(door.log.payloads().is_empty());
    door.await_idle_pool();
}

#[test]
fn a_malformed_chunk_is_400() {
    let door = Setup::default().start();
    let mut connection = door.connect();
    connection.send_chunked_head("k", "");
    connection.send("zz\r\nno chunk\r\n");
    assert_eq!(connection.response().status, 400);
    assert!(door.log.payloads().is_empty());
}

#[test]
fn a_request_with_two_lengths_is_refused_and_nothing_is_smuggled() {
    let door = Setup::default().start();
    let hidden = "POST /v1/tasks/hidden HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    for head in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip\r\n",
    ] {
        let mut connection = door.connect();
        connection.send(format!("POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\n{head}\r\n0\r\n\r\n{hidden}"));
        assert_eq!(connection.response().status, 400, "{head}");
        assert!(connection.try_response().is_err(), "{head}");
    }
    assert!(door.log.payloads().is_empty());
}

#[test]
fn a_body_that_stops_coming_is_408_and_one_that_keeps_coming_is_not() {
    let (body_timeout, min_body_rate) = (Duration::from_millis(300), bytesize::ByteSize::b(0));
    let config = FrontDoorConfig { body_timeout, min_body_rate, ..Setup::default().config };
    let door = Setup { config, ..Setup::default() }.start();
    let mut silent = door.connect();
    silent.send("POST /v1/tasks/silent HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx");
    let mut slow = door.connect();
    slow.send("POST /v1/tasks/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n");
    let began = Instant::now();
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(100));
        slow.send("x");
    }
    assert!(began.elapsed() > Duration::from_millis(600));
    assert_eq!(slow.response().status, 202);
    let response = silent.response();
    assert_eq!((response.status, response.problem().as_str()), (408, "body_timeout"));
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(door.log.only().1, "xxxxxxxx");
}

#[test]
fn pipelined_tasks_of_one_key_are_appended_in_their_order() {
    let door = Setup::default().start();
    let mut connection = door.connect();
    let mut requests = Vec::new();
    for number in 0..100 {
        let body = format!("{number}");
        requests.extend(
            format!("POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                .into_bytes(),
        );
    }
    connection.send(&requests);
    for number in 0..100 {
        let response = connection.response();
        assert_eq!((response.status, response.json()["offset"].as_u64()), (202, Some(number)));
    }
    let payloads = door.log.payloads();
    assert!(payloads.iter().enumerate().all(|(number, (_, payload))| *payload == format!("{number}")));
}

#[test]
fn bodies_reserve_what_they_need_and_give_it_back() {
    let door = Setup { keep: false, ..Setup::default() }.start();
    let mut connection = door.connect();
    connection.send("POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n");
    super::support::await_that("the reservation", || door.pool.reserved() > 0);
    assert!((508_192..509_500).contains(&door.pool.reserved()), "{}", door.pool.reserved());
    connection.send(noise(500_000));
    assert_eq!(connection.response().status, 202);
    door.await_idle_pool();
}

#[test]
fn an_exhausted_budget_is_503_at_once_and_small_tasks_go_on() {
    let door = Setup { pool: 4 << 20, keep: false, ..Setup::default() }.start();
    let large = "POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n";
    let mut held: Vec<_> = (0..3).map(|_| door.connect()).collect();
    for connection in &mut held {
        connection.send(large);
    }
    super::support::await_that("the reservations", || door.pool.reserved() > 3 << 20);
    let began = Instant::now();
    let mut refused = door.connect();
    refused.send(large);
    let response = refused.response();
    assert_eq!((response.status, response.problem().as_str()), (503, "out_of_memory_budget"));
    let mut chunked = door.connect();
    chunked.send_chunked_head("k", "");
    chunked.send_chunk(&noise(900_000));
    assert_eq!(chunked.response().problem(), "out_of_memory_budget");
    for _ in 0..20 {
        assert_eq!(door.post("small", "", &[b'x'; 10_000]).status, 202);
    }
    assert!(began.elapsed() < Duration::from_secs(2));
    for connection in &mut held {
        connection.send(vec![b'x'; 1 << 20]);
        assert_eq!(connection.response().status, 202);
    }
    door.await_idle_pool();
    assert_eq!(door.post("k", "", &vec![b'x'; 1 << 20]).status, 202);
}
