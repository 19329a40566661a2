//! Where assigned partitions begin: what is committed, else the log's first offset, always as a number.
//!
//! The coordinator and the leaders are asked on a thread of its own, again and again until they answer, so that the consumer's
//! thread keeps polling meanwhile.

use super::{
    super::{
        admin::parking_topic,
        native::NativeConsumer,
        watch::{End, Identity, NoGroup, Watch, offsets},
    },
    committed,
    run::Note,
};
use crate::log::Start;
use crossbeam_channel::Sender;
use partita_core::{Intent, Offset, Partition, Position};
use rdkafka::consumer::BaseConsumer;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// One question's time, and the wait before it is asked again.
const ASK: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(200);

/// Where a partition begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) start: Start,
    /// Why nothing can be delivered from there: what is committed is not in the log.
    pub(super) broken: Option<String>,
    /// The topic that the offset is of, where that is another one.
    pub(super) foreign: Option<String>,
    /// Where the log begins. A partition that is to stand still stands there, where librdkafka has nothing to give up at.
    pub(super) first: Offset,
}

impl Found {
    pub(super) fn partition(&self) -> Partition {
        self.start.partition
    }
}

/// A search that ends when this is dropped.
pub(super) struct Search(Arc<AtomicBool>);

impl Drop for Search {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Searches the starts of `partitions`; the answer is a [`Note::Starts`].
pub(super) fn search(
    intent: Intent,
    partitions: Vec<Partition>,
    native: &Arc<NativeConsumer>,
    asker: &Asker,
    notes: &Sender<Note>,
) -> std::io::Result<Search> {
    let cancelled = Arc::new(AtomicBool::new(false));
    let (search, native) = (Search(cancelled.clone()), native.clone());
    let (asker, notes) = (asker.clone(), notes.clone());
    thread::Builder::new().name("partita-kafka-starts".into()).spawn(move || {
        while !cancelled.load(Ordering::SeqCst) {
            match find(&partitions, &native, &asker) {
                Ok(starts) => {
                    let _ = notes.send(Note::Starts { intent, starts });
                    native.wake();
                    return;
                }
                Err(reason) => tracing::info!(reason, "waiting for the start offsets of assigned partitions"),
            }
            thread::sleep(AGAIN);
        }
    })?;
    Ok(search)
}

/// A client to ask leaders with; its topic's name.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) client: Arc<BaseConsumer<NoGroup>>,
    pub(super) topic: String,
    pub(super) parking: String,
    identity: Identity,
}

impl Asker {
    pub(super) fn of(watch: &Watch) -> Self {
        let topic = watch.topic().to_owned();
        Self { client: watch.client(), parking: parking_topic(&topic), topic, identity: watch.identity() }
    }

    /// The topic's id, once it is known: before any partition begins.
    pub(super) fn topic_id(&self) -> Option<&str> {
        self.identity.get().map(String::as_str)
    }

    pub(super) fn ends(
        &self,
        topic: &str,
        partitions: &[Partition],
        end: End,
    ) -> Result<BTreeMap<Partition, Offset>, String> {
        Ok(offsets(&self.client, topic, partitions.iter().copied(), end, ASK)?.into_iter().collect())
    }
}

fn find(partitions: &[Partition], native: &NativeConsumer, asker: &Asker) -> Result<Vec<Found>, String> {
    let topic_id = asker.topic_id().ok_or("the topic's id is not known yet")?;
    let committed = native.committed(partitions, Duration::from_secs(1))?;
    let first = asker.ends(&asker.topic, partitions, End::First)?;
    let last = asker.ends(&asker.topic, partitions, End::Last)?;
    let journals = asker.ends(&asker.parking, partitions, End::Last)?;
    committed
        .into_iter()
        .map(|(partition, committed)| {
            let (Some(&first), Some(&last)) = (first.get(&partition), last.get(&partition)) else {
                return Err(format!("the leader of partition {partition} does not answer"));
            };
            let Some(&journal_end) = journals.get(&partition) else {
                return Err(format!(
                    "the leader of partition {partition} of {} does not answer",
                    asker.parking
                ));
            };
            let (offset, text) = committed.unzip();
            let (mark, of) = committed::from_text(text.as_deref().unwrap_or_default());
            let foreign = of.filter(|of| *of != topic_id).map(str::to_owned);
            let (offset, broken) = match (offset, &foreign) {
                (Some(offset), Some(former)) => {
                    (offset, Some(of_another_topic(offset, former, topic_id, first, last)))
                }
                _ => start(offset, first, last),
            };
            let journal_end = Position(journal_end.0);
            Ok(Found { start: Start { partition, offset, mark, journal_end }, broken, foreign, first })
        })
        .collect()
}

/// What to say of an offset that was committed for a topic of the same name.
fn of_another_topic(committed: Offset, former: &str, present: &str, first: Offset, last: Offset) -> String {
    format!(
        "committed is {committed}, of a topic whose id was {former}, and this one's is {present}: the topic was deleted and made again, or \
         is a copy in another cluster. It has the tasks from {first} to before {last}. If they are others, `partita rewind --to earliest` \
         handles all of them; if it is a copy that kept the offsets, `--to committed` goes on"
    )
}

/// Where a partition begins that holds `first..last`, and what is wrong with that. Pure.
fn start(committed: Option<Offset>, first: Offset, last: Offset) -> (Offset, Option<String>) {
    let broken = committed.and_then(|committed| {
        if committed < first {
            let lost = first.0 - committed.0;
            Some(format!(
                "committed is {committed} but the log begins at {first}: {lost} tasks were deleted before they were handled \
                 (retention is shorter than the outage). Raise retention.ms; to go on without them, `partita rewind --to earliest`"
            ))
        } else if committed > last {
            Some(format!(
                "committed is {committed} but the log ends at {last}: the topic was made again, or lost its end. \
                 Find out which; to go on, `partita rewind --to earliest` (all tasks) or `--to latest` (new ones only)"
            ))
        } else {
            None
        }
    });
    (committed.unwrap_or(first), broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(committed: Option<u64>) -> (Offset, Option<String>) {
        start(committed.map(Offset), Offset(10), Offset(20))
    }

    #[test]
    fn a_partition_begins_at_what_is_committed_and_else_at_the_logs_first_offset() {
        assert_eq!(at(None), (Offset(10), None));
        for committed in [10, 15, 20] {
            assert_eq!(at(Some(committed)), (Offset(committed), None));
        }
    }

    #[test]
    fn a_committed_offset_that_is_not_in_the_log_is_never_replaced_silently() {
        let (offset, broken) = at(Some(7));
        assert_eq!(offset, Offset(7));
        assert!(broken.is_some_and(|text| text.contains("3 tasks were deleted")));
        assert!(at(Some(21)).1.is_some_and(|text| text.contains("ends at 20")));
    }
}
