//! What one HTTP/1.1 connection may take between its requests, and behind one that is in hand; and, of any connection, how long an answer
//! may lie there.
//!
//! actix-http gives the first head of a connection its time, and no later one; it reads up to 128 KiB of what comes next while a
//! request is in hand, and makes requests of all of it, at 8 KiB each. Here the stream gives out one request, and what comes
//! after it when that is answered; reserves memory for a long head; and answers, and fails, where a head does not become whole in
//! time: the connection is closed then. The server's middleware says when a
//! request begins and ends.

mod framing;
mod reading;

use super::{
    budget::Budget,
    door::Door,
    problem::{Problem, ProblemCode},
    request_id::RequestId,
};
use crate::memory::Reservation;
use actix_http::Extensions;
use actix_web::{
    body::{BodySize, BoxBody, EitherBody, MessageBody},
    dev::ServiceResponse,
    http::header::HeaderMap,
};
use bytes::{Buf, Bytes, BytesMut};
use framing::Taken;
pub(super) use reading::HEAD_TIMEOUT;
use reading::Reading;
use std::{
    cell::{Cell, RefCell},
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

/// How much of the next request is read while one is in hand: enough to see that the peer has gone.
const AHEAD: usize = 64;

/// What the stream of a connection and its requests share.
pub(super) struct Connection {
    reading: RefCell<Reading>,
    budget: Budget,
    /// For the head that comes.
    memory: Cell<Option<Reservation>>,
    /// Whom to wake when a request is answered.
    waiting: Cell<Option<Waker>>,
}

/// A connection's stream, as long as its peer keeps to the limits.
pub(super) struct Paced<S> {
    inner: S,
    /// Of HTTP/1.1.
    connection: Option<Rc<Connection>>,
    overdue: Option<Pin<Box<Sleep>>>,
    /// What was read and belongs to no request that may be given out yet.
    held: BytesMut,
    /// How long a peer may take none of what it is sent.
    patience: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    pub(super) fn new(inner: S, is_http1: bool, door: &Door) -> Self {
        let connection = is_http1.then(|| {
            Rc::new(Connection {
                reading: RefCell::new(Reading::new(Instant::now())),
                budget: door.budget.clone(),
                memory: Cell::default(),
                waiting: Cell::default(),
            })
        });
        Self {
            inner,
            connection,
            overdue: None,
            held: BytesMut::new(),
            patience: door.body_timeout,
            stuck: None,
        }
    }

    /// Tells the requests of this connection about it.
    pub(super) fn introduce(&self, data: &mut Extensions) {
        if let Some(connection) = &self.connection {
            data.insert(connection.clone());
        }
    }
}

impl Connection {
    /// These bytes were read.
    fn read(&self, bytes: &[u8]) -> io::Result<Taken> {
        let mut reading = self.reading.borrow_mut();
        let taken = reading.read(bytes, Instant::now());
        if reading.is_unclear() {
            return Err(closed("the size of a request is in a line that is too long"));
        }
        let needed = reading.head_memory();
        if needed > 0 {
            let reserved = self.memory.take().map_or_else(|| self.budget.reserve(needed), Ok);
            self.memory.set(Some(reserved.map_err(|_| closed("there is no memory for a long head"))?));
        }
        Ok(taken)
    }
}

fn closed(why: &'static str) -> io::Error {
    tracing::debug!(why, "a connection is closed");
    io::Error::new(io::ErrorKind::TimedOut, why)
}

/// The answer to a head that is not whole. The server has none for what is no request yet.
fn too_slow() -> Vec<u8> {
    let detail = format!("it was not whole within {HEAD_TIMEOUT:?} of its first byte");
    let (answer, body) =
        Problem::new(ProblemCode::HeadTimeout, detail).parts(&RequestId::of(&HeaderMap::new()));
    let mut bytes = format!("HTTP/1.1 {}\r\n", answer.status()).into_bytes();
    for (name, value) in answer.headers() {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend(format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()).into_bytes());
    bytes.extend(body);
    bytes
}

/// Waits for the time of the head that comes to be over.
fn poll_overdue(
    overdue: &mut Option<Pin<Box<Sleep>>>,
    deadline: Instant,
    cx: &mut Context<'_>,
) -> Poll<io::Error> {
    // It is left as it is while requests come and go, and then wakes too early.
    let sleep = overdue.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
    loop {
        ready!(sleep.as_mut().poll(cx));
        if Instant::now() >= deadline {
            return Poll::Ready(closed("the head of a request takes too long"));
        }
        sleep.as_mut().reset(deadline);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Paced<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, connection, overdue, held, stuck, .. } = self.get_mut();
        let Some(connection) = connection else { return Pin::new(inner).poll_read(cx, buf) };
        let read = if connection.reading.borrow().may_go_on() {
            poll_request(inner, held, connection, cx, buf)
        } else {
            poll_ahead(inner, held, connection, cx)
        };
        // While an answer is not taken, that has its own time.
        if read.is_pending()
            && stuck.is_none()
            && let Some(deadline) = connection.reading.borrow().deadline()
        {
            let error = ready!(poll_overdue(overdue, deadline, cx));
            // What was sent of a request is answered, as far as that can be done at once.
            if connection.reading.borrow().is_in_head() {
                let _ = Pin::new(&mut *inner).poll_write(cx, &too_slow());
                let _ = Pin::new(inner).poll_flush(cx);
            }
            return Poll::Ready(Err(error));
        }
        read
    }
}

/// Reads something of a request. Empty lines before it are left out: the server would take them for activity.
fn poll_request<S: AsyncRead + Unpin>(
    inner: &mut S,
    held: &mut BytesMut,
    connection: &Connection,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    while !held.is_empty() {
        let Taken { empty, request } = connection.read(&held[..held.len().min(buf.remaining())])?;
        held.advance(empty);
        buf.put_slice(&held[..request]);
        held.advance(request);
        if request > 0 {
            return Poll::Ready(Ok(()));
        }
    }
    // With what it was a part of.
    *held = BytesMut::new();
    let before = buf.filled().len();
    loop {
        ready!(Pin::new(&mut *inner).poll_read(cx, buf))?;
        let bytes = &mut buf.filled_mut()[before..];
        if bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let Taken { empty, request } = connection.read(bytes)?;
        held.extend_from_slice(&bytes[empty + request..]);
        if empty > 0 {
            bytes.copy_within(empty..empty + request, 0);
        }
        buf.set_filled(before + request);
        if request > 0 {
            return Poll::Ready(Ok(()));
        }
    }
}

/// Reads a little of what comes behind a request that is not answered, to see whether the peer is still there. It is ready where that is
/// not so.
fn poll_ahead<S: AsyncRead + Unpin>(
    inner: &mut S,
    held: &mut BytesMut,
    connection: &Connection,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    if held.is_empty() {
        let mut few = [0; AHEAD];
        let mut few = ReadBuf::new(&mut few);
        ready!(Pin::new(inner).poll_read(cx, &mut few))?;
        if few.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
        held.extend_from_slice(few.filled());
    }
    connection.waiting.set(Some(cx.waker().clone()));
    Poll::Pending
}

impl<S> Paced<S> {
    /// Fails where a peer has taken nothing for too long. While it sends, it need not take anything: the answers to the tasks of a batch
    /// have their own bounds. HTTP/2 pings its peers.
    fn poll_taken<T>(&mut self, cx: &mut Context<'_>, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Self { connection, patience, stuck, .. } = self;
        let is_waiting = |connection: &Rc<Connection>| !connection.reading.borrow().is_receiving();
        if sent.is_ready() || !connection.as_ref().is_some_and(is_waiting) {
            *stuck = None;
            return sent;
        }
        let stuck = stuck.get_or_insert_with(|| Box::pin(sleep(*patience)));
        stuck.as_mut().poll(cx).map(|()| Err(closed("an answer is not taken")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.poll_taken(cx, sent)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = Pin::new(&mut self.inner).poll_flush(cx);
        self.poll_taken(cx, sent)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.poll_taken(cx, sent)
    }
}

/// A request is in hand until this is dropped.
pub(super) struct Turn(Rc<Connection>);

impl Turn {
    /// Begins a request of this connection, if it is one of these.
    pub(super) fn begin(connection: Option<&Rc<Connection>>) -> Option<Self> {
        let connection = connection?;
        connection.reading.borrow_mut().begin();
        connection.memory.take();
        Some(Self(connection.clone()))
    }

    /// The request is in hand until its answer is there: all of it where that comes bit by bit, or from a body that still comes.
    pub(super) fn until_answered<B: MessageBody + 'static>(
        self,
        answer: ServiceResponse<B>,
    ) -> ServiceResponse<EitherBody<B>> {
        answer.map_body(|_, body| {
            if body.size() == BodySize::Stream || self.0.reading.borrow().is_receiving() {
                EitherBody::right(BoxBody::new(Answer { body: body.boxed(), _turn: self }))
            } else {
                EitherBody::left(body)
            }
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.reading.borrow_mut().end();
        if let Some(waiting) = self.0.waiting.take() {
            waiting.wake();
        }
    }
}

/// An answer that comes bit by bit.
struct Answer {
    body: BoxBody,
    _turn: Turn,
}

impl MessageBody for Answer {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}
