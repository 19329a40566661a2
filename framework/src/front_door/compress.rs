//! Compression at the edge: once, level 1, and only where it saves a quarter.
//!
//! Small payloads are compressed where they are; large ones on a thread of their own, after a sample says that it is worth it. What does not
//! fit the budget is stored as it came: compression saves space and may never cost a task.

use super::{intake::Intake, problem::Problem, receive::Received};
use crate::config::{CompressionMode, FrontDoorConfig};
use actix_web::web;
use partita_proto::v1::{Compression, Envelope};
use std::cell::RefCell;
use tokio::sync::Semaphore;
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, zstd_sys::ZSTD_EndDirective};

const LEVEL: i32 = 1;
/// Up to this size a payload is compressed on the thread that serves it: about 150 µs.
pub(super) const INLINE: u64 = 64 << 10;
/// What is tried of a larger one.
const SAMPLE: usize = 16 << 10;
const OUTPUT: usize = 64 << 10;

/// Media types whose data is compressed already.
const COMPRESSED: [&str; 12] = [
    "image/",
    "video/",
    "audio/",
    "font/woff",
    "application/zip",
    "application/gzip",
    "application/x-gzip",
    "application/zstd",
    "application/x-7z",
    "application/x-xz",
    "application/x-bzip",
    "application/vnd.rar",
];

thread_local! {
    static CONTEXT: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
}

/// The edge's compressor.
#[derive(Debug)]
pub(super) struct Compressor {
    min: Option<u64>,
    threads: Semaphore,
}

impl Compressor {
    pub(super) fn new(config: &FrontDoorConfig) -> Self {
        let min = (config.compression == CompressionMode::Zstd).then(|| config.compression_min.as_u64());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { min, threads: Semaphore::new(cores) }
    }

    /// The payload as it is to be stored: compressed, or as it was where that is not worth it. For payloads above [`INLINE`].
    pub(super) async fn compress(&self, received: Received, head: &Envelope) -> Result<Received, Problem> {
        if !self.wanted(&received, head) {
            return Ok(received);
        }
        if !sample_shrinks(received.intake.payload()) {
            return Ok(received);
        }
        // Never closed.
        let _thread = self.threads.acquire().await;
        let head = head.clone();
        web::block(move || compressed(received, &head)).await.map_err(|_| super::admission::draining())
    }

    /// The same, here, for payloads up to [`INLINE`].
    pub(super) fn compress_at_once(&self, received: Received, head: &Envelope) -> Received {
        if self.wanted(&received, head) { compressed(received, head) } else { received }
    }

    fn wanted(&self, received: &Received, head: &Envelope) -> bool {
        received.compression == Compression::None
            && self.min.is_some_and(|min| received.size >= min.max(1))
            && !head.content_type.as_deref().is_some_and(is_compressed)
    }
}

fn is_compressed(content_type: &str) -> bool {
    let begins = |prefix: &str| {
        content_type.as_bytes().get(..prefix.len()).is_some_and(|b| b.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    COMPRESSED.iter().any(|prefix| begins(prefix)) && !begins("image/svg")
}

/// Worth it: at least a quarter less.
fn worth(size: u64) -> u64 {
    size - size.div_ceil(4)
}

/// Tries a piece of the middle: beginnings are often unlike the rest.
fn sample_shrinks(payload: &[u8]) -> bool {
    let start = (payload.len() - SAMPLE) / 2;
    let mut out = [0_u8; SAMPLE * 3 / 4];
    CONTEXT.with_borrow_mut(|context| {
        context.compress(&mut out[..], &payload[start..start + SAMPLE], LEVEL).is_ok()
    })
}

fn compressed(received: Received, head: &Envelope) -> Received {
    let limit = worth(received.size);
    let room = Intake::growing(received.intake.budget(), head, limit)
        .and_then(|mut room| room.charge(received.intake.charged()).map(|()| room));
    let Ok(mut out) = room else { return received };
    match CONTEXT.with_borrow_mut(|context| stream(context, received.intake.payload(), &mut out)) {
        Some(()) => Received { intake: out, compression: Compression::Zstd, ..received },
        None => received,
    }
}

/// One frame of all of `payload`; `None` if it became too large, for its worth or for the budget.
fn stream(context: &mut CCtx<'static>, payload: &[u8], out: &mut Intake) -> Option<()> {
    context.reset(ResetDirective::SessionOnly).ok()?;
    context.set_parameter(CParameter::CompressionLevel(LEVEL)).ok()?;
    context.set_pledged_src_size(Some(payload.len() as u64)).ok()?;
    let mut chunk = vec![0_u8; OUTPUT.min(payload.len())];
    let mut input = InBuffer::around(payload);
    loop {
        let mut output = OutBuffer::around(&mut chunk[..]);
        let left = context.compress_stream2(&mut output, &mut input, ZSTD_EndDirective::ZSTD_e_end).ok()?;
        let written = output.pos();
        out.push(&chunk[..written]).ok()?;
        if left == 0 {
            return Some(());
        }
    }
}
