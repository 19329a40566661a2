//! An early refusal reaches a sender who is still sending.

use partita_core::PartitionHealth;

use super::support::{Connection, Response, Setup};
use std::time::{Duration, Instant};

/// Sends up to `size` bytes of a body, and reads the answer only then, as a naive sender does.
fn send_all_then_read(connection: &mut Connection, size: usize) -> Response {
    let piece = vec![0; 1 << 20];
    for _ in 0..size.div_ceil(piece.len()) {
        connection.try_send(&piece).expect("the refusing side takes what is sent");
    }
    connection.response()
}

#[test]
fn a_sender_of_100_mb_and_one_byte_reads_its_413() {
    let door = Setup { max_task: 100_000_000, pool: 101 << 20, ..Setup::default() }.start();
    let mut connection = door.connect();
    connection.send("POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nContent-Length: 100000001\r\n\r\n");
    let response = send_all_then_read(&mut connection, 100_000_001);
    assert_eq!((response.status, response.problem().as_str()), (413, "too_large"));
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(door.pool.reserved(), 0);
}

#[test]
fn a_sender_of_too_many_chunks_reads_its_413() {
    let door = Setup::default().start();
    let mut connection = door.connect();
    connection.send_chunked_head("k", "");
    let chunk = vec![0; 1 << 20];
    for _ in 0..50 {
        connection.send_chunk(&chunk);
    }
    let response = connection.response();
    assert_eq!((response.status, response.problem().as_str()), (413, "too_large"));
    assert_eq!(response.header("connection"), Some("close"));
}

#[test]
fn a_refused_sender_reads_why_whatever_the_reason() {
    let door = Setup { max_task: 64 << 20, pool: 65 << 20, ..Setup::default() }.start();
    for (path, headers, stuck, status) in [
        ("k", "Content-Encoding: br\r\n", false, 415),
        ("%FF", "", false, 400),
        ("a/b", "", false, 404),
        ("k", "", true, 503),
    ] {
        door.set_partitions(if stuck { PartitionHealth::Stuck } else { PartitionHealth::Open });
        let mut connection = door.connect();
        connection.send(format!(
            "POST /v1/tasks/{path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: 20971520\r\n\r\n"
        ));
        let response = send_all_then_read(&mut connection, 20 << 20);
        assert_eq!(response.status, status);
        response.problem();
        assert!(connection.is_closed());
    }
}

#[test]
fn a_refused_sender_who_never_stops_is_cut_off() {
    let door = Setup::default().start();
    let mut connection = door.connect();
    connection.send_chunked_head("k", "");
    let began = Instant::now();
    let endless = format!("{:x}\r\n{}\r\n", 1 << 16, "x".repeat(1 << 16));
    while connection.try_send(endless.as_bytes()).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(15), "the connection is still open");
    }
}

#[test]
fn a_sender_who_asks_first_is_refused_without_sending() {
    let door = Setup::default().start();
    let mut connection = door.connect();
    connection.send(
        "POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100000001\r\n\r\n",
    );
    let response = connection.response();
    assert_eq!((response.status, response.problem().as_str()), (413, "too_large"));
    door.set_partitions(PartitionHealth::Stuck);
    let mut connection = door.connect();
    connection
        .send("POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(connection.response().problem(), "partition_stuck");
}

#[test]
fn a_sender_who_asks_first_is_told_to_go_on() {
    let door = Setup::default().start();
    let mut connection = door.connect();
    connection
        .send("POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(connection.response().status, 100);
    connection.send("body");
    assert_eq!(connection.response().status, 202);
    assert_eq!(door.log.only().1, "body");
}
