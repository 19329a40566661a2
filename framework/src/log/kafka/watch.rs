//! The watch over the task topic: is the cluster there, and is the topic still the one this process works with?
//!
//! Its client is its own, so that a question never waits behind a large request, and asks about one topic once a second.

use super::{
    admin::{self, Level},
    settings::{Role, client_config},
    topic_id,
};
use crate::{Error, config::KafkaConfig};
use partita_core::{InSync, Offset, Partition, Retention};
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::{Metadata, MetadataTopic},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

/// How often the topic is asked for while all is well.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long an answer may take.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1000);
/// How often the topic's id is asked for.
const IDENTITY_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is asked for while there is no answer.
const SILENT_INTERVAL: Duration = Duration::from_millis(200);
/// How long questions may go unanswered before the log counts as away.
const PATIENCE: Duration = Duration::from_millis(1000);

/// Why the topic cannot be used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No answer.
    Away(String),
    /// An answer that this process must not work with.
    Mismatch(String),
    /// Partitions were added: nothing may be written, since keys would be spread differently. What is there is worked off.
    Grown(String),
}

/// The topic's id, or what comes closest on a cluster that has none, once it is known. The watches of one process share it: to all of
/// them it is the same topic, and none of them is content before it is known.
pub(super) type Identity = Arc<OnceLock<String>>;

/// How many replicas of the topic's partitions were in sync, as the watch has seen it.
#[derive(Clone)]
pub(super) struct Replicas {
    began: Instant,
    seen: Arc<Mutex<InSync>>,
}

impl Replicas {
    fn new() -> Self {
        Self { began: Instant::now(), seen: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, InSync> {
        // No code that can panic runs under the lock.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a partition has had so many in sync for this long.
    pub(super) fn have_been_in_sync(&self, partition: Partition, least: usize, time: Duration) -> bool {
        let now = self.began.elapsed();
        now.checked_sub(time).is_some_and(|since| self.lock().has_had(partition, least, since, now))
    }

    fn see(&self, found: Option<&MetadataTopic>) {
        let (now, mut seen) = (self.began.elapsed(), self.lock());
        match found {
            Some(topic) => {
                let mut partitions: Vec<_> = topic.partitions().iter().collect();
                partitions.sort_unstable_by_key(|one| one.id());
                seen.seen(now, partitions.into_iter().map(|one| one.isr().len()));
            }
            None => seen.lost(),
        }
    }
}

/// A client that only asks questions.
pub(super) struct Watch {
    config: KafkaConfig,
    max_task: u64,
    client: Arc<BaseConsumer<NoGroup>>,
    verified: bool,
    identity: Identity,
    identity_asked: Option<Instant>,
    replicas: Replicas,
}

/// The context of a consumer that is in no group.
pub(super) struct NoGroup;

impl rdkafka::ClientContext for NoGroup {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        // What this client notices is reported by those who ask it; a line a second while brokers are away helps nobody.
        tracing::debug!(target: "partita::librdkafka", ?level, facility, "{message}");
    }
    fn stats_raw(&self, _statistics: &[u8]) {}
    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl rdkafka::consumer::ConsumerContext for NoGroup {}

impl Watch {
    /// A watch over the topic of `config`. Needs no broker yet.
    pub(super) fn new(config: &KafkaConfig, max_task: u64, identity: Identity) -> Result<Self, Error> {
        let client: BaseConsumer<NoGroup> = client_config(config, Role::Admin, max_task)?
            .create_with_context(NoGroup)
            .map_err(|error| Error::Log(format!("cannot make a Kafka client: {error}")))?;
        Ok(Self {
            config: config.clone(),
            max_task,
            client: Arc::new(client),
            verified: false,
            identity,
            identity_asked: None,
            replicas: Replicas::new(),
        })
    }

    /// The client, for further questions.
    pub(super) fn client(&self) -> Arc<BaseConsumer<NoGroup>> {
        self.client.clone()
    }

    /// How many replicas are in sync, as it is seen here.
    pub(super) fn replicas(&self) -> Replicas {
        self.replicas.clone()
    }

    /// The topic's id, once it is known.
    pub(super) fn identity(&self) -> Identity {
        self.identity.clone()
    }

    /// The topic that is watched.
    pub(super) fn topic(&self) -> &str {
        &self.config.topic
    }

    /// Asks whether all is well. Takes a second at most, a few the first time.
    pub(super) fn probe(&mut self) -> Result<(), Trouble> {
        // Serves the client's log lines, which otherwise pile up.
        while self.client.poll(Duration::ZERO).is_some() {}
        let count = self.partition_count();
        if matches!(count, Err(Trouble::Away(_) | Trouble::Mismatch(_))) {
            return count;
        }
        if !self.verified {
            // One that has grown before it was ever looked at is none to begin with.
            self.verify()?;
            self.verified = true;
        }
        if count.is_err() || self.identity_asked.is_none_or(|asked| asked.elapsed() >= IDENTITY_INTERVAL) {
            // Another topic may have more partitions too: then nothing of it is ours.
            self.check_identity()?;
            self.identity_asked = Some(Instant::now());
        }
        count
    }

    /// A question for the topic's retention, to be asked elsewhere.
    pub(super) fn retention(&self) -> impl Fn() -> Option<Retention> + Send + 'static {
        let (config, max_task) = (self.config.clone(), self.max_task);
        move || admin::retention(&config, max_task)
    }

    /// The topic's partitions.
    pub(super) fn partitions(&self) -> Vec<Partition> {
        (0..self.config.partitions).map(Partition).collect()
    }

    /// The end of each partition, from its leader, in one request to each.
    pub(super) fn high_watermarks(&self) -> Result<Vec<(Partition, Offset)>, String> {
        let partitions = self.partitions().into_iter();
        offsets(&self.client, &self.config.topic, partitions, End::Last, Duration::from_secs(5))
    }

    fn partition_count(&self) -> Result<(), Trouble> {
        let topic = &self.config.topic;
        let answer = self.client.fetch_metadata(Some(topic), PROBE_TIMEOUT);
        let topics = answer.as_ref().ok().map_or(&[][..], Metadata::topics);
        let found = topics.iter().find(|found| found.name() == topic);
        self.replicas.see(found);
        answer.as_ref().map_err(|error| Trouble::Away(unreachable(&self.config, error)))?;
        let Some(found) = found else {
            return Err(Trouble::Away(format!("the brokers' answer does not speak of topic {topic}")));
        };
        match found.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                return Err(Trouble::Mismatch(admin::missing_topic(topic)));
            }
            Some(code) => return Err(Trouble::Away(format!("topic {topic}: {code}"))),
        }
        match (found.partitions().len(), self.config.partitions as usize) {
            (there, expected) if there > expected => {
                Err(Trouble::Grown(admin::other_partition_count(topic, there, expected)))
            }
            (there, expected) if there < expected => {
                Err(Trouble::Mismatch(admin::other_partition_count(topic, there, expected)))
            }
            _ => Ok(()),
        }
    }

    fn verify(&self) -> Result<(), Trouble> {
        let findings = admin::inspect(&self.config, self.max_task, Duration::from_secs(5));
        match findings.into_iter().find(|finding| finding.level == Level::Fail) {
            Some(finding) => Err(Trouble::Mismatch(finding.to_string())),
            None => Ok(()),
        }
    }

    fn check_identity(&mut self) -> Result<(), Trouble> {
        let topic = &self.config.topic;
        let found = topic_id::fetch(self.client.client(), topic, PROBE_TIMEOUT)
            .map_err(|reason| Trouble::Away(format!("topic {topic} could not be described: {reason}")))?;
        let found = match found {
            Some(id) => id,
            None => {
                let cluster = self.client.client().fetch_cluster_id(PROBE_TIMEOUT);
                let cluster =
                    cluster.ok_or_else(|| Trouble::Away("the cluster does not say its id".into()))?;
                format!("{cluster}/{topic}")
            }
        };
        let known = self.identity.get_or_init(|| found.clone());
        if *known == found {
            return Ok(());
        }
        Err(Trouble::Mismatch(format!(
            "topic {topic} was deleted and made again (its id was {known} and is {found}): offsets of before mean other tasks now. \
             Stop every process of group {} and start again: it handles the new topic's tasks then, and a partition \
             whose committed offset is of the former one waits and says how to go on",
            self.config.group
        )))
    }
}

/// After every record.
pub(super) const NONE: Offset = Offset(u64::MAX);

/// Which end of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Its first offset.
    First,
    /// The offset after its last.
    Last,
    /// The first whose record is not older than this time, in milliseconds since the Unix epoch; [`NONE`] where all are.
    Since(i64),
}

/// Offsets at that end of partitions; those that are not known now are left out, and their leaders looked for anew: librdkafka
/// does that by itself only for a topic that the client subscribes to or writes to.
pub(super) fn offsets<C: rdkafka::consumer::ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    partitions: impl Iterator<Item = Partition>,
    end: End,
    timeout: Duration,
) -> Result<Vec<(Partition, Offset)>, String> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        let question = match end {
            End::First => rdkafka::Offset::Beginning,
            End::Last => rdkafka::Offset::End,
            End::Since(ms) => rdkafka::Offset::Offset(ms),
        };
        list.add_partition_offset(topic, partition.0 as i32, question).map_err(|error| error.to_string())?;
    }
    let asked = list.count();
    let answer = client.offsets_for_times(list, timeout).map_err(|error| error.to_string());
    let known: Vec<_> = answer
        .iter()
        .flat_map(TopicPartitionList::elements)
        .filter_map(|element| match (element.error(), element.offset()) {
            (Ok(()), rdkafka::Offset::Offset(offset)) => {
                Some((Partition(element.partition() as u32), Offset(offset as u64)))
            }
            (Ok(()), rdkafka::Offset::End) if matches!(end, End::Since(_)) => {
                Some((Partition(element.partition() as u32), NONE))
            }
            _ => None,
        })
        .collect();
    if known.len() < asked
        && let Err(error) = client.fetch_metadata(Some(topic), PROBE_TIMEOUT)
    {
        tracing::debug!(%error, topic, "the leaders of a topic could not be looked for");
    }
    answer.map(|_| known)
}

/// What to say of a cluster that does not answer.
pub(super) fn unreachable(config: &KafkaConfig, error: &KafkaError) -> String {
    format!("no answer from the Kafka brokers at {} ({error})", config.bootstrap_servers)
}

/// What the watch's answers, one after another, say of the log. Pure.
#[derive(Debug, Default)]
pub(super) struct Standing {
    silent_since: Option<Instant>,
}

impl Standing {
    /// The standing after the answer to a question of `asked`. A question that failed at once is no news while nothing else speaks
    /// for it: `alarmed` says that the client itself lost its brokers, `delivering` that it was answered lately.
    pub(super) fn judge(
        &mut self,
        answer: Result<(), Trouble>,
        alarmed: bool,
        delivering: bool,
        asked: Instant,
        now: Instant,
    ) -> Option<Result<(), Trouble>> {
        match answer {
            Err(Trouble::Away(reason)) => {
                let since = *self.silent_since.get_or_insert(asked);
                let patient = !alarmed && now.duration_since(since) < PATIENCE;
                (!patient && !delivering).then_some(Err(Trouble::Away(reason)))
            }
            other => {
                self.silent_since = None;
                Some(other)
            }
        }
    }

    /// When to ask again.
    pub(super) fn ask_after(&self) -> Duration {
        if self.silent_since.is_some() { SILENT_INTERVAL } else { PROBE_INTERVAL }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> Result<(), Trouble> {
        Err(Trouble::Away("gone".into()))
    }

    #[test]
    fn the_log_is_away_at_once_when_the_client_lost_its_brokers_too() {
        let now = Instant::now();
        assert_eq!(Standing::default().judge(away(), true, false, now, now), Some(away()));
    }

    #[test]
    fn one_failed_question_is_no_news_but_silence_is() {
        let (mut standing, start) = (Standing::default(), Instant::now());
        let mut judge = |answer, delivering, asked: Duration, now: Duration| {
            standing.judge(answer, false, delivering, start + asked, start + now)
        };
        let (soon, late) = (Duration::from_millis(10), PATIENCE);
        assert_eq!(judge(away(), false, Duration::ZERO, soon), None);
        assert_eq!(judge(away(), true, soon, late), None, "records are still taken");
        assert_eq!(
            judge(away(), false, soon, late),
            Some(away()),
            "the silence began with the first question"
        );
        assert_eq!(judge(Ok(()), false, late, late + soon), Some(Ok(())));
        assert_eq!(judge(away(), false, late + soon, 2 * late), None, "the silence begins anew");
    }

    #[test]
    fn a_silent_log_is_asked_more_often() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        assert_eq!(standing.ask_after(), PROBE_INTERVAL);
        standing.judge(away(), false, false, now, now);
        assert_eq!(standing.ask_after(), SILENT_INTERVAL);
        standing.judge(Ok(()), false, false, now, now);
        assert_eq!(standing.ask_after(), PROBE_INTERVAL);
    }

    #[test]
    fn a_mismatch_counts_at_once() {
        let (mismatch, now) = (|| Err(Trouble::Mismatch("other count".into())), Instant::now());
        assert_eq!(Standing::default().judge(mismatch(), false, true, now, now), Some(mismatch()));
    }
}
