//! What every request of one front door shares, and which requests are in hand.

use super::{
    access::Access,
    admission::{LogHealthNow, PartitionHealthOf},
    budget::{Budget, HEADER},
    compress::Compressor,
    idempotency::UnderWay,
    meter::Meter,
    options::FrontDoorOptions,
    problem::Problem,
};
use crate::{Error, log::TaskLog, memory::Reservation, task_state::TaskStates};
use actix_web::http::header::HeaderMap;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What a request takes beside its body as long as it is in hand, about: its part of a connection, what handles it and its answer.
const REQUEST: u64 = 8 << 10;

pub(super) struct Door {
    pub(super) access: Access,
    pub(super) log: Arc<dyn TaskLog>,
    pub(super) log_health: LogHealthNow,
    pub(super) partition_health: PartitionHealthOf,
    pub(super) budget: Budget,
    pub(super) compressor: Compressor,
    pub(super) meter: Meter,
    pub(super) under_way: Arc<UnderWay>,
    pub(super) task_states: Option<Arc<TaskStates>>,
    pub(super) max_task: u64,
    pub(super) body_timeout: Duration,
    pub(super) min_body_rate: u64,
    /// Ends the reading of bodies.
    pub(super) cut: CancellationToken,
    /// Ends waits for what others do.
    pub(super) leaving: CancellationToken,
    draining: AtomicBool,
    in_hand: AtomicUsize,
    idle: Notify,
}

impl Door {
    pub(super) fn new(options: &FrontDoorOptions) -> Result<Self, Error> {
        Ok(Self {
            access: Access::new(&options.config)?,
            log: options.log.clone(),
            log_health: options.log_health.clone(),
            partition_health: options.partition_health.clone(),
            budget: Budget::new(options.intake.clone(), options.max_task),
            compressor: Compressor::new(&options.config),
            meter: Meter::new(),
            under_way: Arc::default(),
            task_states: options.task_states.clone(),
            max_task: options.max_task,
            body_timeout: options.config.body_timeout,
            min_body_rate: options.config.min_body_rate.as_u64(),
            cut: CancellationToken::new(),
            leaving: CancellationToken::new(),
            draining: AtomicBool::new(false),
            in_hand: AtomicUsize::new(0),
            idle: Notify::new(),
        })
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// New requests are refused from now on.
    pub(super) fn begin_drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.leaving.cancel();
    }

    /// A request is in hand until the guard is dropped.
    pub(super) fn take_in_hand(self: &Arc<Self>) -> InHand {
        self.in_hand.fetch_add(1, Ordering::SeqCst);
        self.meter.began();
        InHand(self.clone())
    }

    /// The memory of a request with these headers, beside its body: there are only as many at once as fit the budget.
    pub(super) fn room_for(&self, headers: &HeaderMap) -> Result<Reservation, Problem> {
        let text: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        self.budget.reserve(REQUEST + HEADER * headers.len() as u64 + text as u64)
    }

    /// Returns when no request is in hand.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.in_hand.load(Ordering::SeqCst) == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// One request that is being received or answered.
pub(super) struct InHand(Arc<Door>);

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.meter.ended();
        if self.0.in_hand.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.is_draining() {
            self.0.idle.notify_waiters();
        }
    }
}
