//! The way back of an append's outcome: to somebody who waits for it alone, or to somebody who waits for many at once.

use super::{AppendError, Receipt};
use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};
use tokio::sync::oneshot;

/// What became of an append.
pub type AppendOutcome = Result<Receipt, AppendError>;

/// Says what became of one append. Dropped without having said it, it says that nobody knows.
#[derive(Debug)]
pub struct Reply(Option<Way>);

#[derive(Debug)]
enum Way {
    One(oneshot::Sender<AppendOutcome>),
    /// With the append's ticket.
    Many(Arc<Mailbox>, usize),
}

impl Reply {
    /// A reply, and what waits for it.
    pub fn one() -> (Self, impl Future<Output = AppendOutcome> + Send + 'static) {
        let (sender, receiver) = oneshot::channel();
        let outcome = async move { receiver.await.unwrap_or_else(|_| Err(unanswered())) };
        (Self(Some(Way::One(sender))), outcome)
    }

    /// Says it. Whoever waited may be gone.
    pub fn send(mut self, outcome: AppendOutcome) {
        match self.0.take() {
            Some(Way::One(sender)) => {
                let _ = sender.send(outcome);
            }
            Some(Way::Many(mailbox, ticket)) => mailbox.put([(ticket, outcome)]),
            None => {}
        }
    }

    /// Moves it out; what stays says nothing.
    pub fn take(&mut self) -> Self {
        Self(self.0.take())
    }

    /// Whether somebody can still be told.
    pub(in crate::log) fn is_owed(&self) -> bool {
        self.0.is_some()
    }

    /// Says many: neighbours that go to the same place go there together.
    pub fn send_all(replies: impl Iterator<Item = (Self, AppendOutcome)>) {
        let mut together: Vec<(usize, AppendOutcome)> = Vec::new();
        let mut to: Option<Arc<Mailbox>> = None;
        for (mut reply, outcome) in replies {
            match reply.0.take() {
                Some(Way::Many(mailbox, ticket)) => {
                    let former = to.as_ref().filter(|former| !Arc::ptr_eq(former, &mailbox));
                    if let Some(former) = former {
                        former.put(together.drain(..));
                    }
                    together.push((ticket, outcome));
                    to = Some(mailbox);
                }
                way => Self(way).send(outcome),
            }
        }
        if let Some(to) = to {
            to.put(together);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let way @ Some(_) = self.0.take() {
            Self(way).send(Err(unanswered()));
        }
    }
}

fn unanswered() -> AppendError {
    AppendError::Unknown { reason: "the log ended before it answered".into() }
}

/// Where the replies to many appends arrive.
#[derive(Debug, Default)]
pub struct Replies(Arc<Mailbox>);

impl Replies {
    /// A reply that arrives here under this ticket.
    pub fn reply(&self, ticket: usize) -> Reply {
        Reply(Some(Way::Many(self.0.clone(), ticket)))
    }

    /// Moves all that have arrived into `arrived`, which is empty; waits for the first.
    pub fn poll_all(&mut self, cx: &Context<'_>, arrived: &mut Vec<(usize, AppendOutcome)>) -> Poll<()> {
        let mut mail = self.0.lock();
        if mail.arrived.is_empty() {
            match &mut mail.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        std::mem::swap(&mut mail.arrived, arrived);
        Poll::Ready(())
    }
}

#[derive(Debug, Default)]
struct Mailbox(Mutex<Mail>);

#[derive(Debug, Default)]
struct Mail {
    arrived: Vec<(usize, AppendOutcome)>,
    waker: Option<Waker>,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Mail> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, outcomes: impl IntoIterator<Item = (usize, AppendOutcome)>) {
        let mut mail = self.lock();
        mail.arrived.extend(outcomes);
        let waker = mail.waker.take();
        drop(mail);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, future::poll_fn};
    use partita_core::{Offset, Partition};

    fn receipt(offset: u64) -> AppendOutcome {
        Ok(Receipt::new(Partition(0), Offset(offset)))
    }

    async fn all(replies: &mut Replies) -> Vec<(usize, AppendOutcome)> {
        let mut arrived = Vec::new();
        poll_fn(|cx| replies.poll_all(cx, &mut arrived)).await;
        arrived
    }

    #[tokio::test]
    async fn each_outcome_arrives_where_it_is_waited_for_and_under_its_ticket() {
        let (mut here, mut there) = (Replies::default(), Replies::default());
        let (one, alone) = Reply::one();
        let replies = [here.reply(1), here.reply(2), one, there.reply(1), here.reply(3)];
        let waiting = tokio::spawn(async move { (all(&mut here).await, here) });
        tokio::task::yield_now().await;
        Reply::send_all(replies.into_iter().zip((0..).map(receipt)));
        let (mut arrived, mut here) = waiting.await.unwrap();
        if arrived.len() < 3 {
            arrived.extend(all(&mut here).await);
        }
        assert_eq!(arrived, [(1, receipt(0)), (2, receipt(1)), (3, receipt(4))]);
        assert_eq!(all(&mut there).await, [(1, receipt(3))]);
        assert_eq!(alone.await, receipt(2));
        assert!(all(&mut here).now_or_never().is_none(), "nothing arrives twice");
    }

    #[tokio::test]
    async fn what_is_dropped_unanswered_is_unknown_and_who_is_gone_is_not_told() {
        let mut replies = Replies::default();
        drop(replies.reply(7));
        let arrived = all(&mut replies).await;
        assert!(matches!(arrived[..], [(7, Err(AppendError::Unknown { .. }))]));
        let (one, alone) = Reply::one();
        drop(one);
        assert!(matches!(alone.await, Err(AppendError::Unknown { .. })));
        let (one, alone) = Reply::one();
        drop(alone);
        one.send(receipt(0));
        let late = replies.reply(8);
        drop(replies);
        late.send(receipt(0));
    }
}
