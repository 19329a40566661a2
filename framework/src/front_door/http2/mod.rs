//! What one HTTP/2 connection may have open. The h2 crate, as actix-http makes it, takes any number of requests at once and 16 MiB of headers
//! with each, of which a byte of the connection can be one.
//!
//! Frames are watched in both directions (RFC 9113, 4.1). A peer is told the limits in the server's first SETTINGS, and hung up on where it
//! goes beyond them. Headers are counted, not decoded.

mod fields;
mod frames;
mod streams;

use super::budget::Budget;
use crate::memory::Reservation;
use frames::{Frame, Frames, HEAD, PREFACE, Part, SETTINGS};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use streams::{MOST_HEADERS, MOST_STREAMS, Streams};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What may come of one request's body before the server reads it, and of all bodies of a connection (the h2 crate, as actix-http makes it,
/// would take 1 and 2 MiB, whatever lies unread).
pub(super) const WINDOW: u32 = 256 << 10;
pub(super) const CONNECTION_WINDOW: u32 = 384 << 10;

/// What all headers of a connection's open requests, and what lies unread of their bodies, may take; more has to be reserved.
const FREE: u64 = 512 << 10;

const MAX_CONCURRENT_STREAMS: u16 = 3;
const MAX_HEADER_LIST_SIZE: u16 = 6;

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
    /// There was nothing more to read: the server has looked at all of it since.
    paused: bool,
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
            paused: false,
        }
    }

    fn received(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self { received, streams, paused, .. } = self;
        if std::mem::take(paused) {
            streams.seen();
        }
        received.each(bytes, |part| streams.received(part)).and_then(|()| self.cover()).map_err(|why| {
            tracing::debug!(why, "an HTTP/2 connection is closed");
            io::Error::new(io::ErrorKind::InvalidData, why)
        })
    }

    /// Reserves what headers take, before they are looked at.
    fn cover(&mut self) -> Result<(), &'static str> {
        let needed = (self.streams.taken + self.streams.unread).saturating_sub(FREE);
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
        covered.map_err(|_| "there is no memory for the headers of the open requests, or for what lies unread of their bodies")
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
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        let Some(watch) = &mut this.watch else { return read };
        watch.paused |= read.is_pending();
        ready!(read)?;
        Poll::Ready(watch.received(&buf.filled()[before..]))
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

#[cfg(test)]
mod tests {
    use super::{
        frames::{HEADERS, RST_STREAM, tests::*},
        *,
    };
    use crate::memory::MemoryPool;

    #[test]
    fn what_headers_take_is_reserved_and_given_back() {
        let pool = MemoryPool::new("intake", 4 << 20);
        let mut watch = Watch::new(&Budget::new(pool.clone(), 1 << 20));
        watch.received(&[0; PREFACE]).unwrap();
        let flood = |stream| bytes_of(HEADERS, stream, &[0x90; 10_000]);
        watch.received(&flood(1)).unwrap();
        assert!(pool.reserved() > 1 << 20);
        // What the peer gives up is there until the server has seen that.
        let reset = |stream| bytes_of(RST_STREAM, stream, &[0; 4]);
        watch.received(&reset(1)).unwrap();
        assert!(pool.reserved() > 1 << 20);
        watch.paused = true;
        watch.received(&[]).unwrap();
        assert_eq!(pool.reserved(), 0);
        assert!(watch.received(&flood(3)).is_ok() && watch.received(&flood(5)).is_err());
        watch.sent(&[bytes_of(SETTINGS, 0, &[]), reset(3), reset(5)].concat());
        assert_eq!(pool.reserved(), 0);
    }

    fn bytes_of(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = bytes(frame(kind, 4, stream, payload.len()));
        bytes.truncate(HEAD);
        bytes.extend_from_slice(payload);
        bytes
    }
}
