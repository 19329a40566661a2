//! The consumer's thread comes by within a second, whatever its handlers, its group and its brokers do.

use crate::{PARTITIONS, created};
use partita_tests::{
    client::Client,
    kafka::{Fault, Kafka},
    load::Load,
    metrics::Metrics,
    network::Cut,
    random::Random,
    server::Setup,
    wait,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::task::JoinHandle;

/// How long a server may be busy with other things than its thread, or with a look at it.
const ALLOWED: Duration = Duration::from_secs(1);

/// Looks at when the thread last polled, again and again.
struct Watch {
    /// In milliseconds, and how many looks it is of.
    seen: Arc<(AtomicU64, AtomicU64)>,
    looking: JoinHandle<()>,
}

impl Watch {
    fn over(setup: &Setup) -> Self {
        let (seen, admin) = (Arc::new((AtomicU64::new(0), AtomicU64::new(0))), Client::new(setup.admin()));
        let written = seen.clone();
        let looking = tokio::spawn(async move {
            loop {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
                let page = admin.get(&["metrics"]).await.unwrap().text();
                // There is none before the first poll: then it has not looked.
                if let Some(last) = Metrics::parse(&page).sum("partita_consumer_last_poll_timestamp_seconds")
                {
                    written.0.fetch_max(((now - last).max(0.0) * 1e3) as u64, Ordering::Relaxed);
                    written.1.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { seen, looking }
    }

    /// The longest time since a poll that was seen since the last call.
    fn said(&self, what: &str) {
        let (longest, looks) =
            (self.seen.0.swap(0, Ordering::Relaxed), self.seen.1.swap(0, Ordering::Relaxed));
        println!("{what}: {longest} ms, {looks} looks");
        assert!(looks > 20 && !self.looking.is_finished(), "{looks} looks: too few");
        assert!(Duration::from_millis(longest) < ALLOWED, "{what}: the thread was away for {longest} ms");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_consumers_thread_never_blocks_for_a_second() {
    let kafka = Kafka::up_frail(1, "").unwrap();
    let network = kafka.network().await.unwrap();
    let setup = created(&kafka, PARTITIONS)
        .await
        .set("memory.budget", "\"64MiB\"")
        .set("limits.max_task", "\"16MB\"");
    let door = setup.clone().role("front-door").start().await.unwrap();
    let load = Load { tasks: u64::MAX, keys: 60, clients: 8, sizes: 10_000..=100_000, ..Load::default() };
    let mut running = load.start(door.setup().front(), Random::from_env());
    let far = format!("\"{}\"", kafka.far_bootstrap());
    // Its handlers stand still, so its partitions are paused.
    let worker = setup.journal_worker("stuck", &["--gated"]).set("log.kafka.bootstrap_servers", far);
    let mut worker = worker.start().await.unwrap();
    let watch = Watch::over(worker.setup());
    let said = |what: &str| watch.said(what);
    running.accepted_at_least(2000).await.unwrap();
    running.stop();
    running.finish().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(worker.partitions().await.unwrap().iter().any(|partition| partition.paused), "too tame");
    said("handlers that stand still");

    let other = setup.journal_worker("other", &["--gated"]).start().await.unwrap();
    wait::until("some are given to the other worker", Duration::from_secs(30), async || {
        Ok((worker.partitions().await?.len() < PARTITIONS as usize).then_some(()))
    })
    .await
    .unwrap();
    other.kill();
    said("a rebalance whose handlers do not end");

    for (cut, what) in
        [(Cut::Both, "nothing"), (Cut::Requests, "answers only"), (Cut::Answers, "requests only")]
    {
        network.cut(Some(cut));
        tokio::time::sleep(Duration::from_secs(5)).await;
        network.cut(None);
        tokio::time::sleep(Duration::from_secs(1)).await;
        said(&format!("{what} gets through"));
    }
    for (down, up) in [(Fault::Pause, Fault::Continue), (Fault::Kill, Fault::Start)] {
        kafka.fault(down, 1).unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        kafka.fault(up, 1).unwrap();
        said(&format!("{down:?}"));
    }
    kafka.ready().unwrap();
    worker.ready(Duration::from_secs(60)).await.unwrap();
    std::fs::write(setup.home().join("open"), "").unwrap();
    crate::committed_is_end(&kafka, PARTITIONS).await;
    said("all that had waited");
    worker.is_sound().await.unwrap();
    door.is_sound().await.unwrap();
}
