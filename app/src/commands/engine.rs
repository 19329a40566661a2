//! What `check` and `topics create` ask of the log's engines.

use super::check::{Finding, Level, tempfile_in, will_be_made};
use partita::{
    Config,
    core::DeliveryLimits,
    log::{
        embedded::EmbeddedLog,
        kafka::admin::{self, Level as KafkaLevel},
    },
};

/// The embedded log's directory: can it be used, is it free, has it this number of partitions?
pub(super) fn check_embedded(config: &Config) -> Vec<Finding> {
    const SUBJECT: &str = "log";
    let embedded = &config.log.embedded;
    if !embedded.dir.exists() {
        return vec![will_be_made(SUBJECT, &embedded.dir, "log.embedded.dir")];
    }
    if let Err(error) = tempfile_in(&embedded.dir) {
        let detail = format!("{} cannot be written: {error}", embedded.dir.display());
        return vec![Finding::fail(SUBJECT, detail, "let this user write to it, or set log.embedded.dir")];
    }
    // Opening it is the whole truth about lock, partitions and readability; nothing is consumed.
    let limits = DeliveryLimits { partition_records: 1, partition_bytes: 1, total_bytes: 1 };
    match EmbeddedLog::open(embedded, limits) {
        Ok(_) => {
            let detail =
                format!("{} is free, with {} partitions", embedded.dir.display(), embedded.partitions);
            vec![Finding::ok(SUBJECT, detail)]
        }
        Err(error) => vec![Finding::fail(SUBJECT, error.to_string(), "")],
    }
}

/// The cluster and both topics.
pub(super) fn check_kafka(config: &Config) -> Vec<Finding> {
    let findings = admin::check(&config.log.kafka, config.limits.max_task.as_u64());
    findings
        .into_iter()
        .map(|finding| Finding {
            level: match finding.level {
                KafkaLevel::Ok => Level::Ok,
                KafkaLevel::Warn => Level::Warn,
                KafkaLevel::Fail => Level::Fail,
            },
            subject: finding.subject,
            detail: finding.detail,
            help: finding.help,
        })
        .collect()
}

/// Makes the topics that are missing: each topic with what became of it.
pub(super) fn create_topics(config: &Config) -> anyhow::Result<Vec<(String, String)>> {
    let reports = admin::create_topics(&config.log.kafka, config.limits.max_task.as_u64())?;
    Ok(reports.into_iter().map(|report| (report.topic, report.detail)).collect())
}
