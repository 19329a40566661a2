//! What one HTTP/2 connection may have open. The h2 crate, as actix-http makes it, takes any number of requests at once and 16 MiB of headers
//! with each, of which a byte of the connection can be one.
//!
//! Frames are watched in both directions (RFC 9113, 4.1). A peer is told the limits in the server's first SETTINGS, and hung up on where it
//! goes beyond them. Headers are counted, not decoded.

use super::budget::Budget;
use crate::memory::Reservation;
use std::{
    collections::HashMap,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Requests that a peer may have open.
const MOST_STREAMS: u32 = 128;
/// Bytes of a request's headers as RFC 9113, 6.5.2 counts them: 32 and the text of each.
const MOST_HEADERS: u32 = 32_000;
/// How far over that number a peer may be: some take any number for granted until they have read it.
const GRACE: usize = 8;
/// What belongs to a header block beside its headers: padding and a priority.
const BESIDE: usize = 512;
/// What a header takes in memory as long as its request is open, beside its text.
const HEADER: u64 = 240;
/// What all headers of a connection's open requests may take; more has to be reserved.
const FREE: u64 = 512 << 10;

const PREFACE: usize = 24;
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

const MAX_CONCURRENT_STREAMS: u16 = 3;
const MAX_HEADER_LIST_SIZE: u16 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Frame {
    fn read(head: &[u8; HEAD]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *head;
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        }
    }
}

/// What is found in a stream of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'b> {
    Head(Frame),
    /// Some of the payload of the last frame.
    Payload(&'b [u8]),
}

/// Finds the frames in a stream of bytes.
struct Frames {
    /// Bytes in front of the first frame.
    skip: usize,
    payload: usize,
    head: [u8; HEAD],
    have: usize,
}

impl Frames {
    fn after(skip: usize) -> Self {
        Self { skip, payload: 0, head: [0; HEAD], have: 0 }
    }

    fn each<E>(
        &mut self,
        mut bytes: &[u8],
        mut found: impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        bytes = &bytes[count_off(&mut self.skip, bytes.len())..];
        while !bytes.is_empty() {
            let (payload, rest) = bytes.split_at(count_off(&mut self.payload, bytes.len()));
            if !payload.is_empty() {
                found(Part::Payload(payload))?;
            }
            let taken = (HEAD - self.have).min(rest.len());
            self.head[self.have..self.have + taken].copy_from_slice(&rest[..taken]);
            self.have += taken;
            bytes = &rest[taken..];
            if self.have == HEAD {
                let frame = Frame::read(&self.head);
                (self.payload, self.have) = (frame.length, 0);
                found(Part::Head(frame))?;
            }
        }
        Ok(())
    }
}

/// Takes as much off a count as there is.
fn count_off(left: &mut usize, available: usize) -> usize {
    let taken = available.min(*left);
    *left -= taken;
    taken
}

/// Counts the headers of a header block (HPACK, RFC 7541, 6).
#[derive(Debug, Default)]
struct Fields {
    next: Next,
    /// Texts that belong to the field and are still to come.
    texts: u8,
}

#[derive(Debug, Default, Clone, Copy)]
enum Next {
    #[default]
    Field,
    /// The rest of an index.
    Index,
    /// A text's length.
    Length,
    /// The rest of one, and how far its bits are shifted.
    LongLength(usize, u32),
    /// So much of a text.
    Text(usize),
}

impl Fields {
    /// Reads on. Returns how many headers begin here.
    fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut fields = 0;
        while let Some((&byte, rest)) = bytes.split_first() {
            if let Next::Text(mut left) = self.next {
                let taken = count_off(&mut left, bytes.len());
                bytes = &bytes[taken..];
                self.next = if left > 0 { Next::Text(left) } else { self.after_text() };
                continue;
            }
            bytes = rest;
            self.next = match self.next {
                Next::Field => {
                    let (index, longest, texts) = match byte {
                        0x80.. => (byte & 0x7f, 0x7f, 0),
                        0x40.. => (byte & 0x3f, 0x3f, 1),
                        // No field: another size of the table.
                        0x20.. => (byte & 0x1f, 0x1f, 0),
                        _ => (byte & 0x0f, 0x0f, 1),
                    };
                    fields += u64::from(!(0x20..0x40).contains(&byte));
                    // Where no name is pointed to, it is written.
                    self.texts = if index == 0 { texts * 2 } else { texts };
                    if index == longest { Next::Index } else { self.text() }
                }
                Next::Index if byte & 0x80 != 0 => Next::Index,
                Next::Index => self.text(),
                Next::Length if byte & 0x7f == 0x7f => Next::LongLength(0x7f, 0),
                Next::Length => self.text_of(usize::from(byte & 0x7f)),
                Next::LongLength(length, shift) => {
                    let more = usize::from(byte & 0x7f).checked_shl(shift).unwrap_or(usize::MAX);
                    let length = length.saturating_add(more);
                    if byte & 0x80 != 0 { Next::LongLength(length, shift + 7) } else { self.text_of(length) }
                }
                Next::Text(left) => Next::Text(left),
            };
        }
        fields
    }

    fn text(&self) -> Next {
        if self.texts == 0 { Next::Field } else { Next::Length }
    }

    fn text_of(&mut self, length: usize) -> Next {
        if length > 0 { Next::Text(length) } else { self.after_text() }
    }

    fn after_text(&mut self) -> Next {
        self.texts -= 1;
        self.text()
    }
}

/// The requests that are open, and what their headers take.
#[derive(Default)]
struct Streams {
    open: HashMap<u32, u64>,
    taken: u64,
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
    fn received(&mut self, part: Part<'_>) -> Result<(), &'static str> {
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
            RST_STREAM => self.ended(frame.stream),
            _ => {}
        }
        if matches!(frame.kind, HEADERS | CONTINUATION) {
            // An empty one costs, too.
            self.block += frame.length + HEAD;
        }
        if self.block > MOST_HEADERS as usize + BESIDE {
            return Err("the headers of a request are too large");
        }
        if self.open.len() > GRACE * MOST_STREAMS as usize {
            return Err("too many requests are open");
        }
        Ok(())
    }

    /// The server sends a frame.
    fn sent(&mut self, frame: Frame) {
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
    }
}

/// Adds the limits to the server's first frame, if it is what it has to be.
fn with_limits(mut frame: Vec<u8>) -> Vec<u8> {
    let Some((head, payload)) = frame.split_first_chunk_mut::<HEAD>() else { return frame };
    if head[3] != SETTINGS {
        return frame;
    }
    let limits = [(MAX_CONCURRENT_STREAMS, MOST_STREAMS), (MAX_HEADER_LIST_SIZE, MOST_HEADERS)];
    let length = (payload.len() + 6 * limits.len()) as u32;
    head[..3].copy_from_slice(&length.to_be_bytes()[1..]);
    for (name, value) in limits {
        frame.extend_from_slice(&name.to_be_bytes());
        frame.extend_from_slice(&value.to_be_bytes());
    }
    frame
}

/// A connection; of HTTP/2, as long as it keeps to the limits.
pub(super) struct Bounded<S> {
    inner: S,
    watch: Option<Box<Watch>>,
}

struct Watch {
    received: Frames,
    sent: Frames,
    streams: Streams,
    first: First,
    budget: Budget,
    /// For what headers take beyond [`FREE`].
    reservation: Option<Reservation>,
}

/// The server's first frame.
enum First {
    Coming(Vec<u8>),
    /// It is as it is to be sent, and so much of it has been.
    Leaving(Vec<u8>, usize),
    Gone,
}

impl<S> Bounded<S> {
    pub(super) fn new(inner: S, is_http2: bool, budget: &Budget) -> Self {
        Self { inner, watch: is_http2.then(|| Box::new(Watch::new(budget))) }
    }
}

impl Watch {
    fn new(budget: &Budget) -> Self {
        Self {
            received: Frames::after(PREFACE),
            sent: Frames::after(0),
            streams: Streams::default(),
            first: First::Coming(Vec::new()),
            budget: budget.clone(),
            reservation: None,
        }
    }

    fn received(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self { received, streams, .. } = self;
        received.each(bytes, |part| streams.received(part)).and_then(|()| self.cover()).map_err(|why| {
            tracing::debug!(why, "an HTTP/2 connection is closed");
            io::Error::new(io::ErrorKind::InvalidData, why)
        })
    }

    /// Reserves what headers take, before they are looked at.
    fn cover(&mut self) -> Result<(), &'static str> {
        let needed = self.streams.taken.saturating_sub(FREE);
        let reserved = self.reservation.as_ref().map_or(0, Reservation::bytes);
        let Some(more) = needed.checked_sub(reserved).filter(|more| *more > 0) else {
            match &mut self.reservation {
                Some(reservation) if needed > 0 => reservation.shrink_to(needed),
                reservation => *reservation = None,
            }
            return Ok(());
        };
        let covered = match &mut self.reservation {
            Some(reservation) => self.budget.grow(reservation, more),
            none => self.budget.reserve(more).map(|reservation| *none = Some(reservation)),
        };
        covered.map_err(|_| "there is no memory for the headers of the open requests")
    }

    fn sent(&mut self, bytes: &[u8]) {
        let Self { sent, streams, .. } = self;
        let Ok(()) = sent.each(bytes, |part| {
            if let Part::Head(frame) = part {
                streams.sent(frame);
            }
            Ok::<(), std::convert::Infallible>(())
        });
        // What has ended needs none any more.
        let _ = self.cover();
    }
}

impl First {
    /// Takes some of the first frame. Returns how much; 0 where all of it is there.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let Self::Coming(frame) = self else { return 0 };
        let whole = frame.first_chunk().map_or(HEAD, |head| HEAD + Frame::read(head).length);
        let taken = (whole - frame.len()).min(bytes.len());
        frame.extend_from_slice(&bytes[..taken]);
        let is_whole = frame.first_chunk().is_some_and(|head| frame.len() == HEAD + Frame::read(head).length);
        if is_whole {
            *self = Self::Leaving(with_limits(std::mem::take(frame)), 0);
        }
        taken
    }
}

impl<S: AsyncWrite + Unpin> Bounded<S> {
    /// Sends what there is of the first frame.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(watch) = &mut self.watch else { return Poll::Ready(Ok(())) };
        while let First::Leaving(frame, left) = &mut watch.first {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &frame[*left..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => *left += written,
            }
            if *left == frame.len() {
                watch.first = First::Gone;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        Poll::Ready(this.watch.as_mut().map_or(Ok(()), |watch| watch.received(&buf.filled()[before..])))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_first(cx))?;
        let Some(watch) = &mut this.watch else { return Pin::new(&mut this.inner).poll_write(cx, buf) };
        let taken = watch.first.take(buf);
        if taken > 0 {
            return Poll::Ready(Ok(taken));
        }
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, buf))?;
        watch.sent(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_first(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_first(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryPool;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn bytes(frame: Frame) -> Vec<u8> {
        let mut bytes = (frame.length as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([frame.kind, frame.flags]);
        bytes.extend(frame.stream.to_be_bytes());
        bytes.resize(HEAD + frame.length, 0xff);
        bytes
    }

    fn frame(kind: u8, flags: u8, stream: u32, length: usize) -> Frame {
        Frame { length, kind, flags, stream }
    }

    proptest! {
        #[test]
        fn frames_are_found_however_they_are_cut(
            frames in prop::collection::vec((0..10_u8, any::<u8>(), 0..1_u32 << 31, 0..300_usize), 0..30),
            cuts in prop::collection::vec(1..50_usize, 1..20),
        ) {
            let frames: Vec<Frame> = frames.into_iter().map(|(k, f, s, l)| frame(k, f, s, l)).collect();
            let mut stream = vec![0; PREFACE];
            frames.iter().for_each(|frame| stream.extend(bytes(*frame)));
            let (mut found, mut reader, mut rest) = (Vec::new(), Frames::after(PREFACE), &stream[..]);
            for cut in cuts.iter().cycle() {
                let (piece, others) = rest.split_at((*cut).min(rest.len()));
                let Ok(()) = reader.each(piece, |part| {
                    match part {
                        Part::Head(frame) => found.push((frame, 0)),
                        Part::Payload(payload) => found.last_mut().unwrap().1 += payload.len(),
                    }
                    Ok::<(), Infallible>(())
                });
                rest = others;
                if rest.is_empty() { break; }
            }
            let frames: Vec<_> = frames.into_iter().map(|frame| (frame, frame.length)).collect();
            prop_assert_eq!(found, frames);
        }

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
            prop_assert_eq!((streams.open.len(), streams.taken), (0, 0));
        }
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
    fn what_headers_take_is_reserved_and_given_back() {
        let pool = MemoryPool::new("intake", 4 << 20);
        let mut watch = Watch::new(&Budget::new(pool.clone(), 1 << 20));
        watch.received(&[0; PREFACE]).unwrap();
        let flood = |stream| bytes_of(HEADERS, stream, &[0x90; 10_000]);
        let refused = (0..100).find(|number| watch.received(&flood(2 * number + 1)).is_err());
        assert!(matches!(refused, Some(1..=2)), "{refused:?}");
        assert!(pool.reserved() > 1 << 20);
        for stream in [1, 3, 5] {
            watch.sent(&bytes_of(RST_STREAM, stream, &[0; 4]));
        }
        assert_eq!(pool.reserved(), 0);
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

    fn bytes_of(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = bytes(frame(kind, 4, stream, payload.len()));
        bytes.truncate(HEAD);
        bytes.extend_from_slice(payload);
        bytes
    }

    /// The examples of RFC 7541, appendix C, one after another, however they are cut.
    #[test]
    fn headers_are_counted() {
        let blocks: [(&[u8], u64); 6] = [
            (b"\x40\x0acustom-key\x0dcustom-header", 1),
            (b"\x04\x0c/sample/path", 1),
            (b"\x10\x08password\x06secret", 1),
            (b"\x82\x86\x84\x41\x0fwww.example.com", 4),
            (b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", 4),
            // Another size of the table, an index and a length of several bytes, and a text without a byte.
            (
                &[&b"\x3f\xe1\x1f\xff\x80\x01\x40\x01a\x7f\x49"[..], &[b'x'; 200], b"\x40\x01b\x00"].concat(),
                3,
            ),
        ];
        for cut in 1..300 {
            for (block, expected) in blocks {
                let mut fields = Fields::default();
                let counted: u64 = block.chunks(cut).map(|piece| fields.count(piece)).sum();
                assert_eq!(counted, expected, "{block:?} by {cut}");
                assert!(matches!(fields.next, Next::Field), "{block:?} by {cut}");
            }
        }
    }
}
