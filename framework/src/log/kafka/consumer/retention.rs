//! Below which offsets the topic's retention may soon delete, told to the consumer's thread once a minute. On a thread of its own:
//! nothing else waits for these questions.

use super::{
    super::{
        native::NativeConsumer,
        watch::{End, Watch},
    },
    run::Note,
    starts::Asker,
};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use partita_core::{Kept, Offset, Partition, Retention};
use std::{
    io,
    sync::{Arc, Weak},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How often the topic's settings and its partitions are looked at; more often where tasks are kept for less than four times as long.
const INTERVAL: Duration = Duration::from_secs(60);
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The thread's other side. The thread ends soon after this is dropped.
pub(super) struct RetentionWatch(#[expect(dead_code, reason = "its drop is the message")] Sender<()>);

impl RetentionWatch {
    /// Looks at all partitions of the topic that `watch` is over.
    pub(super) fn start(
        watch: &Watch,
        native: &Arc<NativeConsumer>,
        notes: Sender<Note>,
    ) -> io::Result<Self> {
        let (left, leaving) = bounded(0);
        let native = Arc::downgrade(native);
        let (settings, partitions) = (watch.retention(), watch.partitions());
        let asker = Asker::of(watch);
        let name = thread::Builder::new().name("partita-kafka-retention".into());
        name.spawn(move || follow(&settings, &asker, &partitions, &leaving, &native, &notes))?;
        Ok(Self(left))
    }
}

fn follow(
    settings: &impl Fn() -> Option<Retention>,
    asker: &Asker,
    partitions: &[Partition],
    leaving: &Receiver<()>,
    native: &Weak<NativeConsumer>,
    notes: &Sender<Note>,
) {
    let mut known = None;
    loop {
        // Without an answer what was known holds on.
        known = settings().or(known);
        if let Some(retention) = known {
            match endangered(retention, asker, partitions) {
                Ok(endangered) => {
                    let Some(native) = native.upgrade() else { return };
                    if notes.send(Note::Endangered(endangered)).is_err() {
                        return;
                    }
                    native.wake();
                }
                Err(reason) => tracing::debug!(reason, "what retention may soon delete is not known"),
            }
        }
        let pause = known
            .and_then(Retention::alarm_age_ms)
            .map_or(INTERVAL, |age| Duration::from_millis(age / 4).clamp(INTERVAL_MIN, INTERVAL));
        if let Err(RecvTimeoutError::Disconnected) = leaving.recv_timeout(pause) {
            return;
        }
    }
}

/// Below which offsets tasks are in danger; partitions whose leader does not answer are left out.
fn endangered(
    retention: Retention,
    asker: &Asker,
    partitions: &[Partition],
) -> Result<Vec<(Partition, Offset)>, String> {
    let ends = |end| asker.ends(&asker.topic, partitions, end);
    let (first, last) = (ends(End::First)?, ends(End::Last)?);
    let alarm = retention.alarm_age_ms().map(|age| now_ms().saturating_sub(age));
    let young = match alarm {
        Some(since) => Some(ends(End::Since(since as i64))?),
        None => None,
    };
    let kept = |(&partition, &first)| {
        let young = match &young {
            Some(young) => Some(*young.get(&partition)?),
            None => None,
        };
        let kept = Kept { first, last: *last.get(&partition)?, young };
        Some((partition, kept.endangered_before(retention)))
    };
    Ok(first.iter().filter_map(kept).collect())
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
