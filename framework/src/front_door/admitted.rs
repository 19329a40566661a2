//! Everything that can be said of a task before the first byte of its body.

use super::{
    access::{Caller, Verb},
    admission,
    door::Door,
    idempotency, key,
    problem::Problem,
    receive::check_declared,
    task_head::{self, Coding},
};
use crate::{log::IdempotencyKey, memory::Reservation};
use actix_web::http::header::HeaderMap;
use bytes::Bytes;
use partita_core::{Partition, partition_of};
use partita_proto::v1::Envelope;
use std::sync::Arc;

/// A task that may come in.
pub(super) struct Admitted {
    pub(super) key: Bytes,
    pub(super) partition: Partition,
    /// Its envelope, without payload and sizes.
    pub(super) head: Envelope,
    pub(super) coding: Coding,
    pub(super) idempotency: Option<IdempotencyKey>,
    pub(super) caller: Option<Arc<Caller>>,
    /// Held as long as the request is in hand.
    _room: Reservation,
}

impl Admitted {
    /// Reads a request's head and asks whether its task may come in. `declared`: the size of the body where it is known.
    pub(super) fn new(
        door: &Door,
        path: &str,
        headers: &HeaderMap,
        declared: Option<u64>,
    ) -> Result<Self, Problem> {
        let caller = door.access.enter(headers, Verb::Write)?;
        let key = key::from_path(path)?;
        if let Some(caller) = &caller {
            caller.may_use(&key)?;
            caller.check()?;
        }
        let room = door.room_for(headers)?;
        let head = task_head::envelope(headers)?;
        let coding = task_head::coding(headers)?;
        let idempotency = idempotency::header(headers)?.map(|name| IdempotencyKey::of_request(&key, name, 0));
        check_declared(declared, coding, door.max_task)?;
        let partition = partition_of(&key, door.log.partitions());
        let reservable = door.budget.has_room(declared.unwrap_or(0));
        admission::admit(
            door.is_draining(),
            (door.log_health)(),
            (door.partition_health)(partition),
            reservable,
        )?;
        Ok(Self { key, partition, head, coding, idempotency, caller, _room: room })
    }
}
