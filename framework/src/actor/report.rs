//! What an actor tells the supervisor, and when: finished offsets go in ranges, not one by one.

use super::meter::Meter;
use actix::Recipient;
use partita_core::{Epoch, Event, Offset, Partition};
use std::{ops::Range, time::Duration};
use tokio::time::Instant;

/// A busy actor reports at least this often, so that commits keep up with it.
const INTERVAL: Duration = Duration::from_millis(50);

/// A busy actor reports after this many tasks.
const TASKS: u64 = 1024;

/// Something that happened in an actor.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Report(pub(crate) Event);

/// Tasks that have ended and are not reported yet.
pub(crate) struct Finished {
    reports: Recipient<Report>,
    partition: Partition,
    epoch: Epoch,
    range: Range<Offset>,
    flushed: Instant,
    meter: Meter,
}

impl Finished {
    pub(crate) fn new(reports: Recipient<Report>, partition: Partition, epoch: Epoch, meter: Meter) -> Self {
        let range = Offset(0)..Offset(0);
        Self { reports, partition, epoch, range, flushed: Instant::now(), meter }
    }

    pub(crate) fn meter_mut(&mut self) -> &mut Meter {
        &mut self.meter
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// A task has ended.
    pub(crate) fn add(&mut self, offset: Offset, now: Instant) {
        if self.range.end != offset || self.is_empty() {
            self.flush();
            self.range = offset..offset;
        }
        self.range.end = offset.next();
        if self.range.end.0 - self.range.start.0 >= TASKS || now >= self.due() {
            self.flush();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.range.start == self.range.end
    }

    /// When what is there has to be reported.
    pub(crate) fn due(&self) -> Instant {
        self.flushed + INTERVAL
    }

    /// Reports what is there.
    pub(crate) fn flush(&mut self) {
        self.flushed = Instant::now();
        if self.is_empty() {
            return;
        }
        let offsets = self.range.clone();
        self.range.start = self.range.end;
        self.meter.flush();
        self.tell(Event::Finished { partition: self.partition, epoch: self.epoch, offsets });
    }

    /// What is stored with the offset has changed.
    pub(crate) fn claimed(&mut self) {
        self.tell(Event::Claimed { partition: self.partition, epoch: self.epoch });
    }

    /// The actor has stopped in good order.
    pub(crate) fn drained(&mut self) {
        self.flush();
        self.tell(Event::Drained { partition: self.partition, epoch: self.epoch });
    }

    /// The actor cannot go on.
    pub(crate) fn failed(&mut self) {
        self.flush();
        self.tell(Event::ActorFailed { partition: self.partition, epoch: self.epoch });
    }

    fn tell(&self, event: Event) {
        self.reports.do_send(Report(event));
    }
}
