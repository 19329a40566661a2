//! The client before a front door that answers as a script says.

mod door;

use crate::{Client, Error, Receipt, Task};
use door::{Asked, Door, Step};
use std::time::{Duration, Instant};

/// A proxy's way of saying when to come again: no reason to wait for it.
const DATE: &str = "Retry-After: Wed, 21 Oct 2099 07:28:00 GMT";

fn receipt() -> Receipt {
    Receipt { id: "3-7".into(), topic: "t".into(), partition: 3, offset: 7, repeated: false }
}

fn stored(header: &'static str) -> Step {
    Step::Answer(202, header, r#"{"id":"3-7","topic":"t","partition":3,"offset":7}"#.into())
}

fn state(rest: &str) -> Step {
    Step::Answer(200, "", format!(r#"{{"id":"3-7","topic":"t","partition":3,"offset":7,{rest}}}"#))
}

fn impatient(door: &Door) -> Client {
    door.client().unwrap().patience(Duration::from_millis(1200))
}

/// How long each request came after the one before.
fn pauses(asked: &[Asked]) -> Vec<Duration> {
    asked.windows(2).map(|pair| pair[1].at - pair[0].at).collect()
}

#[tokio::test]
async fn a_task_is_sent_again_under_its_name_until_its_receipt_comes() {
    let door = Door::new(&[
        Step::status(503, "Retry-After: 1"),
        Step::status(503, DATE),
        Step::Cut,
        Step::status(504, ""),
        Step::status(409, "Retry-After: 1"),
        stored("Idempotent-Replayed: true"),
    ]);
    let task = Task {
        content_type: Some("application/json".into()),
        type_name: Some("click".into()),
        ..Task::new(r#"{"x":1}"#)
    };
    let client = door.client().unwrap().token("secret").unwrap();
    let told = client.send("session/1", task).await.unwrap();
    assert_eq!(told, Receipt { repeated: true, ..receipt() });

    let asked = door.asked();
    let name = &asked[0].headers["idempotency-key"];
    assert_eq!((asked.len(), name.len()), (6, 32));
    for one in &asked {
        assert_eq!((&*one.what, &*one.body), ("POST /v1/tasks/session%2F1", r#"{"x":1}"#));
        for (header, value) in [
            ("idempotency-key", &**name),
            ("content-type", "application/json"),
            ("partita-type", "click"),
            ("authorization", "Bearer secret"),
        ] {
            assert_eq!(one.headers[header], value);
        }
    }
    // What it was told to wait, else what it waits by itself: twice as long each time, less up to half.
    for (pause, least) in pauses(&asked).into_iter().zip([1000, 100, 200, 400, 1000]) {
        let least = Duration::from_millis(least);
        assert!(pause >= least && pause < least + Duration::from_secs(5), "{pause:?} {least:?}");
    }
}

#[tokio::test]
async fn a_name_that_is_given_is_the_one_that_is_sent() {
    let door = Door::new(&[Step::status(503, ""), stored("")]);
    let task = Task { idempotency_key: Some("order-12".into()), ..Task::new("x") };
    assert_eq!(door.client().unwrap().send("k", task).await.unwrap(), receipt());
    let names: Vec<_> = door.asked().iter().map(|one| one.headers["idempotency-key"].clone()).collect();
    assert_eq!(names, ["order-12", "order-12"]);
}

#[tokio::test]
async fn a_refusal_that_stays_one_ends_it_at_once() {
    for status in [400, 413, 422] {
        let problem = format!(r#"{{"status":{status},"code":"some_code","detail":"mend it","title":"t"}}"#);
        let door = Door::new(&[Step::Answer(status, "", problem), stored("")]);
        let Err(Error::Refused(problem)) = door.client().unwrap().send("k", Task::new("x")).await else {
            panic!("{status} was not a refusal");
        };
        assert_eq!((problem.status, &*problem.code, &*problem.detail), (status, "some_code", "mend it"));
        assert_eq!(door.asked().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn patience_ends_and_says_whether_it_may_be_stored() {
    let busy = || Step::status(503, "");
    for (script, unknown) in [
        (vec![Step::Silence], true),
        (vec![Step::status(409, "")], true),
        (vec![Step::status(502, "")], true),
        (vec![Step::Cut], true),
        (vec![Step::status(504, ""), Step::Silence], true),
        // Once it may have been stored, what comes later does not make that untrue.
        (vec![Step::status(504, ""), busy()], true),
        (vec![busy()], false),
        (vec![Step::status(503, "Retry-After: 18446744073709551615")], false),
    ] {
        let began = Instant::now();
        let error = impatient(&Door::new(&script)).send("k", Task::new("x")).await.unwrap_err();
        assert_eq!(matches!(error, Error::Unknown(_)), unknown, "{script:?}: {error}");
        assert_eq!(matches!(error, Error::GaveUp(_)), !unknown, "{script:?}: {error}");
        assert!(began.elapsed() < Duration::from_secs(5), "{script:?}: {:?}", began.elapsed());
    }
    let silent = impatient(&Door::new(&[Step::Silence]));
    assert!(matches!(silent.send_lines(&["{}".into()]).await, Err(Error::Unknown(_))));
    assert!(matches!(silent.state(&receipt()).await, Err(Error::NoAnswer(_))));
}

#[tokio::test]
async fn what_became_of_a_task_is_asked_until_it_is_told() {
    let door = Door::new(&[
        Step::status(503, "Retry-After: 1"),
        Step::Cut,
        state(r#""state":"running","since":null,"attempt":1"#),
        Step::status(504, ""),
        state(r#""state":"parked","cause":"rejected","reason":"no such order","attempts":1"#),
    ]);
    let client = door.client().unwrap();
    let running = client.state(&receipt()).await.unwrap();
    assert_eq!((&*running.state, running.reason), ("running", None));
    let parked = client.wait(&receipt(), Duration::from_secs(2)).await.unwrap();
    assert_eq!((&*parked.state, parked.reason.as_deref()), ("parked", Some("no such order")));

    let asked = door.asked();
    let what: Vec<_> = asked.iter().map(|one| &*one.what).collect();
    let (now, later) = ("GET /v1/tasks/3-7", "GET /v1/tasks/3-7?wait=done&timeout=2000ms");
    assert_eq!(what, [now, now, now, later, later]);
    assert!(pauses(&asked)[0] >= Duration::from_secs(1), "{:?}", pauses(&asked));
}

#[tokio::test]
async fn nothing_is_too_long_to_wait_for() {
    let door = Door::new(&[Step::status(404, "")]);
    let patient = door.client().unwrap().patience(Duration::MAX);
    assert!(matches!(patient.wait(&receipt(), Duration::MAX).await, Err(Error::Refused(_))));
}
