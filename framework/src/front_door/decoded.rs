//! A request's body with its Content-Encoding removed, in pieces: what is decoded is counted before more is made.

use super::{
    body::RequestBody,
    budget::Budget,
    decode::{Decode, DecodeError, GZIP_MEMORY, GzipDecoder, OUTPUT, ZSTD_MEMORY, ZstdDecoder},
    problem::Problem,
    receive::check_encoded,
    task_head::Coding,
};
use crate::memory::Reservation;
use bytes::{Buf, Bytes};

/// How much is decoded before other requests get their turn.
const TURN: u64 = 256 << 10;

/// A body that is being decoded. Its memory is reserved.
pub(super) struct Decoded<'a> {
    body: &'a mut RequestBody,
    decoder: Decoder,
    budget: Budget,
    working: Reservation,
    /// What a zstd frame's window has been granted so far, and what it needs.
    window: u64,
    needed: u64,
    /// What came: not decoded yet, or as it is where there is nothing to decode.
    input: Bytes,
    output: Vec<u8>,
    written: usize,
    /// The decoder may have more to give without any input.
    full: bool,
    encoded: u64,
    /// The largest payload that may be in it, where that is bounded.
    max: Option<u64>,
    turn: Turn,
}

enum Decoder {
    Identity,
    Gzip(Box<GzipDecoder>),
    Zstd(Box<ZstdDecoder>),
}

impl<'a> Decoded<'a> {
    pub(super) fn new(body: &'a mut RequestBody, coding: Coding, budget: &Budget) -> Result<Self, Problem> {
        let (memory, output) = match coding {
            Coding::Identity => (0, 0),
            Coding::Gzip => (GZIP_MEMORY, OUTPUT),
            Coding::Zstd => (ZSTD_MEMORY, OUTPUT),
        };
        let working = budget.reserve(memory + output as u64)?;
        let decoder = match coding {
            Coding::Identity => Decoder::Identity,
            Coding::Gzip => Decoder::Gzip(Box::new(GzipDecoder::new())),
            Coding::Zstd => Decoder::Zstd(Box::new(ZstdDecoder::new()?)),
        };
        Ok(Self {
            body,
            decoder,
            budget: budget.clone(),
            working,
            window: 0,
            needed: 0,
            input: Bytes::new(),
            output: vec![0; output],
            written: 0,
            full: false,
            encoded: 0,
            max: None,
            turn: Turn::default(),
        })
    }

    /// The body is refused where it is too large for a payload of `max` bytes, whatever it holds.
    pub(super) fn within(mut self, max: u64) -> Self {
        self.max = Some(max);
        self
    }

    /// The next bytes; `None` at the end of a whole body.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, Problem> {
        Ok(self.advance().await?.then(|| self.piece()))
    }

    /// The bytes that the last `advance` found.
    pub(super) fn piece(&self) -> &[u8] {
        match self.decoder {
            Decoder::Identity => &self.input,
            _ => &self.output[..self.written],
        }
    }

    /// Finds the next bytes; `false` at the end of a whole body. A call that is dropped has lost nothing.
    pub(super) async fn advance(&mut self) -> Result<bool, Problem> {
        self.written = 0;
        loop {
            if self.full || self.has_input() {
                self.turn.pause().await;
                self.step()?;
                if self.written > 0 {
                    return Ok(true);
                }
            } else if let Some(bytes) = self.body.next().await? {
                self.encoded += bytes.len() as u64;
                self.max.map_or(Ok(()), |max| check_encoded(self.encoded, max))?;
                self.input = bytes;
                if matches!(self.decoder, Decoder::Identity) {
                    return Ok(true);
                }
            } else {
                self.input = Bytes::new();
                self.is_whole()?;
                return Ok(false);
            }
        }
    }

    /// Reads what is still to come and drops it as it is.
    pub(super) async fn drain(&mut self) {
        while let Ok(Some(_)) = self.body.next().await {}
    }

    fn has_input(&self) -> bool {
        !matches!(self.decoder, Decoder::Identity) && !self.input.is_empty()
    }

    fn step(&mut self) -> Result<(), Problem> {
        // A step that fails for want of memory is taken again.
        self.full = true;
        if let Decoder::Zstd(decoder) = &mut self.decoder {
            let mut input = &self.input[..];
            let memory = decoder.next_frame(&mut input)?;
            let taken = self.input.len() - input.len();
            self.input.advance(taken);
            self.needed = self.needed.max(memory.unwrap_or(0));
            if self.needed > self.window {
                self.budget.grow(&mut self.working, self.needed - self.window)?;
                self.window = self.needed;
            }
        }
        let mut input = &self.input[..];
        self.written = match &mut self.decoder {
            Decoder::Identity => 0,
            Decoder::Gzip(decoder) => decoder.step(&mut input, &mut self.output)?,
            Decoder::Zstd(decoder) => decoder.step(&mut input, &mut self.output)?,
        };
        let taken = self.input.len() - input.len();
        self.input.advance(taken);
        self.full = self.written == self.output.len();
        self.turn.spend(self.written);
        Ok(())
    }

    /// A body of no bytes at all is empty, however it says it is encoded.
    fn is_whole(&self) -> Result<(), DecodeError> {
        match &self.decoder {
            Decoder::Gzip(decoder) if self.encoded > 0 => decoder.finish(),
            Decoder::Zstd(decoder) if self.encoded > 0 => decoder.finish(),
            _ => Ok(()),
        }
    }
}

/// Decoding is work: a body that expands a lot leaves the thread to others now and then.
#[derive(Default)]
pub(super) struct Turn(u64);

impl Turn {
    pub(super) fn spend(&mut self, bytes: usize) {
        self.0 += bytes as u64;
    }

    pub(super) async fn pause(&mut self) {
        if self.0 >= TURN {
            tokio::task::yield_now().await;
            // Not before: whoever only looks whether there is something drops the call while it yields, and the next one has to.
            self.0 = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_turn_that_was_only_looked_at_is_still_given_up() {
        let mut turn = Turn::default();
        turn.spend(TURN as usize);
        assert!(turn.pause().now_or_never().is_none());
        assert!(turn.pause().now_or_never().is_none());
        turn.pause().await;
        assert!(turn.pause().now_or_never().is_some());
    }
}
