//! Fills a topic with tasks as the front door would store them: an envelope around a payload of the wanted size.

use crate::topic;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::ValueEnum;
use partita::envelope::PayloadBuffer;
use partita_proto::v1::Envelope;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What payloads are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fill {
    /// Bytes that do not compress.
    Random,
    /// Text that compresses as recorded page events do, to about a sixth.
    Json,
}

/// What to put into a topic.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// How many records, spread evenly over the partitions.
    pub records: u64,
    /// The payload's size.
    pub size: usize,
    /// How many partitions the topic has.
    pub partitions: u32,
    /// Whether the client compresses batches of records with zstd.
    pub zstd_batches: bool,
    /// What payloads are made of.
    pub fill: Fill,
}

#[derive(Default)]
struct Deliveries {
    delivered: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.delivered } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Err((error, message)) = result {
            let size = message.payload_len();
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("a record of {size} bytes was not delivered: {error}\n"),
            );
        }
    }
}

/// Writes the records and waits until the broker has them all.
pub fn fill(bootstrap_servers: &str, topic: &str, load: &Load) -> Result<()> {
    let producer: ThreadedProducer<Deliveries> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "20")
        .set("message.max.bytes", topic::MAX_MESSAGE_BYTES)
        .set("queue.buffering.max.kbytes", "262144")
        .set("compression.type", if load.zstd_batches { "zstd" } else { "none" })
        .create_with_context(Deliveries::default())?;
    // A few different records are enough: nobody on the way compares them.
    let records = samples(load);
    for index in 0..load.records {
        let key = format!("key-{}", index % 10_000);
        let record = &records[(index % records.len() as u64) as usize];
        let mut message = BaseRecord::to(topic)
            .partition((index % u64::from(load.partitions)) as i32)
            .key(&key)
            .payload(&record[..]);
        loop {
            match producer.send(message) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    message = back;
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err((error, _)) => return Err(error).context("filling the topic"),
            }
        }
    }
    producer.flush(Duration::from_secs(120)).context("waiting for the last records")?;
    let deliveries = producer.context();
    let delivered = deliveries.delivered.load(Ordering::Relaxed);
    if delivered != load.records {
        bail!("{delivered} of {} records were delivered", load.records);
    }
    Ok(())
}

fn samples(load: &Load) -> Vec<Bytes> {
    const SAMPLES: usize = 16;
    let pool = pool(load.fill, load.size + SAMPLES * 97);
    let head = Envelope {
        created_at_ms: 1_750_000_000_000,
        content_type: Some("application/octet-stream".into()),
        payload_size: load.size as u64,
        ..Envelope::default()
    };
    let samples = if load.size > 4 << 20 { 1 } else { SAMPLES };
    (0..samples)
        .map(|sample| {
            let mut buffer = PayloadBuffer::new(&head, load.size);
            buffer.extend(&pool[sample * 97..sample * 97 + load.size]);
            buffer.seal(&head)
        })
        .collect()
}

/// `size` bytes of filler, the same for every run.
pub fn pool(fill: Fill, size: usize) -> Vec<u8> {
    let mut random = SmallRng::seed_from_u64(0x70617274_69746121);
    let mut pool = Vec::with_capacity(size + 256);
    match fill {
        Fill::Random => {
            pool.resize(size, 0);
            random.fill_bytes(&mut pool);
        }
        Fill::Json => {
            while pool.len() < size {
                let (node, x, y, time) = (
                    random.next_u32() % 5000,
                    random.next_u32() % 1920,
                    random.next_u32() % 1080,
                    random.next_u32(),
                );
                let event = format!(
                    r#"{{"type":3,"data":{{"source":1,"positions":[{{"x":{x},"y":{y},"id":{node},"timeOffset":-{}}}]}},"timestamp":17500{time:08}}},"#,
                    time % 500
                );
                pool.extend_from_slice(event.as_bytes());
            }
            pool.truncate(size);
        }
    }
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_task_of_the_wanted_size() {
        let load = Load { records: 1, size: 10_000, partitions: 1, zstd_batches: false, fill: Fill::Json };
        for record in samples(&load) {
            let mut envelope = partita::envelope::decode(record, 10_000).unwrap();
            assert_eq!(partita::envelope::payload(&mut envelope).unwrap().len(), 10_000);
        }
    }
}
