//! Appends to the embedded log beside a bare SQLite group commit, in turns.
//!
//! `cargo bench --profile dev -p partita --bench embedded [-- SECONDS]`. Bare: one thread, one table, one transaction for whatever waits,
//! `synchronous=FULL`, SQLite's own page size and checkpoints. `BENCH_SIZE` picks a size, `BENCH_IDEMPOTENT=1` gives each append a key.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use futures_util::future::{BoxFuture, join_all};
use partita::{
    config::EmbeddedConfig,
    core::{DeliveryLimits, Partition},
    log::{Idempotency, IdempotencyKey, NewRecord, TaskLog, embedded::EmbeddedLog},
};
use std::{
    cell::RefCell,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

const CASES: [(usize, usize); 12] = [
    (1_000, 1),
    (1_000, 64),
    (1_000, 256),
    (10_000, 1),
    (10_000, 64),
    (10_000, 256),
    (100_000, 1),
    (100_000, 64),
    (1_000_000, 1),
    (1_000_000, 16),
    (20_000_000, 1),
    (20_000_000, 4),
];

type Append = Arc<dyn Fn(u32, Bytes) -> BoxFuture<'static, ()>>;

fn main() {
    let seconds: f64 = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(3.0);
    let idempotent = std::env::var_os("BENCH_IDEMPOTENT").is_some();
    let filter: Option<usize> = std::env::var("BENCH_SIZE").ok().and_then(|size| size.parse().ok());
    println!(
        "{:>9} {:>8} {:>12} {:>8} {:>14} {:>14}",
        "bytes", "clients", "appends/s", "ratio", "p50/p99 ms", "bare p50/p99"
    );
    for (size, clients) in CASES {
        if filter.is_some_and(|wanted| wanted != size) {
            continue;
        }
        let mut bare = Vec::new();
        let mut ours = Vec::new();
        // In turns, so that both see the same machine.
        for _ in 0..2 {
            let dir = tempfile::tempdir_in(".").unwrap();
            bare.push(measure(&Bare::start(dir.path()), size, clients, seconds / 2.0));
            let dir = tempfile::tempdir_in(".").unwrap();
            let config = EmbeddedConfig { dir: dir.path().into(), ..EmbeddedConfig::default() };
            let limits = DeliveryLimits { partition_records: 1, partition_bytes: 1, total_bytes: 1 };
            let opened = EmbeddedLog::open(&config, limits).unwrap();
            let log = opened.log.clone();
            let appended = AtomicU64::new(0);
            let append: Append = Arc::new(move |partition, value| {
                let number = appended.fetch_add(1, Ordering::Relaxed);
                let idempotency = idempotent.then(|| Idempotency {
                    key: IdempotencyKey::of_request(b"key-12345", "bench", number),
                    digest: log.payload_hash().of(&value),
                });
                let key = Bytes::from_static(b"key-12345");
                let record = NewRecord { key, value, reservation: None, idempotency };
                let answer = log.append(Partition(partition), record);
                Box::pin(async move {
                    answer.await.unwrap();
                })
            });
            ours.push(measure(&append, size, clients, seconds / 2.0));
        }
        let (bare, ours) = (Measured::sum(bare), Measured::sum(ours));
        println!(
            "{size:>9} {clients:>8} {:>12.1} {:>8.2} {:>14} {:>14}",
            ours.rate,
            ours.rate / bare.rate,
            ours.percentiles(),
            bare.percentiles()
        );
    }
}

struct Measured {
    rate: f64,
    latencies: Vec<Duration>,
}

impl Measured {
    fn sum(parts: Vec<Self>) -> Self {
        let rate = parts.iter().map(|part| part.rate).sum::<f64>() / parts.len() as f64;
        let mut latencies: Vec<Duration> = parts.into_iter().flat_map(|part| part.latencies).collect();
        latencies.sort();
        Self { rate, latencies }
    }

    fn percentiles(&self) -> String {
        let at = |share: f64| {
            self.latencies[((self.latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0
        };
        format!("{:.2}/{:.2}", at(0.5), at(0.99))
    }
}

fn measure(append: &Append, size: usize, clients: usize, seconds: f64) -> Measured {
    let mut state = 88172645463325252_u64;
    let value: Bytes = (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect::<Vec<u8>>()
        .into();
    let latencies = RefCell::new(Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let start = Instant::now();
    runtime.block_on(join_all((0..clients).map(|client| {
        let (value, latencies) = (value.clone(), &latencies);
        async move {
            let mut partition = client as u32;
            while start.elapsed().as_secs_f64() < seconds {
                let begun = Instant::now();
                partition = partition.wrapping_mul(7).wrapping_add(3) % 16;
                append(partition, value.clone()).await;
                latencies.borrow_mut().push(begun.elapsed());
            }
        }
    })));
    let latencies = latencies.into_inner();
    Measured { rate: latencies.len() as f64 / start.elapsed().as_secs_f64(), latencies }
}

/// The loop to compare with.
struct Bare;

type Job = (u32, Bytes, oneshot::Sender<()>);

impl Bare {
    fn start(dir: &Path) -> Append {
        let (sender, receiver): (Sender<Job>, Receiver<Job>) = crossbeam_channel::unbounded();
        let path = dir.join("bare.db");
        std::thread::spawn(move || Self::write(&path, &receiver));
        Arc::new(move |partition, value| {
            let (reply, answer) = oneshot::channel();
            sender.send((partition, value, reply)).unwrap();
            Box::pin(async move { answer.await.unwrap() })
        })
    }

    fn write(path: &Path, jobs: &Receiver<Job>) {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).unwrap();
        connection.pragma_update(None, "synchronous", "FULL").unwrap();
        connection
            .execute_batch("CREATE TABLE t (seq INTEGER PRIMARY KEY, partition INTEGER, at INTEGER, key BLOB, value BLOB)")
            .unwrap();
        let mut insert =
            connection.prepare("INSERT INTO t (partition, at, key, value) VALUES (?1, ?2, ?3, ?4)").unwrap();
        while let Ok(first) = jobs.recv() {
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            let mut replies = Vec::new();
            let mut bytes = 0;
            for (partition, value, reply) in std::iter::once(first).chain(jobs.try_iter()) {
                insert.execute((partition, 1, &b"key-12345"[..], &value[..])).unwrap();
                replies.push(reply);
                bytes += value.len();
                if replies.len() >= 1024 || bytes > 8 << 20 {
                    break;
                }
            }
            connection.execute_batch("COMMIT").unwrap();
            for reply in replies {
                let _ = reply.send(());
            }
        }
    }
}
