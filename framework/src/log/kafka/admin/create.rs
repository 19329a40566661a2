//! Makes the topics that are missing.

use super::{
    BROKERS_TIME, FOR_EVER, TIMEOUT, TIMESTAMP_TYPE, block_on, client, find, largest_record, options,
    requests_partitions,
};
use crate::{
    Error,
    config::KafkaConfig,
    log::kafka::{client::Context, delivery::Target, watch},
};
use rdkafka::{
    admin::{AdminClient, NewTopic, TopicReplication},
    error::RDKafkaErrorCode,
    metadata::MetadataTopic,
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// How long a new topic may take to be known: thousands of replicas keep a small cluster busy.
const VISIBLE_WITHIN: Duration = Duration::from_secs(60);
/// How long the tasks of a topic made by `create_topics` are kept; what is parked, until somebody deletes it.
const RETENTION_MS: &str = "604800000";

/// What `create_topics` did about one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicReport {
    /// The topic.
    pub topic: String,
    /// Whether it was made now; `false`: it was there and is left as it is.
    pub created: bool,
    /// Partitions, replicas and settings, for people.
    pub detail: String,
}

/// Makes the task topic, its parking topic and its journal of requests where they are missing. Alters nothing that is there.
pub fn create_topics(config: &KafkaConfig, max_task: u64) -> Result<Vec<TopicReport>, Error> {
    create(config, max_task, &Target::ALL)
}

/// Makes the journal of requests, if it is not there.
pub(in super::super) fn create_requests_topic(config: &KafkaConfig, max_task: u64) -> Result<(), Error> {
    create(config, max_task, &[Target::Requests]).map(drop)
}

fn create(config: &KafkaConfig, max_task: u64, targets: &[Target]) -> Result<Vec<TopicReport>, Error> {
    let client = client(config, max_task)?;
    let fail = |reason: String| Error::Log(reason);
    let metadata = client
        .inner()
        .fetch_metadata(None, TIMEOUT)
        .map_err(|error| fail(watch::unreachable(config, &error)))?;
    let replicas = config.replication_factor.unwrap_or(3.min(metadata.brokers().len() as u16)).max(1);
    let mut reports = Vec::new();
    for target in targets {
        let topic = target.topic(&config.topic);
        reports.push(match find(&metadata, &topic) {
            Some(there) => left_alone(there),
            None => {
                let retention = match target {
                    Target::Tasks => RETENTION_MS.to_owned(),
                    Target::Parking => FOR_EVER.to_owned(),
                    // A process that starts anew learns from it what it has to remember.
                    Target::Requests => (2 * config.idempotency_window).as_millis().to_string(),
                };
                let partitions = match target {
                    Target::Tasks | Target::Parking => config.partitions,
                    Target::Requests => requests_partitions(config),
                };
                create_topic(
                    &client,
                    topic,
                    partitions,
                    replicas,
                    largest_record(max_task, *target),
                    &retention,
                )?
            }
        });
    }
    wait_until_visible(&client, &reports);
    Ok(reports)
}

fn left_alone(there: &MetadataTopic) -> TopicReport {
    let replicas = there.partitions().first().map_or(0, |one| one.replicas().len());
    let partitions = there.partitions().len();
    let detail =
        format!("is there already, with {partitions} partitions and {replicas} replicas; left as it is");
    TopicReport { topic: there.name().into(), created: false, detail }
}

fn create_topic(
    client: &AdminClient<Context>,
    topic: String,
    partitions: u32,
    replicas: u16,
    largest: u64,
    retention_ms: &str,
) -> Result<TopicReport, Error> {
    let in_sync = replicas.saturating_sub(1).max(1).to_string();
    let largest = largest.to_string();
    let new = NewTopic::new(&topic, partitions as i32, TopicReplication::Fixed(i32::from(replicas)))
        .set("cleanup.policy", "delete")
        .set("min.insync.replicas", &in_sync)
        .set("max.message.bytes", &largest)
        .set("unclean.leader.election.enable", "false")
        .set("compression.type", "producer")
        .set(TIMESTAMP_TYPE, BROKERS_TIME)
        .set("retention.ms", retention_ms)
        .set("retention.bytes", FOR_EVER);
    let fail = |reason: String| Err(Error::Log(format!("topic {topic} was not made: {reason}")));
    let made = match block_on(client.create_topics([&new], &options())) {
        Ok(made) => made.into_iter().next(),
        Err(error) => return fail(error.to_string()),
    };
    let detail = match made {
        Some(Ok(_)) => format!(
            "made with {partitions} partitions, {replicas} replicas, min.insync.replicas={in_sync}, max.message.bytes={largest}"
        ),
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
            let detail = "is there already, made a moment ago; left as it is".into();
            return Ok(TopicReport { topic, created: false, detail });
        }
        Some(Err((_, code))) => return fail(code.to_string()),
        None => return fail("the cluster did not say why".into()),
    };
    Ok(TopicReport { topic, created: true, detail })
}

/// A new topic is not known to every broker at once: whoever looks next must find it.
fn wait_until_visible(client: &AdminClient<Context>, reports: &[TopicReport]) {
    let deadline = Instant::now() + VISIBLE_WITHIN;
    while Instant::now() < deadline {
        let metadata = client.inner().fetch_metadata(None, TIMEOUT);
        if metadata.is_ok_and(|seen| reports.iter().all(|report| find(&seen, &report.topic).is_some())) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
}
