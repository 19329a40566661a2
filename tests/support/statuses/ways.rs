//! How a client gets to each row of the table.

use super::Statuses;
use crate::{
    client::{Answer, Client, hand_fed},
    random::Random,
    receipts,
    scenario::MAX_TASK,
    server::{Server, Setup},
    wait,
    ways_in::{self, BATCH, LINES, PROTOBUF, STRUCTURED},
};
use anyhow::{Context, Result, ensure};
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{fs, io::Write, time::Duration};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinHandle, time::timeout};

/// The key of the tasks that are posted until they are refused.
const KEY: &str = "k";
const WITHIN: Duration = Duration::from_secs(60);

/// A server's setup whose front door asks for tokens: `token` may do everything, `limited` only write to keys that begin with `mine`,
/// `slow` one task a second.
pub fn guarded(setup: Setup) -> Result<Setup> {
    let entry = |name: &str, more: &str| {
        let hash = hex::encode(Sha256::digest(name.as_bytes()));
        format!("[[token]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{more}\n")
    };
    let path = setup.home().join("tokens.toml");
    let tokens = [
        entry("token", "verbs = [\"read\", \"write\"]"),
        entry("limited", "keys = [\"mine\"]"),
        entry("slow", "tasks_per_second = 1"),
    ];
    fs::write(&path, tokens.concat())?;
    let setup = setup.set("front_door.tokens_file", format!("{:?}", path.display().to_string()));
    Ok(setup.set("front_door.body_timeout", "\"3s\"").set("memory.budget", "\"512MiB\""))
}

/// A request of a client that may do everything.
struct Request(reqwest::RequestBuilder);

impl Request {
    fn post(client: &Client, path: &str) -> Self {
        Self(client.http().post(client.url(&[]).join(path).expect("a path")))
            .header("authorization", "Bearer token")
    }

    fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    async fn answer(self, body: impl Into<reqwest::Body>) -> Result<Answer> {
        Answer::of(self.0.body(body).send().await?).await
    }
}

fn gzip(payload: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(payload)?;
    Ok(encoder.finish()?)
}

/// Waits until a request is in the server's hands.
async fn under_way(server: &Server) -> Result<()> {
    wait::until("a request is under way", WITHIN, async || {
        let in_flight = server.metrics().await?.sum("partita_http_requests_in_flight");
        Ok((in_flight >= Some(1.0)).then_some(()))
    })
    .await
}

/// Every answer that a [`guarded`] server has for what a client does.
pub async fn of_clients(server: &Server, seen: &mut Statuses) -> Result<()> {
    let client = &server.client();
    accepted(client, seen).await.context("what is accepted")?;
    malformed(client, seen).await.context("what is malformed")?;
    who_may(client, seen).await.context("who may")?;
    named(server, seen).await.context("what has a name")?;
    large(client, seen).await.context("what is large")?;
    cut_short(server, seen).await.context("what is cut short")
}

async fn accepted(client: &Client, seen: &mut Statuses) -> Result<()> {
    let event = ways_in::event("k", "data").to_string();
    let batch = format!("[{},{}]", ways_in::event("k", "1"), ways_in::event("k", "2"));
    let bodies = [(STRUCTURED, event.clone()), (BATCH, batch), (LINES, event), (PROTOBUF, String::new())];
    for (media_type, body) in bodies {
        let answer =
            Request::post(client, "v1/tasks").header("content-type", media_type).answer(body).await?;
        seen.must(&answer, 202, "")?;
    }
    let binary = Request::post(client, "v1/tasks").header("ce-specversion", "1.0").header("ce-id", "binary");
    let binary = binary.header("ce-source", "/statuses").header("ce-type", "t").header("ce-subject", "k");
    seen.must(&binary.answer("data").await?, 202, "")?;
    for (coding, body) in [("gzip", gzip(b"packed")?), ("zstd", zstd::encode_all(&b"packed"[..], 1)?)] {
        let request = Request::post(client, "v1/tasks/k").header("content-encoding", coding);
        seen.must(&request.answer(body).await?, 202, "")?;
    }
    // A bad entry is no bad document.
    let mixed = format!("{}\nnonsense\n", ways_in::event("k", "3"));
    let answer = Request::post(client, "v1/tasks").header("content-type", LINES).answer(mixed).await?;
    seen.must(&answer, 202, "")?;
    let results: ways_in::Entries = answer.json()?;
    let statuses: Vec<&str> = results.results.iter().map(|entry| &entry.status[..]).collect();
    ensure!(statuses == ["accepted", "rejected"], "{}", answer.text());
    Ok(())
}

async fn malformed(client: &Client, seen: &mut Statuses) -> Result<()> {
    let keys = [format!("v1/tasks/{}", "k".repeat(257)), "v1/tasks/%FF".into()];
    for path in keys {
        seen.must(&Request::post(client, &path).answer("x").await?, 400, "invalid_key")?;
    }
    let url = client.url(&[]).join("v1/tasks/0-0?wait=forever")?;
    let asked = client.http().get(url).header("authorization", "Bearer token");
    seen.must(&Answer::of(asked.send().await?).await?, 400, "invalid_query")?;
    let long = "t".repeat(513);
    let typed = Request::post(client, "v1/tasks/k").header("partita-type", &long).answer("x").await?;
    seen.must(&typed, 400, "invalid_header")?;

    let packed = gzip(&[7; 5000])?;
    let followed = [&packed[..], b"more"].concat();
    let mut window = zstd::Encoder::new(Vec::new(), 1)?;
    window.window_log(27)?;
    window.include_contentsize(false)?;
    window.write_all(&[7; 5000])?;
    let coded: [(&str, Vec<u8>, &str); 4] = [
        ("gzip", b"plain".to_vec(), "invalid_encoding"),
        ("gzip", packed[..packed.len() - 3].to_vec(), "truncated_encoding"),
        ("gzip", followed, "trailing_bytes"),
        ("zstd", window.finish()?, "window_too_large"),
    ];
    for (coding, body, code) in coded {
        let request = Request::post(client, "v1/tasks/k").header("content-encoding", coding);
        seen.must(&request.answer(body).await?, 400, code)?;
    }
    let unknown = Request::post(client, "v1/tasks/k").header("content-encoding", "br").answer("x").await?;
    seen.must(&unknown, 415, "unsupported_encoding")?;
    let csv = Request::post(client, "v1/tasks").header("content-type", "text/csv").answer("x").await?;
    seen.must(&csv, 415, "unsupported_media_type")?;

    let mut no_key = ways_in::event("k", "data");
    no_key.as_object_mut().context("an object")?.remove("partitionkey");
    let mut no_source = ways_in::event("k", "data");
    no_source["source"] = json!("");
    for (media_type, body, code) in [
        (BATCH, "[".to_owned(), "invalid_document"),
        (PROTOBUF, "nonsense".to_owned(), "invalid_document"),
        (STRUCTURED, no_source.to_string(), "invalid_event"),
        (STRUCTURED, no_key.to_string(), "no_key"),
    ] {
        let answer =
            Request::post(client, "v1/tasks").header("content-type", media_type).answer(body).await?;
        seen.must(&answer, 400, code)?;
    }
    seen.must(&Request::post(client, "v2/tasks").answer("x").await?, 404, "not_found")?;
    let put = client.http().put(client.url(&["v1", "tasks", "k"])).header("authorization", "Bearer token");
    seen.must(&Answer::of(put.send().await?).await?, 405, "method_not_allowed")
}

async fn who_may(client: &Client, seen: &mut Statuses) -> Result<()> {
    let post = |key: &str, token: &str| {
        let request = client.http().post(client.url(&["v1", "tasks", key]));
        let request = if token.is_empty() { request } else { request.bearer_auth(token) };
        Request(request).answer("x")
    };
    seen.must(&post("k", "").await?, 401, "unauthorized")?;
    seen.must(&post("k", "unknown").await?, 401, "unauthorized")?;
    seen.must(&post("mine/1", "limited").await?, 202, "")?;
    seen.must(&post("yours/1", "limited").await?, 403, "forbidden")?;
    let answers = futures_util::future::try_join_all((0..5).map(|_| post("k", "slow"))).await?;
    for answer in &answers {
        let code = seen.note(answer)?;
        ensure!(matches!((answer.status, &code[..]), (202, "") | (429, "rate_limited")), "{}", answer.text());
    }
    ensure!(answers.iter().any(|answer| answer.status == 429), "five tasks at once are one a second?");
    Ok(())
}

async fn named(server: &Server, seen: &mut Statuses) -> Result<()> {
    let client = server.client();
    let request = || Request::post(&client, "v1/tasks/named").header("idempotency-key", "name");
    let (feed, body) = hand_fed();
    let first: JoinHandle<Result<Answer>> = tokio::spawn(request().answer(body));
    feed.send(Ok("payload".into())).await?;
    under_way(server).await?;
    seen.must(&request().answer("payload").await?, 409, "idempotency_key_in_flight")?;
    drop(feed);
    seen.must(&first.await??, 202, "")?;
    // Over Kafka it may be in flight until the journal has been read.
    wait::until("422", WITHIN, async || {
        let answer = request().answer("another payload").await?;
        let code = seen.note(&answer)?;
        ensure!(answer.status == 422, "{code}");
        Ok(Some(()))
    })
    .await
}

async fn large(client: &Client, seen: &mut Statuses) -> Result<()> {
    let limit = MAX_TASK + 1;
    let zeros = gzip(&vec![0; limit])?;
    let answer = Request::post(client, "v1/tasks/k").header("content-encoding", "gzip").answer(zeros).await?;
    seen.must(&answer, 413, "too_large")?;
    let url = client.url(&["v1", "tasks", "k"]);
    let declared = client.http().post(url).bearer_auth("token").header("content-length", limit);
    let (_feed, body) = hand_fed();
    seen.must(&Answer::of(declared.body(body).send().await?).await?, 413, "too_large")?;
    let tasks = [0x0a, 0].repeat(100_001);
    let batch = Request::post(client, "v1/tasks").header("content-type", PROTOBUF).answer(tasks).await?;
    seen.must(&batch, 413, "batch_too_large")?;
    let blanks = gzip(&vec![b' '; MAX_TASK * 3 / 2 + (1 << 20)])?;
    let batch = Request::post(client, "v1/tasks").header("content-type", BATCH);
    seen.must(&batch.header("content-encoding", "gzip").answer(blanks).await?, 413, "batch_too_large")?;

    // So many of the largest do not fit into 512 MiB at once.
    let body = bytes::Bytes::from(Random::new(1).bytes(MAX_TASK));
    let posts =
        (0..8).map(|number| Request::post(client, &format!("v1/tasks/large-{number}")).answer(body.clone()));
    let answers = futures_util::future::try_join_all(posts).await?;
    for answer in &answers {
        let code = seen.note(answer)?;
        // A sender that a busy machine gives no turn is silent.
        ensure!(matches!(&code[..], "" | "out_of_memory_budget" | "body_timeout"), "{}", answer.text());
    }
    ensure!(answers.iter().any(|answer| answer.status == 202), "none was accepted");
    ensure!(answers.iter().any(|answer| answer.status == 503), "all were accepted");
    Ok(())
}

async fn cut_short(server: &Server, seen: &mut Statuses) -> Result<()> {
    let head = |framing: &str| {
        format!(
            "POST /v1/tasks/k HTTP/1.1\r\nhost: x\r\nauthorization: Bearer token\r\n{framing}\r\nconnection: close\r\n\r\n"
        )
    };
    let silent = raw(server, &format!("{}half", head("content-length: 10"))).await?;
    seen.must(&silent, 408, "body_timeout")?;
    let broken = raw(server, &format!("{}nonsense\r\n", head("transfer-encoding: chunked"))).await?;
    seen.must(&broken, 400, "incomplete_body")?;
    let half_a_head = raw(server, "POST /v1/tasks/k HTTP/1.1\r\nhost: x\r\n").await?;
    seen.must(&half_a_head, 408, "head_timeout")
}

/// Sends this, and reads the answer. What is refused early is kept open for a while, for its sender to read why.
async fn raw(server: &Server, request: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect(server.setup().front()).await?;
    stream.write_all(request.as_bytes()).await?;
    timeout(WITHIN, Answer::read(&mut stream)).await.context("no answer")?
}

/// A partition whose worker has ended one task, and then stands still. Returns the setup of the server, which is killed, and the partition: its
/// task at offset 0 has ended, and several behind it have not begun.
pub async fn of_a_partition_behind(setup: &Setup, seen: &mut Statuses) -> Result<(Setup, u32)> {
    let setup = setup.clone().set("front_door.backlog_tasks", "2");
    let server = setup.journal_worker("worker", &["--serve"]).start().await?;
    let first = server.client().accept(KEY, crate::payload::make(KEY, 0, 1_000)).await?;
    ensure!(receipts::state(&server.client(), &first.id, "wait=done&timeout=60s").await? == "done");
    server.stop(WITHIN).await?;
    let server = setup.journal_worker("behind", &["--serve", "--gated"]).start().await?;
    refused_with(&server, seen, "partition_behind").await?;
    Ok((server.kill(), first.partition))
}

/// The same partition once a task that had not begun is gone.
pub async fn of_a_stuck_partition(setup: &Setup, seen: &mut Statuses) -> Result<()> {
    refused_with(&setup.start().await?, seen, "partition_stuck").await
}

/// Posts a task that is accepted.
pub async fn accepts(server: &Server, seen: &mut Statuses) -> Result<()> {
    seen.must(&Request::post(&server.client(), "v1/tasks/k").answer("x").await?, 202, "")
}

/// Posts until it is refused so.
pub async fn refused_with(server: &Server, seen: &mut Statuses, code: &str) -> Result<()> {
    let client = server.client();
    let mut number = 0_u64;
    wait::until(code, WITHIN, async || {
        number += 1;
        let task = crate::payload::make(KEY, number, 200_000);
        let answer = Request(client.http().post(client.url(&["v1", "tasks", KEY])).bearer_auth("token"))
            .answer(task)
            .await?;
        let got = seen.note(&answer)?;
        ensure!(got == code, "{}: {}", answer.status, answer.text());
        Ok(Some(()))
    })
    .await
}

/// A server that is told to stop while a body comes.
pub async fn of_a_stop(server: Server, seen: &mut Statuses) -> Result<()> {
    let client = server.client();
    let (feed, body) = hand_fed();
    let begun = tokio::spawn(Request::post(&client, "v1/tasks/k").answer(body));
    feed.send(Ok("half".into())).await?;
    under_way(&server).await?;
    server.signal("TERM")?;
    let keep = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if feed.send(Ok("more".into())).await.is_err() {
                return;
            }
        }
    };
    let (answer, ()) = tokio::join!(begun, async {
        tokio::select! {
            () = keep => {}
            () = tokio::time::sleep(Duration::from_secs(20)) => {}
        }
    });
    seen.must(&answer??, 503, "draining")
}
