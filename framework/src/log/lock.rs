//! One process at a time: the directory's lock file, with the owner's process id in it.

use crate::Error;
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

/// The exclusive use of a directory, until this is dropped or the process dies in any way.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Locks `dir`, which `setting` names, or says who has it.
    pub(crate) fn acquire(dir: &Path, setting: &str) -> Result<Self, Error> {
        let path = dir.join("lock");
        let failed = |error: std::io::Error| {
            Error::Log(format!(
                "cannot lock {}: {error}; check {setting} and its permissions",
                path.display()
            ))
        };
        // Not truncated before it is locked: the owner's number is in it.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(dir, setting, &mut file)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn in_use(dir: &Path, setting: &str, file: &mut File) -> Error {
    let mut owner = String::new();
    // A pid is a few digits; whatever else the file holds is not shown.
    let _ = file.take(20).read_to_string(&mut owner);
    let owner = match owner.trim().parse::<u32>() {
        Ok(pid) => format!("pid {pid}"),
        Err(_) => "pid not known".to_owned(),
    };
    Error::Log(format!(
        "{} is in use by another partita process ({owner}); stop it or use another {setting}",
        dir.display()
    ))
}
