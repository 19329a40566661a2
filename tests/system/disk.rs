//! The disk under the embedded log fills up, or cannot sync: no false 202, reads go on, and it recovers by itself.

use crate::PARTITIONS;
use anyhow::{Result, ensure};
use partita_tests::{
    checkers::{self, Bounds},
    load::Load,
    observe::{self, Observer},
    random::Random,
    server::{Server, Setup},
    wait,
};
use std::time::Duration;

/// The key of the tasks that are posted to see whether they are refused.
const PROBE: &str = "probe";
const PATIENCE: Duration = Duration::from_secs(60);

/// A load in whose middle something is done to the disk, which is undone after `during`. The whole of it is judged.
async fn with_a_load(
    what: impl AsyncFn(&Server, bool) -> Result<()>,
    during: impl AsyncFn(&Server) -> Result<()>,
) -> Result<()> {
    let mut random = Random::from_env();
    let setup = Setup::embedded().watched();
    let server = setup.start().await?;
    let load = Load { tasks: 400, keys: 40, clients: 8, sizes: 1_000..=1_000_000, ..Load::default() };
    let mut running = load.start(setup.front(), Random::new(random.bits()));
    for part in 1..=2 {
        running.accepted_at_least(part * 100).await?;
        what(&server, true).await?;
        during(&server).await?;
        what(&server, false).await?;
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
    server.never_panicked()?;
    server.no_invariant_broke().await?;
    ensure!(server.readiness().await?.status == 200);
    // All of it is on the disk as well.
    let server = server.kill().start().await?;
    server.committed_is_end(PARTITIONS, &ledger.acknowledged(), PATIENCE).await
}

/// Waits until a task is refused with 503 and this code, and `Retry-After`.
async fn refused(server: &Server, code: &str) -> Result<()> {
    wait::until("a task is refused", PATIENCE, async || {
        let answer = server.client().post(PROBE, "a task that does not fit any more").await?;
        let body = answer.text();
        ensure!(answer.status == 503 && body.contains(code), "{}: {body}", answer.status);
        ensure!(answer.header("retry-after").is_some(), "without Retry-After");
        Ok(Some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_with_503_and_a_reason_reads_go_on_and_it_recovers_when_there_is_room() {
    let full = async |server: &Server, full| server.setup().watch().set_full(full);
    let during = async |server: &Server| {
        refused(server, "log_full").await?;
        let reason = server.not_ready(PATIENCE).await?;
        ensure!(reason.contains("disk is full"), "{reason}");
        let ends = observe::ends(&server.client()).await?;
        ensure!(observe::spot_check(&server.client(), &ends, 10).await? > 3, "nothing to read");
        Ok(())
    };
    with_a_load(full, during).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_no_sync_succeeds_nothing_is_acknowledged_and_it_recovers_when_they_do() {
    let broken = async |server: &Server, broken| server.setup().watch().set_broken(broken);
    let during = async |server: &Server| {
        refused(server, "log_away").await?;
        server.not_ready(PATIENCE).await?;
        Ok(())
    };
    with_a_load(broken, during).await.unwrap();
}
