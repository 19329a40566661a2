//! Topics for a measurement: made, counted, deleted.

use anyhow::{Context, Result, bail, ensure};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(30);

/// The largest record that the measured topics take: a 100 MB task in its envelope.
pub const MAX_MESSAGE_BYTES: &str = "104857600";

/// Makes a topic of one replica and waits until all its partitions have a leader.
pub fn create(bootstrap_servers: &str, topic: &str, partitions: u32) -> Result<()> {
    let new = NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(1))
        .set("max.message.bytes", MAX_MESSAGE_BYTES)
        .set("retention.ms", "-1");
    let results = wait_for(admin(bootstrap_servers)?.create_topics([&new], &AdminOptions::new()))?;
    if let Some(Err((name, code))) = results.into_iter().next() {
        bail!("the topic {name} was not made: {code}");
    }
    let client = plain_consumer(bootstrap_servers)?;
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let metadata = client.fetch_metadata(Some(topic), TIMEOUT)?;
        let led = metadata.topics().iter().flat_map(|topic| topic.partitions()).filter(|p| p.leader() >= 0);
        if led.count() == partitions as usize {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the topic {topic} has partitions without a leader");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Deletes a topic.
pub fn delete(bootstrap_servers: &str, topic: &str) -> Result<()> {
    let results = wait_for(admin(bootstrap_servers)?.delete_topics(&[topic], &AdminOptions::new()))?;
    match results.into_iter().next() {
        Some(Err((name, code))) => bail!("the topic {name} was not deleted: {code}"),
        _ => Ok(()),
    }
}

/// How many partitions a topic has.
pub fn partitions(bootstrap_servers: &str, topic: &str) -> Result<u32> {
    let metadata = plain_consumer(bootstrap_servers)?.fetch_metadata(Some(topic), TIMEOUT)?;
    match metadata.topics().first().map(|topic| topic.partitions().len() as u32) {
        None | Some(0) => bail!("there is no topic {topic} at {bootstrap_servers}"),
        Some(partitions) => Ok(partitions),
    }
}

/// How many records a topic holds.
pub fn record_count(bootstrap_servers: &str, topic: &str) -> Result<u64> {
    Ok(ends(bootstrap_servers, topic)?.iter().sum())
}

/// The offset after the last record of each partition of a topic that was never trimmed.
pub fn ends(bootstrap_servers: &str, topic: &str) -> Result<Vec<u64>> {
    let client = plain_consumer(bootstrap_servers)?;
    (0..partitions(bootstrap_servers, topic)?)
        .map(|partition| {
            let (low, high) = client
                .fetch_watermarks(topic, partition as i32, TIMEOUT)
                .with_context(|| format!("asking for the end of {topic}-{partition}"))?;
            ensure!(low == 0, "{topic}-{partition} begins at {low}: measure on a topic with all its records");
            Ok(high as u64)
        })
        .collect()
}

fn admin(bootstrap_servers: &str) -> Result<AdminClient<DefaultClientContext>> {
    Ok(ClientConfig::new().set("bootstrap.servers", bootstrap_servers).create()?)
}

fn plain_consumer(bootstrap_servers: &str) -> Result<BaseConsumer> {
    Ok(ClientConfig::new().set("bootstrap.servers", bootstrap_servers).create()?)
}

/// Runs an admin request. It needs no runtime: librdkafka's own threads complete it.
fn wait_for<T>(request: impl Future<Output = rdkafka::error::KafkaResult<T>>) -> Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().build()?.block_on(request)?)
}
