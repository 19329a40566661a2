//! What `check` and `topics create` ask of the log's engines.

use super::check::{Finding, will_be_made};
use partita::Config;

/// The embedded log's directory: can it be used, is it free, has it this number of partitions?
pub(super) fn check_embedded(config: &Config) -> Vec<Finding> {
    let embedded = &config.log.embedded;
    if !embedded.dir.exists() {
        return vec![will_be_made("log", &embedded.dir, "log.embedded.dir")];
    }
    vec![]
}

/// The cluster and both topics.
pub(super) fn check_kafka(_config: &Config) -> Vec<Finding> {
    vec![]
}

/// Makes the topics that are missing: each topic with what became of it.
pub(super) fn create_topics(_config: &Config) -> anyhow::Result<Vec<(String, String)>> {
    anyhow::bail!("the Kafka log is not built into this version")
}
