//! The ends of the partitions and the standing of the topic, told to the consumer's thread every few seconds. Beside it goes the watch
//! over retention.

use super::{
    super::{
        native::NativeConsumer,
        watch::{Standing, Trouble, Watch},
    },
    retention::RetentionWatch,
    run::Note,
};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How often the ends are asked for.
const ENDS_INTERVAL: Duration = Duration::from_secs(5);

/// The threads' other side. The threads end soon after this is dropped.
pub(super) struct Tail {
    alarmed: Arc<AtomicBool>,
    wake: Sender<()>,
    _retention: RetentionWatch,
}

impl Tail {
    pub(super) fn start(watch: Watch, native: &Arc<NativeConsumer>, notes: Sender<Note>) -> io::Result<Self> {
        let (wake, woken) = bounded(1);
        let alarmed = Arc::new(AtomicBool::new(false));
        let _retention = RetentionWatch::start(&watch, native, notes.clone())?;
        let tail = Self { alarmed: alarmed.clone(), wake, _retention };
        let native = Arc::downgrade(native);
        thread::Builder::new()
            .name("partita-kafka-tail".into())
            .spawn(move || follow(watch, &alarmed, &woken, &native, &notes))?;
        Ok(tail)
    }

    /// The client lost its brokers: look at once.
    pub(super) fn alarm(&self) {
        self.alarmed.store(true, Ordering::SeqCst);
        let _ = self.wake.try_send(());
    }
}

fn follow(
    mut watch: Watch,
    alarmed: &AtomicBool,
    woken: &Receiver<()>,
    native: &Weak<NativeConsumer>,
    notes: &Sender<Note>,
) {
    let mut standing = Standing::default();
    let mut told: Option<Result<(), Trouble>> = None;
    let mut asked: Option<Instant> = None;
    let tell = |note: Note| {
        let heard = notes.send(note).is_ok();
        if let Some(native) = native.upgrade() {
            native.wake();
        }
        heard
    };
    loop {
        let question = Instant::now();
        let answer = watch.probe();
        let alarm = alarmed.swap(false, Ordering::SeqCst);
        let judged = standing.judge(answer, alarm, false, question, Instant::now());
        if let Some(news) = judged
            && told.as_ref() != Some(&news)
        {
            told = Some(news.clone());
            if !tell(Note::Standing(news)) {
                return;
            }
        }
        let reachable = matches!(told, Some(Ok(()) | Err(Trouble::Grown(_))));
        if reachable && asked.is_none_or(|asked| asked.elapsed() >= ENDS_INTERVAL) {
            asked = Some(Instant::now());
            match watch.high_watermarks() {
                Ok(ends) => {
                    if !tell(Note::Ends(ends)) {
                        return;
                    }
                }
                Err(reason) => tracing::debug!(reason, "the ends of the partitions are not known"),
            }
        }
        if let Err(RecvTimeoutError::Disconnected) = woken.recv_timeout(standing.ask_after()) {
            return;
        }
    }
}
