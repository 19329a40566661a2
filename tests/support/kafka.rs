//! A real Apache Kafka of this test's own, driven by `tests/kafka/kafka`.

use crate::{disk, history::Position, network::Network, ports, preload, server::Setup};
use anyhow::{Context, Result, ensure};
use partita::proto::v1::{Parked, parked::Kind};
use partita_core::{Offset, Partition};
use prost::Message as _;
use rdkafka::{
    ClientConfig, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    consumer::{BaseConsumer, Consumer},
    error::KafkaResult,
    message::{Headers, Message},
};
use std::{
    collections::BTreeMap,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// For how long a question to the cluster may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// For how long a cluster may take to be whole again.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// A cluster. Dropping it kills its brokers and deletes their data.
#[derive(Debug)]
pub struct Kafka {
    dir: TempDir,
    base_port: u16,
    bootstrap: String,
    overrides: String,
    brokers: u32,
    /// Its network can be cut and its disks filled.
    frail: bool,
}

/// What is done to one broker.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// SIGTERM, and wait.
    Stop,
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Continue,
    /// Start it again.
    Start,
}

impl Kafka {
    /// Starts one broker or three, as a stock Kafka is configured.
    pub fn up(brokers: u32) -> Result<Self> {
        Self::start(brokers, "", false)
    }

    /// As `up`, with further lines of `server.properties`, a network that can be cut and disks that can be full.
    pub fn up_frail(brokers: u32, overrides: &str) -> Result<Self> {
        Self::start(brokers, overrides, true)
    }

    fn start(brokers: u32, overrides: &str, frail: bool) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("partita-kafka-").tempdir()?;
        // Broker I listens on base + 10 × (I - 1), its controller one above, and where it is reached over a network above that.
        let overrides = overrides.to_owned();
        let mut kafka =
            Self { dir, base_port: ports::free(24), bootstrap: String::new(), overrides, brokers, frail };
        let said = kafka.run(&["up", &brokers.to_string()])?;
        kafka.bootstrap = said.lines().last().context("no bootstrap servers")?.into();
        Ok(kafka)
    }

    /// Where clients begin.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A network between its brokers and those clients that begin at [`far_bootstrap`](Self::far_bootstrap).
    pub async fn network(&self) -> Result<Network> {
        Network::between(self.far_ports().map(|port| (port, port - 1))).await
    }

    /// Where clients begin that reach it over its network.
    pub fn far_bootstrap(&self) -> String {
        self.far_ports().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    }

    fn far_ports(&self) -> impl Iterator<Item = u16> + use<> {
        let (base, brokers) = (self.base_port, self.brokers as u16);
        (0..brokers).map(move |broker| base + 10 * broker + 3)
    }

    /// From now on a broker's disk has no room, or has it again.
    pub fn set_disk_full(&self, broker: u32, full: bool) -> Result<()> {
        disk::set(&self.dir.path().join(format!("node-{broker}/disk-full")), full)
    }

    /// Runs a command of the script and returns what it printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/kafka/kafka"));
        if self.frail {
            command.env("KAFKA_FAR", "1").env("KAFKA_DISK", preload::library("disk/shim.c")?);
            // Brokers that are killed again and again do not live to be compiled well.
            command.env("KAFKA_JVM", "-XX:TieredStopAtLevel=1");
        } else {
            // A request is on a broker's heap as a whole, and several of 100 MB may come at once.
            command.env("KAFKA_HEAP", "1g");
        }
        let output = command
            .args(arguments)
            .env("KAFKA_DIR", self.dir.path())
            .env("KAFKA_BASE_PORT", self.base_port.to_string())
            .env("KAFKA_OVERRIDES", &self.overrides)
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kafka {arguments:?}: {}: {said}{complaint}", output.status);
        Ok(said)
    }

    /// Does something to one broker, counted from 1.
    pub fn fault(&self, fault: Fault, broker: u32) -> Result<()> {
        let verb = match fault {
            Fault::Stop => "stop",
            Fault::Kill => "kill",
            Fault::Pause => "pause",
            Fault::Continue => "cont",
            Fault::Start => "start",
        };
        self.run(&[verb, &broker.to_string()]).map(drop)
    }

    /// Deletes the records of a partition that are before this offset, as retention does.
    pub fn delete_before(&self, topic: &str, partition: u32, offset: u64) -> Result<()> {
        let list = self.dir.path().join("delete.json");
        let place = format!(r#"{{"topic":"{topic}","partition":{partition},"offset":{offset}}}"#);
        std::fs::write(&list, format!(r#"{{"version":1,"partitions":[{place}]}}"#))?;
        let list = list.to_str().context("a path that is text")?;
        self.run(&["delete-records", "--offset-json-file", list]).map(drop)
    }

    /// Deletes a task topic and its parking topic: a cluster with thousands of replicas is a slow one.
    pub async fn delete(&self, topic: &str) -> Result<()> {
        let mut config = ClientConfig::new();
        let admin: AdminClient<_> = config.set("bootstrap.servers", &self.bootstrap).create()?;
        let parking = format!("{topic}.parked");
        for deleted in admin.delete_topics(&[topic, &parking], &AdminOptions::new()).await? {
            deleted.map_err(|(topic, code)| anyhow::anyhow!("{topic} was not deleted: {code}"))?;
        }
        Ok(())
    }

    /// Whether a broker runs.
    pub fn is_up(&self, broker: u32) -> Result<bool> {
        let status = self.run(&["status"])?;
        let line = status.lines().find(|line| line.starts_with(&format!("{broker} ")));
        Ok(!line.context("no such broker")?.ends_with("down"))
    }

    /// Waits until every broker answers and every replica is in sync.
    pub fn ready(&self) -> Result<()> {
        // Not by the script: Kafka's own tools cost a second of processor time each time they are asked.
        let client = self.consumer("nobody")?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let metadata = client.fetch_metadata(None, PATIENCE)?;
            let partitions = || metadata.topics().iter().flat_map(|topic| topic.partitions());
            let behind = partitions().filter(|one| one.isr().len() < one.replicas().len()).count();
            if metadata.brokers().len() == self.brokers as usize && behind == 0 {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{} brokers, {behind} partitions are behind",
                metadata.brokers().len()
            );
            sleep(Duration::from_millis(200));
        }
    }

    /// A server's settings for a topic on this cluster. Group and topic have the same name.
    pub fn setup(&self, topic: &str, partitions: u32) -> Setup {
        Setup::embedded()
            .set("log.kind", "\"kafka\"")
            .set("log.kafka.bootstrap_servers", format!("\"{}\"", self.bootstrap))
            .set("log.kafka.topic", format!("\"{topic}\""))
            .set("log.kafka.group", format!("\"{topic}\""))
            .set("log.kafka.partitions", partitions.to_string())
    }

    /// What the group has committed of the topic, without the partitions it has committed nothing of.
    pub fn committed(&self, topic: &str, partitions: u32) -> Result<Vec<Position>> {
        let consumer = self.consumer(topic)?;
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_range(topic, 0, partitions as i32 - 1);
        let committed = answer(|| consumer.committed_offsets(wanted.clone(), PATIENCE))?;
        let known = committed.elements().into_iter().filter_map(|element| {
            let offset = u64::try_from(element.offset().to_raw()?).ok()?;
            Some(Position { partition: Partition(element.partition() as u32), offset: Offset(offset) })
        });
        Ok(known.collect())
    }

    /// Commits an offset with what is to stand beside it, for the group of the topic's name, which has no members.
    pub fn commit(&self, topic: &str, partition: u32, offset: i64, metadata: &str) -> Result<()> {
        let consumer = self.consumer(topic)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition as i32, rdkafka::Offset::Offset(offset))?;
        list.find_partition(topic, partition as i32).context("just added")?.set_metadata(metadata);
        answer(|| consumer.commit(&list, rdkafka::consumer::CommitMode::Sync))?;
        Ok(())
    }

    /// The offset after the last record of each partition.
    pub fn ends(&self, topic: &str, partitions: u32) -> Result<BTreeMap<Partition, Offset>> {
        let consumer = self.consumer(topic)?;
        let end = |partition| {
            let (_, end) = answer(|| consumer.fetch_watermarks(topic, partition as i32, PATIENCE))?;
            Ok((Partition(partition), Offset(end as u64)))
        };
        (0..partitions).map(end).collect()
    }

    /// The places of the tasks that are, or were, in the topic's parking topic.
    pub fn parked(&self, topic: &str, partitions: u32) -> Result<Vec<Position>> {
        let parking = format!("{topic}.parked");
        let mut ends = self.ends(&parking, partitions)?;
        ends.retain(|_, end| end.0 > 0);
        let consumer = self.consumer(topic)?;
        let mut from = TopicPartitionList::new();
        for partition in ends.keys() {
            from.add_partition_offset(&parking, partition.0 as i32, rdkafka::Offset::Beginning)?;
        }
        consumer.assign(&from)?;
        let mut parked = Vec::new();
        while !ends.is_empty() {
            let message =
                answer(|| consumer.poll(PATIENCE).transpose())?.context("the parking topic is silent")?;
            let partition = Partition(message.partition() as u32);
            let headers = message.headers().context("a record of the parking topic has a header")?;
            let note = headers.iter().find_map(|header| header.value).context("with a value")?;
            let note = Parked::decode(note)?;
            if note.kind() != Kind::Closed {
                parked.push(Position { partition, offset: Offset(note.offset) });
            }
            if ends.get(&partition).is_some_and(|end| message.offset() as u64 + 1 >= end.0) {
                ends.remove(&partition);
            }
        }
        Ok(parked)
    }

    /// Fails unless the group has committed the end of every partition.
    pub fn committed_is_end(&self, topic: &str, partitions: u32) -> Result<()> {
        let committed: BTreeMap<_, _> =
            self.committed(topic, partitions)?.into_iter().map(|p| (p.partition, p.offset)).collect();
        for (partition, end) in self.ends(topic, partitions)? {
            let at = committed.get(&partition).copied().unwrap_or_default();
            ensure!(at == end, "{partition:?}: committed {at:?}, end {end:?}");
        }
        Ok(())
    }

    fn consumer(&self, group: &str) -> Result<BaseConsumer> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("group.id", group);
        Ok(config.create()?)
    }
}

/// Asks the cluster, and again while it cannot answer: leaders and coordinators move in these tests, and brokers come back.
fn answer<T>(ask: impl Fn() -> KafkaResult<T>) -> KafkaResult<T> {
    let start = Instant::now();
    loop {
        let answer = ask();
        if answer.is_ok() || start.elapsed() > PATIENCE {
            return answer;
        }
        sleep(Duration::from_millis(100));
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["wipe"]) {
            eprintln!("a Kafka was left behind: {error:#}");
        }
    }
}
