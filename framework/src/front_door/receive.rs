//! From a request's body to the payload as it will be stored: within limits.max_task, within the budget, decoded or checked
//! as its Content-Encoding asks.

use super::{
    body::RequestBody,
    budget::Budget,
    decode::{Decode, OUTPUT, ZSTD_MEMORY, ZstdDecoder},
    decoded::{Decoded, Turn},
    intake::{Intake, too_large},
    problem::{Problem, ProblemCode},
    task_head::Coding,
};
use crate::log::{PayloadDigest, PayloadHash};
use partita_proto::v1::{Compression, Envelope};

/// A payload in its buffer.
pub(super) struct Received {
    pub(super) intake: Intake,
    /// How it is stored.
    pub(super) compression: Compression,
    /// Its size without any compression.
    pub(super) size: u64,
    /// The payload's, where it was made on the way.
    pub(super) digest: Option<PayloadDigest>,
}

impl Received {
    /// A payload that is stored as it lies in its buffer.
    pub(super) fn plain(intake: Intake, hash: Option<PayloadHash>) -> Self {
        let size = intake.len();
        Self { intake, compression: Compression::None, size, digest: hash.map(PayloadHash::digest) }
    }

    /// With its payload's digest, which is made now where it was not made on the way.
    pub(super) fn digested(self, hash: PayloadHash) -> Self {
        let digest = self.digest.unwrap_or_else(|| hash.of(self.intake.payload()));
        Self { digest: Some(digest), ..self }
    }
}

fn update(hash: &mut Option<PayloadHash>, bytes: &[u8]) {
    if let Some(hash) = hash {
        hash.update(bytes);
    }
}

/// Receives the body of a task whose envelope will be like `head`, after [`check_declared`]. Its payload goes into `hash`.
pub(super) async fn receive(
    body: &mut RequestBody,
    coding: Coding,
    head: &Envelope,
    budget: &Budget,
    max_task: u64,
    hash: Option<PayloadHash>,
) -> Result<Received, Problem> {
    match coding {
        Coding::Identity => identity(body, head, budget, max_task, hash).await,
        Coding::Gzip => gzip(body, head, budget, max_task, hash).await,
        Coding::Zstd => zstd(body, head, budget, max_task, hash).await,
    }
}

/// Refuses a body that says beforehand that it is too large.
pub(super) fn check_declared(declared: Option<u64>, coding: Coding, max_task: u64) -> Result<(), Problem> {
    let longest = if coding == Coding::Identity { max_task } else { encoded_limit(max_task) };
    if declared.is_some_and(|declared| declared > longest) { Err(too_large(max_task)) } else { Ok(()) }
}

/// Refuses a compressed body, which may be large and hold nothing, by what came of it.
pub(super) fn check_encoded(encoded: u64, max_task: u64) -> Result<(), Problem> {
    if encoded > encoded_limit(max_task) { Err(too_large(max_task)) } else { Ok(()) }
}

/// A compressed body may be this much larger than what it holds: the formats' own overhead, generously.
fn encoded_limit(max_task: u64) -> u64 {
    max_task + max_task / 1024 + 4096
}

/// It would not fit if nothing else were in memory.
fn no_room_for_its_window(memory: u64) -> Problem {
    Problem::new(
        ProblemCode::TooLarge,
        format!(
            "the zstd frame needs {memory} bytes of memory to be looked at, and memory.budget has no room for that beside the body: send it \
             without compression, or with a smaller window (level 1, or --zstd=wlog=17)"
        ),
    )
}

async fn identity(
    body: &mut RequestBody,
    head: &Envelope,
    budget: &Budget,
    max_task: u64,
    mut hash: Option<PayloadHash>,
) -> Result<Received, Problem> {
    let mut intake = match body.declared() {
        Some(declared) => Intake::exact(budget, head, declared)?,
        None => Intake::growing(budget, head, max_task)?,
    };
    while let Some(bytes) = body.next().await? {
        intake.push(&bytes)?;
        update(&mut hash, &bytes);
    }
    Ok(Received::plain(intake, hash))
}

/// Stored decompressed.
async fn gzip(
    body: &mut RequestBody,
    head: &Envelope,
    budget: &Budget,
    max_task: u64,
    mut hash: Option<PayloadHash>,
) -> Result<Received, Problem> {
    let mut intake = Intake::growing(budget, head, max_task)?;
    let mut decoded = Decoded::new(body, Coding::Gzip, budget)?.within(max_task);
    while let Some(bytes) = decoded.next().await? {
        intake.push(bytes)?;
        update(&mut hash, bytes);
    }
    Ok(Received::plain(intake, hash))
}

/// Stored as it came: decompressed only to know that it is whole, and how much it holds.
async fn zstd(
    body: &mut RequestBody,
    head: &Envelope,
    budget: &Budget,
    max_task: u64,
    mut hash: Option<PayloadHash>,
) -> Result<Received, Problem> {
    let mut working = budget.reserve(ZSTD_MEMORY + OUTPUT as u64)?;
    let mut intake = match body.declared() {
        Some(declared) => Intake::exact(budget, head, declared)?,
        None => Intake::growing(budget, head, encoded_limit(max_task))?,
    };
    let mut decoder = ZstdDecoder::new()?;
    let mut output = vec![0; OUTPUT];
    let mut encoded = 0;
    let mut turn = Turn::default();
    let mut frame = 0;
    let mut size = 0;
    while let Some(bytes) = body.next().await? {
        encoded += bytes.len() as u64;
        check_encoded(encoded, max_task)?;
        let mut input = &bytes[..];
        loop {
            if let Some(memory) = decoder.next_frame(&mut input)? {
                let more = memory.saturating_sub(frame);
                let all = working.bytes() + more + body.declared().unwrap_or(encoded);
                if !budget.could_ever(all) {
                    return Err(no_room_for_its_window(memory));
                }
                budget.grow(&mut working, more)?;
                frame += more;
            }
            let written = decoder.step(&mut input, &mut output)?;
            size += written as u64;
            update(&mut hash, &output[..written]);
            if size.max(decoder.announced()) > max_task {
                return Err(too_large(max_task));
            }
            if input.is_empty() && written < OUTPUT {
                break;
            }
            turn.spend(written);
            turn.pause().await;
        }
        intake.push(&bytes)?;
    }
    if encoded > 0 {
        decoder.finish()?;
    }
    if size == 0 {
        return Ok(Received::plain(Intake::exact(budget, head, 0)?, hash));
    }
    let digest = hash.map(PayloadHash::digest);
    Ok(Received { intake, compression: Compression::Zstd, size, digest })
}
