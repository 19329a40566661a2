//! Where assigned partitions begin: what is committed, else the log's first offset, always as a number.
//!
//! The coordinator and the leaders are asked on a thread of its own, again and again until they answer, so that the consumer's
//! thread keeps polling meanwhile.

use super::{
    super::{
        native::NativeConsumer,
        watch::{End, NoGroup, Watch, offsets},
    },
    run::Note,
};
use crossbeam_channel::Sender;
use partita_core::{Intent, Offset, Partition};
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
pub(super) struct Start {
    pub(super) partition: Partition,
    pub(super) offset: Offset,
    /// Why nothing can be delivered from there: what is committed is not in the log.
    pub(super) broken: Option<String>,
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
}

impl Asker {
    pub(super) fn of(watch: &Watch) -> Self {
        Self { client: watch.client(), topic: watch.topic().to_owned() }
    }

    fn ends(&self, partitions: &[Partition], end: End) -> Result<BTreeMap<Partition, Offset>, String> {
        Ok(offsets(&self.client, &self.topic, partitions.iter().copied(), end, ASK)?.into_iter().collect())
    }
}

fn find(partitions: &[Partition], native: &NativeConsumer, asker: &Asker) -> Result<Vec<Start>, String> {
    let committed = native.committed(partitions, Duration::from_secs(1))?;
    let first = asker.ends(partitions, End::First)?;
    let last = asker.ends(partitions, End::Last)?;
    committed
        .into_iter()
        .map(|(partition, committed)| match (first.get(&partition), last.get(&partition)) {
            (Some(&first), Some(&last)) => Ok(start(partition, committed, first, last)),
            _ => Err(format!("the leader of partition {partition} does not answer")),
        })
        .collect()
}

/// Where a partition begins that holds `first..last`. Pure.
fn start(partition: Partition, committed: Option<Offset>, first: Offset, last: Offset) -> Start {
    let broken = committed.and_then(|committed| {
        if committed < first {
            let lost = first.0 - committed.0;
            Some(format!(
                "committed is {committed} but the log begins at {first}: {lost} tasks were deleted before they were handled \
                 (retention is shorter than the outage). Raise retention.ms; to go on without them, move the group's offset to {first}"
            ))
        } else if committed > last {
            Some(format!(
                "committed is {committed} but the log ends at {last}: the topic was made again, or lost its end. \
                 Find out which; to go on, move the group's offset to {first} (all tasks) or {last} (new ones only)"
            ))
        } else {
            None
        }
    });
    Start { partition, offset: committed.unwrap_or(first), broken }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(committed: Option<u64>) -> Start {
        start(Partition(1), committed.map(Offset), Offset(10), Offset(20))
    }

    #[test]
    fn a_partition_begins_at_what_is_committed_and_else_at_the_logs_first_offset() {
        assert_eq!(at(None), Start { partition: Partition(1), offset: Offset(10), broken: None });
        for committed in [10, 15, 20] {
            assert_eq!(at(Some(committed)).offset, Offset(committed));
            assert_eq!(at(Some(committed)).broken, None);
        }
    }

    #[test]
    fn a_committed_offset_that_is_not_in_the_log_is_never_replaced_silently() {
        let deleted = at(Some(7));
        assert_eq!(deleted.offset, Offset(7));
        assert!(deleted.broken.is_some_and(|text| text.contains("3 tasks were deleted")));
        assert!(at(Some(21)).broken.is_some_and(|text| text.contains("ends at 20")));
    }
}
