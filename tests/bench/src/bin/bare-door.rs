//! A bare front door over Kafka: actix-web, idempotent producers without linger, 202 after the delivery report.

use anyhow::{Result, anyhow};
use bytes::BytesMut;
use clap::Parser;
use partita_bench::{
    door::{self, DoorArgs, Store},
    topic,
    worker::property,
};
use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

#[derive(Parser)]
#[command(about)]
struct Cli {
    #[command(flatten)]
    door: DoorArgs,
    /// Comma-separated host:port of some brokers.
    #[arg(long)]
    bootstrap_servers: String,
    /// The topic to write to.
    #[arg(long)]
    topic: String,
    /// Producers; a partition always uses the same one.
    #[arg(long, default_value_t = 1)]
    producers: usize,
    /// A librdkafka property, as name=value. May be given several times.
    #[arg(long = "property", short = 'X', value_parser = property)]
    properties: Vec<(String, String)>,
    /// Answer at once and store nothing: what HTTP alone costs.
    #[arg(long)]
    http_only: bool,
}

#[derive(Clone)]
struct Kafka {
    topic: Arc<str>,
    partitions: u32,
    producers: Arc<[FutureProducer]>,
}

impl Store for Kafka {
    fn partitions(&self) -> u32 {
        self.partitions
    }

    async fn append(&self, partition: u32, key: String, body: BytesMut) -> Result<u64> {
        let producer = &self.producers[partition as usize % self.producers.len()];
        let record = FutureRecord::to(&self.topic).partition(partition as i32).key(&key).payload(&body[..]);
        let delivery = producer.send_result(record).map_err(|(error, _)| error)?;
        // The producer has its own copy.
        drop(body);
        Ok(delivery.await?.map_err(|(error, _)| error)?.offset as u64)
    }
}

#[derive(Clone, Default)]
struct Nothing(Arc<AtomicU64>);

impl Store for Nothing {
    fn partitions(&self) -> u32 {
        16
    }

    async fn append(&self, _: u32, _: String, body: BytesMut) -> Result<u64> {
        std::hint::black_box(&body[..]);
        Ok(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[actix_web::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    if cli.http_only {
        return door::serve(cli.door, Nothing::default()).await;
    }
    let partitions = {
        let (servers, topic) = (cli.bootstrap_servers.clone(), cli.topic.clone());
        actix_web::rt::task::spawn_blocking(move || topic::partitions(&servers, &topic)).await??
    };
    let producers = (0..cli.producers.max(1)).map(|_| producer(&cli)).collect::<Result<Vec<_>>>()?;
    let store = Kafka { topic: cli.topic.as_str().into(), partitions, producers: producers.into() };
    door::serve(cli.door, store).await
}

fn producer(cli: &Cli) -> Result<FutureProducer> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &cli.bootstrap_servers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("message.max.bytes", topic::MAX_MESSAGE_BYTES);
    for (name, value) in &cli.properties {
        config.set(name, value);
    }
    config.create().map_err(|error| anyhow!("the producer was not made: {error}"))
}
