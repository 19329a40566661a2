//! Syncing what the object store does not: directories that another writer made.

use std::{fs::File, io, path::Path};

/// Makes a file's content durable.
pub(super) fn sync_file(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes the entries of every directory from `inner` up to `outer` durable, both included.
pub(super) fn sync_between(inner: &Path, outer: &Path) -> io::Result<()> {
    for directory in inner.ancestors() {
        sync_directory(directory)?;
        if directory == outer {
            break;
        }
    }
    Ok(())
}

/// Makes the entries that lead to `path` durable, as far as this process may open them.
pub(super) fn sync_above(path: &Path) -> io::Result<()> {
    for directory in path.ancestors().skip(1) {
        match sync_directory(directory) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            done => done?,
        }
    }
    Ok(())
}

fn sync_directory(path: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened as a file, and needs no sync of its own.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// Runs file system work on a thread for such.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> object_store::Result<T> {
    let done = tokio::task::spawn_blocking(work).await?;
    done.map_err(|error| object_store::Error::Generic { store: "recordings", source: Box::new(error) })
}
