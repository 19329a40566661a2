//! Lines on their way: a part after the other, each settled before the next, so that the order of each key is kept.

use super::{Args, bar, println, progress::Progress};
use crate::failure::FAILED;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use indicatif::ProgressBar;
use partita_client::Client;
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    path::Path,
    process::ExitCode,
};

/// A part has at most so many lines, and about so many bytes.
const LINES: usize = 2000;
const BYTES: usize = 4 << 20;

/// Sends all files.
pub(super) async fn run(args: &Args, client: &Client) -> Result<ExitCode> {
    ensure!(
        args.resume.is_none() || args.files.iter().all(|file| file != Path::new("-")),
        "--resume is for files: standard input cannot be gone back to"
    );
    let mut progress = Progress::open(args.resume.as_deref(), &args.files)?;
    let mut sent = Sent { bar: bar(0, "{human_pos} events, {per_sec}"), accepted: 0, rejected: 0 };
    for (file, path) in args.files.iter().enumerate() {
        let Some(start) = progress.start(file) else { continue };
        let mut reader = Reader::open(path, start).with_context(|| path.display().to_string())?;
        loop {
            let part = reader.part().with_context(|| path.display().to_string())?;
            if part.is_empty() {
                break;
            }
            sent.part(client, path, &part).await?;
            progress.reached(file, reader.offset)?;
        }
        progress.reached(file + 1, 0)?;
    }
    sent.bar.finish_and_clear();
    println(&format!("{} events are stored, {} were rejected", sent.accepted, sent.rejected));
    Ok(if sent.rejected == 0 { ExitCode::SUCCESS } else { FAILED.into() })
}

struct Sent {
    bar: ProgressBar,
    accepted: u64,
    rejected: u64,
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
        self.accepted += outcome.accepted;
        self.rejected += outcome.rejected.len() as u64;
        self.bar.inc(part.len() as u64);
        Ok(())
    }
}

/// A line that is not empty.
struct Line {
    /// From 1, where it was read from the start.
    number: u64,
    text: Bytes,
}

struct Reader {
    input: Box<dyn BufRead>,
    /// Bytes that were read.
    offset: u64,
    number: u64,
}

impl Reader {
    fn open(path: &Path, start: u64) -> io::Result<Self> {
        let mut input: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(BufReader::new(io::stdin()))
        } else {
            Box::new(BufReader::new(File::open(path)?))
        };
        let mut number = 0;
        if path != Path::new("-") {
            // The lines before are counted, so that those after have their numbers.
            let mut before = BufReader::new(File::open(path)?);
            let (mut read, mut line) = (0, Vec::new());
            while read < start {
                line.clear();
                let length = before.read_until(b'\n', &mut line)?;
                if length == 0 {
                    return Err(io::Error::other("the file is shorter than it was"));
                }
                read += length as u64;
                number += 1;
            }
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(start))?;
            input = Box::new(BufReader::with_capacity(256 << 10, file));
        }
        Ok(Self { input, offset: start, number })
    }

    /// The next lines; none at the end.
    fn part(&mut self) -> io::Result<Vec<Line>> {
        let (mut part, mut bytes) = (Vec::new(), 0);
        while part.len() < LINES && bytes < BYTES {
            let mut text = Vec::new();
            let length = self.input.read_until(b'\n', &mut text)?;
            if length == 0 {
                break;
            }
            self.offset += length as u64;
            self.number += 1;
            let trimmed = text.trim_ascii();
            if !trimmed.is_empty() {
                bytes += trimmed.len();
                part.push(Line { number: self.number, text: Bytes::copy_from_slice(trimmed) });
            }
        }
        Ok(part)
    }
}
