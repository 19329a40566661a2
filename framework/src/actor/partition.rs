//! The actor of one assigned partition.
//!
//! Its mailbox carries batches and orders; it puts batches into the lane at once, so an order never waits behind data,
//! and its runner, a future of the same actor, takes the records out one at a time.

use super::{
    lane::{Lane, Order, Progress},
    runner::{Runner, Setup},
    work::{Factory, Work},
};
use crate::log::{Batch, Inbox};
use actix::{
    Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, WrapFuture, fut::ActorFutureExt,
};
use futures_util::future::LocalBoxFuture;
use partita_core::{Epoch, Outstanding};
use std::{rc::Rc, sync::Arc};

pub(crate) struct PartitionActor {
    lane: Rc<Lane>,
    runner: Option<LocalBoxFuture<'static, ()>>,
}

impl Actor for PartitionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(runner) = self.runner.take() {
            ctx.spawn(runner.into_actor(self).map(|(), _, ctx| ctx.stop()));
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Deliver(Batch);

impl Handler<Deliver> for PartitionActor {
    type Result = ();

    fn handle(&mut self, Deliver(batch): Deliver, _: &mut Self::Context) {
        self.lane.push(batch);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Ordered(Order);

impl Handler<Ordered> for PartitionActor {
    type Result = ();

    fn handle(&mut self, Ordered(order): Ordered, _: &mut Self::Context) {
        self.lane.order(order);
    }
}

/// What the supervisor keeps of an actor.
#[derive(Clone)]
pub(crate) struct ActorHandle {
    pub(crate) inbox: Arc<ActorInbox>,
    pub(crate) progress: Arc<Progress>,
}

impl ActorHandle {
    pub(crate) fn epoch(&self) -> Epoch {
        self.inbox.epoch
    }

    pub(crate) fn order(&self, order: Order) {
        if order == Order::Stop {
            self.progress.stop();
        }
        self.inbox.actor.do_send(Ordered(order));
    }
}

/// The consumer's way to an actor.
pub(crate) struct ActorInbox {
    epoch: Epoch,
    actor: Addr<PartitionActor>,
    progress: Arc<Progress>,
}

impl Inbox for ActorInbox {
    /// The mailbox takes everything: what it holds is bounded by the pausing that `outstanding` leads to.
    fn deliver(&self, batch: Batch) {
        if batch.epoch() == self.epoch && !batch.is_empty() {
            self.progress.delivered(batch.len() as u64, batch.bytes());
            self.actor.do_send(Deliver(batch));
        }
    }

    fn outstanding(&self) -> Outstanding {
        self.progress.outstanding()
    }
}

/// Starts partition actors over a handler whose type is known only here.
pub(crate) type Spawner = Arc<dyn Fn(&actix::ArbiterHandle, Setup) -> ActorHandle + Send + Sync>;

/// A spawner for the work that `factory` makes.
pub(crate) fn spawner<W: Work>(factory: Factory<W>) -> Spawner {
    Arc::new(move |arbiter, setup| {
        let (factory, progress, epoch) = (factory.clone(), setup.progress.clone(), setup.assignment.epoch);
        let actor = PartitionActor::start_in_arbiter(arbiter, move |_| {
            let lane = Rc::new(Lane::default());
            let runner = Runner::new(setup, factory, lane.clone());
            PartitionActor { lane, runner: Some(Box::pin(runner.run())) }
        });
        let inbox = Arc::new(ActorInbox { epoch, actor, progress: progress.clone() });
        ActorHandle { inbox, progress }
    })
}
