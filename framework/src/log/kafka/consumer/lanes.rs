//! The lanes: each open partition's way to its actor, and what of this round's records goes along it.

use super::{
    super::native::Fetched,
    buffers::{Buffers, Size},
    held::Holder,
};
use crate::log::{Batch, Inbox, Lane};
use partita_core::{Arrival, Epoch, Offset, Outstanding, Partition, Sequence};
use std::sync::Arc;

/// An actor with less than this outstanding keeps up.
const KEEPS_UP: u64 = 256 << 10;

/// The open lanes, by partition.
pub(super) struct Lanes {
    slots: Vec<Option<Open>>,
    touched: Vec<Partition>,
    buffers: Buffers,
    records: u64,
    bytes: u64,
}

struct Open {
    epoch: Epoch,
    sequence: Sequence,
    inbox: Arc<dyn Inbox>,
    batch: Batch,
    /// Which size of buffer this lane's batches need.
    size: Size,
    /// Where the present buffer belongs.
    home: Option<Size>,
    /// In this round.
    touched: bool,
    keeps_up: bool,
}

/// A partition's records do not continue where they must.
pub(super) struct Gap {
    pub(super) expected: Offset,
    pub(super) found: Offset,
}

impl Lanes {
    /// No lanes yet, for this many partitions.
    pub(super) fn new(partitions: u32) -> Self {
        let mut slots = Vec::new();
        slots.resize_with(partitions as usize, || None);
        Self { slots, touched: Vec::new(), buffers: Buffers::default(), records: 0, bytes: 0 }
    }

    /// Whether a partition is one of those.
    pub(super) fn knows(&self, partition: Partition) -> bool {
        (partition.0 as usize) < self.slots.len()
    }

    /// Delivers from the lane's start on.
    pub(super) fn open(&mut self, lane: Lane) {
        let Lane { partition, epoch, start, inbox } = lane;
        if let Some(slot) = self.slots.get_mut(partition.0 as usize) {
            *slot = Some(Open {
                epoch,
                sequence: Sequence::new(start),
                inbox,
                batch: Batch::new(epoch),
                size: Size::default(),
                home: None,
                touched: false,
                keeps_up: true,
            });
        }
    }

    /// Delivers nothing more, of this round neither. Says under which epoch the lane was open.
    pub(super) fn close(&mut self, partition: Partition) -> Option<Epoch> {
        self.slots.get_mut(partition.0 as usize)?.take().map(|lane| lane.epoch)
    }

    /// The epoch of an open lane.
    pub(super) fn epoch(&self, partition: Partition) -> Option<Epoch> {
        self.slots.get(partition.0 as usize)?.as_ref().map(|lane| lane.epoch)
    }

    /// What is outstanding in an open lane.
    pub(super) fn outstanding(&self, partition: Partition) -> Option<Outstanding> {
        self.slots.get(partition.0 as usize)?.as_ref().map(|lane| lane.inbox.outstanding())
    }

    /// The partitions whose lane is open.
    pub(super) fn open_partitions(&self) -> Vec<Partition> {
        let open = self.slots.iter().enumerate().filter(|(_, slot)| slot.is_some());
        open.map(|(index, _)| Partition(index as u32)).collect()
    }

    /// Puts a record on its lane. One without an open lane is dropped, and one before the next offset: it was delivered.
    pub(super) fn take(&mut self, record: Fetched, holder: &Holder) -> Result<(), Gap> {
        let (partition, offset) = (record.partition(), record.offset());
        let Some(Some(lane)) = self.slots.get_mut(partition.0 as usize) else { return Ok(()) };
        match lane.sequence.accept(offset) {
            Arrival::Accept => {}
            Arrival::Stale => return Ok(()),
            Arrival::Gap { expected, found } => return Err(Gap { expected, found }),
        }
        if !lane.touched {
            lane.touched = true;
            self.touched.push(partition);
            lane.keeps_up = lane.inbox.outstanding().bytes < KEEPS_UP;
        }
        let bytes = record.key().len() + record.value().len();
        self.records += 1;
        self.bytes += bytes as u64;
        let timestamp = record.timestamp_ms();
        let held = holder.wants(bytes, lane.keeps_up);
        lane.make_room(if held { record.key().len() } else { bytes }, &mut self.buffers);
        if held {
            let key = Vec::from(record.key());
            lane.batch.push_owned(offset, timestamp, &key, holder.hold(record));
        } else {
            lane.batch.push_copied(offset, timestamp, record.key(), record.value());
        }
        Ok(())
    }

    /// How many records and bytes this round has taken.
    pub(super) fn round(&self) -> (u64, u64) {
        (self.records, self.bytes)
    }

    /// Delivers the round and forgets it. Calls `delivered` with each lane's partition and what is outstanding now.
    pub(super) fn deliver(&mut self, mut delivered: impl FnMut(Partition, Outstanding)) {
        for partition in self.touched.drain(..) {
            let Some(Some(lane)) = self.slots.get_mut(partition.0 as usize) else { continue };
            lane.touched = false;
            lane.deliver(&mut self.buffers);
            delivered(partition, lane.inbox.outstanding());
        }
        (self.records, self.bytes) = (0, 0);
    }
}

impl Open {
    /// Makes sure that so many bytes can be copied into the batch; delivers it before where its buffer is full.
    fn make_room(&mut self, bytes: usize, buffers: &mut Buffers) {
        if self.batch.has_room(bytes) {
            return;
        }
        if !self.batch.is_empty() {
            self.deliver(buffers);
            self.size = self.size.larger();
        }
        let (home, buffer) = buffers.take(self.size, bytes);
        self.home = home;
        self.batch = Batch::copying_into(self.epoch, buffer);
    }

    fn deliver(&mut self, buffers: &mut Buffers) {
        if self.batch.is_empty() {
            return;
        }
        let mut batch = std::mem::replace(&mut self.batch, Batch::new(self.epoch));
        let rest = batch.seal();
        match self.home {
            // The next few records of a quiet lane still fit.
            Some(home) if home == Size::default() && rest.capacity() > home.bytes() / 2 => {
                self.batch = Batch::copying_into(self.epoch, rest);
            }
            Some(home) => {
                if rest.capacity() > home.bytes() / 4 * 3 {
                    self.size = home.smaller();
                }
                buffers.give(home, rest);
            }
            None => {}
        }
        self.inbox.deliver(batch);
    }
}
