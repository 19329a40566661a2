//! A request's body as it comes in: in pieces, with a limit on silence, and cut off when the process must end.

use super::{
    access::Caller,
    admission,
    problem::{Problem, ProblemCode},
};
use actix_web::{
    HttpRequest, dev,
    error::PayloadError,
    http::{
        Version,
        header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING},
    },
};
use bytes::Bytes;
use futures_util::Stream;
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How long a body may be as slow as it likes.
const GRACE: Duration = if cfg!(test) { Duration::from_millis(500) } else { Duration::from_secs(30) };

/// How long a body of a stated size may take altogether, at the least.
const LONGEST: Duration = Duration::from_secs(1800);

/// The body of one request.
pub(super) struct RequestBody {
    payload: dev::Payload,
    declared: Option<u64>,
    received: u64,
    ended: bool,
    timeout: Duration,
    last_byte: Instant,
    /// The least bytes a second, over all the time that was waited for them; 0: as slow as it likes.
    rate: u64,
    waited: Duration,
    waits_since: Option<Instant>,
    polled_again: bool,
    watch: Option<Watch>,
    cut: CancellationToken,
    /// Who is charged for what has come, if it ends here.
    owed_by: Option<Arc<Caller>>,
}

/// What wakes a waiting body besides bytes. Made only for one that is really waited for.
struct Watch {
    silence: Pin<Box<Sleep>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl RequestBody {
    pub(super) fn new(
        payload: dev::Payload,
        head: &HttpRequest,
        timeout: Duration,
        cut: &CancellationToken,
    ) -> Self {
        let declared = declared(head.version(), head.headers());
        let ended = declared == Some(0);
        Self {
            payload,
            declared,
            received: 0,
            ended,
            timeout,
            last_byte: Instant::now(),
            rate: 0,
            waited: Duration::ZERO,
            waits_since: None,
            polled_again: false,
            watch: None,
            cut: cut.clone(),
            owed_by: None,
        }
    }

    /// It is refused where it comes slower than this, in bytes a second, once it was waited for [`GRACE`] altogether.
    pub(super) fn at_least(mut self, rate: u64) -> Self {
        self.rate = rate;
        self
    }

    /// Its sender is charged for what has come, also where it hangs up in the middle, until that is settled in another way.
    pub(super) fn owe(&mut self, caller: &Arc<Caller>) {
        self.owed_by = Some(caller.clone());
    }

    pub(super) fn settle(&mut self) {
        self.owed_by = None;
    }

    /// Its size as it is sent, where that is said beforehand.
    pub(super) fn declared(&self) -> Option<u64> {
        self.declared
    }

    /// What has come of it, as it was sent.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Whether its end was reached.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// What is still to come, where that is known.
    pub(super) fn outstanding(&self) -> Option<u64> {
        self.declared.map(|declared| declared.saturating_sub(self.received))
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if self.ended {
            return Ok(None);
        }
        match poll_fn(|cx| self.poll(cx)).await? {
            Some(bytes) => {
                self.received += bytes.len() as u64;
                self.is_fast_enough()?;
                Ok(Some(bytes))
            }
            None => {
                self.ended = true;
                Ok(None)
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Problem>> {
        match Pin::new(&mut self.payload).poll_next(cx) {
            Poll::Ready(Some(Ok(bytes))) => {
                if self.watch.is_some() {
                    self.last_byte = Instant::now();
                    self.waited +=
                        self.waits_since.take().map_or(Duration::ZERO, |since| self.last_byte - since);
                }
                Poll::Ready(Ok(Some(bytes)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(incomplete(&error))),
            Poll::Ready(None) => Poll::Ready(Ok(None)),
            Poll::Pending => self.poll_watch(cx).map(Err),
        }
    }

    /// The server polls a request before it has looked whether its body is there already. So the first time nothing is armed, but
    /// asked again at once.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Problem> {
        if !self.polled_again {
            self.polled_again = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let watch = self.watch.get_or_insert_with(|| {
            self.last_byte = Instant::now();
            Watch {
                silence: Box::pin(tokio::time::sleep_until(self.last_byte + self.timeout)),
                cut: Box::pin(self.cut.clone().cancelled_owned()),
            }
        });
        self.waits_since.get_or_insert_with(Instant::now);
        if watch.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(admission::draining());
        }
        loop {
            ready!(watch.silence.as_mut().poll(cx));
            let deadline = self.last_byte + self.timeout;
            if Instant::now() >= deadline {
                return Poll::Ready(silent(self.timeout));
            }
            watch.silence.as_mut().reset(deadline);
        }
    }

    fn is_fast_enough(&self) -> Result<(), Problem> {
        // One that said how large it is holds memory for all of it.
        let for_its_size = self.declared.unwrap_or(0) / LONGEST.as_secs();
        let (rate, waited) = (self.rate.max(for_its_size), self.waited);
        if self.rate == 0 || waited < GRACE || self.received as f64 >= rate as f64 * waited.as_secs_f64() {
            return Ok(());
        }
        let detail = format!(
            "the body came with fewer than {rate} bytes a second ({}): {} in {} s",
            if rate > self.rate { "half an hour for the size it said" } else { "front_door.min_body_rate" },
            self.received,
            waited.as_secs()
        );
        Err(Problem::new(ProblemCode::BodyTimeout, detail))
    }

    /// Gives the rest up, for whoever must keep it alive.
    pub(super) fn into_payload(mut self) -> dev::Payload {
        std::mem::replace(&mut self.payload, dev::Payload::None)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(caller) = self.owed_by.take() {
            caller.charge(self.received);
        }
    }
}

/// The size of a body as it is sent; `None` where that is not said. In HTTP/1 a body that says nothing is none; in HTTP/2 it may be any.
pub(super) fn declared(version: Version, headers: &HeaderMap) -> Option<u64> {
    let is_said = match version {
        Version::HTTP_2 => headers.contains_key(CONTENT_LENGTH),
        _ => !headers.contains_key(TRANSFER_ENCODING),
    };
    is_said.then(|| content_length(headers))
}

fn content_length(headers: &HeaderMap) -> u64 {
    // The server has checked it: at most one, and a number.
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse().ok()).unwrap_or(0)
}

fn incomplete(error: &PayloadError) -> Problem {
    Problem::new(ProblemCode::IncompleteBody, format!("the body could not be read to its end: {error}"))
}

fn silent(timeout: Duration) -> Problem {
    Problem::new(
        ProblemCode::BodyTimeout,
        format!("no byte of the body came for {timeout:?} (front_door.body_timeout)"),
    )
}
