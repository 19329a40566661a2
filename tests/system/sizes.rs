//! Payloads of every size, byte for byte, and the limit.

use partita_tests::{
    client::{Answer, Problem},
    observe, payload, process,
    random::Random,
    scenario::{self, MAX_TASK},
    server::Setup,
};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn payloads_from_nothing_to_100_mb_come_back_byte_for_byte() {
    let server = Setup::embedded().start().await.unwrap();
    let sizes = [0, 1, 10_000, 1_000_000, 30_000_000, MAX_TASK];
    scenario::sizes_come_back(&server.client(), &sizes, &mut Random::from_env()).await.unwrap();
    server.is_sound().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_byte_above_the_limit_is_refused_before_it_is_buffered() {
    let server = Setup::embedded().start().await.unwrap();
    let client = server.client();
    client.accept("small", "first").await.unwrap();
    let before = process::peak_resident(server.pid()).unwrap();
    let declared = client.post("large", vec![7; MAX_TASK + 1]).await.unwrap();
    assert_eq!(declared.status, 413, "{}", declared.text());
    let problem: Problem = declared.json().unwrap();
    assert_eq!(problem.status, 413);
    assert_eq!(declared.header("content-type"), Some("application/problem+json"));
    let grown = process::peak_resident(server.pid()).unwrap() - before;
    assert!(grown < 16 << 20, "a declared length is refused unread, yet {grown} bytes became resident");

    // Without a Content-Length only counting can tell.
    let pieces = (0..=100).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![7; 1_000_000])));
    let streamed = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let chunked = client.post("large", streamed).await.unwrap();
    assert_eq!(chunked.status, 413, "{}", chunked.text());
    assert!(client.recording("large").await.unwrap().is_none());
    client.accept("small", "second").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_and_zstd_bodies_are_stored_as_what_they_contain() {
    use std::io::Write;
    let server = Setup::embedded().start().await.unwrap();
    let client = server.client();
    let plain = payload::make("any", 2, 3_000_000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    for (encoding, body) in [("gzip", gzip.finish().unwrap()), ("zstd", zstd)] {
        let request = client.http().post(client.url(&["v1", "tasks", encoding]));
        let sent = request.header("content-encoding", encoding).body(body.clone()).send();
        assert_eq!(Answer::of(sent.await.unwrap()).await.unwrap().status, 202, "{encoding}");
        let chunks = observe::chunks(&client, encoding, 1, PATIENCE).await.unwrap();
        assert_eq!(chunks[0].sha256, payload::digest(&plain), "{encoding}");

        let truncated = client.http().post(client.url(&["v1", "tasks", "cut"]));
        let cut = body[..body.len() / 2].to_vec();
        let sent = truncated.header("content-encoding", encoding).body(cut).send();
        assert_eq!(Answer::of(sent.await.unwrap()).await.unwrap().status, 400, "{encoding}, cut short");
    }
    assert!(client.recording("cut").await.unwrap().is_none());
}
