//! What of an answer is not sent yet: filled by the task that stores, emptied by the connection that sends.

use super::super::refuse::Unread;
use crate::memory::Reservation;
use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// How often is looked whether the other side takes something.
const LOOK: Duration = Duration::from_millis(100);

/// The storing side. Both are of one thread.
#[derive(Clone, Default)]
pub(super) struct Outbox(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    pieces: VecDeque<(Bytes, Option<Reservation>)>,
    unsent: u64,
    /// How many pieces were taken so far.
    taken: u64,
    state: State,
    /// Nobody takes the answer any more.
    gone: bool,
    unread: Option<Unread>,
    waker: Option<Waker>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Growing,
    Whole,
    /// It ended early, and must not be taken for whole.
    Broken,
}

/// What the connection finds first.
pub(super) enum First {
    /// All of the answer.
    Whole(Bytes, Option<Unread>),
    /// It is still growing.
    Growing(Growing),
}

impl Outbox {
    pub(super) fn push(&self, bytes: Bytes, reservation: Option<Reservation>) {
        let mut inner = self.0.borrow_mut();
        inner.unsent += bytes.len() as u64;
        inner.pieces.push_back((bytes, reservation));
        inner.wake();
    }

    /// The last piece was given. `unread`: what the sender still sends is kept as it is until the answer was sent.
    pub(super) fn finish(&self, unread: Option<Unread>) {
        let mut inner = self.0.borrow_mut();
        inner.state = State::Whole;
        inner.unread = unread;
        inner.wake();
    }

    /// The answer ends here, and what of it is not sent is forgotten.
    pub(super) fn break_off(&self) {
        let mut inner = self.0.borrow_mut();
        inner.pieces.clear();
        inner.unsent = 0;
        inner.state = State::Broken;
        inner.wake();
    }

    /// How many bytes wait to be sent.
    pub(super) fn unsent(&self) -> u64 {
        self.0.borrow().unsent
    }

    /// Whether nobody takes the answer any more.
    pub(super) fn is_gone(&self) -> bool {
        self.0.borrow().gone
    }

    fn taken(&self) -> u64 {
        self.0.borrow().taken
    }

    /// Returns when all is sent, or breaks off when nothing was taken for `patience`.
    pub(super) async fn sent(&self, patience: Duration) {
        let mut taker = Taker::new(self);
        while self.unsent() > 0 && !self.is_gone() {
            tokio::time::sleep(LOOK).await;
            if taker.is_away(patience) {
                self.break_off();
            }
        }
    }

    /// The other side. Nobody takes the answer any more once it is dropped.
    pub(super) fn reader(&self) -> Growing {
        Growing { outbox: self.clone(), ended: false }
    }
}

impl Inner {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Whoever is to take the answer, and since when it has taken nothing: who takes none for long takes none any more.
pub(super) struct Taker {
    outbox: Outbox,
    taken: u64,
    since: Instant,
}

impl Taker {
    pub(super) fn new(outbox: &Outbox) -> Self {
        Self { outbox: outbox.clone(), taken: outbox.taken(), since: Instant::now() }
    }

    /// Whether it has taken nothing for longer than `patience`.
    pub(super) fn is_away(&mut self, patience: Duration) -> bool {
        let taken = self.outbox.taken();
        if taken != self.taken {
            (self.taken, self.since) = (taken, Instant::now());
        }
        self.since.elapsed() > patience
    }
}

/// An answer that grows while tasks are stored.
pub(super) struct Growing {
    outbox: Outbox,
    ended: bool,
}

impl Growing {
    /// Waits for the first piece.
    pub(super) async fn first(self) -> First {
        let whole = std::future::poll_fn(|cx| {
            let mut inner = self.outbox.0.borrow_mut();
            if inner.pieces.is_empty() && inner.state == State::Growing {
                inner.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let is_whole = inner.state == State::Whole && inner.pieces.len() == 1;
            let only = is_whole.then(|| inner.pieces.pop_front()).flatten();
            Poll::Ready(only.map(|(bytes, _reservation)| (bytes, inner.unread.take())))
        });
        match whole.await {
            Some((bytes, unread)) => First::Whole(bytes, unread),
            None => First::Growing(self),
        }
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        let mut inner = self.outbox.0.borrow_mut();
        inner.gone = true;
        inner.pieces.clear();
        inner.unsent = 0;
    }
}

/// The tasks' answers ended before their last: whoever waits for them must not take them for whole.
#[derive(Debug, thiserror::Error)]
#[error("the answer ended early")]
pub(super) struct EndedEarly;

impl MessageBody for Growing {
    type Error = EndedEarly;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, EndedEarly>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut inner = self.outbox.0.borrow_mut();
        let next = match (inner.pieces.pop_front(), inner.state) {
            (Some((bytes, _reservation)), _) => {
                inner.unsent -= bytes.len() as u64;
                inner.taken += 1;
                return Poll::Ready(Some(Ok(bytes)));
            }
            (None, State::Growing) => {
                inner.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            (None, State::Whole) => None,
            (None, State::Broken) => Some(Err(EndedEarly)),
        };
        drop(inner);
        self.ended = true;
        Poll::Ready(next)
    }
}
