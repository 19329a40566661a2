//! Drain and stop: what was begun gets its answer.

use super::support::{Script, Setup, await_that};
use crate::Error;
use actix_web::{App, HttpServer, web};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

const LONG: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_drain_refuses_new_requests_and_waits_for_those_begun() {
    let door = Setup::default().start();
    let mut half = door.connect();
    half.send("POST /v1/tasks/half HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo");
    await_that("the reservation", || door.pool.reserved() > 0);
    door.log.script(Script::Wait);
    let mut appended = door.connect();
    appended.send_post("appended", "", b"body");
    door.log.await_appends(1);

    let handle = door.handle.clone();
    let drained = door.spawn(async move { handle.drain(LONG).await });
    // Not by a task: one that came before would wait for the log.
    let asked = || {
        let mut connection = door.connect();
        connection.send("GET /v1/tasks/0-0 HTTP/1.1\r\nHost: x\r\n\r\n");
        connection.response()
    };
    await_that("the drain", || asked().header("connection") == Some("close"));
    let response = door.post("new", "", b"x");
    assert_eq!((response.status, response.problem().as_str()), (503, "draining"));
    assert_eq!(response.header("connection"), Some("close"));

    door.log.script(Script::Ok);
    half.send("dy");
    let response = half.response();
    assert_eq!((response.status, response.header("connection")), (202, Some("close")));
    assert_eq!(appended.response().status, 202);
    drained.recv_timeout(PATIENCE).unwrap();
    assert_eq!(door.log.payloads().len(), 2);
}

#[test]
fn a_body_that_is_not_whole_when_the_grace_ends_gets_503() {
    let door = Setup::default().start();
    let mut half = door.connect();
    half.send("POST /v1/tasks/half HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo");
    await_that("the reservation", || door.pool.reserved() > 0);
    let handle = door.handle.clone();
    let drained = door.spawn(async move { handle.drain(Duration::from_millis(50)).await });
    let response = half.response();
    assert_eq!((response.status, response.problem().as_str()), (503, "draining"));
    drained.recv_timeout(PATIENCE).unwrap();
    assert!(door.log.payloads().is_empty());
}

#[test]
fn a_stop_closes_idle_connections_and_the_listener() {
    let door = Setup::default().start();
    let mut idle = door.connect();
    idle.send_post("k", "", b"x");
    assert_eq!(idle.response().status, 202);
    let (handle, address) = (door.handle.clone(), door.handle.address());
    let stopped = door.spawn(async move {
        handle.drain(LONG).await;
        handle.stop().await;
    });
    stopped.recv_timeout(PATIENCE).unwrap();
    assert!(idle.is_closed());
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn a_sender_who_hangs_up_after_its_body_loses_the_answer_and_not_the_task() {
    let door = Setup::default().start();
    door.log.script(Script::Wait);
    let mut connection = door.connect();
    connection.send_post("k", "", b"body");
    door.log.await_appends(1);
    drop(connection);
    door.log.script(Script::Ok);
    assert_eq!(door.post("k", "", b"next").status, 202);
    let payloads = door.log.payloads();
    assert_eq!(payloads.iter().map(|(_, payload)| &payload[..]).collect::<Vec<_>>(), [b"body", b"next"]);
}

#[test]
fn the_routes_can_be_mounted_in_another_services_app() {
    let door = Setup::default().start();
    let configure = door.front_door.configure();
    let (bound, binding) = std::sync::mpsc::channel();
    let service = std::thread::spawn(move || {
        actix_rt::System::new().block_on(async move {
            let app = move || App::new().service(web::scope("/in").configure(&configure));
            let server = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
            let address = server.addrs()[0];
            let server = server.run();
            bound.send((address, server.handle())).unwrap();
            server.await.unwrap();
        });
    });
    let (address, handle) = binding.recv().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let request =
        "POST /in/v1/tasks/a%2Fb HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    let payloads = door.log.payloads();
    assert_eq!((payloads.len(), &payloads[0].0[..], &payloads[0].1[..]), (1, &b"a/b"[..], &b"body"[..]));
    door.spawn(async move { handle.stop(true).await }).recv_timeout(PATIENCE).unwrap();
    service.join().unwrap();
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let door = Setup::default().start();
    let address = door.handle.address();
    let mut options = door.options.clone();
    options.config.listen = address;
    let started = actix_rt::System::new().block_on(async move {
        crate::front_door::FrontDoor::new(options).and_then(crate::front_door::FrontDoor::start).map(|_| ())
    });
    assert!(matches!(started, Err(Error::Listen { address: named, .. }) if named == address));
}
