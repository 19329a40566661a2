//! What each answer of a receiver means.

use super::{PushConfig, Target, answer};
use partita::TaskError;
use std::{
    io::{Read, Write},
    net::TcpListener,
    time::Duration,
};

/// A receiver that gives each request the next of these answers, and hangs up.
fn receiver(answers: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

fn status(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

async fn judged(answer: String) -> Result<(), TaskError> {
    let url = receiver(vec![answer]);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let target = Target::new(&PushConfig { url: Some(url), ..PushConfig::default() }).unwrap();
    let response = target.client.post(target.url.clone()).body("x").send().await.unwrap();
    answer::judge(response, &target).await
}

#[actix_rt::test]
async fn every_status_means_one_thing() {
    for good in ["200 OK", "202 Accepted", "204 No Content"] {
        assert!(judged(status(good, "", "")).await.is_ok(), "{good}");
    }
    for refused in ["409 Conflict", "410 Gone", "422 Unprocessable"] {
        let answer = judged(status(refused, "", "no such\norder")).await;
        assert!(
            matches!(&answer, Err(TaskError::Reject(why)) if why.contains("no such order")),
            "{answer:?}"
        );
    }
    for failed in ["400 Bad", "401 No", "404 Not", "500 Broken", "302 Found"] {
        let answer = judged(status(failed, "Location: http://127.0.0.1:1/\r\n", &"long".repeat(1000))).await;
        let short = |why: &str| why.len() < 400 && why.contains("longlong");
        assert!(
            matches!(&answer, Err(TaskError::Retry(why)) if short(&why.to_string())),
            "{failed}: {answer:?}"
        );
    }
}

#[actix_rt::test]
async fn whoever_asks_for_time_gets_it() {
    let in_a_minute = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(60));
    for (header, at_least, at_most) in [
        ("Retry-After: 7\r\n".to_owned(), Some(7), Some(7)),
        (format!("Retry-After: {in_a_minute}\r\n"), Some(58), Some(60)),
        ("Retry-After: soon\r\n".to_owned(), None, None),
        (String::new(), None, None),
    ] {
        for busy in ["429 Slow", "503 Busy"] {
            match judged(status(busy, &header, "")).await {
                Err(TaskError::Unavailable { dependency, retry_after }) => {
                    assert!(dependency.contains("127.0.0.1"), "{dependency}");
                    let seconds = retry_after.map(|time| time.as_secs());
                    assert!(seconds >= at_least && seconds <= at_most, "{header}: {seconds:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
