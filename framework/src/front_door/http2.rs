//! What one HTTP/2 connection may have open. The h2 crate, as actix-http makes it, takes any number of requests at once and 16 MiB of headers
//! with each, of which a byte of the connection can be one.
//!
//! Frames are watched in both directions (RFC 9113, 4.1). A peer is told the limits in the server's first SETTINGS, and hung up on where it
//! goes beyond them.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Requests that a peer may have open.
pub(super) const MOST_STREAMS: u32 = 128;
/// Bytes of a request's headers as RFC 9113, 6.5.2 counts them: 32 and the text of each.
pub(super) const MOST_HEADERS: u32 = 32_000;
/// How far over that number a peer may be: some take any number for granted until they have read it.
const GRACE: usize = 8;
/// What belongs to a header block beside its headers: padding and a priority.
const BESIDE: usize = 512;
/// Compressed headers of all open requests together.
const MOST_BLOCKS: usize = 256 << 10;

const PREFACE: usize = 24;
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

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

/// Finds the frames in a stream of bytes.
struct Frames {
    /// Bytes that are no frame's head.
    skip: usize,
    head: [u8; HEAD],
    have: usize,
}

impl Frames {
    fn after(skip: usize) -> Self {
        Self { skip, head: [0; HEAD], have: 0 }
    }

    fn each<E>(&mut self, mut bytes: &[u8], mut found: impl FnMut(Frame) -> Result<(), E>) -> Result<(), E> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEAD {
                let frame = Frame::read(&self.head);
                (self.skip, self.have) = (frame.length, 0);
                found(frame)?;
            }
        }
        Ok(())
    }
}

/// The requests that are open, and how long their header blocks are.
#[derive(Default)]
struct Streams {
    open: HashMap<u32, usize>,
    blocks: usize,
    last: u32,
    /// The header block that is coming.
    block: usize,
}

impl Streams {
    /// The peer sends a frame.
    fn received(&mut self, frame: Frame) -> Result<(), &'static str> {
        match frame.kind {
            HEADERS => {
                self.block = 0;
                if frame.stream > self.last {
                    self.last = frame.stream;
                    self.open.insert(frame.stream, 0);
                }
                self.header_bytes(frame)
            }
            CONTINUATION => self.header_bytes(frame),
            RST_STREAM => {
                self.ended(frame.stream);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn header_bytes(&mut self, frame: Frame) -> Result<(), &'static str> {
        // An empty one costs, too.
        let bytes = frame.length + HEAD;
        self.block += bytes;
        if let Some(blocks) = self.open.get_mut(&frame.stream) {
            *blocks += bytes;
            self.blocks += bytes;
        }
        match () {
            () if self.block > MOST_HEADERS as usize + BESIDE => {
                Err("the headers of a request are too large")
            }
            () if self.open.len() > GRACE * MOST_STREAMS as usize => Err("too many requests are open"),
            () if self.blocks > MOST_BLOCKS => Err("the headers of the open requests are too large"),
            () => Ok(()),
        }
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
        self.blocks -= self.open.remove(&stream).unwrap_or(0);
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
}

/// The server's first frame.
enum First {
    Coming(Vec<u8>),
    /// It is as it is to be sent, and so much of it has been.
    Leaving(Vec<u8>, usize),
    Gone,
}

impl<S> Bounded<S> {
    pub(super) fn new(inner: S, is_http2: bool) -> Self {
        let watch = || Watch {
            received: Frames::after(PREFACE),
            sent: Frames::after(0),
            streams: Streams::default(),
            first: First::Coming(Vec::new()),
        };
        Self { inner, watch: is_http2.then(|| Box::new(watch())) }
    }
}

impl Watch {
    fn received(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self { received, streams, .. } = self;
        received.each(bytes, |frame| streams.received(frame)).map_err(|why| {
            tracing::debug!(why, "an HTTP/2 connection is closed");
            io::Error::new(io::ErrorKind::InvalidData, why)
        })
    }

    fn sent(&mut self, bytes: &[u8]) {
        let Self { sent, streams, .. } = self;
        let Ok(()) = sent.each(bytes, |frame| {
            streams.sent(frame);
            Ok::<(), std::convert::Infallible>(())
        });
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
                let Ok(()) = reader.each(piece, |frame| { found.push(frame); Ok::<(), Infallible>(()) });
                rest = others;
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(found, frames);
        }

        /// However requests come and end, what is counted is what is open.
        #[test]
        fn what_has_ended_does_not_count(ends in prop::collection::vec(0..3_u8, 1..1000)) {
            let mut streams = Streams::default();
            for (number, end) in ends.into_iter().enumerate() {
                let stream = 2 * number as u32 + 1;
                prop_assert_eq!(streams.received(frame(HEADERS, 4, stream, 100)), Ok(()));
                prop_assert_eq!(streams.received(frame(CONTINUATION, 4, stream, 100)), Ok(()));
                match end {
                    0 => streams.sent(frame(HEADERS, 4 | END_STREAM, stream, 50)),
                    1 => {
                        streams.sent(frame(HEADERS, 4, stream, 50));
                        streams.sent(frame(DATA, END_STREAM, stream, 0));
                    }
                    _ => streams.received(frame(RST_STREAM, 0, stream, 4)).unwrap(),
                }
            }
            prop_assert_eq!((streams.open.len(), streams.blocks), (0, 0));
        }
    }

    #[test]
    fn what_is_beyond_a_limit_is_refused() {
        let mut many = Streams::default();
        let refused =
            (0..10_000).find(|number| many.received(frame(HEADERS, 5, 2 * number + 1, 100)).is_err());
        assert_eq!(refused, Some(GRACE as u32 * MOST_STREAMS));
        let mut large = Streams::default();
        assert!(large.received(frame(HEADERS, 0, 1, 16 << 10)).is_ok());
        assert!(large.received(frame(CONTINUATION, 4, 1, 16 << 10)).is_err());
        let mut together = Streams::default();
        let refused =
            (0..100).find(|number| together.received(frame(HEADERS, 5, 2 * number + 1, 16 << 10)).is_err());
        assert_eq!(refused, Some(15));
        let mut empty = Streams::default();
        empty.received(frame(HEADERS, 0, 1, 0)).unwrap();
        assert!((0..10_000).any(|_| empty.received(frame(CONTINUATION, 0, 1, 0)).is_err()));
    }
}
