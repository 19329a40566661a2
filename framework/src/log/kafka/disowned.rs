//! Records that may have been written although librdkafka says that they were not.
//!
//! A leader that has appended a record and loses its partition before the others have it answers `NOT_LEADER_OR_FOLLOWER`, and one whose
//! disk fails `KAFKA_STORAGE_ERROR`, as does one that appended nothing (Kafka's `DelayedProduce`). librdkafka takes both for a record that was
//! not persisted, and sends it again. Where that ends well nothing is lost; where the record's time ends first, or its producer, it reports a
//! record that was not persisted, but the new leader may have it. The answers are seen in librdkafka's debug lines and nowhere else.

use partita_core::Partition;
use rdkafka::error::RDKafkaErrorCode;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// The part of librdkafka's debug lines that has them.
pub(super) const DEBUG: &str = "topic";
const FACILITY: &str = "BROKERUA";

/// When a broker last answered so, by partition.
#[derive(Debug, Default)]
pub(super) struct Disowned(Mutex<HashMap<Partition, Instant>>);

impl Disowned {
    /// Takes notice of a line of librdkafka's.
    pub(super) fn hear(&self, facility: &str, line: &str) {
        if facility == FACILITY
            && let Some(partition) = disowned(line)
        {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, Instant::now());
        }
    }

    /// Whether a record that was handed over at that time may be one of those.
    pub(super) fn since(&self, partition: Partition, started: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).is_some_and(|at| *at >= started)
    }
}

/// The partition that a leader disowned after it was asked to append, if the line says so. It reads
/// `[thrd:NAME]: TOPIC [PARTITION]: broker unavailable: produce: ERROR` (librdkafka's `rd_kafka_toppar_leader_unavailable`).
fn disowned(line: &str) -> Option<Partition> {
    let (place, error) = line.split_once("]: broker unavailable: produce: ")?;
    let (_, partition) = place.rsplit_once('[')?;
    let is = |code: RDKafkaErrorCode| said(code) == error;
    let disowns = is(RDKafkaErrorCode::NotLeaderForPartition) || is(RDKafkaErrorCode::KafkaStorageError);
    disowns.then(|| partition.parse().ok().map(Partition))?
}

/// What librdkafka says of an error. rdkafka puts its own name before it: `NAME (TEXT)`.
fn said(code: RDKafkaErrorCode) -> String {
    let text = code.to_string();
    text.split_once('(').map_or("", |(_, text)| text.trim_end_matches(')')).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_a_brokers_answer_counts_and_only_for_the_partition_it_is_about() {
        let line = |partition, error: &str| {
            format!("[thrd:main]: tasks [{partition}]: broker unavailable: produce: {error}")
        };
        let not_leader = said(RDKafkaErrorCode::NotLeaderForPartition);
        assert_eq!(not_leader, "Broker: Not leader for partition");
        assert_eq!(disowned(&line(12, &not_leader)), Some(Partition(12)));
        for other in [RDKafkaErrorCode::BrokerTransportFailure, RDKafkaErrorCode::UnknownTopicOrPartition] {
            assert_eq!(disowned(&line(12, &said(other))), None);
        }
        assert_eq!(disowned("tasks [12]: leaving broker"), None);

        let heard = Disowned::default();
        let before = Instant::now();
        heard.hear(FACILITY, &line(3, &not_leader));
        heard.hear("BROKER", &line(4, &not_leader));
        assert!(heard.since(Partition(3), before));
        assert!(!heard.since(Partition(3), Instant::now() + Duration::from_secs(1)));
        assert!(!heard.since(Partition(4), before));
    }
}
