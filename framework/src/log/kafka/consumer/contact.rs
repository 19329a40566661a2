//! Whether the group hears this member, where the client does not look itself: under `group.protocol=consumer` librdkafka keeps its
//! partitions however long the coordinator is silent. So it is asked something, again and again, by the way that heartbeats go.

use super::{
    super::{admin, native::NativeConsumer},
    run::Note,
};
use crate::config::KafkaConfig;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use partita_core::Partition;
use std::{
    io,
    sync::{Arc, OnceLock, Weak},
    thread,
    time::{Duration, Instant},
};

/// How often the group is asked, and for how long.
const INTERVAL: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the brokers are asked for their settings until they tell them.
const AGAIN: Duration = Duration::from_secs(60);

/// An answer of the group.
pub(super) struct Heard {
    pub(super) asked: Instant,
    pub(super) times: Times,
}

/// How long the group waits for a silent member, and how often it is to hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) session: Duration,
    pub(super) heartbeat: Duration,
}

/// For brokers that do not tell theirs: below their defaults, 45 and 5 seconds.
const CAUTIOUS: Times = Times { session: Duration::from_secs(11), heartbeat: Duration::from_secs(5) };

/// The threads' other side. They end soon after this is dropped.
pub(super) struct ContactWatch(#[expect(dead_code, reason = "its drop is the message")] Sender<()>);

impl ContactWatch {
    pub(super) fn start(
        config: &KafkaConfig,
        max_task: u64,
        native: &Arc<NativeConsumer>,
        notes: Sender<Note>,
    ) -> io::Result<Self> {
        let (watch, leaving) = bounded(0);
        let times = Arc::new(OnceLock::new());
        let (native, config) = (Arc::downgrade(native), config.clone());
        thread::Builder::new().name("partita-kafka-times".into()).spawn({
            let (times, leaving) = (times.clone(), leaving.clone());
            move || learn(&leaving, &config, max_task, &times)
        })?;
        thread::Builder::new()
            .name("partita-kafka-contact".into())
            .spawn(move || follow(&leaving, &times, &native, &notes))?;
        Ok(Self(watch))
    }
}

/// Asks the brokers for their settings until they tell them.
fn learn(leaving: &Receiver<()>, config: &KafkaConfig, max_task: u64, times: &OnceLock<Times>) {
    loop {
        if let Some((session, heartbeat)) = admin::group_times(config, max_task) {
            let _ = times.set(Times { session, heartbeat });
            return;
        }
        tracing::warn!(
            assumed = ?CAUTIOUS,
            "the brokers have not told their group.consumer settings: they do not answer, or this user may not DescribeConfigs on the \
             cluster. Until they do, partitions stand still when the coordinator is away for only some seconds"
        );
        if let Err(RecvTimeoutError::Disconnected) = leaving.recv_timeout(AGAIN) {
            return;
        }
    }
}

fn follow(
    leaving: &Receiver<()>,
    times: &OnceLock<Times>,
    native: &Weak<NativeConsumer>,
    notes: &Sender<Note>,
) {
    loop {
        let asked = Instant::now();
        let Some(member) = native.upgrade() else { return };
        // Whatever is committed: the answer is what counts.
        if member.committed(&[Partition(0)], PATIENCE).is_ok()
            && notes.send(Note::Heard(Heard { asked, times: *times.get().unwrap_or(&CAUTIOUS) })).is_err()
        {
            return;
        }
        drop(member);
        if let Err(RecvTimeoutError::Disconnected) = leaving.recv_timeout(INTERVAL) {
            return;
        }
    }
}
