//! The file of tokens: TOML, and no token itself is in it.

use super::{
    super::stamp::{LOOK, Stamp},
    Caller, Grant, Hash, Verb,
};
use crate::config::ConfigError;
use bytesize::ByteSize;
use partita_core::Rate;
use serde::Deserialize;
use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

/// The longest name of a token, in bytes: it is shown to its owner and to operators.
const LONGEST_NAME: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    token: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sha256: String,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default = "write")]
    verbs: Vec<Verb>,
    tasks_per_second: Option<u64>,
    bytes_per_second: Option<ByteSize>,
}

fn write() -> Vec<Verb> {
    vec![Verb::Write]
}

/// The tokens of a file, as they were when it was last looked at.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    stamp: Stamp,
    looked: Instant,
    /// It could not be looked at the last time.
    missing: bool,
    tokens: Vec<(Hash, Arc<Caller>)>,
}

impl TokenFile {
    /// Reads it, or says what is wrong with it.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let wrong = |error: String| format!("front_door.tokens_file: {}: {error}", path.display());
        let stamp = Stamp::of(path).map_err(|error| wrong(error.to_string()))?;
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let grants = parse(&text).map_err(wrong)?;
        let tokens = grants.into_iter().map(|(hash, grant)| (hash, Arc::new(Caller::new(grant)))).collect();
        Ok(Self { path: path.to_owned(), stamp, looked: Instant::now(), missing: false, tokens })
    }

    /// The tokens. The file is looked at again now and then; one that has become wrong changes nothing.
    pub(super) fn tokens(&mut self) -> &[(Hash, Arc<Caller>)] {
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            match Stamp::of(&self.path) {
                Ok(stamp) if stamp != self.stamp => self.read_again(),
                Ok(_) => self.missing = false,
                Err(error) if !self.missing => {
                    self.missing = true;
                    tracing::error!(%error, path = %self.path.display(), "the tokens' file is gone: what it said before stays in force");
                }
                Err(_) => {}
            }
        }
        &self.tokens
    }

    fn read_again(&mut self) {
        match Self::read(&self.path) {
            Ok(read) => {
                self.stamp = read.stamp;
                let known = |name: &str| self.tokens.iter().find(|(_, caller)| caller.name() == name);
                let renewed = read.tokens.into_iter().map(|(hash, new)| match known(new.name()) {
                    Some((before, old)) if *before == hash && old.grant == new.grant => (hash, old.clone()),
                    Some((_, old)) => (hash, Arc::new(old.renewed(new.grant.clone()))),
                    None => (hash, new),
                });
                let tokens: Vec<_> = renewed.collect();
                let stays = |old: &Arc<Caller>| tokens.iter().any(|(_, new)| Arc::ptr_eq(old, new));
                self.tokens.iter().filter(|(_, old)| !stays(old)).for_each(|(_, old)| old.revoke());
                tracing::info!(path = %self.path.display(), tokens = tokens.len(), "the tokens were read again");
                self.tokens = tokens;
            }
            Err(error) => tracing::error!(
                error,
                "the tokens' file has changed and is wrong: what it said before stays in force"
            ),
        }
    }
}

/// Whether this could be in a file of tokens, or what is wrong with it.
pub fn check_tokens(text: &str) -> Result<(), ConfigError> {
    parse(text).map(drop).map_err(ConfigError)
}

fn parse(text: &str) -> Result<Vec<(Hash, Grant)>, String> {
    let Text { token } = toml::from_str(text).map_err(|error| error.to_string())?;
    let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
    token
        .into_iter()
        .map(|entry| {
            let (name, wrong) =
                (entry.name.clone(), |why: &str| Err(format!("the token {:?} {why}", entry.name)));
            if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
                return wrong("has no name of 1 to 64 bytes without control characters");
            }
            if !names.insert(name.clone()) {
                return wrong("is there twice");
            }
            let Some(hash) = hash(&entry.sha256) else {
                return wrong("has no sha256 of 64 hexadecimal digits; `partita token` makes one");
            };
            if !hashes.insert(hash) {
                return wrong("has the sha256 of another");
            }
            if entry.verbs.is_empty() {
                return wrong("has no verbs: leave them out for [\"write\"]");
            }
            let bytes = entry.bytes_per_second.map(|size| size.as_u64());
            if entry.tasks_per_second == Some(0) || bytes == Some(0) {
                return wrong("has a rate of 0: take the token out instead");
            }
            let rate = |per_second: Option<u64>| per_second.map(|per_second| Rate { per_second });
            let (tasks, bytes) = (rate(entry.tasks_per_second), rate(bytes));
            Ok((hash, Grant { name, keys: entry.keys, verbs: entry.verbs, tasks, bytes }))
        })
        .collect()
}

fn hash(digits: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    hex::decode_to_slice(digits, &mut hash).ok()?;
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "sha256 = \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"";

    #[test]
    fn a_token_has_what_its_entry_says() {
        let text = format!(
            "[[token]]\nname = \"shop\"\n{SHA}\nkeys = [\"orders/\"]\nverbs = [\"write\", \"read\"]\ntasks_per_second = 5\nbytes_per_second = \"10MB\""
        );
        let (hash, grant) = parse(&text).unwrap().remove(0);
        assert_eq!(hash, super::super::hash(b"abc"));
        let rate = |per_second| Some(Rate { per_second });
        assert_eq!((grant.tasks, grant.bytes, grant.verbs.len()), (rate(5), rate(10_000_000), 2));
        let plain = &parse(&format!("[[token]]\nname = \"x\"\n{SHA}")).unwrap()[0].1;
        assert_eq!((&plain.verbs[..], plain.tasks, plain.keys.len()), (&[Verb::Write][..], None, 0));
        assert_eq!(parse(""), Ok(Vec::new()), "nobody may enter");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let token = |more: &str| format!("[[token]]\nname = \"x\"\n{more}\n");
        for (text, named) in [
            (token(""), "sha256"),
            (token("sha256 = \"abc\""), "64 hexadecimal digits"),
            (token(&SHA.replace("ba", "+f")), "64 hexadecimal digits"),
            (token(&format!("{SHA}\nverb = \"x\"")), "verb"),
            (token(&format!("{SHA}\nverbs = [\"delete\"]")), "delete"),
            (token(&format!("{SHA}\nverbs = []")), "no verbs"),
            (token(&format!("{SHA}\ntasks_per_second = 0")), "rate of 0"),
            (format!("{0}{0}", token(SHA)), "twice"),
            (format!("{}{}", token(SHA), token(SHA).replace("\"x\"", "\"y\"")), "of another"),
            (token(SHA).replace("\"x\"", "\"\""), "no name"),
            ("token = 5".into(), "token"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
