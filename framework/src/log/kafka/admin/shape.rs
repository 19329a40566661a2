//! How a topic is, and whether that keeps the promise.

use super::{
    BROKERS_TIME, FOR_EVER, Finding, Level, TIMESTAMP_TYPE, finding, other_count_help, parking_topic,
};
use crate::config::KafkaConfig;
use rdkafka::metadata::MetadataTopic;

/// What of a topic matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
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
    timestamps: Option<String>,
}

impl Shape {
    pub(super) fn of(topic: &MetadataTopic, brokers: usize, settings: &[(String, String)]) -> Self {
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
            timestamps: get(TIMESTAMP_TYPE),
        }
    }

    pub(super) fn judge(&self, topic: &str, config: &KafkaConfig, largest: u64) -> Vec<Finding> {
        let subject = format!("topic {topic}");
        let expected = config.partitions as usize;
        let mut bad = Vec::new();
        let mut add = |level, detail: String, help: &str| bad.push(finding(level, &subject, detail, help));
        if self.partitions != expected {
            let help = match self.partitions > expected {
                true => other_count_help(topic, self.partitions, expected),
                false => {
                    format!(
                        "set log.kafka.partitions = {} for every process, or use another topic",
                        self.partitions
                    )
                }
            };
            let detail = format!("has {} partitions and log.kafka.partitions is {expected}", self.partitions);
            add(Level::Fail, detail, &help);
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
        if self.timestamps.as_deref().is_some_and(|kind| kind != BROKERS_TIME) {
            let help = alter(topic, &format!("{TIMESTAMP_TYPE}={BROKERS_TIME}"));
            let detail = "ages by the writers' clocks: tasks are deleted early where one is behind, and refused where it is ahead";
            add(Level::Warn, detail.into(), &help);
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

    pub(super) fn judge_replicas(&self, topic: &str, add: &mut impl FnMut(Level, String, &str)) {
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

#[cfg(test)]
mod tests {
    use super::{super::RECORD_ROOM, *};

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
            timestamps: Some(BROKERS_TIME.into()),
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
        let by_writers = Shape { timestamps: Some("CreateTime".into()), ..good() };
        assert_worst(&by_writers, Level::Warn, "message.timestamp.type=LogAppendTime");
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
}
