#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
use bytes::Bytes;
use crossbeam_channel::{Receiver, unbounded};
use partita::config::KafkaConfig;
use partita::core::*;
use partita::log::kafka::{KafkaConsumer, KafkaLog, admin};
use partita::log::*;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::*;
use std::sync::atomic::*;
use std::sync::*;
use std::time::*;

fn cfg() -> KafkaConfig {
    let mut c = KafkaConfig::default();
    c.bootstrap_servers = std::env::var("BS").unwrap_or("127.0.0.1:21092".into());
    c.topic = std::env::var("TOPIC").unwrap_or("scratch".into());
    c.group = std::env::var("GROUP").unwrap_or("g1".into());
    c.partitions = std::env::var("PARTS").ok().map(|p| p.parse().unwrap()).unwrap_or(16);
    if let Ok(p) = std::env::var("PROPS") {
        for kv in p.split(';') {
            let (k, v) = kv.split_once('=').unwrap();
            c.properties.insert(k.into(), v.into());
        }
    }
    c
}
fn max_task() -> u64 {
    100_000_000
}

#[derive(Default)]
struct Sink {
    records: AtomicU64,
    bytes: AtomicU64,
    next: Mutex<HashMap<u32, u64>>,
    keep: AtomicBool,
    kept: Mutex<Vec<Record>>,
    hold_sum: AtomicU64,
}
struct SinkInbox {
    sink: Arc<Sink>,
    partition: u32,
    verify: bool,
}
impl Inbox for SinkInbox {
    fn deliver(&self, mut batch: Batch) {
        let n = batch.len() as u64;
        if self.verify {
            let mut next = self.sink.next.lock().unwrap();
            for i in 0..batch.len() {
                let r = batch.take(i).unwrap();
                let e = next.entry(self.partition).or_insert(r.offset.0);
                assert_eq!(*e, r.offset.0, "partition {}", self.partition);
                *e += 1;
                if self.sink.keep.load(Ordering::Relaxed) {
                    self.sink.kept.lock().unwrap().push(r);
                }
            }
        }
        self.sink.records.fetch_add(n, Ordering::Relaxed);
        self.sink.bytes.fetch_add(batch.bytes(), Ordering::Relaxed);
    }
    fn outstanding(&self) -> Outstanding {
        Outstanding::default()
    }
}
fn limits() -> DeliveryLimits {
    DeliveryLimits { partition_records: 4096, partition_bytes: 8 << 20, total_bytes: 128 << 20 }
}

struct Sup {
    handle: ConsumerHandle,
    events: Receiver<ConsumerEvent>,
    sink: Arc<Sink>,
    name: String,
    quiet: bool,
    owned: BTreeSet<u32>,
    epoch: u32,
    t0: Instant,
    thread: Option<std::thread::JoinHandle<()>>,
    verify: bool,
}
fn start(name: &str, c: &KafkaConfig, sink: Arc<Sink>, verify: bool) -> Sup {
    let consumer = Box::new(KafkaConsumer::new(c, limits(), 134 << 20, max_task()).unwrap());
    let waker = consumer.waker();
    let (tx, rx) = unbounded();
    let (etx, erx) = unbounded();
    let thread = std::thread::spawn(move || {
        consumer.run(ConsumerPort {
            events: Box::new(move |e| {
                let _ = etx.send(e);
            }),
            commands: rx,
        })
    });
    Sup {
        handle: ConsumerHandle { commands: tx, waker },
        events: erx,
        sink,
        name: name.into(),
        quiet: false,
        owned: BTreeSet::new(),
        epoch: 0,
        t0: Instant::now(),
        thread: Some(thread),
        verify,
    }
}
impl Sup {
    fn say(&self, s: String) {
        if !self.quiet {
            println!("[{:7.3}] {} {}", self.t0.elapsed().as_secs_f64(), self.name, s);
        }
    }
    fn commit_all(&self, id: u64) {
        let next = self.sink.next.lock().unwrap();
        let offsets: Vec<_> =
            self.owned.iter().filter_map(|p| next.get(p).map(|o| (Partition(*p), Offset(*o)))).collect();
        drop(next);
        self.handle.send(ConsumerCommand::Commit { commit: CommitId(id), offsets });
    }
    fn step(&mut self, wait: Duration) -> bool {
        let Ok(e) = self.events.recv_timeout(wait) else { return true };
        match e {
            ConsumerEvent::Assigned { intent, generation, partitions } => {
                self.say(format!(
                    "assigned gen {generation} {} partitions {:?}..",
                    partitions.len(),
                    partitions.iter().take(3).collect::<Vec<_>>()
                ));
                let mut lanes = vec![];
                for (p, s) in partitions {
                    self.epoch += 1;
                    self.owned.insert(p.0);
                    self.sink.next.lock().unwrap().insert(p.0, s.0);
                    lanes.push(Lane {
                        partition: p,
                        epoch: Epoch::new(generation, self.epoch),
                        start: s,
                        inbox: Arc::new(SinkInbox {
                            sink: self.sink.clone(),
                            partition: p.0,
                            verify: self.verify,
                        }),
                    });
                }
                self.handle.send(ConsumerCommand::CompleteAssign { intent, lanes });
            }
            ConsumerEvent::Revoking { intent, partitions } => {
                self.say(format!("revoking {:?}", partitions.iter().map(|p| p.0).collect::<Vec<_>>()));
                self.commit_all(999);
                for p in &partitions {
                    self.owned.remove(&p.0);
                }
                self.handle.send(ConsumerCommand::CompleteRevoke { intent });
            }
            ConsumerEvent::Lost { partitions } => {
                for p in &partitions {
                    self.owned.remove(&p.0);
                }
                self.say(format!("LOST {}", partitions.len()));
            }
            ConsumerEvent::HighWatermarks(h) => self.say(format!(
                "high watermarks of {} sum {}",
                h.len(),
                h.iter().map(|x| x.1.0).sum::<u64>()
            )),
            ConsumerEvent::Closed => {
                self.say("closed".into());
                return false;
            }
            ConsumerEvent::Fatal(f) => {
                self.say(format!("FATAL {f}"));
                return false;
            }
            other => self.say(format!("{other:?}")),
        }
        true
    }
    fn run_until(&mut self, mut done: impl FnMut(&Sup) -> bool, max: Duration) {
        let end = Instant::now() + max;
        while Instant::now() < end && !done(self) {
            if !self.step(Duration::from_millis(1)) {
                break;
            }
        }
    }
    fn close(mut self) {
        self.handle.send(ConsumerCommand::Close);
        let t = Instant::now();
        while self.step(Duration::from_secs(10)) {}
        println!("close took {:?}", t.elapsed());
        let t = Instant::now();
        self.sink.kept.lock().unwrap().clear();
        self.thread.take().unwrap().join().unwrap();
        println!("join took {:?}", t.elapsed());
    }
}
fn wait_ready(log: &KafkaLog) {
    let t = Instant::now();
    while log.health() != LogHealth::Ready {
        assert!(t.elapsed() < Duration::from_secs(20), "{:?}", log.health());
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("ready after {:?} id {}", t.elapsed(), log.topic_id());
}

async fn pump(log: &Arc<KafkaLog>, n: u64, size: usize, window: usize, parts: u32) -> Vec<Duration> {
    use futures_util::stream::{FuturesUnordered, StreamExt};
    let body = Bytes::from((0..size).map(|i| (i as u8).wrapping_mul(31)).collect::<Vec<u8>>());
    let mut lat = Vec::with_capacity(n as usize);
    let mut inflight = FuturesUnordered::new();
    let mut sent = 0u64;
    while sent < n || !inflight.is_empty() {
        while sent < n && inflight.len() < window {
            let p = Partition((sent % parts as u64) as u32);
            let key = Bytes::from(format!("key-{}", sent % 1000));
            let f = log.append(p, NewRecord { key, value: body.clone(), reservation: None });
            let t = Instant::now();
            inflight.push(async move { (f.await, t.elapsed()) });
            sent += 1;
        }
        if let Some((r, d)) = inflight.next().await {
            r.unwrap();
            lat.push(d);
        }
    }
    lat.sort();
    lat
}
fn pct(l: &[Duration], p: f64) -> Duration {
    l[((l.len() - 1) as f64 * p) as usize]
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let c = cfg();
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match args[1].as_str() {
        "topics" => {
            println!("{:?}", admin::create_topics(&c, max_task()));
            for f in admin::check(&c, max_task()) {
                println!("{:?} {}", f.level, f);
            }
        }
        "check" => {
            for f in admin::check(&c, max_task()) {
                println!("{:?} {}", f.level, f);
            }
        }
        "fill" => {
            let (n, size): (u64, usize) = (args[2].parse().unwrap(), args[3].parse().unwrap());
            let log = KafkaLog::connect(&c, max_task(), 256 << 20).unwrap();
            wait_ready(&log);
            let t = Instant::now();
            let window = args.get(4).map(|w| w.parse().unwrap()).unwrap_or(64);
            let l = rt.block_on(pump(&log, n, size, window, c.partitions));
            let s = t.elapsed().as_secs_f64();
            println!(
                "{n} x {size}, window {window}: {:.0}/s {:.1} MB/s p50 {:?} p99 {:?} max {:?}",
                n as f64 / s,
                n as f64 * size as f64 / s / 1e6,
                pct(&l, 0.5),
                pct(&l, 0.99),
                pct(&l, 1.0)
            );
            let t = Instant::now();
            rt.block_on(log.close());
            println!("close {:?}", t.elapsed());
        }
        "raw" => {
            let n: u64 = args[2].parse().unwrap();
            let mut rc = rdkafka::ClientConfig::new();
            rc.set("bootstrap.servers", &c.bootstrap_servers)
                .set("group.id", format!("raw{}", std::process::id()))
                .set("auto.offset.reset", "earliest")
                .set("enable.auto.commit", "false")
                .set("fetch.queue.backoff.ms", "10");
            if args.len() > 3 {
                rc.set("fetch.message.max.bytes", &args[3]);
            }
            let b: BaseConsumer = rc.create().unwrap();
            b.subscribe(&[&c.topic]).unwrap();
            let (mut k, mut bytes, mut t) = (0u64, 0u64, Instant::now());
            while k < n {
                if let Some(Ok(m)) = b.poll(Duration::from_millis(100)) {
                    if k == 0 {
                        t = Instant::now();
                    }
                    k += 1;
                    bytes +=
                        m.payload().map_or(0, |p| p.len()) as u64 + m.key().map_or(0, |k| k.len()) as u64;
                }
            }
            let s = t.elapsed().as_secs_f64();
            println!("raw  {:.0}/s {:.1} MB/s", k as f64 / s, bytes as f64 / s / 1e6);
        }
        "ours" => {
            let n: u64 = args[2].parse().unwrap();
            let mut c = c;
            c.group = format!("ours{}", std::process::id());
            let sink = Arc::new(Sink::default());
            let mut s = start("ours", &c, sink.clone(), false);
            s.quiet = true;
            s.run_until(|s| s.sink.records.load(Ordering::Relaxed) > 0, Duration::from_secs(30));
            let t = Instant::now();
            s.run_until(|s| s.sink.records.load(Ordering::Relaxed) >= n, Duration::from_secs(120));
            let e = t.elapsed().as_secs_f64();
            println!(
                "ours {:.0}/s {:.1} MB/s",
                sink.records.load(Ordering::Relaxed) as f64 / e,
                sink.bytes.load(Ordering::Relaxed) as f64 / e / 1e6
            );
            s.close();
        }
        "follow" => {
            let secs: u64 = args[2].parse().unwrap();
            let sink = Arc::new(Sink::default());
            let mut s = start(&args.get(3).cloned().unwrap_or("follow".into()), &c, sink.clone(), true);
            let end = Instant::now() + Duration::from_secs(secs);
            let mut id = 0;
            while Instant::now() < end {
                s.run_until(|_| false, Duration::from_secs(1));
                id += 1;
                s.commit_all(id);
                let n = sink.records.load(Ordering::Relaxed);
                s.say(format!("records {n}, owned {}", s.owned.len()));
            }
            s.close();
        }
        "roundtrip" => {
            let log = KafkaLog::connect(&c, max_task(), 256 << 20).unwrap();
            wait_ready(&log);
            let sizes = [0usize, 1, 5000, 10_000, 1_000_000, 30_000_000, 100_000_000];
            let mut sent = HashMap::new();
            rt.block_on(async {
                for (i, size) in sizes.iter().enumerate() {
                    let v = Bytes::from((0..*size).map(|x| (x as u8) ^ (i as u8)).collect::<Vec<u8>>());
                    let t = Instant::now();
                    let r = log
                        .append(
                            Partition(i as u32),
                            NewRecord {
                                key: Bytes::from(format!("k{i}")),
                                value: v.clone(),
                                reservation: None,
                            },
                        )
                        .await;
                    println!("append {size}: {r:?} {:?}", t.elapsed());
                    let r = r.unwrap();
                    sent.insert((r.partition.0, r.offset.0), v);
                }
                println!(
                    "park: {:?}",
                    log.park(
                        Partition(3),
                        ParkedRecord {
                            key: Bytes::from("k"),
                            value: Bytes::from("v"),
                            parked: Bytes::from("why")
                        }
                    )
                    .await
                );
                let big = Bytes::from(vec![0u8; 103_000_000]);
                println!(
                    "too large: {:?}",
                    log.append(
                        Partition(0),
                        NewRecord { key: Bytes::from("k"), value: big, reservation: None }
                    )
                    .await
                );
            });
            let sink = Arc::new(Sink::default());
            sink.keep.store(true, Ordering::Relaxed);
            let mut c2 = c.clone();
            c2.group = format!("rt{}", std::process::id());
            let mut s = start("rt", &c2, sink.clone(), true);
            let n = sent.len();
            s.run_until(
                |s| {
                    let k = s.sink.kept.lock().unwrap();
                    sent.iter()
                        .filter(|((_, o), v)| k.iter().any(|r| r.offset.0 == *o && r.value == **v))
                        .count()
                        == n
                },
                Duration::from_secs(60),
            );
            println!("all {} back byte for byte", n);
            s.close();
        }
        "door" => {
            let secs: u64 = args[2].parse().unwrap();
            let log = KafkaLog::connect(&c, max_task(), 64 << 20).unwrap();
            let t0 = Instant::now();
            let mut last = LogHealth::Ready;
            let results: Arc<Mutex<BTreeMap<String, (u64, f64)>>> = Arc::default();
            while t0.elapsed() < Duration::from_secs(secs) {
                let h = log.health();
                if h != last {
                    println!("[{:7.3}] health {h:?}", t0.elapsed().as_secs_f64());
                    last = h;
                }
                let f = log.append(
                    Partition(0),
                    NewRecord { key: Bytes::from("k"), value: Bytes::from("v"), reservation: None },
                );
                let (t, r) = (Instant::now(), results.clone());
                rt.spawn(async move {
                    let x = f.await;
                    let k = match x {
                        Ok(_) => "ok".into(),
                        Err(e) => format!("{e:?}"),
                    };
                    let mut r = r.lock().unwrap();
                    let e = r.entry(k).or_default();
                    e.0 += 1;
                    e.1 = e.1.max(t.elapsed().as_secs_f64());
                });
                rt.block_on(tokio::time::sleep(Duration::from_millis(10)));
            }
            println!("close..");
            let t = Instant::now();
            rt.block_on(log.close());
            println!("closed in {:?}", t.elapsed());
            for (k, (n, max)) in results.lock().unwrap().iter() {
                println!("{n:6} max {max:.3}s {k}");
            }
        }
        _ => panic!(),
    }
}
