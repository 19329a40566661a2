//! One attempt of one task: its handler's future, guarded against panics, its deadline and a stop.

use super::{lane::Lane, report::Finished, work::Failure};
use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Context, Poll},
};
use tokio::time::{Instant, sleep_until};

/// What came of an attempt.
pub(crate) enum Attempted {
    /// The handler returned.
    Returned(Result<(), Failure>),
    /// It panicked: its instance cannot be used any more.
    Panicked(String),
    /// It was given up at its deadline: nobody knows the state of its instance.
    TimedOut,
    /// It was given up because the actor is to stop.
    Stopped,
}

/// Runs `future` to its end. A future that is ready at once costs no timer and no listener.
///
/// `on_wait` is called when the future first has to wait.
pub(crate) async fn attempt<F>(
    future: F,
    lane: &Lane,
    finished: &mut Finished,
    deadline: Option<Instant>,
    on_wait: impl FnOnce(),
) -> Attempted
where
    F: Future<Output = Result<(), Failure>>,
{
    let mut future = pin!(future);
    if let Poll::Ready(attempted) = poll_fn(|cx| Poll::Ready(poll_guarded(future.as_mut(), cx))).await {
        return attempted;
    }
    on_wait();
    let far = deadline.unwrap_or_else(Instant::now);
    loop {
        tokio::select! {
            biased;
            attempted = poll_fn(|cx| poll_guarded(future.as_mut(), cx)) => return attempted,
            () = lane.until_stopped() => return Attempted::Stopped,
            () = sleep_until(far), if deadline.is_some() => return Attempted::TimedOut,
            () = sleep_until(finished.due()), if !finished.is_empty() => finished.flush(),
        }
    }
}

fn poll_guarded<F>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<Attempted>
where
    F: Future<Output = Result<(), Failure>>,
{
    match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
        Ok(Poll::Ready(result)) => Poll::Ready(Attempted::Returned(result)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => Poll::Ready(Attempted::Panicked(message(panic.as_ref()))),
    }
}

/// Runs a hook of the handler, where a panic is an answer like another.
pub(crate) async fn guarded<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => Poll::Ready(Err(message(panic.as_ref()))),
    })
    .await
}

/// Makes a handler, where a panic is an answer like another.
pub(crate) fn guarded_call<T>(make: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(make)).map_err(|panic| message(panic.as_ref()))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a value that is not text");
    format!("the handler panicked: {text}")
}
