//! What became of idempotent requests: the latest in memory, the others on the disk. Used by one thread; what takes long is
//! done by the merger's.

use super::{
    IdempotencyKey,
    generations::{Filters, Generations, Readers, Value},
};
use crate::Error;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use rapidhash::RapidHashMap;
use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Requests that are merged together: one sync for all of them.
const MERGE: usize = 32 << 10;
/// Requests that may be in memory while the disk does not take them.
const MOST: usize = 8 * MERGE;
/// After a failure.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The index itself.
pub(crate) struct Index {
    recent: RapidHashMap<IdempotencyKey, Value>,
    merging: Option<Arc<Merge>>,
    readers: Readers,
    /// Until they are made everything is looked for.
    filters: Option<Filters>,
    merges: Option<Sender<Arc<Merge>>>,
    news: Receiver<News>,
    merger: Option<JoinHandle<()>>,
    /// The generation that is written to, where the readers could not be turned to it yet.
    turning: Option<u64>,
    /// Since when the oldest of `recent` is there, and how long it may be.
    oldest: Option<Instant>,
    most_age: Duration,
}

struct Merge {
    entries: RapidHashMap<IdempotencyKey, Value>,
    position: Vec<u8>,
}

/// What the merger has done.
enum News {
    /// Before its first merge.
    Filters(Filters),
    /// Into the generation of this number.
    Merged(u64),
}

impl Index {
    /// An index over these files.
    pub(crate) fn new(generations: Generations) -> Result<Self, Error> {
        let readers = Readers::open(generations.dir(), generations.number()).map_err(|error| {
            Error::Log(format!(
                "cannot read the index of idempotency keys in {}: {error}",
                generations.dir().display()
            ))
        })?;
        let most_age = generations.window() / 4;
        let (merges, to_merge) = bounded(1);
        let (news_of_merger, news) = bounded(2);
        let merger = thread::Builder::new()
            .name("requests-merge".into())
            .spawn(move || merge_all(generations, &to_merge, &news_of_merger))
            .map_err(Error::Thread)?;
        let (recent, merging, filters) = (RapidHashMap::default(), None, None);
        Ok(Self {
            recent,
            merging,
            readers,
            filters,
            merges: Some(merges),
            news,
            merger: Some(merger),
            turning: None,
            oldest: None,
            most_age,
        })
    }

    /// What is remembered of a request.
    pub(crate) fn find(&self, key: &IdempotencyKey) -> rusqlite::Result<Option<Value>> {
        let in_memory = self.recent.get(key).or_else(|| self.merging.as_ref()?.entries.get(key));
        match in_memory {
            Some(value) => Ok(Some(value.clone())),
            None if self.filters.as_ref().is_some_and(|filters| !filters.may_have(key)) => Ok(None),
            None => self.readers.find(key),
        }
    }

    /// Remembers what became of a request.
    pub(crate) fn remember(&mut self, key: IdempotencyKey, value: Value) {
        self.recent.insert(key, value);
        self.oldest.get_or_insert_with(Instant::now);
    }

    /// Forgets a request that was remembered a moment ago: nothing became of it.
    pub(crate) fn forget(&mut self, key: &IdempotencyKey) {
        self.recent.remove(key);
    }

    /// Whether it takes no more for now, because the disk does not.
    pub(crate) fn is_full(&self) -> bool {
        self.recent.len() >= MOST
    }

    /// To be called now and then. `position`: up to where the log's requests have been remembered. Returns the position up to which they
    /// are on the disk, where that is news.
    pub(crate) fn turn(&mut self, position: impl FnOnce() -> Vec<u8>) -> rusqlite::Result<Option<Vec<u8>>> {
        let mut on_disk = None;
        match self.news.try_recv() {
            Ok(News::Filters(filters)) => self.filters = Some(filters),
            Ok(News::Merged(number)) => self.turning = Some(number),
            Err(_) => {}
        }
        if let Some(number) = self.turning {
            // Until the readers see it, what was merged is found in memory.
            self.readers.turn_to(number)?;
            self.turning = None;
            if let Some(merge) = self.merging.take() {
                if let Some(filters) = &mut self.filters {
                    filters.merged(number, merge.entries.keys());
                }
                on_disk = Some(merge.position.clone());
            }
        }
        let is_old = self.oldest.is_some_and(|oldest| oldest.elapsed() >= self.most_age);
        if self.merging.is_none()
            && (self.recent.len() >= MERGE || is_old)
            && let Some(merges) = &self.merges
        {
            self.oldest = None;
            // As many will come again, probably.
            let next = RapidHashMap::with_capacity_and_hasher(self.recent.len(), Default::default());
            let entries = std::mem::replace(&mut self.recent, next);
            let merge = Arc::new(Merge { entries, position: position() });
            // There is room: it holds one, and the last has been merged.
            let _ = merges.try_send(merge.clone());
            self.merging = Some(merge);
        }
        Ok(on_disk)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.merges = None;
        if let Some(merger) = self.merger.take()
            && merger.join().is_err()
        {
            tracing::error!("the merger of idempotency keys panicked");
        }
    }
}

/// The merger's thread.
fn merge_all(mut generations: Generations, merges: &Receiver<Arc<Merge>>, news: &Sender<News>) {
    match generations.filters() {
        Ok(filters) => {
            let _ = news.send(News::Filters(filters));
        }
        Err(error) => {
            tracing::warn!(%error, "idempotency keys are looked for without a filter: it could not be made")
        }
    }
    let mut is_tidy = false;
    loop {
        let next = if is_tidy { merges.recv().map_err(TryRecvError::from) } else { merges.try_recv() };
        let merge = match next {
            Ok(merge) => merge,
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {
                is_tidy = generations.tidy().map_or_else(
                    |error| {
                        tracing::warn!(%error, "the index of idempotency keys could not be tidied up; it is tried again");
                        true
                    },
                    |some| !some,
                );
                continue;
            }
        };
        is_tidy = false;
        let mut entries: Vec<_> = merge.entries.iter().map(|(key, value)| (*key, &value[..])).collect();
        entries.sort_unstable_by_key(|(key, _)| u128::from_be_bytes(key.0));
        while let Err(error) = generations.merge(&entries, &merge.position) {
            tracing::warn!(%error, "idempotency keys could not be written to their index; it is tried again");
            if let Err(RecvTimeoutError::Disconnected) = merges.recv_timeout(TRY_AGAIN) {
                return;
            }
        }
        let _ = news.send(News::Merged(generations.number()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> IdempotencyKey {
        IdempotencyKey::of(&[&number.to_le_bytes()])
    }

    fn open(dir: &std::path::Path) -> (Vec<u8>, Index) {
        let generations = Generations::open(dir, Duration::from_secs(3600)).unwrap();
        (generations.position().to_owned(), Index::new(generations).unwrap())
    }

    #[test]
    fn everything_is_found_while_it_moves_to_the_disk_and_after_a_restart_as_far_as_the_position_says() {
        let dir = tempfile::tempdir().unwrap();
        let count = 3 * MERGE as u64;
        let (_, mut index) = open(dir.path());
        let mut on_disk = 0;
        let until = Instant::now() + Duration::from_secs(60);
        let mut next = 0;
        while on_disk < 2 * MERGE as u64 {
            assert!(Instant::now() < until);
            if next < count {
                index.remember(key(next), next.to_le_bytes().to_vec().into());
                next += 1;
            }
            if let Some(position) = index.turn(|| next.to_le_bytes().to_vec()).unwrap() {
                on_disk = u64::from_le_bytes(position.try_into().unwrap());
            }
            if next % 1000 == 0 {
                let some = next / 2;
                assert_eq!(index.find(&key(some)).unwrap().unwrap()[..], some.to_le_bytes());
            }
        }
        assert_eq!(index.find(&key(count)).unwrap(), None);
        drop(index);
        let (position, index) = open(dir.path());
        let position = u64::from_le_bytes(position.try_into().unwrap());
        assert!(position >= on_disk);
        for number in (0..position).step_by(997) {
            assert_eq!(index.find(&key(number)).unwrap().unwrap()[..], number.to_le_bytes());
        }
    }
}
