//! The supervisor: tells core what happened, and does what core says. It decides nothing itself, and no record passes through it.

mod translate;

use super::{
    lane::{Order, Progress},
    parked::ParkedTasks,
    partition::{ActorHandle, Spawner},
    report::Report,
    runner::{Policy, Setup},
    telemetry::Telemetry,
};
use crate::{
    handler::Assignment,
    log::{self, ConsumerCommand, ConsumerEvent, ConsumerHandle, Lane, TaskLog, Tenure},
    memory::MemoryPool,
    status::{PipelineStatus, Wish},
};
use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, ArbiterHandle, AsyncContext, Context, Handler, Message,
    WrapFuture,
};
use partita_core::{Action, Epoch, Event, Exit, GroupMember, MemberConfig, Offset, Partition};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

/// How often gauges and views are published.
const PUBLISH: Duration = Duration::from_secs(1);

/// Where a consumer's events go.
pub(crate) type Events = Arc<dyn Fn(ConsumerEvent) + Send + Sync>;

/// What a supervisor is made of.
pub(crate) struct SupervisorSetup {
    pub(crate) member: MemberConfig,
    pub(crate) policy: Policy,
    pub(crate) log: Arc<dyn TaskLog>,
    pub(crate) decode: MemoryPool,
    /// For what is known of parked tasks.
    pub(crate) index: MemoryPool,
    pub(crate) tenure: Tenure,
    pub(crate) spawner: Spawner,
    pub(crate) arbiters: Vec<ArbiterHandle>,
    pub(crate) status: Arc<PipelineStatus>,
    pub(crate) exit: watch::Sender<Option<Exit>>,
}

pub(crate) struct Supervisor {
    setup: SupervisorSetup,
    consumer: ConsumerHandle,
    member: GroupMember,
    actors: BTreeMap<Partition, Started>,
    /// What is parked in each partition; a partition's next actor goes on from it.
    parked: BTreeMap<Partition, Arc<ParkedTasks>>,
    /// Of each partition's last actor, once it was told to stop.
    former: BTreeMap<Partition, Arc<Progress>>,
    /// Where the partitions that are being offered begin.
    offered: BTreeMap<Partition, log::Start>,
    telemetry: Telemetry,
    reading: Arc<Semaphore>,
    topic: Arc<str>,
    began: Instant,
    alarm: Option<Duration>,
}

/// A started actor and the arbiter it is on.
struct Started {
    handle: ActorHandle,
    arbiter: usize,
}

/// Something the consumer's thread said.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Consumed(pub(crate) ConsumerEvent);

/// Somebody outside wants something of it.
#[derive(Message)]
#[rtype(result = "()")]
struct Wished(Wish);

/// Stop in good order.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Shutdown;

impl Supervisor {
    /// Starts the supervisor on the calling arbiter. `attach` starts the consumer, given where its events go.
    pub(crate) fn launch<E>(
        setup: SupervisorSetup,
        attach: impl FnOnce(Events) -> Result<ConsumerHandle, E>,
    ) -> Result<Addr<Self>, E> {
        let context = Context::<Self>::new();
        let addr = context.address();
        let events = addr.clone();
        let consumer = attach(Arc::new(move |event| events.do_send(Consumed(event))))?;
        let wishes = addr.clone();
        setup.status.set_supervisor(move |wish| wishes.do_send(Wished(wish)));
        let supervisor = Self {
            consumer,
            member: GroupMember::new(setup.member),
            actors: BTreeMap::new(),
            parked: BTreeMap::new(),
            former: BTreeMap::new(),
            offered: BTreeMap::new(),
            telemetry: Telemetry::new(setup.log.topic()),
            reading: Arc::new(Semaphore::new(1)),
            topic: setup.log.topic().into(),
            began: Instant::now(),
            alarm: None,
            setup,
        };
        context.run(supervisor);
        Ok(addr)
    }

    /// Feeds core and does what it answers.
    fn on(&mut self, event: Event, ctx: &mut Context<Self>) {
        let actions = self.member.on_event(event, self.began.elapsed());
        for action in actions {
            self.act(action, ctx);
        }
        self.arm(ctx);
    }

    fn act(&mut self, action: Action, ctx: &mut Context<Self>) {
        match action {
            Action::Start { partition, epoch, start } => self.start(partition, epoch, start, ctx),
            Action::Drain { partition, epoch } => {
                let deadline = std::time::Instant::now() + self.drain_time();
                self.order(partition, epoch, Order::Drain(deadline));
            }
            Action::Stop { partition, epoch } => self.stop(partition, epoch),
            Action::CompleteAssign { intent, lanes } => {
                let lanes = lanes.into_iter().filter_map(|(p, epoch, start)| self.lane(p, epoch, start));
                let command = ConsumerCommand::CompleteAssign { intent, lanes: lanes.collect() };
                self.consumer.send(command);
            }
            Action::CompleteRevoke { intent } => {
                self.telemetry.revoked(intent);
                self.release_given_up();
                self.consumer.send(ConsumerCommand::CompleteRevoke { intent });
            }
            Action::CloseLane { partition, epoch } => {
                self.consumer.send(ConsumerCommand::CloseLane { partition, epoch });
            }
            Action::Reopen { partition, epoch, start } => {
                if let Some(lane) = self.lane(partition, epoch, start) {
                    self.consumer.send(ConsumerCommand::Reopen(lane));
                }
            }
            Action::Commit { commit, offsets } => {
                self.telemetry.committing(commit);
                let marked = |(partition, offset): (Partition, Offset)| {
                    let mark = self.parked.get(&partition).map(|parked| parked.mark(offset));
                    (partition, offset, mark.unwrap_or_default())
                };
                let offsets = offsets.into_iter().map(marked).collect();
                self.consumer.send(ConsumerCommand::Commit { commit, offsets });
            }
            Action::Close => self.consumer.send(ConsumerCommand::Close),
            Action::Exit(exit) => self.exit(exit),
            Action::Count(counted) => self.telemetry.count(counted),
        }
    }

    /// Starts an actor on the arbiter that has the fewest.
    fn start(&mut self, partition: Partition, epoch: Epoch, start: Offset, ctx: &mut Context<Self>) {
        let mut load = vec![0_usize; self.setup.arbiters.len()];
        for (other, started) in &self.actors {
            load[started.arbiter] += usize::from(*other != partition);
        }
        let arbiter = (0..load.len()).min_by_key(|&index| load[index]).unwrap_or_default();
        // Asked now: a log that was away at the start did not know it then, but no partition is assigned before it does.
        let topic_id = self.setup.log.topic_id().into();
        let assignment = Assignment { topic: self.topic.clone(), topic_id, partition, epoch };
        let index = self.setup.index.clone();
        let parked = match self.offered.remove(&partition) {
            Some(log::Start { mark, journal_end, .. }) => {
                ParkedTasks::new(mark, start, Some(journal_end), index)
            }
            // The former actor may have added to the journal, up to its last moment.
            None => {
                let mark = self.parked.get(&partition).map(|parked| parked.mark(start));
                ParkedTasks::new(mark.unwrap_or_default(), start, None, index)
            }
        };
        let parked = Arc::new(parked);
        self.parked.insert(partition, parked.clone());
        let setup = Setup {
            parked: parked.clone(),
            assignment,
            log: self.setup.log.clone(),
            decode: self.setup.decode.clone(),
            reading: self.reading.clone(),
            tenure: self.setup.tenure.clone(),
            policy: self.setup.policy.clone(),
            reports: ctx.address().recipient(),
            progress: Arc::new(Progress::default()),
            former: self.former.remove(&partition),
        };
        let handle = (self.setup.spawner)(&self.setup.arbiters[arbiter], setup);
        if let Some(view) = self.member.partition(partition) {
            self.setup.status.own(view, handle.progress.clone(), parked);
        }
        self.actors.insert(partition, Started { handle, arbiter });
        tracing::debug!(%partition, %epoch, "started");
    }

    fn order(&self, partition: Partition, epoch: Epoch, order: Order) {
        if let Some(started) = self.actors.get(&partition).filter(|started| started.handle.epoch() == epoch) {
            started.handle.order(order);
        }
    }

    /// How long a handler may take to leave. On the way out it is less than core would wait for it.
    fn drain_time(&self) -> Duration {
        let drain = self.setup.policy.drain_timeout;
        if self.member.is_shutting_down() { drain.min(self.setup.member.shutdown_timeout / 2) } else { drain }
    }

    fn stop(&mut self, partition: Partition, epoch: Epoch) {
        self.order(partition, epoch, Order::Stop);
        if self.actors.get(&partition).is_some_and(|started| started.handle.epoch() == epoch) {
            let stopped = self.actors.remove(&partition);
            self.former.extend(stopped.map(|started| (partition, started.handle.progress)));
        }
        if self.member.partition(partition).is_none() {
            self.release(partition);
        }
    }

    /// Lets go of everything that core does not own any more.
    fn release_given_up(&mut self) {
        for status in self.setup.status.partitions() {
            if self.member.partition(status.partition).is_none() {
                self.release(status.partition);
            }
        }
    }

    fn release(&mut self, partition: Partition) {
        self.actors.remove(&partition);
        self.parked.remove(&partition);
        self.setup.status.disown(partition);
        self.telemetry.clear(partition);
        tracing::debug!(%partition, "released");
    }

    fn lane(&self, partition: Partition, epoch: Epoch, start: Offset) -> Option<Lane> {
        let handle = &self.actors.get(&partition)?.handle;
        (handle.epoch() == epoch).then(|| Lane { partition, epoch, start, inbox: handle.inbox.clone() })
    }

    fn exit(&mut self, exit: Exit) {
        self.actors.clear();
        self.parked.clear();
        self.release_given_up();
        if exit == Exit::Fatal {
            self.setup.status.set_fatal("the consumer ended without being told to".into());
            // The thread may still be there, whatever broke: nothing of it is wanted any more.
            self.consumer.send(ConsumerCommand::Close);
        }
        self.setup.status.set_exit(exit);
        self.setup.exit.send_replace(Some(exit));
    }

    /// Sees to it that core hears of its next deadline.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        let Some(due) = self.member.next_deadline() else { return };
        if self.alarm.is_some_and(|alarm| alarm <= due) {
            return;
        }
        self.alarm = Some(due);
        let wait = tokio::time::sleep_until(self.began + due);
        ctx.spawn(wait.into_actor(self).map(move |(), this, ctx| {
            // An alarm that an earlier one overtook has nothing to say.
            if this.alarm == Some(due) {
                this.alarm = None;
                this.on(Event::Tick, ctx);
            }
        }));
    }

    fn publish(&mut self) {
        for view in self.member.partitions() {
            self.setup.status.set_view(view);
        }
        self.telemetry.publish(&self.setup.status);
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(PUBLISH, |this, _| this.publish());
    }
}

impl Handler<Consumed> for Supervisor {
    type Result = ();

    fn handle(&mut self, Consumed(event): Consumed, ctx: &mut Self::Context) {
        if let Some(event) = self.translate(event) {
            // A commit changes what is told of its partitions, anything else may change everything.
            let committed = match &event {
                Event::CommitDone { committed, .. } => Some(committed.clone()),
                _ => None,
            };
            self.on(event, ctx);
            match committed {
                Some(partitions) => {
                    let views = partitions.into_iter().filter_map(|one| self.member.partition(one));
                    for view in views {
                        if let (Some(_), Some(parked)) = (view.committed, self.parked.get(&view.partition)) {
                            parked.confirm();
                        }
                        self.setup.status.set_view(view);
                    }
                }
                None => self.publish(),
            }
        }
    }
}

impl Handler<Report> for Supervisor {
    type Result = ();

    fn handle(&mut self, Report(event): Report, ctx: &mut Self::Context) {
        if let Event::ActorFailed { partition, epoch } = event {
            tracing::error!(%partition, %epoch, "the partition's actor failed; another one is started");
            self.telemetry.restart();
        }
        self.on(event, ctx);
    }
}

impl Handler<Wished> for Supervisor {
    type Result = ();

    fn handle(&mut self, Wished(wish): Wished, ctx: &mut Self::Context) {
        match wish {
            Wish::Rewind(partition, to) => {
                tracing::warn!(%partition, %to, "the partition is read from there on, as an operator asked");
                self.on(Event::Rewound { partition, to }, ctx);
                self.publish();
            }
            Wish::Commit(partition, offset) => self.on(Event::CommitWanted { partition, offset }, ctx),
        }
    }
}

impl Handler<Shutdown> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) {
        self.on(Event::Shutdown, ctx);
    }
}

/// Ends the supervisor itself, once nobody asks it any more.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Dismiss;

impl Handler<Dismiss> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Dismiss, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
