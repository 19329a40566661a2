mod ownership;

use super::*;
use actix_web::{App, HttpServer};
use proptest::prelude::*;
use std::{collections::BTreeMap, path::PathBuf};

const TOPIC: &str = "topic-1";

struct Fixture {
    dir: tempfile::TempDir,
    recordings: Arc<Recordings>,
}

fn fixture(sync: bool) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let config = RecorderConfig { dir: dir.path().join("recordings"), sync };
    Fixture { recordings: Arc::new(Recordings::open(&config).unwrap()), dir }
}

impl Fixture {
    fn recorder(&self) -> Recorder {
        Recorder::new(self.recordings.clone())
    }

    async fn record(&self, key: &str, offset: u64, payload: &'static [u8]) -> Result<(), TaskError> {
        record(&mut self.recorder(), key, chunk(0, offset, payload).await, payload).await
    }

    /// All but the fences.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = files_below(self.root());
        files.retain(|path| !path.starts_with(self.fences()));
        files
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("recordings")
    }

    fn fences(&self) -> PathBuf {
        self.root().join(fence::FENCES)
    }

    /// A recorder over another opening of the directory, as another process has it.
    fn opened_again(&self) -> Recorder {
        let config = RecorderConfig { dir: self.root(), sync: true };
        Recorder::new(Arc::new(Recordings::open(&config).unwrap()))
    }

    fn the_file(&self) -> PathBuf {
        let mut files = self.files();
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    }
}

fn files_below(root: PathBuf) -> Vec<PathBuf> {
    let (mut found, mut unread) = (Vec::new(), vec![root]);
    while let Some(dir) = unread.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { unread.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

async fn chunk(partition: u32, offset: u64, payload: &'static [u8]) -> Chunk {
    Chunk {
        partition,
        offset,
        type_name: None,
        content_type: Some("application/json".into()),
        size: payload.len() as u64,
        sha256: sha256(payload.into()).await.unwrap(),
        stored_at: timestamp(SystemTime::now()),
        topic_id: TOPIC.into(),
        epoch: 7,
    }
}

async fn record(
    recorder: &mut Recorder,
    key: &str,
    chunk: Chunk,
    payload: &'static [u8],
) -> Result<(), TaskError> {
    recorder.record(key.as_bytes(), chunk, Bytes::from_static(payload)).await
}

async fn offsets(recordings: &Recordings, key: &str) -> Vec<u64> {
    recordings.chunks(key).await.unwrap().iter().map(|(chunk, _)| chunk.offset).collect()
}

#[actix_rt::test]
async fn a_redelivery_changes_nothing() {
    let fixture = fixture(true);
    fixture.record("k", 3, b"payload").await.unwrap();
    let before = std::fs::read(fixture.the_file()).unwrap();
    let written = std::fs::metadata(fixture.the_file()).unwrap().modified().unwrap();
    let mut again = chunk(0, 3, b"payload").await;
    again.epoch = 8;
    again.stored_at = timestamp(SystemTime::UNIX_EPOCH);
    record(&mut fixture.recorder(), "k", again, b"payload").await.unwrap();
    assert_eq!(std::fs::read(fixture.the_file()).unwrap(), before);
    assert_eq!(std::fs::metadata(fixture.the_file()).unwrap().modified().unwrap(), written);
}

#[actix_rt::test]
async fn chunks_are_in_the_order_of_their_offsets_as_numbers() {
    let fixture = fixture(true);
    let mut recorder = fixture.recorder();
    for offset in [2, 9, 10, 100, 1_000_000_000_000] {
        record(&mut recorder, "k", chunk(11, offset, b"x").await, b"x").await.unwrap();
    }
    assert_eq!(offsets(&fixture.recordings, "k").await, [2, 9, 10, 100, 1_000_000_000_000]);
}

#[actix_rt::test]
async fn a_log_made_anew_over_old_recordings_parks_its_tasks_instead_of_losing_them() {
    let fixture = fixture(true);
    fixture.record("k", 0, b"old").await.unwrap();
    let before = std::fs::read(fixture.the_file()).unwrap();
    let other_bytes = fixture.record("k", 0, b"new").await.unwrap_err();
    assert!(
        matches!(&other_bytes, TaskError::Park(reason) if reason.contains("handler.recorder.dir")),
        "{other_bytes}"
    );
    let mut same_bytes = chunk(0, 0, b"old").await;
    same_bytes.topic_id = "topic-2".into();
    let other_topic = record(&mut fixture.recorder(), "k", same_bytes, b"old").await.unwrap_err();
    assert!(matches!(other_topic, TaskError::Park(_)), "{other_topic}");
    assert_eq!(std::fs::read(fixture.the_file()).unwrap(), before);
}

#[actix_rt::test]
async fn what_a_crash_left_behind_is_invisible_and_does_not_hinder_the_redelivery() {
    let fixture = fixture(true);
    let recordings = &fixture.recordings;
    fixture.record("k", 0, b"first").await.unwrap();
    let first = fixture.the_file();
    let second = first.with_file_name(format!("0-{:020}", 1));
    // The object store's temporary file, cut at any point; and a directory without any chunk.
    let whole = std::fs::read(&first).unwrap();
    for cut in [0, 100, 512, whole.len() - 1] {
        std::fs::write(PathBuf::from(format!("{}#1", second.display())), &whole[..cut]).unwrap();
        assert_eq!(offsets(recordings, "k").await, [0], "cut at {cut}");
    }
    std::fs::create_dir(first.parent().unwrap().with_file_name("empty")).unwrap();
    let (listed, more) = recordings.list(None, 10).await.unwrap();
    assert_eq!((listed.len(), more), (1, false));
    assert_eq!((listed[0].chunks, listed[0].bytes), (1, 5));

    fixture.record("k", 1, b"second").await.unwrap();
    assert_eq!(offsets(recordings, "k").await, [0, 1]);
}

#[actix_rt::test]
async fn a_torn_object_is_invisible_and_is_written_anew() {
    // Only where sync is off can a power loss leave one.
    let fixture = fixture(false);
    fixture.record("k", 0, b"payload").await.unwrap();
    let path = fixture.the_file();
    let whole = std::fs::read(&path).unwrap();
    for cut in [0, 10, 512, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(offsets(&fixture.recordings, "k").await.is_empty(), "cut at {cut}");
        assert!(fixture.recordings.chunk("k", 0, 0).await.unwrap().is_none(), "cut at {cut}");
        fixture.record("k", 0, b"payload").await.unwrap();
        assert_eq!(offsets(&fixture.recordings, "k").await, [0]);
        assert_eq!(std::fs::metadata(&path).unwrap().len() as usize, whole.len());
    }
}

#[actix_rt::test]
async fn a_disk_that_cannot_be_written_is_waited_for() {
    let fixture = fixture(true);
    // A file where the key's directory should be: fails for root too.
    std::fs::write(fixture.dir.path().join("recordings/k"), "").unwrap();
    let error = fixture.record("k", 0, b"x").await.unwrap_err();
    assert!(matches!(error, TaskError::Unavailable { .. }), "{error}");
}

fn keys() -> impl Strategy<Value = Vec<String>> {
    let key = prop_oneof!["[a-c/.%A]{1,4}", "\\PC{1,20}", "(zz|A){90,110}", "[aé]{100,128}"];
    prop::collection::btree_set(key, 1..20).prop_map(|keys| keys.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn pages_show_every_key_once_in_the_order_of_its_bytes(keys in keys(), limit in 1..8_usize, after in "\\PC{0,3}") {
        let system = actix_rt::System::new();
        system.block_on(async {
            let fixture = fixture(false);
            for key in keys.iter().rev() {
                fixture.record(key, 0, b"one").await.unwrap();
                fixture.record(key, 1, b"three").await.unwrap();
            }
            let mut shown = Vec::new();
            let mut from = None;
            loop {
                let (page, more) = fixture.recordings.list(from.as_deref(), limit).await.unwrap();
                assert!(page.len() <= limit && (more || page.len() <= limit));
                assert!(page.iter().all(|one| (one.chunks, one.bytes) == (2, 8)));
                shown.extend(page.into_iter().map(|one| one.key));
                from = shown.last().cloned();
                if !more { break }
            }
            assert_eq!(shown, keys);
            let (rest, _) = fixture.recordings.list(Some(&after), 1000).await.unwrap();
            let rest: Vec<_> = rest.into_iter().map(|one| one.key).collect();
            let expected: Vec<_> = keys.iter().filter(|key| key.as_bytes() > after.as_bytes()).cloned().collect();
            assert_eq!(rest, expected);
        });
    }
}

/// The reads on a listener, as the front door serves them.
async fn serve(recordings: Arc<Recordings>) -> (String, actix_web::dev::ServerHandle) {
    let routes = routes(recordings);
    let server = HttpServer::new(move || App::new().configure(|services| routes(services)))
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .unwrap();
    let base = format!("http://{}/v1/recordings", server.addrs()[0]);
    let server = server.run();
    let handle = server.handle();
    actix_rt::spawn(server);
    (base, handle)
}

async fn get(url: String) -> (u16, BTreeMap<String, String>, Bytes) {
    let answer = reqwest::get(url).await.unwrap();
    let headers =
        answer.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()));
    let (status, headers) = (answer.status().as_u16(), headers.collect());
    (status, headers, answer.bytes().await.unwrap())
}

async fn get_json(url: String) -> serde_json::Value {
    let (status, _, body) = get(url).await;
    assert_eq!(status, 200, "{body:?}");
    serde_json::from_slice(&body).unwrap()
}

#[actix_rt::test]
async fn recordings_are_read_back_over_http() {
    let fixture = fixture(true);
    let key = "a/ü %25?#";
    let encoded = "a%2F%C3%BC%20%2525%3F%23";
    let mut recorder = fixture.recorder();
    let mut plain = chunk(3, 9, b"{\"n\":1}").await;
    plain.type_name = Some("PushEvents".into());
    record(&mut recorder, key, plain, b"{\"n\":1}").await.unwrap();
    let mut untyped = chunk(3, 10, b"").await;
    untyped.content_type = None;
    record(&mut recorder, key, untyped, b"").await.unwrap();
    // Its header takes more than one block.
    let mut long = chunk(3, 11, b"tail").await;
    long.content_type = Some(format!("text/plain; x={}", "y".repeat(2000)));
    record(&mut recorder, key, long, b"tail").await.unwrap();

    let (base, server) = serve(fixture.recordings.clone()).await;
    let list = get_json(base.clone()).await;
    assert_eq!(
        list,
        serde_json::json!({"recordings": [{"key": key, "chunks": 3, "bytes": 11}], "next": null})
    );

    let one = get_json(format!("{base}/{encoded}")).await;
    assert_eq!(one["key"], key);
    let chunks = one["chunks"].as_array().unwrap();
    assert_eq!(chunks.iter().map(|chunk| chunk["offset"].as_u64().unwrap()).collect::<Vec<_>>(), [9, 10, 11]);
    let mut names: Vec<_> = chunks[0].as_object().unwrap().keys().cloned().collect();
    names.sort();
    assert_eq!(names, ["content_type", "offset", "partition", "sha256", "size", "stored_at", "type"]);
    assert_eq!(
        (&chunks[0]["type"], &chunks[0]["content_type"]),
        (&"PushEvents".into(), &"application/json".into())
    );
    assert!(chunks[1]["type"].is_null() && chunks[1]["content_type"].is_null());
    assert_eq!(chunks[1]["sha256"], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");

    let (status, headers, body) = get(format!("{base}/{encoded}/chunks/3-9")).await;
    assert_eq!(
        (status, headers["content-type"].as_str(), &body[..]),
        (200, "application/json", &b"{\"n\":1}"[..])
    );
    let (_, headers, body) = get(format!("{base}/{encoded}/chunks/3-10")).await;
    assert_eq!((headers["content-type"].as_str(), body.len()), ("application/octet-stream", 0));
    let (_, headers, body) = get(format!("{base}/{encoded}/chunks/3-11")).await;
    assert!(headers["content-type"].ends_with("yyy"));
    assert_eq!(&body[..], b"tail");
    let (status, headers, body) = get(format!("{base}/{encoded}/content")).await;
    assert_eq!((status, headers["content-length"].as_str(), &body[..]), (200, "11", &b"{\"n\":1}tail"[..]));
    let head = reqwest::Client::new().head(format!("{base}/{encoded}/content")).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers()["content-length"].to_str().unwrap()), (200, "11"));
    server.stop(false).await;
}

#[actix_rt::test]
async fn a_large_recording_comes_back_whole_through_the_window() {
    let fixture = fixture(false);
    let large: &'static [u8] = Vec::leak((0..5_000_003_u32).map(|i| i.wrapping_mul(i) as u8).collect());
    let mut recorder = fixture.recorder();
    for offset in 0..3 {
        record(&mut recorder, "big", chunk(0, offset, large).await, large).await.unwrap();
    }
    let (base, server) = serve(fixture.recordings.clone()).await;
    let (_, _, body) = get(format!("{base}/big/content")).await;
    assert!(body == large.repeat(3));
    let (_, headers, body) = get(format!("{base}/big/chunks/0-1")).await;
    assert!(body == large);
    assert_eq!(headers["etag"], format!("\"{}\"", sha256(large.into()).await.unwrap()));
    server.stop(false).await;
}

#[actix_rt::test]
async fn reads_that_cannot_be_answered_are_refused_with_a_reason() {
    let fixture = fixture(true);
    fixture.record("a", 0, b"x").await.unwrap();
    fixture.record("b", 0, b"x").await.unwrap();
    let (base, server) = serve(fixture.recordings.clone()).await;
    for (path, status, code) in [
        ("/c", 404, "not_found"),
        ("/c/content", 404, "not_found"),
        ("/c/chunks/0-0", 404, "not_found"),
        ("/a/chunks/0-1", 404, "not_found"),
        ("/a/chunks/1-0", 404, "not_found"),
        ("/a/chunks/00-0", 404, "not_found"),
        ("/a/chunks/x", 404, "not_found"),
        ("/a/nothing", 404, "not_found"),
        ("/%FF", 400, "invalid_key"),
        ("/%2", 400, "invalid_key"),
        ("/", 400, "invalid_key"),
        ("?limit=0", 400, "invalid_query"),
        ("?limit=1001", 400, "invalid_query"),
        ("?limit=-1", 400, "invalid_query"),
        ("?limit=ten", 400, "invalid_query"),
        ("?limit=", 400, "invalid_query"),
        ("?after=%FF", 400, "invalid_query"),
        ("?page=2", 400, "invalid_query"),
    ] {
        let (got, headers, body) = get(format!("{base}{path}")).await;
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((got, problem["code"].as_str().unwrap()), (status, code), "{path}");
        assert_eq!(headers["content-type"], "application/problem+json", "{path}");
        assert_eq!(problem["status"], status, "{path}");
        assert_eq!(problem["request_id"].as_str().unwrap(), headers["x-request-id"], "{path}");
        for member in ["type", "title", "detail"] {
            assert!(problem[member].is_string(), "{path}");
        }
    }
    let posted = reqwest::Client::new().post(&base).send().await.unwrap();
    assert_eq!((posted.status().as_u16(), posted.headers()["allow"].to_str().unwrap()), (405, "GET, HEAD"));

    let page = get_json(format!("{base}?limit=1")).await;
    assert_eq!(page["next"], "a");
    let page = get_json(format!("{base}?limit=1&after=a")).await;
    assert_eq!((&page["recordings"][0]["key"], &page["next"]), (&"b".into(), &serde_json::Value::Null));
    server.stop(false).await;
}
