//! Partita's front door as a user runs it, alone, with everything on that a request passes: over Kafka, or over the embedded log with
//! nobody reading it.

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use partita::{
    Config, Pipeline, Role,
    config::{CompressionMode, LogKind},
    log::{LogHealth, embedded::EmbeddedLog},
    memory::MemoryBudget,
};
use partita_bench::{
    door::{DoorArgs, announce},
    topic,
    worker::property,
};
use partita_core::DeliveryLimits;
use std::{path::PathBuf, time::Duration};

#[path = "../../../../app/src/allocator.rs"]
mod allocator;

#[derive(Parser)]
#[command(about)]
struct Cli {
    #[command(flatten)]
    door: DoorArgs,
    /// Comma-separated host:port of some brokers.
    #[arg(long, requires = "topic")]
    bootstrap_servers: Option<String>,
    /// The topic to write to.
    #[arg(long)]
    topic: Option<String>,
    /// Producers that the topic's partitions are spread over.
    #[arg(long, default_value_t = 1, requires = "topic")]
    producers: u32,
    /// The directory of the embedded log, instead of a topic.
    #[arg(long, conflicts_with = "bootstrap_servers")]
    dir: Option<PathBuf>,
    /// The number of partitions of the embedded log.
    #[arg(long, default_value_t = 16)]
    partitions: u32,
    /// A librdkafka property, as name=value. May be given several times.
    #[arg(long = "property", short = 'X', value_parser = property)]
    properties: Vec<(String, String)>,
    /// Record no metrics: what they cost.
    #[arg(long)]
    no_metrics: bool,
    /// Store bodies compressed, as is Partita's default. The bare doors never do.
    #[arg(long)]
    compress: bool,
    /// Where it keeps what it has read of the journal of requests.
    #[arg(long, requires = "topic")]
    idempotency_dir: Option<PathBuf>,
    /// A file of tokens, one of which every request must have. Origins of browsers and a bound on the backlog are then set, too.
    #[arg(long)]
    tokens_file: Option<PathBuf>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if !cli.no_metrics {
        partita::prometheus::install()?;
    }
    let mut config = Config::default();
    config.front_door.listen = cli.door.listen;
    config.front_door.threads = Some(cli.door.workers);
    config.admin.listen.set_port(0);
    if !cli.compress {
        config.front_door.compression = CompressionMode::None;
    }
    if cli.tokens_file.is_some() {
        config.front_door.tokens_file = cli.tokens_file;
        config.front_door.cors_origins = "https://example.com".into();
        config.front_door.backlog_tasks = Some(u64::MAX >> 1);
    }
    match (&cli.bootstrap_servers, &cli.topic, &cli.dir) {
        (Some(servers), Some(topic), None) => {
            config.log.kind = LogKind::Kafka;
            config.log.kafka.bootstrap_servers = servers.clone();
            config.log.kafka.topic = topic.clone();
            config.log.kafka.partitions = topic::partitions(servers, topic)?;
            config.log.kafka.producers = cli.producers;
            if let Some(dir) = cli.idempotency_dir {
                config.log.kafka.idempotency_dir = dir;
            }
            config.log.kafka.properties.extend(cli.properties.iter().cloned());
        }
        (None, None, Some(dir)) => {
            config.log.kind = LogKind::Embedded;
            config.log.embedded.dir = dir.clone();
            config.log.embedded.partitions = cli.partitions;
        }
        _ => bail!("say either --bootstrap-servers and --topic, or --dir"),
    }
    actix_rt::System::new().block_on(serve(config))
}

async fn serve(config: Config) -> Result<()> {
    let pipeline = Pipeline::builder(config.clone()).role(Role::FrontDoor);
    let pipeline = match config.log.kind {
        LogKind::Kafka => pipeline,
        LogKind::Embedded => {
            let memory = MemoryBudget::divide(config.memory.budget.as_u64(), config.limits.max_task.as_u64());
            let limits = DeliveryLimits {
                partition_records: config.worker.queue_tasks,
                partition_bytes: config.worker.queue_bytes.as_u64(),
                total_bytes: memory.map_err(anyhow::Error::msg)?.fetched,
            };
            pipeline.log(EmbeddedLog::open(&config.log.embedded, limits)?.log, None)
        }
    };
    let running = pipeline.start().await?;
    let log = running.task_log();
    let ready = async {
        while log.health() != LogHealth::Ready {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ready)
        .await
        .map_err(|_| anyhow!("the log did not become ready: {:?}", log.health()))?;
    announce(running.front_door().context("a front door listens")?)?;
    Ok(running.run().await?)
}
