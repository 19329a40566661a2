//! The recordings: a directory for each key, an object for each chunk; and beside the keys the partitions' fences.

use super::{
    chunk::{Chunk, ChunkName},
    config::RecorderConfig,
    durable,
    fence::{Fence, LaterClaim},
    key_path,
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{
    ListResult, ObjectStore, ObjectStoreExt, PutMode, PutPayload, local::LocalFileSystem, path::Path,
};
use std::{ops::Range, path::PathBuf, sync::Arc};

/// Headers that are read at once for a listing.
const READS: usize = 16;

/// What a streamed read holds at a time.
const WINDOW: u64 = 1 << 20;

/// The recordings of a directory.
#[derive(Debug)]
pub(crate) struct Recordings {
    store: LocalFileSystem,
    root: PathBuf,
    sync: bool,
}

/// How a put ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Put {
    /// Written now.
    Written,
    /// It was there: the task came again.
    Present,
    /// Another chunk is there under the same name.
    Conflict(Box<Chunk>),
}

/// A line of the list of recordings.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Recording {
    /// The key.
    pub(crate) key: String,
    /// How many chunks it has.
    pub(crate) chunks: u64,
    /// Their payloads' bytes.
    pub(crate) bytes: u64,
}

/// A chunk's payload, to be read.
#[derive(Debug, Clone)]
pub(super) struct Payload {
    path: Path,
    range: Range<u64>,
}

/// A chunk as a listing shows it.
#[derive(Debug, Clone)]
struct Listed {
    name: ChunkName,
    path: Path,
    length: u64,
}

impl Recordings {
    /// Opens the directory, and makes it if it is not there.
    pub(crate) fn open(config: &RecorderConfig) -> anyhow::Result<Self> {
        use anyhow::Context;
        let refused = || {
            format!(
                "the recordings directory {} cannot be used; check that it is a directory and may be written, or set handler.recorder.dir",
                config.dir.display()
            )
        };
        std::fs::create_dir_all(&config.dir).with_context(refused)?;
        let root = config.dir.canonicalize().with_context(refused)?;
        if config.sync {
            durable::sync_above(&root).with_context(refused)?;
        }
        let store = LocalFileSystem::new_with_prefix(&root).with_context(refused)?.with_fsync(config.sync);
        Ok(Self { store, root, sync: config.sync })
    }

    /// Whether a later owner has claimed the chunk's partition; else the chunk's writer has it. `claimed`: whether this writer had it
    /// before.
    pub(super) async fn hold(
        &self,
        chunk: &Chunk,
        claimed: bool,
    ) -> object_store::Result<Option<LaterClaim>> {
        let fence = Fence::of(chunk, &self.root, self.sync);
        durable::blocking(move || fence.hold(claimed)).await
    }

    /// Writes a chunk, durably where `sync` is set, all of it or nothing. `seen`: whether this writer has put a chunk of
    /// the key before.
    pub(super) async fn put(
        &self,
        key: &[u8],
        chunk: &Chunk,
        payload: Bytes,
        seen: bool,
    ) -> object_store::Result<Put> {
        let directory = directory(&key_path::encode(key));
        let path = directory.clone().join(chunk.name().to_string());
        let header = chunk
            .header()
            .map_err(|error| object_store::Error::Generic { store: "recordings", source: Box::new(error) })?;
        let made_here = !seen && !self.exists(&directory).await?;
        let body = PutPayload::from_iter([header, payload]);
        match self.store.put_opts(&path, body.clone(), PutMode::Create.into()).await {
            Ok(_) => {
                if !seen {
                    self.sync_directories(&directory, made_here).await?;
                }
                Ok(Put::Written)
            }
            Err(object_store::Error::AlreadyExists { .. }) => {
                self.put_again(&path, &directory, chunk, body).await
            }
            Err(error) => Err(error),
        }
    }

    /// The chunk's name is taken: by the same task, by a torn object (only where `sync` was off), or by another task.
    async fn put_again(
        &self,
        path: &Path,
        directory: &Path,
        chunk: &Chunk,
        body: PutPayload,
    ) -> object_store::Result<Put> {
        let length = self.store.head(path).await?.size;
        let put = match self.whole(&Listed { name: chunk.name(), path: path.clone(), length }).await? {
            None => {
                self.store.put_opts(path, body, PutMode::Overwrite.into()).await?;
                Put::Written
            }
            Some(there) if there.topic_id == chunk.topic_id && there.sha256 == chunk.sha256 => Put::Present,
            Some(there) => return Ok(Put::Conflict(Box::new(there))),
        };
        if self.sync {
            // Whoever wrote it may have died between publishing it and syncing its directory.
            let file = self.store.path_to_filesystem(path)?;
            durable::blocking(move || durable::sync_file(&file)).await?;
        }
        self.sync_directories(directory, false).await?;
        Ok(put)
    }

    async fn exists(&self, directory: &Path) -> object_store::Result<bool> {
        if !self.sync {
            return Ok(true);
        }
        let place = self.store.path_to_filesystem(directory)?;
        durable::blocking(move || Ok(place.exists())).await
    }

    /// Makes the way to a key's directory durable. The object store does so for directories it makes, but not for those
    /// that another writer made and may have died before syncing.
    async fn sync_directories(&self, directory: &Path, made_here: bool) -> object_store::Result<()> {
        let directly_below = directory.parts().count() == 1;
        if !self.sync || (made_here && directly_below) {
            return Ok(());
        }
        let (place, root) = (self.store.path_to_filesystem(directory)?, self.root.clone());
        durable::blocking(move || durable::sync_between(&place, &root)).await
    }

    /// Up to `limit` recordings after a key, in the order of the keys' bytes, and whether there are more.
    pub(super) async fn list(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> object_store::Result<(Vec<Recording>, bool)> {
        let after = after.map(|key| key_path::encode(key.as_bytes())).unwrap_or_default();
        let mut encoded = self.encodings_after(&after).await?;
        encoded.sort_unstable();
        let summaries = stream::iter(encoded).map(|encoded| self.summary(encoded)).buffered(READS);
        let mut found: Vec<Recording> =
            summaries.try_filter_map(async |summary| Ok(summary)).take(limit + 1).try_collect().await?;
        let more = found.len() > limit;
        found.truncate(limit);
        Ok((found, more))
    }

    /// The encodings of directories that may be keys', greater than `after`.
    async fn encodings_after(&self, after: &str) -> object_store::Result<Vec<String>> {
        let mut found = Vec::new();
        let mut unread = vec![String::new()];
        while let Some(prefix) = unread.pop() {
            for directory in self.list_directory(&prefix).await?.common_prefixes {
                let Some(segment) = directory.filename() else { continue };
                let encoded = format!("{prefix}{segment}");
                if key_path::goes_on(segment) && (encoded.as_str() > after || after.starts_with(&encoded)) {
                    unread.push(encoded.clone());
                }
                if encoded.as_str() > after {
                    found.push(encoded);
                }
            }
        }
        Ok(found)
    }

    async fn list_directory(&self, encoded: &str) -> object_store::Result<ListResult> {
        let path = (!encoded.is_empty()).then(|| directory(encoded));
        self.store.list_with_delimiter(path.as_ref()).await
    }

    /// A directory as a recording; `None` where it has no chunk or is no key's.
    async fn summary(&self, encoded: String) -> object_store::Result<Option<Recording>> {
        let Some(key) = key_path::decode(&encoded).and_then(|key| String::from_utf8(key).ok()) else {
            return Ok(None);
        };
        let chunks = self.listed(&encoded).await?;
        let bytes = chunks.iter().map(|chunk| chunk.length - chunk.name.header_len()).sum();
        Ok((!chunks.is_empty()).then_some(Recording { key, chunks: chunks.len() as u64, bytes }))
    }

    /// A key's chunks by their names, in order.
    async fn listed(&self, encoded: &str) -> object_store::Result<Vec<Listed>> {
        let objects = self.list_directory(encoded).await?.objects;
        let mut chunks: Vec<_> = objects
            .into_iter()
            .filter_map(|object| {
                let name = ChunkName::parse(object.location.filename()?)?;
                (object.size >= name.header_len()).then_some(Listed {
                    name,
                    path: object.location,
                    length: object.size,
                })
            })
            .collect();
        chunks.sort_by_key(|chunk| chunk.name);
        Ok(chunks)
    }

    /// A key's chunks in order of offset, each with its payload. Empty for an unknown key.
    pub(super) async fn chunks(&self, key: &str) -> object_store::Result<Vec<(Chunk, Payload)>> {
        let listed = self.listed(&key_path::encode(key.as_bytes())).await?;
        stream::iter(&listed)
            .map(async |listed| {
                let chunk = self.whole(listed).await?;
                Ok(chunk.map(|chunk| (chunk, listed.payload())))
            })
            .buffered(READS)
            .try_filter_map(async |chunk| Ok(chunk))
            .try_collect()
            .await
    }

    /// One chunk of a key.
    pub(super) async fn chunk(
        &self,
        key: &str,
        partition: u32,
        offset: u64,
    ) -> object_store::Result<Option<(Chunk, Payload)>> {
        let encoded = key_path::encode(key.as_bytes());
        let name = ChunkName::usual(partition, offset);
        let path = directory(&encoded).join(name.to_string());
        let listed = match self.store.head(&path).await {
            Ok(object) => Some(Listed { name, path, length: object.size }),
            Err(object_store::Error::NotFound { .. }) => {
                let all = self.listed(&encoded).await?;
                all.into_iter().find(|chunk| (chunk.name.partition, chunk.name.offset) == (partition, offset))
            }
            Err(error) => return Err(error),
        };
        let Some(listed) = listed else { return Ok(None) };
        Ok(self.whole(&listed).await?.map(|chunk| (chunk, listed.payload())))
    }

    /// What a chunk's header says; `None` for an object that is torn.
    async fn whole(&self, listed: &Listed) -> object_store::Result<Option<Chunk>> {
        let header_len = listed.name.header_len();
        if listed.length < header_len {
            return Ok(None);
        }
        let header = self.store.get_range(&listed.path, 0..header_len).await?;
        let chunk = Chunk::parse(&header).filter(|chunk| header_len + chunk.size == listed.length);
        if chunk.is_none() {
            tracing::warn!(object = %listed.path, "the object is torn and not shown");
        }
        Ok(chunk)
    }

    /// A payload in pieces, never more than one of them in memory.
    pub(super) fn read(
        self: Arc<Self>,
        payload: Payload,
    ) -> impl futures_util::Stream<Item = object_store::Result<Bytes>> {
        stream::try_unfold((self, payload), |(recordings, mut payload)| async move {
            if payload.range.is_empty() {
                return Ok(None);
            }
            let end = payload.range.end.min(payload.range.start + WINDOW);
            let piece = recordings.store.get_range(&payload.path, payload.range.start..end).await?;
            payload.range.start = end;
            Ok(Some((piece, (recordings, payload))))
        })
    }
}

impl Listed {
    fn payload(&self) -> Payload {
        Payload { path: self.path.clone(), range: self.name.header_len()..self.length }
    }
}

/// The directory of a key's encoding.
fn directory(encoded: &str) -> Path {
    Path::from_iter(key_path::segments(encoded))
}
