//! What this process knows of requests: as far as it has read their journal.

use super::note::{state_from_bytes, state_to_bytes};
use crate::{
    Error,
    log::{
        IdempotencyKey,
        idempotency::{DirLock, Generations, Index},
    },
};
use partita_core::{ClaimId, RequestNote, RequestState};
use std::{
    collections::{HashMap, VecDeque},
    fs,
    path::Path,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Processes of one machine that may share a directory, each with a part of its own.
const MOST_PROCESSES: usize = 256;

/// The journal as it was read.
pub(super) struct Book {
    index: Index,
    /// The next offset to read of each of its partitions.
    next: Vec<u64>,
    /// Since when claims are known that were read lately; those that are not in here have been known since `opened`, or for longer than
    /// `settled_after`.
    since: HashMap<IdempotencyKey, Instant>,
    lately: VecDeque<(Instant, IdempotencyKey)>,
    settled_after: Duration,
    opened: Instant,
    /// The claims of this process that were not read back yet.
    own: HashMap<ClaimId, Own>,
    _lock: DirLock,
}

/// A claim of this process.
enum Own {
    /// Somebody waits to hear whether it holds its request.
    Waited(oneshot::Sender<bool>),
    /// It may be written yet, and since when nobody waits for it. Nothing was appended under it, and nothing will be.
    GivenUp(Instant),
}

/// What is known of a request, and since when.
pub(super) struct Known {
    pub(super) state: RequestState,
    pub(super) since: Instant,
}

impl Book {
    /// Opens what was read of the journal with this id, in a part of `dir` that no other process uses.
    pub(super) fn open(
        dir: &Path,
        journal_id: &str,
        partitions: usize,
        window: Duration,
        settled_after: Duration,
    ) -> Result<Self, Error> {
        let (lock, part) = part_of(dir)?;
        let name: String =
            journal_id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        forget_others(&part, &name);
        let generations = Generations::open(&part.join(&name), window)?;
        let next = positions(generations.position(), partitions);
        Ok(Self {
            index: Index::new(generations)?,
            next,
            since: HashMap::new(),
            lately: VecDeque::new(),
            settled_after,
            opened: Instant::now(),
            own: HashMap::new(),
            _lock: lock,
        })
    }

    /// The next offset to read of each partition.
    pub(super) fn next(&self) -> &[u64] {
        &self.next
    }

    /// Goes past what the journal does not have any more.
    pub(super) fn begin_at(&mut self, firsts: &[u64]) {
        for (next, first) in self.next.iter_mut().zip(firsts) {
            *next = (*next).max(*first);
        }
    }

    /// Lets the index move on.
    pub(super) fn turn(&mut self) -> Result<(), String> {
        let next = &self.next;
        let encode = || next.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        self.index.turn(encode).map(|_| ()).map_err(|error| error.to_string())
    }

    /// What is known of a request.
    pub(super) fn find(&self, key: &IdempotencyKey) -> Result<Known, String> {
        let found = self.index.find(key).map_err(|error| error.to_string())?;
        let state = match found {
            Some(bytes) => state_from_bytes(&bytes).ok_or("it is damaged")?,
            None => RequestState::Free,
        };
        Ok(Known { state, since: self.since.get(key).copied().unwrap_or(self.opened) })
    }

    /// Whether no more requests can be remembered for now.
    pub(super) fn is_full(&self) -> bool {
        self.index.is_full()
    }

    /// Says whether this claim, which is about to be written, holds its request once it was read back.
    pub(super) fn wait_for(&mut self, id: ClaimId) -> oneshot::Receiver<bool> {
        let (held, waiting) = oneshot::channel();
        self.own.insert(id, Own::Waited(held));
        waiting
    }

    /// Nobody waits for it any more, and nobody will append under it.
    pub(super) fn give_up(&mut self, id: ClaimId, may_be_written: bool, now: Instant) {
        let Some(own) = self.own.remove(&id) else { return };
        if may_be_written && matches!(own, Own::Waited(_)) {
            let settled_after = self.settled_after;
            self.own.retain(|_, own| match own {
                Own::Waited(_) => true,
                Own::GivenUp(since) => now.saturating_duration_since(*since) < settled_after,
            });
            self.own.insert(id, Own::GivenUp(now));
        }
    }

    /// Takes a record of the journal. Returns the claim of this process that now holds the request though it was given up.
    pub(super) fn read(
        &mut self,
        place: (usize, u64),
        key: IdempotencyKey,
        note: RequestNote,
        now: Instant,
    ) -> Result<Option<ClaimId>, String> {
        let known = self.find(&key)?;
        let state = known.state.after(note);
        if state != known.state {
            self.index.remember(key, state_to_bytes(&state));
            match (note, &state) {
                // It has been known for long, or nothing would have been claimed in its place.
                (RequestNote::Released(_), RequestState::Claimed(..)) => _ = self.since.remove(&key),
                _ => self.note_time(key, &state, now),
            }
        }
        let idle = match note {
            RequestNote::Claimed(claim, _) => {
                let held = state.is_held_by(claim.id);
                let given_up = match self.own.remove(&claim.id) {
                    // Who has just stopped waiting has not appended either.
                    Some(Own::Waited(waiting)) => waiting.send(held).is_err(),
                    Some(Own::GivenUp(_)) => true,
                    None => false,
                };
                (held && given_up).then_some(claim.id)
            }
            RequestNote::Stored(..) | RequestNote::Released(_) => None,
        };
        self.skip(place)?;
        Ok(idle)
    }

    /// Goes past a record.
    pub(super) fn skip(&mut self, (partition, offset): (usize, u64)) -> Result<(), String> {
        if let Some(next) = self.next.get_mut(partition) {
            *next = offset + 1;
        }
        self.turn()
    }

    fn note_time(&mut self, key: IdempotencyKey, state: &RequestState, now: Instant) {
        match state {
            RequestState::Claimed(..) => {
                self.since.insert(key, now);
                self.lately.push_back((now, key));
            }
            RequestState::Free | RequestState::Stored(..) => {
                self.since.remove(&key);
            }
        }
        while let Some((since, key)) = self.lately.front().copied() {
            if self.since.get(&key) != Some(&since) {
                // It is claimed no more.
            } else if now.duration_since(since) >= self.settled_after {
                self.since.remove(&key);
            } else {
                break;
            }
            self.lately.pop_front();
        }
    }
}

/// The first part of the directory that is free.
fn part_of(dir: &Path) -> Result<(DirLock, std::path::PathBuf), Error> {
    let mut last = None;
    for number in 0..MOST_PROCESSES {
        let part = dir.join(number.to_string());
        fs::create_dir_all(&part).map_err(|error| {
            Error::Log(format!("cannot make {}: {error}; check log.kafka.idempotency_dir", part.display()))
        })?;
        match DirLock::acquire(&part, "log.kafka.idempotency_dir") {
            Ok(lock) => return Ok((lock, part)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| Error::Log("no process may use the index".into())))
}

/// Deletes what is known of former journals.
fn forget_others(part: &Path, name: &str) {
    let Ok(entries) = fs::read_dir(part) else { return };
    for entry in entries.flatten() {
        let is_other = entry.file_name().to_str() != Some(name);
        if is_other
            && entry.path().is_dir()
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, path = %entry.path().display(), "the index of a former journal could not be deleted");
        }
    }
}

fn positions(bytes: &[u8], partitions: usize) -> Vec<u64> {
    let known = bytes.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
    known.chain(std::iter::repeat(0)).take(partitions).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use partita_core::{Offset, RequestClaim};

    fn open(dir: &Path) -> Book {
        Book::open(dir, "id/1", 2, Duration::from_secs(3600), Duration::from_secs(60)).unwrap()
    }

    fn claim(id: u128) -> RequestNote {
        let claim = RequestClaim { id: ClaimId(id), digest: [1; 16], from: Offset(7), at_ms: 5 };
        RequestNote::Claimed(claim, None)
    }

    #[test]
    fn the_first_claim_holds_and_one_that_nobody_waits_for_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = open(dir.path());
        let (key, now) = (IdempotencyKey([3; 16]), Instant::now());
        let (mut first, mut second) = (book.wait_for(ClaimId(1)), book.wait_for(ClaimId(2)));
        assert_eq!(book.read((0, 0), key, claim(1), now), Ok(None));
        assert_eq!(book.read((0, 1), key, claim(2), now), Ok(None));
        assert_eq!((first.try_recv(), second.try_recv()), (Ok(true), Ok(false)));
        assert_eq!(book.read((1, 4), IdempotencyKey([4; 16]), claim(3), now), Ok(None), "another process's");
        assert_eq!(book.next(), [2, 5]);
        drop(book.wait_for(ClaimId(4)));
        assert_eq!(book.read((1, 5), IdempotencyKey([5; 16]), claim(4), now), Ok(Some(ClaimId(4))));
        for (id, may_be_written, released) in [(5, true, Some(ClaimId(5))), (6, false, None)] {
            let _held = book.wait_for(ClaimId(id));
            book.give_up(ClaimId(id), may_be_written, now);
            let key = IdempotencyKey([id as u8 + 10; 16]);
            assert_eq!(book.read((1, 5), key, claim(id), now), Ok(released));
        }
        let _held = book.wait_for(ClaimId(7));
        book.give_up(ClaimId(7), true, now);
        let _held = book.wait_for(ClaimId(8));
        book.give_up(ClaimId(8), true, now + Duration::from_secs(60));
        assert_eq!(book.own.len(), 1, "one that was never written is forgotten");
    }

    #[test]
    fn a_claim_is_known_since_it_was_read_and_at_most_since_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = open(dir.path());
        let key = |number| IdempotencyKey([number; 16]);
        let (start, later) = (book.opened, book.opened + Duration::from_secs(30));
        book.read((0, 0), key(1), claim(1), start + Duration::from_secs(1)).unwrap();
        book.read((0, 1), key(2), claim(2), later).unwrap();
        assert_eq!(book.find(&key(2)).unwrap().since, later);
        book.read((0, 2), key(3), claim(3), later + Duration::from_secs(59)).unwrap();
        assert_eq!((book.find(&key(1)).unwrap().since, book.since.len()), (start, 2));
    }

    #[test]
    fn two_processes_have_a_part_each() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (open(dir.path()), open(dir.path()));
        drop(one);
        let again = open(dir.path());
        assert!(
            dir.path().join("0").exists() && dir.path().join("1").exists() && !dir.path().join("2").exists()
        );
        drop((two, again));
    }
}
