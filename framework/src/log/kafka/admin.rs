//! What Partita asks of its topics: `partita topics create` makes them so, `partita check` and the start of `serve` look.

mod create;
mod shape;

pub(super) use create::create_requests_topic;
pub use create::{TopicReport, create_topics};

use super::{
    client::Context,
    delivery::Target,
    settings::{RECORD_ROOM, Role, client_config},
    watch,
};
use crate::{Error, config::KafkaConfig};
use futures_util::future::join_all;
use partita_core::{Partition, Retention};
use rdkafka::{
    admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier},
    metadata::{Metadata, MetadataBroker, MetadataTopic},
};
use shape::Shape;
use std::{
    fmt,
    future::Future,
    pin::pin,
    sync::Arc,
    task::{self, Poll, Wake},
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// How long a cluster may take to answer `check` and `topics create`.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a start waits for brokers before it goes on without them.
const START_TIMEOUT: Duration = Duration::from_secs(3);
/// The journal of requests has small records only, and every front door reads all of it.
const MOST_REQUEST_PARTITIONS: u32 = 16;
/// Whose clock a record's age goes by. By the front door's own, which is Kafka's default, tasks would be deleted early where it is
/// behind, and refused where it is an hour ahead.
const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const BROKERS_TIME: &str = "LogAppendTime";
/// Of `retention.ms` and `retention.bytes`.
const FOR_EVER: &str = "-1";

/// How good or bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, with less safety than it could.
    Warn,
    /// A promise cannot be kept.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// What was looked at.
    pub subject: String,
    /// What was found.
    pub detail: String,
    /// What to do about it; empty where nothing is to be done.
    pub help: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.detail)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, "; {}", self.help) }
    }
}

/// The name of the topic that parked tasks go to.
pub fn parking_topic(topic: &str) -> String {
    format!("{topic}.parked")
}

/// The name of the topic that makes appends idempotent: the journal of requests.
pub fn requests_topic(topic: &str) -> String {
    format!("{topic}.requests")
}

/// How many partitions of the journal of requests are used.
pub(super) fn requests_partitions(config: &KafkaConfig) -> u32 {
    config.partitions.clamp(1, MOST_REQUEST_PARTITIONS)
}

/// Looks at the cluster and both topics. Waits for the brokers at most some seconds.
pub fn check(config: &KafkaConfig, max_task: u64) -> Vec<Finding> {
    inspect(config, max_task, TIMEOUT)
}

/// Refuses topics that a promise cannot be kept on, with every finding and its mend. Brokers that do not answer are no
/// reason to refuse: they may come, and nothing is taken until they have and the topics are right. What was only just
/// created is not known to every broker at once, so a bad finding is looked at again for a while.
pub(crate) fn refuse_unfit(config: &KafkaConfig, max_task: u64) -> Result<(), Error> {
    let patience = Instant::now() + START_TIMEOUT;
    loop {
        let unfit = inspect(config, max_task, START_TIMEOUT)
            .into_iter()
            .filter(|finding| finding.level == Level::Fail && finding.subject != UNREACHABLE)
            .map(|Finding { subject, detail, help, .. }| format!("{subject}: {detail}\nhelp: {help}"))
            .collect::<Vec<_>>();
        if unfit.is_empty() {
            return Ok(());
        }
        if Instant::now() >= patience {
            return Err(Error::Log(unfit.join("\n")));
        }
        thread::sleep(Duration::from_millis(250));
    }
}

pub(super) fn inspect(config: &KafkaConfig, max_task: u64, timeout: Duration) -> Vec<Finding> {
    let client = match client(config, max_task) {
        Ok(client) => client,
        Err(error) => {
            return vec![finding(Level::Fail, "log.kafka", error.to_string(), "mend the configuration")];
        }
    };
    let metadata = match client.inner().fetch_metadata(None, timeout) {
        Ok(metadata) => metadata,
        Err(error) => {
            let help = "start the brokers, or set log.kafka.bootstrap_servers and, where they ask for it, security.protocol \
                        and the sasl properties in [log.kafka.properties]";
            return vec![finding(Level::Fail, UNREACHABLE, watch::unreachable(config, &error), help)];
        }
    };
    let mut findings = vec![brokers(&metadata)];
    for target in [Target::Tasks, Target::Parking] {
        let topic = target.topic(&config.topic);
        match find(&metadata, &topic) {
            None => {
                let (subject, detail) = (format!("topic {topic}"), "does not exist".to_owned());
                findings.push(finding(Level::Fail, &subject, detail, "run `partita topics create`"));
            }
            Some(there) => {
                let shape = Shape::of(
                    there,
                    metadata.brokers().len(),
                    &settings(&client, &ResourceSpecifier::Topic(&topic)),
                );
                findings.extend(shape.judge(&topic, config, largest_record(max_task, target)));
            }
        }
    }
    findings.push(requests(&client, &metadata, config));
    findings
}

/// The journal of requests matters to idempotent appends alone: nothing about it is a reason not to start.
fn requests(client: &AdminClient<Context>, metadata: &Metadata, config: &KafkaConfig) -> Finding {
    let topic = requests_topic(&config.topic);
    let subject = format!("topic {topic}");
    let Some(there) = find(metadata, &topic) else {
        let detail = "does not exist: the first request with an idempotency key makes it".into();
        return finding(Level::Warn, &subject, detail, "run `partita topics create`");
    };
    let (partitions, needed) = (there.partitions().len(), requests_partitions(config) as usize);
    if partitions < needed {
        let detail =
            format!("has {partitions} partitions and needs {needed}: requests with a name are refused");
        return finding(Level::Warn, &subject, detail, "add them, with `kafka-topics --alter --partitions`");
    }
    let settings = settings(client, &ResourceSpecifier::Topic(&topic));
    let mut weak = Vec::new();
    let shape = Shape::of(there, metadata.brokers().len(), &settings);
    shape.judge_replicas(&topic, &mut |_, detail: String, help: &str| weak.push((detail, help.to_owned())));
    if let Some((detail, help)) = weak.into_iter().next() {
        return finding(Level::Warn, &subject, detail, &help);
    }
    let get = |name: &str| settings.iter().find(|(setting, _)| setting == name).map(|(_, value)| &value[..]);
    let window = config.idempotency_window.as_millis() as i64;
    let kept = get("retention.ms").and_then(|value| value.parse::<i64>().ok());
    if get("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
        let detail = "is compacted: claims and receipts of one request would be lost to each other".into();
        return finding(Level::Warn, &subject, detail, "set cleanup.policy=delete on it");
    }
    if kept.is_some_and(|kept| kept != -1 && kept < window) {
        let detail = "forgets before log.kafka.idempotency_window is over".into();
        return finding(Level::Warn, &subject, detail, &format!("set retention.ms={} on it", 2 * window));
    }
    finding(Level::Ok, &subject, format!("{partitions} partitions"), "")
}

/// What the task topic's retention goes by. `None` where this user may not read its settings, or no broker answers.
pub(super) fn retention(config: &KafkaConfig, max_task: u64) -> Option<Retention> {
    let client = client(config, max_task).ok()?;
    let settings = settings(&client, &ResourceSpecifier::Topic(&config.topic));
    let get = |name: &str| settings.iter().find(|(setting, _)| setting == name)?.1.parse().ok();
    let retention = Retention::from_settings(get("retention.ms"), get("retention.bytes"));
    (!settings.is_empty()).then_some(retention)
}

/// How many replicas of a partition have to be in sync for its records to be shown to readers, and how many of those that its leader counts as in
/// sync answer now. `None` where no broker answers; without the right to read the topic's settings all replicas are needed.
pub(super) fn needed_and_answering(
    config: &KafkaConfig,
    max_task: u64,
    partition: Partition,
) -> Option<(usize, usize)> {
    let client = client(config, max_task).ok()?;
    let metadata = client.inner().fetch_metadata(Some(&config.topic), TIMEOUT).ok()?;
    let topic = find(&metadata, &config.topic)?;
    let partition = topic.partitions().iter().find(|one| one.id() == partition.0 as i32)?;
    let settings = settings(&client, &ResourceSpecifier::Topic(&config.topic));
    let needed = settings.iter().find(|(setting, _)| setting == "min.insync.replicas");
    let needed = needed.and_then(|(_, value)| value.parse().ok()).unwrap_or(partition.replicas().len());
    // Each broker is asked itself. That it refuses to say is an answer, too.
    let options = AdminOptions::new().request_timeout(Some(START_TIMEOUT));
    let brokers: Vec<_> = partition.isr().iter().map(|id| ResourceSpecifier::Broker(*id)).collect();
    let answers = brokers.iter().map(|broker| client.describe_configs([broker], &options));
    let answers = block_on(join_all(answers));
    Some((needed, answers.iter().filter(|answer| answer.is_ok()).count()))
}

/// The session and the heartbeat interval of `group.protocol=consumer`, as the brokers' settings have them: for a group that has no
/// settings of its own. `None` where this user may not read them, or no broker answers.
pub(super) fn group_times(config: &KafkaConfig, max_task: u64) -> Option<(Duration, Duration)> {
    let client = client(config, max_task).ok()?;
    let metadata = client.inner().fetch_metadata(Some(&config.topic), TIMEOUT).ok()?;
    let of = |broker: &MetadataBroker| settings(&client, &ResourceSpecifier::Broker(broker.id()));
    let settings = metadata.brokers().iter().map(of).find(|settings| !settings.is_empty())?;
    let get = |name: &str| {
        let value = settings.iter().find(|(setting, _)| setting == name)?.1.parse().ok()?;
        Some(Duration::from_millis(value))
    };
    // The least that any group may have is what it may have been given.
    let session =
        get("group.consumer.session.timeout.ms")?.min(get("group.consumer.min.session.timeout.ms")?);
    Some((session, get("group.consumer.heartbeat.interval.ms")?))
}

/// The subject of the finding that says that the brokers do not answer: the one failure that may mend itself.
pub const UNREACHABLE: &str = "brokers";

/// What to say of a topic that is not there.
pub(super) fn missing_topic(topic: &str) -> String {
    format!("topic {topic} does not exist; run `partita topics create`")
}

/// What to say of a topic with another number of partitions.
pub(super) fn other_partition_count(topic: &str, there: usize, expected: usize) -> String {
    let help = other_count_help(topic, there, expected);
    format!(
        "topic {topic} has {there} partitions and log.kafka.partitions is {expected}: keys would be spread differently and lose \
         their order. {help}"
    )
}

/// How to go on with another number of partitions than tasks were written under.
fn other_count_help(topic: &str, there: usize, expected: usize) -> String {
    format!(
        "If tasks were stored under {expected}: let the workers that run handle what is left, redrive or drop what is parked; then stop every \
         process, give {topic}.parked as many partitions and set log.kafka.partitions = {there} everywhere. Or go back to a topic with {expected}"
    )
}

/// What the topics of one pipeline must be able to hold in one record.
fn largest_record(max_task: u64, target: Target) -> u64 {
    match target {
        Target::Tasks => max_task + RECORD_ROOM,
        // It carries its reason beside the record as it was.
        Target::Parking => max_task + 2 * RECORD_ROOM,
        Target::Requests => RECORD_ROOM,
    }
}

fn brokers(metadata: &Metadata) -> Finding {
    match metadata.brokers().len() {
        1 => finding(
            Level::Warn,
            "brokers",
            "1 broker: its disk has the only copy of every task".into(),
            "run three brokers where tasks must survive a machine",
        ),
        count => finding(Level::Ok, "brokers", format!("{count} brokers"), ""),
    }
}

fn finding(level: Level, subject: &str, detail: String, help: &str) -> Finding {
    Finding { level, subject: subject.into(), detail, help: help.into() }
}

fn find<'a>(metadata: &'a Metadata, topic: &str) -> Option<&'a MetadataTopic> {
    metadata
        .topics()
        .iter()
        .find(|found| found.name() == topic && found.error().is_none() && !found.partitions().is_empty())
}

fn client(config: &KafkaConfig, max_task: u64) -> Result<AdminClient<Context>, Error> {
    client_config(config, Role::Admin, max_task)?
        .create_with_context(Context::quiet())
        .map_err(|error| Error::Log(format!("cannot make a Kafka client: {error}")))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

/// The settings of a topic or a broker; empty where this user may not read them.
fn settings(client: &AdminClient<Context>, of: &ResourceSpecifier<'_>) -> Vec<(String, String)> {
    let answer = block_on(client.describe_configs([of], &options()));
    let entries = |resource: ConfigResource| {
        resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
    };
    match answer.map(|resources| resources.into_iter().next()) {
        Ok(Some(Ok(resource))) => entries(resource),
        Ok(Some(Err(code))) => {
            tracing::debug!(?of, %code, "settings cannot be read");
            Vec::new()
        }
        Ok(None) => Vec::new(),
        Err(error) => {
            tracing::debug!(?of, %error, "settings cannot be read");
            Vec::new()
        }
    }
}

/// Waits for rdkafka's admin futures, which complete by themselves on rdkafka's own thread, inside any runtime or none.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = task::Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_that_do_not_answer_fail_the_check_with_their_address() {
        let config = KafkaConfig { bootstrap_servers: "127.0.0.1:1".into(), ..KafkaConfig::default() };
        let findings = inspect(&config, 1 << 20, Duration::from_millis(100));
        assert_eq!((findings.len(), findings[0].level), (1, Level::Fail));
        assert!(findings[0].to_string().contains("127.0.0.1:1"), "{}", findings[0]);
    }
}
