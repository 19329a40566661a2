//! The disk under the embedded log fills up, or cannot sync: no false 202, reads go on, and it recovers by itself.

use crate::PARTITIONS;
use anyhow::{Result, ensure};
use partita_tests::{
    checkers::{self, Bounds},
    client::Answer,
    disk::Watch,
    load::Load,
    observe::{self, Observer},
    pace, payload,
    random::Random,
    server::{Server, Setup},
    wait,
};
use std::time::{Duration, Instant, SystemTime};

/// The key of the tasks that are posted to see whether they are refused.
const PROBE: &str = "probe";
const PATIENCE: Duration = Duration::from_secs(60);

/// What is done to the disk, and how it shows.
struct Trouble {
    set: fn(&Watch, bool) -> Result<()>,
    /// The code that tasks are refused with.
    code: &'static str,
    /// What `/readyz` says.
    why: &'static str,
    /// No task at all is accepted. A full disk may have room for a small one yet.
    of_all: bool,
}

/// A load in whose middle something is done to the disk, twice. Meanwhile tasks are refused and reads go on; afterwards it recovers
/// by itself. The whole of it is judged.
async fn with_a_load(trouble: Trouble) -> Result<()> {
    let _busy = pace::busy().await;
    let mut random = Random::from_env();
    let setup = Setup::embedded().watched();
    let server = setup.start().await?;
    let load = Load { tasks: 400, keys: 40, clients: 8, sizes: 1_000..=1_000_000, ..Load::default() };
    let mut running = load.start(setup.front(), Random::new(random.bits()));
    for part in 1..=2 {
        running.accepted_at_least(part * 100).await?;
        wait::until("there is something to read", PATIENCE, async || {
            Ok((observe::ends(&server.client()).await?.len() >= 40).then_some(()))
        })
        .await?;
        (trouble.set)(setup.watch(), true)?;
        // What was on its way may have been synced, and its 202 is heard of later.
        let since = SystemTime::now();
        refused(&server, trouble.code).await?;
        let reason = server.not_ready(PATIENCE).await?;
        ensure!(reason.contains(trouble.why), "{reason}");
        let ends = observe::ends(&server.client()).await?;
        ensure!(observe::spot_check(&server.client(), &ends, 10).await? > 3, "nothing to read");
        let accepted = running.ledger.accepted_since(since);
        ensure!(!trouble.of_all || accepted == 0, "{accepted} tasks were accepted");
        (trouble.set)(setup.watch(), false)?;
    }
    let ledger = running.finish().await?;
    server.committed_is_end(PARTITIONS, &ledger.acknowledged(), PATIENCE).await?;
    let mut observer = Observer::default();
    observer.look(&server.client(), &[]).await?;
    let mut history = observer.history(&ledger);
    history.ends.retain(|end| end.key != PROBE);
    eprintln!("{:?}, {} ends", ledger.counts(), history.ends.len());
    let wrong = checkers::violations(&history, Bounds::default());
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    observe::spot_check(&server.client(), &history.ends, 20).await?;
    server.is_sound().await?;
    ensure!(server.readiness().await?.status == 200);
    // All of it is on the disk as well.
    let server = server.kill().start().await?;
    server.committed_is_end(PARTITIONS, &ledger.acknowledged(), PATIENCE).await
}

/// Waits until a task is refused with 503 and this code, and `Retry-After`.
async fn refused(server: &Server, code: &str) -> Result<()> {
    wait::until("a task is refused", PATIENCE, async || {
        let answer = server.client().post(PROBE, payload::make(PROBE, 0, 1_000)).await?;
        let body = answer.text();
        ensure!(answer.status == 503 && body.contains(code), "{}: {body}", answer.status);
        ensure!(answer.header("retry-after").is_some(), "without Retry-After");
        Ok(Some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_with_503_and_a_reason_reads_go_on_and_it_recovers_when_there_is_room() {
    let full = Trouble { set: Watch::set_full, code: "log_full", why: "disk is full", of_all: false };
    with_a_load(full).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_no_sync_succeeds_nothing_is_acknowledged_reads_go_on_and_it_recovers_when_they_do() {
    let broken = Trouble { set: Watch::set_broken, code: "log_away", why: "cannot write", of_all: true };
    with_a_load(broken).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_no_sync_ends_every_request_has_its_answer_in_time_and_what_was_unknown_is_stored_once() {
    let timeout = Duration::from_secs(2);
    let setup = Setup::embedded().watched().set("log.embedded.append_timeout", "\"2s\"");
    let server = setup.start().await.unwrap();
    let client = server.client();
    let post = async |name: usize| {
        let request = client.http().post(client.url(&["v1", "tasks", "hung"]));
        let request = request.header("idempotency-key", format!("name-{name}")).body(format!("task {name};"));
        let began = Instant::now();
        (Answer::of(request.send().await.unwrap()).await.unwrap(), began.elapsed())
    };
    assert_eq!(post(0).await.0.status, 202);
    wait::until("it is recorded", PATIENCE, async || Ok(client.recording("hung").await?)).await.unwrap();
    setup.watch().set_hung(true).unwrap();
    let answers = futures_util::future::join_all((1..20).map(post)).await;
    for (answer, took) in &answers {
        assert!(*took < timeout * 2, "{took:?}: {}", answer.text());
        let text = answer.text();
        let known = (answer.status == 503 && text.contains("log_away"))
            || (answer.status == 504 && text.contains("unknown_outcome"));
        assert!(known, "{text}");
    }
    assert!(answers.iter().any(|(answer, _)| answer.status == 504));
    let (refused, took) = post(20).await;
    assert!(refused.status == 503 && took < timeout, "{took:?}: {}", refused.text());
    let reason = server.not_ready(PATIENCE).await.unwrap();
    assert!(reason.contains("does not answer"), "{reason}");
    assert_eq!(client.content("hung").await.unwrap(), "task 0;", "reads go on");
    setup.watch().set_hung(false).unwrap();
    wait::until("it is ready again", PATIENCE, async || {
        Ok((server.readiness().await?.status == 200).then_some(()))
    })
    .await
    .unwrap();
    for name in 0..=20 {
        let (answer, _) = post(name).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    wait::until("each is stored once", PATIENCE, async || {
        let content = String::from_utf8(client.content("hung").await?.to_vec())?;
        let mut tasks: Vec<_> = content.split_terminator(';').collect();
        tasks.sort_unstable();
        tasks.dedup();
        ensure!(tasks.len() == content.split_terminator(';').count(), "{content}");
        Ok((tasks.len() == 21).then_some(()))
    })
    .await
    .unwrap();
    server.is_sound().await.unwrap();
}
