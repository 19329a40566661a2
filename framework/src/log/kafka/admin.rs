//! What Partita asks of its topics: `partita topics create` makes them so, `partita check` and the start of `serve` look.

use super::{
    client::Context,
    settings::{RECORD_ROOM, Role, client_config},
    watch,
};
use crate::{Error, config::KafkaConfig};
use rdkafka::{
    admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication},
    error::RDKafkaErrorCode,
    metadata::{Metadata, MetadataTopic},
};
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
/// How long a new topic may take to be known: thousands of replicas keep a small cluster busy.
const VISIBLE_WITHIN: Duration = Duration::from_secs(60);
/// How long a start waits for brokers before it goes on without them.
const START_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the tasks of a topic made by `create_topics` are kept; what is parked, until somebody deletes it.
const RETENTION_MS: &str = "604800000";
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

/// The name of the topic that parked tasks go to.
pub fn parking_topic(topic: &str) -> String {
    format!("{topic}.parked")
}

/// Makes the task topic and its parking topic where they are missing. Alters nothing that is there.
pub fn create_topics(config: &KafkaConfig, max_task: u64) -> Result<Vec<TopicReport>, Error> {
    let client = client(config, max_task)?;
    let fail = |reason: String| Error::Log(reason);
    let metadata = client
        .inner()
        .fetch_metadata(None, TIMEOUT)
        .map_err(|error| fail(watch::unreachable(config, &error)))?;
    let replicas = config.replication_factor.unwrap_or(3.min(metadata.brokers().len() as u16)).max(1);
    let topics = [config.topic.clone(), parking_topic(&config.topic)];
    let mut reports = Vec::new();
    for topic in topics {
        let largest = largest_record(max_task, &topic, config);
        reports.push(match find(&metadata, &topic) {
            Some(there) => left_alone(there),
            None => {
                let retention = if topic == config.topic { RETENTION_MS } else { FOR_EVER };
                create_topic(&client, topic, config.partitions, replicas, largest, retention)?
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
    for topic in [config.topic.clone(), parking_topic(&config.topic)] {
        match find(&metadata, &topic) {
            None => {
                let (subject, detail) = (format!("topic {topic}"), "does not exist".to_owned());
                findings.push(finding(Level::Fail, &subject, detail, "run `partita topics create`"));
            }
            Some(there) => {
                let shape = Shape::of(there, metadata.brokers().len(), &settings(&client, &topic));
                findings.extend(shape.judge(&topic, config, largest_record(max_task, &topic, config)));
            }
        }
    }
    findings
}

/// The subject of the finding that says that the brokers do not answer: the one failure that may mend itself.
pub const UNREACHABLE: &str = "brokers";

/// What to say of a topic that is not there.
pub(super) fn missing_topic(topic: &str) -> String {
    format!("topic {topic} does not exist; run `partita topics create`")
}

/// What to say of a topic with another number of partitions.
pub(super) fn other_partition_count(topic: &str, there: usize, expected: usize) -> String {
    format!(
        "topic {topic} has {there} partitions and log.kafka.partitions is {expected}: keys would be spread differently and lose \
         their order; set log.kafka.partitions = {there} for every process once all tasks of before are handled, or go back to a topic \
         with {expected}"
    )
}

/// What the topics of one pipeline must be able to hold in one record.
fn largest_record(max_task: u64, topic: &str, config: &KafkaConfig) -> u64 {
    // A parked record carries its reason beside the record as it was.
    max_task + if topic == config.topic { RECORD_ROOM } else { 2 * RECORD_ROOM }
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

/// What of a topic matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    brokers: usize,
    partitions: usize,
    /// The fewest replicas of a partition.
    replicas: usize,
    /// The fewest of them that are in sync now.
    in_sync: usize,
    cleanup: Option<String>,
    min_in_sync: Option<usize>,
    largest: Option<u64>,
    unclean: Option<String>,
    /// Whether it is deleted from after a time, or above a size.
    forgets: bool,
}

impl Shape {
    fn of(topic: &MetadataTopic, brokers: usize, settings: &[(String, String)]) -> Self {
        let get =
            |name: &str| settings.iter().find(|(setting, _)| setting == name).map(|(_, value)| value.clone());
        Self {
            brokers,
            partitions: topic.partitions().len(),
            replicas: topic.partitions().iter().map(|one| one.replicas().len()).min().unwrap_or(0),
            in_sync: topic.partitions().iter().map(|one| one.isr().len()).min().unwrap_or(0),
            cleanup: get("cleanup.policy"),
            min_in_sync: get("min.insync.replicas").and_then(|value| value.parse().ok()),
            largest: get("max.message.bytes").and_then(|value| value.parse().ok()),
            unclean: get("unclean.leader.election.enable"),
            forgets: ["retention.ms", "retention.bytes"]
                .iter()
                .any(|name| get(name).is_some_and(|value| value != FOR_EVER)),
        }
    }

    fn judge(&self, topic: &str, config: &KafkaConfig, largest: u64) -> Vec<Finding> {
        let subject = format!("topic {topic}");
        let expected = config.partitions as usize;
        let mut bad = Vec::new();
        let mut add = |level, detail: String, help: &str| bad.push(finding(level, &subject, detail, help));
        if self.partitions != expected {
            add(
                Level::Fail,
                format!("has {} partitions and log.kafka.partitions is {expected}", self.partitions),
                &format!(
                    "set log.kafka.partitions = {} (for every process), or use another topic",
                    self.partitions
                ),
            );
        }
        if self.cleanup.as_deref().is_some_and(|policy| policy.contains("compact")) {
            let help = alter(topic, "cleanup.policy=delete");
            add(Level::Fail, "is compacted: Kafka would delete tasks that are not done".into(), &help);
        }
        if self.largest.is_some_and(|there| there < largest) {
            let detail = format!(
                "max.message.bytes = {} is too small for limits.max_task: {largest} are needed",
                self.largest.unwrap_or(0)
            );
            let help = format!(
                "{}, or lower limits.max_task",
                alter(topic, &format!("max.message.bytes={largest}"))
            );
            add(Level::Fail, detail, &help);
        }
        if self.unclean.as_deref() == Some("true") {
            let help = alter(topic, "unclean.leader.election.enable=false");
            add(
                Level::Warn,
                "a replica that lags may become leader and lose acknowledged tasks".into(),
                &help,
            );
        }
        if self.forgets && topic == parking_topic(&config.topic) {
            let help = alter(topic, "retention.ms=-1,retention.bytes=-1");
            let detail = "forgets: parked tasks that nobody has redriven in time would be deleted".into();
            add(Level::Warn, detail, &help);
        }
        self.judge_replicas(topic, &mut add);
        if self.min_in_sync.is_none() {
            let help = "allow DescribeConfigs on the topic to this client's user";
            add(Level::Warn, "its settings could not be read".into(), help);
        }
        if bad.is_empty() {
            let detail = format!("{} partitions, {} replicas", self.partitions, self.replicas);
            bad.push(finding(Level::Ok, &subject, detail, ""));
        }
        bad
    }

    fn judge_replicas(&self, topic: &str, add: &mut impl FnMut(Level, String, &str)) {
        let Some(min) = self.min_in_sync else { return };
        let replicas = self.replicas;
        if min > replicas {
            let help = alter(topic, &format!("min.insync.replicas={}", replicas.saturating_sub(1).max(1)));
            let detail =
                format!("min.insync.replicas = {min} but {replicas} replicas: no task could ever be stored");
            add(Level::Fail, detail, &help);
        } else if min == replicas && replicas > 1 {
            let help = alter(topic, &format!("min.insync.replicas={}", replicas - 1));
            add(
                Level::Warn,
                format!("with min.insync.replicas = {min} of {replicas} replicas one broker down stops it"),
                &help,
            );
        } else if self.in_sync < min {
            let detail = format!(
                "only {} of {replicas} replicas in sync, {min} are needed to store tasks",
                self.in_sync
            );
            add(Level::Warn, detail, "start the brokers that are down");
        } else if min == 1 && replicas > 1 {
            let help = alter(topic, &format!("min.insync.replicas={}", (replicas - 1).max(2).min(replicas)));
            let detail = format!(
                "min.insync.replicas = 1 of {replicas} replicas: one disk may have the only copy of a task"
            );
            add(Level::Warn, detail, &help);
        } else if replicas == 1 && self.brokers > 1 {
            let help = "use a topic with three replicas";
            add(Level::Warn, "1 replica: a broker's disk has the only copy of its tasks".into(), help);
        }
    }
}

fn alter(topic: &str, setting: &str) -> String {
    format!(
        "run `kafka-configs.sh --bootstrap-server … --alter --entity-type topics --entity-name {topic} --add-config {setting}`"
    )
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

/// A topic's settings; empty where this user may not read them.
fn settings(client: &AdminClient<Context>, topic: &str) -> Vec<(String, String)> {
    let answer = block_on(client.describe_configs([&ResourceSpecifier::Topic(topic)], &options()));
    let entries = |resource: ConfigResource| {
        resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
    };
    match answer.map(|resources| resources.into_iter().next()) {
        Ok(Some(Ok(resource))) => entries(resource),
        Ok(Some(Err(code))) => {
            tracing::debug!(topic, %code, "the topic's settings cannot be read");
            Vec::new()
        }
        Ok(None) => Vec::new(),
        Err(error) => {
            tracing::debug!(topic, %error, "the topic's settings cannot be read");
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

    const LARGEST: u64 = 100_000_000 + RECORD_ROOM;

    fn good() -> Shape {
        Shape {
            brokers: 3,
            partitions: 16,
            replicas: 3,
            in_sync: 3,
            cleanup: Some("delete".into()),
            min_in_sync: Some(2),
            largest: Some(LARGEST),
            unclean: Some("false".into()),
            forgets: true,
        }
    }

    fn worst(shape: &Shape) -> Finding {
        let findings = shape.judge("tasks", &KafkaConfig::default(), LARGEST);
        findings.into_iter().max_by_key(|finding| finding.level).expect("at least one")
    }

    fn assert_worst(shape: &Shape, level: Level, words: &str) {
        let found = worst(shape);
        assert!(found.level == level && found.to_string().contains(words), "{shape:?}: {found:?}");
        assert!(level == Level::Ok || !found.help.is_empty(), "{found:?} says what to do");
    }

    #[test]
    fn a_topic_that_breaks_a_promise_fails_and_says_what_mends_it() {
        assert_worst(&good(), Level::Ok, "16 partitions");
        assert_worst(&Shape { partitions: 12, ..good() }, Level::Fail, "log.kafka.partitions = 12");
        for policy in ["compact", "compact,delete"] {
            let compacted = Shape { cleanup: Some(policy.into()), ..good() };
            assert_worst(&compacted, Level::Fail, "cleanup.policy=delete");
        }
        assert_worst(
            &Shape { largest: Some(1_048_588), ..good() },
            Level::Fail,
            "max.message.bytes=101048576",
        );
        assert_worst(&Shape { min_in_sync: Some(4), ..good() }, Level::Fail, "min.insync.replicas=2");
        let lone = Shape { replicas: 1, in_sync: 1, ..good() };
        assert_worst(&lone, Level::Fail, "min.insync.replicas=1");
    }

    #[test]
    fn a_topic_with_less_safety_than_it_could_have_is_a_warning() {
        assert_worst(&Shape { min_in_sync: Some(1), ..good() }, Level::Warn, "only copy");
        assert_worst(&Shape { min_in_sync: Some(3), ..good() }, Level::Warn, "one broker down");
        assert_worst(&Shape { in_sync: 1, ..good() }, Level::Warn, "in sync");
        assert_worst(&Shape { unclean: Some("true".into()), ..good() }, Level::Warn, "unclean");
        assert_worst(
            &Shape { replicas: 1, in_sync: 1, min_in_sync: Some(1), ..good() },
            Level::Warn,
            "1 replica",
        );
        let alone = Shape { brokers: 1, replicas: 1, in_sync: 1, min_in_sync: Some(1), ..good() };
        assert_worst(&alone, Level::Ok, "1 replicas");
        assert_worst(&Shape { min_in_sync: None, ..good() }, Level::Warn, "DescribeConfigs");
    }

    #[test]
    fn only_a_parking_topic_that_forgets_is_warned_of() {
        let config = KafkaConfig::default();
        let judge = |shape: Shape| shape.judge(&parking_topic(&config.topic), &config, LARGEST);
        let found = judge(good());
        assert!(found[0].level == Level::Warn && found[0].help.contains("retention.ms=-1"), "{found:?}");
        assert_eq!(judge(Shape { forgets: false, ..good() })[0].level, Level::Ok);
    }

    #[test]
    fn brokers_that_do_not_answer_fail_the_check_with_their_address() {
        let config = KafkaConfig { bootstrap_servers: "127.0.0.1:1".into(), ..KafkaConfig::default() };
        let findings = inspect(&config, 1 << 20, Duration::from_millis(100));
        assert_eq!((findings.len(), findings[0].level), (1, Level::Fail));
        assert!(findings[0].to_string().contains("127.0.0.1:1"), "{}", findings[0]);
    }
}
