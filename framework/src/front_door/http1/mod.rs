//! What one HTTP/1.1 connection may take between its requests, and behind one that is in hand; and, of any connection, how long an answer
//! may lie there.
//!
//! actix-http gives the first head of a connection its time, and no later one; it reads up to 128 KiB of what comes next while a
//! request is in hand, and makes requests of all of it. Here the stream gives out only as much as [`Reading`] has room for, reserves
//! memory for a long head, and fails where a head does not become whole in time: the connection is closed then, without an
//! answer to what was no request yet. The server's middleware says when a request begins and ends.

mod heads;
mod reading;

use super::{body::declared, budget::Budget, door::Door, problem::Problem};
use crate::memory::Reservation;
use actix_http::Extensions;
use actix_web::{
    HttpMessage,
    body::{BodySize, BoxBody, EitherBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::PayloadError,
    http::Method,
};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::Stream;
pub(super) use reading::HEAD_TIMEOUT;
use reading::{AHEAD, Body, Reading, Room};
use std::{
    cell::{Cell, RefCell},
    future::Future,
    io,
    mem::MaybeUninit,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

/// What the stream of a connection and its requests share.
pub(super) struct Connection {
    reading: RefCell<Reading>,
    budget: Budget,
    /// For the head that comes.
    memory: Cell<Option<Reservation>>,
    /// Whom to wake when a request has ended.
    waiting: Cell<Option<Waker>>,
}

/// A connection's stream, as long as its peer keeps to the limits.
pub(super) struct Paced<S> {
    inner: S,
    /// Of HTTP/1.1.
    connection: Option<Rc<Connection>>,
    overdue: Option<Pin<Box<Sleep>>>,
    /// What was read, and is not to be seen yet.
    held: BytesMut,
    /// How long a peer may take none of what it is sent.
    patience: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    pub(super) fn new(inner: S, is_http1: bool, door: &Door) -> Self {
        let connection = is_http1.then(|| {
            Rc::new(Connection {
                reading: RefCell::default(),
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
    /// These bytes were read; so many of them may be seen.
    fn read(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut reading = self.reading.borrow_mut();
        let seen = reading.read(bytes, Instant::now());
        let needed = reading.head_memory();
        if needed > 0 {
            let reserved = self.memory.take().map_or_else(|| self.budget.reserve(needed), Ok);
            self.memory.set(Some(reserved.map_err(|_| closed("there is no memory for a long head"))?));
        }
        Ok(seen)
    }
}

fn closed(why: &'static str) -> io::Error {
    tracing::debug!(why, "a connection is closed");
    io::Error::new(io::ErrorKind::TimedOut, why)
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

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, connection, overdue, held, .. } = self.get_mut();
        let Some(connection) = connection else { return Pin::new(inner).poll_read(cx, buf) };
        let room = connection.reading.borrow_mut().room();
        let before = buf.filled().len();
        let read = match room {
            Room::Bytes(most) => poll_some(inner, held, cx, buf, most),
            Room::AfterLook => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Room::AfterRequest => {
                connection.waiting.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        };
        if read.is_pending() {
            let mut reading = connection.reading.borrow_mut();
            reading.looked();
            return match reading.deadline() {
                Some(deadline) => poll_overdue(overdue, deadline, cx).map(Err),
                None => Poll::Pending,
            };
        }
        ready!(read)?;
        let bytes = &buf.filled()[before..];
        if bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let seen = connection.read(bytes)?;
        if held.is_empty() {
            held.extend_from_slice(&bytes[seen..]);
        } else {
            held.advance(seen);
        }
        buf.set_filled(before + seen);
        Poll::Ready(Ok(()))
    }
}

/// Reads up to `most` bytes: of what is held back where that is something, which it stays.
fn poll_some<S: AsyncRead + Unpin>(
    inner: &mut S,
    held: &mut BytesMut,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
    most: u64,
) -> Poll<io::Result<()>> {
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(buf.remaining());
    if !held.is_empty() {
        buf.put_slice(&held[..most.min(held.len())]);
        return Poll::Ready(Ok(()));
    }
    // What its last bytes were.
    *held = BytesMut::new();
    if most == buf.remaining() {
        return Pin::new(inner).poll_read(cx, buf);
    }
    if most > AHEAD as usize {
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        let read = Pin::new(inner).poll_read(cx, &mut part);
        let bytes = part.filled().len();
        buf.advance(bytes);
        return read;
    }
    // Nearly always there is nothing.
    let mut few = [MaybeUninit::uninit(); AHEAD as usize];
    let mut part = ReadBuf::uninit(&mut few[..most]);
    let read = Pin::new(inner).poll_read(cx, &mut part);
    buf.put_slice(part.filled());
    read
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { inner, patience, stuck, .. } = &mut *self;
        if let Poll::Ready(written) = Pin::new(inner).poll_write(cx, buf) {
            *stuck = None;
            return Poll::Ready(written);
        }
        let stuck = stuck.get_or_insert_with(|| Box::pin(sleep(*patience)));
        stuck.as_mut().poll(cx).map(|()| Err(closed("an answer is not taken")))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A request is in hand until this is dropped.
pub(super) struct Turn {
    connection: Rc<Connection>,
    /// For what came with the request and waits for it.
    _waiting: Option<Reservation>,
}

impl Turn {
    /// Begins a request, if its connection is one of these; an error says that there is no memory for what came with it.
    pub(super) fn begin(request: &mut ServiceRequest) -> Result<Option<Self>, Problem> {
        let Some(connection) = request.conn_data::<Rc<Connection>>().cloned() else { return Ok(None) };
        let body = body(request);
        let waiting = connection.reading.borrow_mut().begin(|| head_size(request), body);
        let mut turn = Self { connection, _waiting: None };
        turn.connection.memory.take();
        if waiting > 0 {
            turn._waiting = Some(turn.connection.budget.reserve(waiting)?);
        }
        if body == Body::Chunked {
            let payload = Chunked { payload: request.take_payload(), connection: turn.connection.clone() };
            request.set_payload(Payload::Stream { payload: Box::pin(payload) });
        }
        Ok(Some(turn))
    }

    /// The request is in hand until its answer is there, and all of it where that comes bit by bit.
    pub(super) fn until_answered<B: MessageBody + 'static>(
        self,
        answer: ServiceResponse<B>,
    ) -> ServiceResponse<EitherBody<B>> {
        answer.map_body(|_, body| match body.size() {
            BodySize::Stream => EitherBody::right(BoxBody::new(Answer { body: body.boxed(), _turn: self })),
            _ => EitherBody::left(body),
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.connection.reading.borrow_mut().end();
        if let Some(waiting) = self.connection.waiting.take() {
            waiting.wake();
        }
    }
}

fn body(request: &ServiceRequest) -> Body {
    // Nobody reads it.
    let has_none = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    match declared(request.version(), request.headers()) {
        Some(size) => Body::Sized(size),
        None if has_none => Body::Sized(0),
        None => Body::Chunked,
    }
}

/// What a head has on the wire, but for white space that it does not need.
fn head_size(request: &ServiceRequest) -> u64 {
    const LINE: usize = "  HTTP/1.1\r\n".len();
    let uri = request.uri();
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len())
        + uri.scheme_str().map_or(0, |scheme| scheme.len() + "://".len())
        + uri.authority().map_or(0, |authority| authority.as_str().len());
    let headers = request.headers().iter();
    let headers: usize =
        headers.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
    (request.method().as_str().len() + target + LINE + headers + "\r\n".len()) as u64
}

/// A body without a stated size, which tells when it ends.
struct Chunked {
    payload: Payload,
    connection: Rc<Connection>,
}

impl Stream for Chunked {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(Pin::new(&mut self.payload).poll_next(cx));
        if next.is_none() {
            self.connection.reading.borrow_mut().body_ended();
        }
        Poll::Ready(next)
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
