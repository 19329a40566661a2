//! The token that Partita's front doors ask for.

use anyhow::Result;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A file of tokens with a token in it, which may do everything and has limits that nobody reaches.
#[derive(Debug)]
pub(crate) struct Tokens {
    dir: TempDir,
    token: String,
}

impl Tokens {
    pub(super) fn new() -> Result<Self> {
        let tokens = Self { dir: tempfile::tempdir()?, token: hex::encode(rand::random::<[u8; 32]>()) };
        let entry = format!(
            "[[token]]\nname = \"bench\"\nsha256 = \"{}\"\nverbs = [\"write\", \"read\"]\n\
             tasks_per_second = 10000000\nbytes_per_second = \"1TB\"\n",
            hex::encode(Sha256::digest(tokens.token.as_bytes()))
        );
        std::fs::write(tokens.file(), entry)?;
        Ok(tokens)
    }

    pub(super) fn file(&self) -> PathBuf {
        Path::join(self.dir.path(), "tokens.toml")
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }
}
