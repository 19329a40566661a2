//! Lines on their way: a part after the other, each settled before the next, so that the order of each key is kept.

use super::{
    Args, bar, println,
    progress::{Mark, Progress, Totals},
};
use crate::failure::FAILED;
use anyhow::{Context, Result};
use bytes::Bytes;
use indicatif::ProgressBar;
use partita::config::ConfigError;
use partita_client::Client;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
    process::ExitCode,
};

/// A part has at most so many lines, and about so many bytes.
const LINES: usize = 2000;
const BYTES: usize = 4 << 20;

/// Sends all files.
pub(super) async fn run(args: &Args, client: &Client) -> Result<ExitCode> {
    if args.resume.is_some() && args.files.iter().any(|file| file == Path::new("-")) {
        return Err(ConfigError("--resume is for files: standard input cannot be gone back to".into()).into());
    }
    let mut progress = Progress::open(args.resume.as_deref(), &args.files)?;
    let mut sent = Sent { bar: bar(0, "{human_pos} events, {per_sec}"), totals: progress.totals() };
    for (file, path) in args.files.iter().enumerate() {
        let Some(start) = progress.start(file) else { continue };
        let mut reader = Reader::open(path, &start).with_context(|| path.display().to_string())?;
        loop {
            let part = reader.part().with_context(|| path.display().to_string())?;
            if part.is_empty() {
                break;
            }
            sent.part(client, path, &part).await?;
            progress.reached(file, reader.mark(), sent.totals)?;
        }
        progress.reached(file + 1, Mark::default(), sent.totals)?;
    }
    progress.finish()?;
    let Sent { bar, totals: Totals { accepted, rejected } } = sent;
    bar.finish_and_clear();
    println(&format!("{accepted} events are stored, {rejected} were rejected"));
    Ok(if rejected == 0 { ExitCode::SUCCESS } else { FAILED.into() })
}

struct Sent {
    bar: ProgressBar,
    totals: Totals,
}

impl Sent {
    async fn part(&mut self, client: &Client, path: &Path, part: &[Line]) -> Result<()> {
        let lines: Vec<Bytes> = part.iter().map(|line| line.text.clone()).collect();
        let outcome = client.send_lines(&lines).await;
        let outcome =
            outcome.with_context(|| format!("{}, from line {} on", path.display(), part[0].number))?;
        for rejected in &outcome.rejected {
            let number = part[rejected.line].number;
            self.bar.suspend(|| {
                eprintln!("{}:{number}: {}: {}", path.display(), rejected.code, rejected.detail);
            });
        }
        self.totals.accepted += outcome.accepted;
        self.totals.rejected += outcome.rejected.len() as u64;
        self.bar.inc(part.len() as u64);
        Ok(())
    }
}

/// A line that is not empty.
struct Line {
    /// From 1.
    number: u64,
    text: Bytes,
}

struct Reader {
    input: Box<dyn BufRead>,
    /// Bytes that were read, and their digest.
    offset: u64,
    digest: Sha256,
    /// Lines that were.
    number: u64,
}

impl Reader {
    /// Opens a file and goes to `start`, before which must stand what stood there.
    fn open(path: &Path, start: &Mark) -> io::Result<Self> {
        let input: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(BufReader::new(io::stdin()))
        } else {
            Box::new(BufReader::with_capacity(256 << 10, File::open(path)?))
        };
        let mut reader = Self { input, offset: 0, digest: Sha256::new(), number: 0 };
        while reader.offset < start.offset && reader.line()?.is_some() {}
        if start.offset > 0 && reader.mark() != *start {
            return Err(io::Error::other(
                "it is not the file any more of which a part was sent: remove the note of --resume to begin from the start",
            ));
        }
        Ok(reader)
    }

    /// Where it is.
    fn mark(&self) -> Mark {
        Mark { offset: self.offset, sha256: hex::encode(self.digest.clone().finalize()) }
    }

    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut text = Vec::new();
        let length = self.input.read_until(b'\n', &mut text)?;
        self.digest.update(&text);
        self.offset += length as u64;
        self.number += 1;
        Ok((length > 0).then_some(text))
    }

    /// The next lines; none at the end.
    fn part(&mut self) -> io::Result<Vec<Line>> {
        let (mut part, mut bytes) = (Vec::new(), 0);
        while part.len() < LINES && bytes < BYTES {
            let Some(text) = self.line()? else { break };
            let trimmed = text.trim_ascii();
            if !trimmed.is_empty() {
                bytes += trimmed.len();
                part.push(Line { number: self.number, text: Bytes::copy_from_slice(trimmed) });
            }
        }
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_gone_on_with_where_it_was_if_it_is_the_same_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        std::fs::write(&path, "one\n\ntwo\n").unwrap();
        let mut reader = Reader::open(&path, &Mark::default()).unwrap();
        assert_eq!(reader.line().unwrap().as_deref(), Some(&b"one\n"[..]));
        let mark = reader.mark();
        std::fs::write(&path, "one\n\ntwo\nthree").unwrap();
        let rest = Reader::open(&path, &mark).unwrap().part().unwrap();
        let rest: Vec<_> = rest.iter().map(|line| (line.number, &line.text[..])).collect();
        assert_eq!(rest, [(3, &b"two"[..]), (4, b"three")]);
        for other in ["One\n\ntwo\n", "on", ""] {
            std::fs::write(&path, other).unwrap();
            let error = Reader::open(&path, &mark).err().unwrap().to_string();
            assert!(error.contains("--resume"), "{other}: {error}");
        }
    }
}
