//! Moves what the WAL holds into the database, beside the writer.
//!
//! Passive passes run while the writer goes on. They alone never catch up with a writer that does not pause, so when the WAL has
//! grown to its limit one last short pass holds the writer and the reader off, and the WAL starts over in the same file.

use super::{schema, shared::Shared, wal::Room};
use rusqlite::Connection;
use std::{
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Frames (pages) between passive passes: 2 MiB. While one syncs the database the writer's own sync waits; a short one more often is felt less
/// than a long one.
const PASS: u64 = 64;
/// Frames at which the WAL starts over: 256 MiB.
pub(super) const LIMIT: u64 = 8192;
/// Frames that may be left for the pass that holds the writer: 512 KiB.
const LEFT: u64 = 16;
/// Frames between two looks at the WAL's file: 1 MiB.
const LOOK: u64 = 32;
/// After a failed pass.
const RETRY: Duration = Duration::from_secs(1);

/// When the checkpointer is to look.
#[derive(Default)]
pub(super) struct Due {
    /// Since the last pass.
    frames: AtomicU64,
    /// Since the WAL started over, about.
    in_wal: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    due: bool,
    stop: bool,
}

impl Due {
    /// The writer wrote about so many frames.
    pub(super) fn wrote(&self, frames: u64) {
        self.frames.fetch_add(frames, Ordering::Relaxed);
        let before = self.in_wal.fetch_add(frames, Ordering::Relaxed);
        if before / LOOK != (before + frames) / LOOK {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).due = true;
            self.changed.notify_one();
        }
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.changed.notify_one();
    }

    /// Waits until there is something to look at, or returns false at the end.
    fn wait(&self, longest: Option<Duration>) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |state: &mut State| !state.due && !state.stop;
        let mut state = match longest {
            None => self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner),
            Some(longest) => {
                self.changed
                    .wait_timeout_while(state, longest, |state| !state.stop)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        state.due = false;
        !state.stop
    }
}

/// Opens the checkpointer's connection.
pub(super) fn open(dir: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(schema::database(dir))?;
    // Somebody else's reader must not hold the writer off through us.
    connection.busy_timeout(Duration::ZERO)?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", 16)?;
    Ok(connection)
}

/// The thread's whole life.
pub(super) fn run(connection: &Connection, mut room: Room, shared: &Arc<Shared>, due: &Due) {
    let mut retry = None;
    room.keep_ahead_of(0);
    while due.wait(retry) {
        room.keep_ahead_of(due.in_wal.load(Ordering::Relaxed));
        if retry.is_none() && due.frames.load(Ordering::Relaxed) < PASS {
            continue;
        }
        due.frames.store(0, Ordering::Relaxed);
        retry = match catch_up(connection, shared, &due.in_wal) {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(%error, "the embedded log's checkpoint failed; its WAL grows until one succeeds");
                Some(RETRY)
            }
        };
    }
}

fn catch_up(connection: &Connection, shared: &Shared, in_wal: &AtomicU64) -> rusqlite::Result<()> {
    let mut state = checkpoint(connection, "PASSIVE")?;
    in_wal.store(state.frames, Ordering::Relaxed);
    if state.frames < LIMIT {
        return Ok(());
    }
    for _ in 0..3 {
        if state.frames - state.done <= LEFT {
            break;
        }
        state = checkpoint(connection, "PASSIVE")?;
    }
    let alone = shared.gate.write().unwrap_or_else(PoisonError::into_inner);
    let state = checkpoint(connection, "RESTART")?;
    if !state.busy {
        in_wal.store(0, Ordering::Relaxed);
    }
    drop(alone);
    if state.busy {
        tracing::debug!("another program reads the embedded log: its WAL cannot start over yet");
    }
    Ok(())
}

/// The answer of `PRAGMA wal_checkpoint`.
#[derive(Debug)]
pub(super) struct Checkpointed {
    pub(super) busy: bool,
    frames: u64,
    done: u64,
}

/// One pass.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Checkpointed> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        let (busy, frames, done): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Checkpointed { busy: busy != 0, frames: frames.max(0) as u64, done: done.max(0) as u64 })
    })
}
