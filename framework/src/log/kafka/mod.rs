//! The Kafka log.
//!
//! rdkafka lives here and nowhere else, and its types do not leave. `producer` is the writing half over its `writers`, `consumer` the reading half, `lookup` reads what was parked,
//! `requests` makes appends idempotent;
//! `watch` tells both whether the cluster and the topic are what they must be, `settings` is the one table of librdkafka's
//! properties. `disowned` knows of which records librdkafka's word that they were not written does not hold. What speaks to librdkafka's C API
//! directly is in `native` (the group consumer), `lend` (records handed over without a copy), `reports` (what became of them), `headers`, `topic_id`
//! and `native_config`.

pub mod admin;
mod client;
mod consumer;
mod delivery;
mod disowned;
mod headers;
mod lend;
mod lookup;
mod native;
mod native_config;
mod producer;
mod reports;
mod requests;
mod settings;
#[cfg(test)]
mod tests;
mod topic_id;
mod watch;
mod writers;

pub use consumer::KafkaConsumer;
pub use producer::KafkaLog;
pub(crate) use settings::verify;

use crate::Error;
use std::thread;

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    thread::Builder::new().name(name.into()).spawn(run).map(drop).map_err(Error::Thread)
}
