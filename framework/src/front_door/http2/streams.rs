//! The requests of a connection, and what is too much.

use super::{
    super::budget::HEADER,
    fields::Fields,
    frames::{
        CONTINUATION, DATA, END_STREAM, Frame, HEAD, HEADERS, PADDED, PRIORITY, Part, RST_STREAM,
        WINDOW_UPDATE, count_off,
    },
};
use std::collections::HashMap;

/// Requests that a peer may have open.
pub(super) const MOST_STREAMS: u32 = 128;
/// Bytes of a request's headers as RFC 9113, 6.5.2 counts them: 32 and the text of each.
pub(super) const MOST_HEADERS: u32 = 32_000;
/// How far over the number of requests a peer may be: some take any number for granted until they have read it.
const GRACE: usize = 8;
/// A frame of a body with less than this is of next to nothing: flow control does not bound how many there are.
const TINY: usize = 64;
/// How many of those the open requests of a connection may have together.
const MOST_TINY: u64 = 10_000;
/// What a frame of a body takes in the server beside its bytes, about.
const FRAME: u64 = 256;
/// What belongs to a header block beside its headers: padding and a priority.
const BESIDE: usize = 512;

/// The requests that are open, and what their headers take.
#[derive(Default)]
pub(super) struct Streams {
    open: HashMap<u32, u64>,
    pub(super) taken: u64,
    /// What those take that the peer has just given up: until the server has seen it they are there.
    given_up: [u64; 2],
    /// What frames of bodies take that may lie unread: of each request, and together. The server opens the connection's window again once
    /// it has read half of what that takes.
    bodies: HashMap<u32, u64>,
    pub(super) unread: u64,
    /// How many frames of next to nothing they have, read or not: of each request, and together.
    tiny_of: HashMap<u32, u64>,
    tiny: u64,
    last: u32,
    /// The header block that is coming: whose, how long it is so far, and what is in it.
    block_of: u32,
    block: usize,
    fields: Fields,
    /// Of the payload that is coming: whether it begins with the length of its padding, bytes before the headers, and bytes of headers.
    padded: bool,
    beside: usize,
    headers: usize,
}

impl Streams {
    /// The peer sends this.
    pub(super) fn received(&mut self, part: Part<'_>) -> Result<(), &'static str> {
        match part {
            Part::Head(frame) => self.begins(frame),
            Part::Payload(payload) => {
                if let (true, Some(padding)) = (std::mem::take(&mut self.padded), payload.first()) {
                    self.headers = self.headers.saturating_sub((*padding).into());
                }
                let payload = &payload[count_off(&mut self.beside, payload.len())..];
                let payload = &payload[..count_off(&mut self.headers, payload.len())];
                let taken = self.fields.count(payload) * HEADER + payload.len() as u64;
                if let Some(of) = self.open.get_mut(&self.block_of) {
                    *of += taken;
                    self.taken += taken;
                }
                Ok(())
            }
        }
    }

    fn begins(&mut self, frame: Frame) -> Result<(), &'static str> {
        (self.padded, self.beside, self.headers) = (false, 0, 0);
        match frame.kind {
            HEADERS => {
                (self.block, self.block_of, self.fields) = (0, frame.stream, Fields::default());
                self.padded = frame.flags & PADDED != 0;
                let priority = if frame.flags & PRIORITY == 0 { 0 } else { 5 };
                self.beside = usize::from(self.padded) + priority;
                self.headers = frame.length.saturating_sub(self.beside);
                if frame.stream > self.last {
                    self.last = frame.stream;
                    self.open.insert(frame.stream, 0);
                }
            }
            CONTINUATION => self.headers = frame.length,
            RST_STREAM => {
                self.given_up[0] += self.open.remove(&frame.stream).unwrap_or(0);
                self.given_up[1] += self.bodies.remove(&frame.stream).unwrap_or(0);
                self.tiny -= self.tiny_of.remove(&frame.stream).unwrap_or(0);
            }
            DATA if self.open.contains_key(&frame.stream) => {
                let takes = frame.length as u64 + FRAME;
                *self.bodies.entry(frame.stream).or_default() += takes;
                self.unread += takes;
                if frame.length < TINY && frame.flags & END_STREAM == 0 {
                    *self.tiny_of.entry(frame.stream).or_default() += 1;
                    self.tiny += 1;
                }
            }
            _ => {}
        }
        if matches!(frame.kind, HEADERS | CONTINUATION) {
            // An empty one costs, too.
            self.block += frame.length + HEAD;
        }
        if self.block > MOST_HEADERS as usize + BESIDE {
            return Err("the headers of a request are too large");
        }
        if self.tiny > MOST_TINY {
            return Err("too many frames of next to nothing");
        }
        if self.open.len() > GRACE * MOST_STREAMS as usize {
            return Err("too many requests are open");
        }
        Ok(())
    }

    /// The server sends a frame.
    pub(super) fn sent(&mut self, frame: Frame) {
        if frame.kind == WINDOW_UPDATE && frame.stream == 0 {
            self.bodies.clear();
            (self.unread, self.given_up[1]) = (0, 0);
        }
        let ends = match frame.kind {
            DATA | HEADERS => frame.flags & END_STREAM != 0,
            kind => kind == RST_STREAM,
        };
        if ends {
            self.ended(frame.stream);
        }
    }

    fn ended(&mut self, stream: u32) {
        self.taken -= self.open.remove(&stream).unwrap_or(0);
        self.unread -= self.bodies.remove(&stream).unwrap_or(0);
        self.tiny -= self.tiny_of.remove(&stream).unwrap_or(0);
    }

    /// The server has seen what was received.
    pub(super) fn seen(&mut self) {
        let [headers, bodies] = std::mem::take(&mut self.given_up);
        self.taken -= headers;
        self.unread -= bodies;
    }
}

#[cfg(test)]
mod tests {
    use super::{super::frames::tests::frame, *};
    use proptest::prelude::*;

    proptest! {
        /// However requests come and end, what is counted is what is open.
        #[test]
        fn what_has_ended_does_not_count(ends in prop::collection::vec(0..3_u8, 1..1000)) {
            let mut streams = Streams::default();
            for (number, end) in ends.into_iter().enumerate() {
                let stream = 2 * number as u32 + 1;
                for kind in [HEADERS, CONTINUATION] {
                    prop_assert_eq!(streams.received(Part::Head(frame(kind, 4, stream, 100))), Ok(()));
                    prop_assert_eq!(streams.received(Part::Payload(&[0x82; 100])), Ok(()));
                }
                prop_assert_eq!(streams.open[&stream], 200 * (HEADER + 1));
                match end {
                    0 => streams.sent(frame(HEADERS, 4 | END_STREAM, stream, 50)),
                    1 => {
                        streams.sent(frame(HEADERS, 4, stream, 50));
                        streams.sent(frame(DATA, END_STREAM, stream, 0));
                    }
                    _ => streams.received(Part::Head(frame(RST_STREAM, 0, stream, 4))).unwrap(),
                }
            }
            streams.seen();
            prop_assert_eq!((streams.open.len(), streams.taken), (0, 0));
        }

        /// However bodies come, are read and end, nothing that has ended counts.
        #[test]
        fn what_lies_unread_counts_until_the_window_opens(steps in prop::collection::vec((0..6_u32, 0..5_u8), 1..500)) {
            let mut streams = Streams::default();
            for (number, step) in steps {
                let stream = 2 * number + 1;
                match step {
                    0 => drop(streams.received(Part::Head(frame(HEADERS, 4, streams.last + 2, 0)))),
                    1 => drop(streams.received(Part::Head(frame(RST_STREAM, 0, stream, 4)))),
                    2 => streams.sent(frame(HEADERS, 4 | END_STREAM, stream, 0)),
                    3 => streams.sent(frame(WINDOW_UPDATE, 0, 0, 4)),
                    _ => drop(streams.received(Part::Head(frame(DATA, 0, stream, 1)))),
                }
                prop_assert_eq!(streams.unread, streams.bodies.values().sum::<u64>() + streams.given_up[1]);
                prop_assert_eq!(streams.tiny, streams.tiny_of.values().sum::<u64>());
            }
            streams.seen();
            streams.sent(frame(WINDOW_UPDATE, 0, 0, 4));
            prop_assert_eq!(streams.unread, 0);
        }
    }

    #[test]
    fn frames_of_nothing_cost_something() {
        let mut streams = Streams::default();
        streams.received(Part::Head(frame(HEADERS, 4, 1, 0))).unwrap();
        for _ in 0..1000 {
            streams.received(Part::Head(frame(DATA, 0, 1, 0))).unwrap();
        }
        assert_eq!(streams.unread, 1000 * FRAME);
        streams.sent(frame(WINDOW_UPDATE, 0, 1, 4));
        assert_eq!(streams.unread, 1000 * FRAME, "of one request");
        streams.sent(frame(WINDOW_UPDATE, 0, 0, 4));
        assert_eq!(streams.unread, 0);
        // They may lie there all the same.
        assert!((0..MOST_TINY).any(|_| streams.received(Part::Head(frame(DATA, 0, 1, 0))).is_err()));
    }

    #[test]
    fn what_is_beyond_a_limit_is_refused() {
        let head = |kind, flags, stream, length| Part::Head(frame(kind, flags, stream, length));
        let mut many = Streams::default();
        let refused =
            (0..10_000).find(|number| many.received(head(HEADERS, 5, 2 * number + 1, 100)).is_err());
        assert_eq!(refused, Some(GRACE as u32 * MOST_STREAMS));
        let mut large = Streams::default();
        assert!(large.received(head(HEADERS, 0, 1, 16 << 10)).is_ok());
        assert!(large.received(head(CONTINUATION, 4, 1, 16 << 10)).is_err());
        let mut empty = Streams::default();
        empty.received(head(HEADERS, 0, 1, 0)).unwrap();
        assert!((0..10_000).any(|_| empty.received(head(CONTINUATION, 0, 1, 0)).is_err()));
    }

    #[test]
    fn padding_and_priorities_are_no_headers() {
        for (flags, payload) in [
            (PADDED, &b"\x03\x82\x84\0\0\0"[..]),
            (PRIORITY, b"\0\0\0\0\0\x82\x84"),
            (PADDED | PRIORITY, b"\x02\0\0\0\0\0\x82\x84\0\0"),
        ] {
            for cut in 1..payload.len() {
                let mut streams = Streams::default();
                streams.received(Part::Head(frame(HEADERS, flags, 1, payload.len()))).unwrap();
                payload.chunks(cut).for_each(|piece| streams.received(Part::Payload(piece)).unwrap());
                assert_eq!(streams.taken, 2 * (HEADER + 1), "{flags} by {cut}");
            }
        }
    }
}
