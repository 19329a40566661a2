//! Small C libraries that are preloaded into a process, to do to it what its machine might (Linux).

use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

/// The library made of a source file in `support/`, by the C compiler that librdkafka and SQLite are built with.
pub fn library(source: &'static str) -> Result<PathBuf> {
    static MADE: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = made.get(source) {
        return Ok(library.clone());
    }
    let library = compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("support").join(source))?;
    made.insert(source, library.clone());
    Ok(library)
}

fn compile(source: &Path) -> Result<PathBuf> {
    let name = source.parent().and_then(Path::file_name).context("a source in a directory of its own")?;
    let library = std::env::current_exe()?.with_file_name(format!("lib{}.so", name.display()));
    // Another test process may be using the one that is there.
    let new = library.with_extension(std::process::id().to_string());
    let mut cc = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    cc.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", "-o"]);
    let output = cc.arg(&new).arg(source).arg("-ldl").output().context("the C compiler")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(new, &library)?;
    Ok(library)
}
