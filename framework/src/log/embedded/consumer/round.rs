//! One round over what was written since the last: which records their lanes have room for, read and handed over.

use super::{
    super::{
        lanes::{Fit, Place},
        published::{RowValue, View},
        reader::{Next, Seen, Value},
    },
    Progress, Running, Starved,
};
use crate::log::ConsumerEvent;
use bytes::Bytes;
use partita_core::Offset;
use std::time::{Duration, Instant};

/// Bytes read in one round; one record may be larger.
const ROUND_BYTES: u64 = 4 << 20;
/// A smaller value is copied into the batch's buffer.
const COPIED: usize = 4096;
/// How long others wait, in turn with going on, while a large record waits for room.
const PATIENCE: Duration = Duration::from_secs(2);

/// A record whose value is read after the scan.
struct Pointed {
    lane: usize,
    seq: u64,
    offset: Offset,
    timestamp_ms: i64,
    key: Bytes,
    value: RowValue,
}

/// What one scan may do and did.
struct Round {
    start: u64,
    /// Bytes that may still become outstanding.
    room: u64,
    /// Nothing is outstanding: a record that is larger than all the room may come.
    alone: bool,
    /// Lanes that still take records.
    open: usize,
    taken: u64,
    patient: bool,
    pointed: Option<Pointed>,
    starved: Option<usize>,
    gaps: Vec<(usize, u64)>,
}

impl Running {
    /// Scans once from the place of the next lane in turn and hands over what it found.
    pub(super) fn round(&mut self) -> rusqlite::Result<Progress> {
        let view = self.shared.published.view();
        let Some(mut round) = self.prepare(&view) else {
            let waits = self.places.iter().any(|place| place.lane.is_some() && place.full);
            self.places.iter_mut().for_each(|place| place.full = false);
            return Ok(if waits { Progress::Waiting } else { Progress::Idle });
        };
        let (places, reader, shared) = (&mut self.places, &self.reader, &self.shared);
        let scanned = reader.scan(shared, round.start, view.seq, |seen| visit(&mut round, places, seen));
        let scanned = scanned.and_then(|scanned| {
            if let Some(pointed) = round.pointed.take() {
                let value = reader.value(shared, pointed.seq, &pointed.value)?;
                let place = &mut places[pointed.lane];
                place.batch.push_owned(pointed.offset, pointed.timestamp_ms, &pointed.key, value);
                place.advance(pointed.seq);
            }
            Ok(scanned)
        });
        if let Ok(scanned) = &scanned {
            settle(&mut round, places, &view, scanned.to);
        }
        let delivered = self.deliver();
        self.forget();
        self.report_gaps(&round, &view);
        let scanned = scanned?;
        self.starved = self.starved.take().filter(|starved| self.places[starved.lane].next == starved.offset);
        if let (None, Some(lane)) = (&self.starved, round.starved) {
            self.starved = Some(Starved { lane, offset: self.places[lane].next, since: Instant::now() });
        }
        let moved = delivered > 0 || scanned.to > round.start || !round.gaps.is_empty();
        Ok(if moved { Progress::Some } else { Progress::Waiting })
    }

    /// Marks the lanes that take no part as full and picks where to start. None: no lane takes part.
    fn prepare(&mut self, view: &View) -> Option<Round> {
        let mut outstanding = 0;
        let mut open = 0;
        for (index, place) in self.places.iter_mut().enumerate() {
            let Some(lane) = &place.lane else {
                place.full = true;
                continue;
            };
            outstanding += lane.inbox.outstanding().bytes;
            let end = view.ends.get(index).copied().unwrap_or(0);
            if place.next == end {
                place.from = place.from.max(view.seq);
            }
            // A lane that waits only for new records is not "full": see `round`.
            place.full = place.next != end && self.flow.is_paused(lane.partition);
            open += usize::from(place.next != end && !place.full);
        }
        let wants = |place: &Place, end: u64| place.lane.is_some() && !place.full && place.next != end;
        let end = |index: usize| view.ends.get(index).copied().unwrap_or(0);
        if open == 0 {
            return None;
        }
        let patient = self.starved.as_ref().is_none_or(|starved| in_patience(starved.since.elapsed()));
        let starved = self
            .starved
            .as_ref()
            .map(|starved| starved.lane)
            .filter(|&index| wants(&self.places[index], end(index)));
        let count = self.places.len();
        let leader = match starved {
            Some(index) if patient => {
                for (other, place) in self.places.iter_mut().enumerate() {
                    place.full |= other != index;
                }
                open = 1;
                index
            }
            _ => (1..=count)
                .map(|step| (self.leader + step) % count)
                .find(|&index| wants(&self.places[index], end(index)))?,
        };
        self.leader = leader;
        Some(Round {
            start: self.places[leader].from,
            room: self.limits.total_bytes.saturating_sub(outstanding),
            alone: outstanding == 0,
            open,
            taken: 0,
            patient,
            pointed: None,
            starved: None,
            gaps: Vec::new(),
        })
    }

    fn deliver(&mut self) -> u64 {
        let (mut records, mut bytes) = (0, 0);
        for place in &mut self.places {
            let counted = place.deliver();
            records += counted.0;
            bytes += counted.1;
        }
        if records > 0 {
            self.meters.records.increment(records);
            self.meters.bytes.increment(bytes);
        }
        records
    }

    /// Lets go of the rows in memory that every lane has passed.
    fn forget(&self) {
        if let Some(seq) =
            self.places.iter().filter(|place| place.lane.is_some()).map(|place| place.from).min()
        {
            self.shared.published.forget_before(seq);
        }
    }

    fn report_gaps(&mut self, round: &Round, view: &View) {
        for (index, found) in &round.gaps {
            let place = &mut self.places[*index];
            let Some(lane) = &place.lane else { continue };
            let (partition, epoch) = (lane.partition, lane.epoch);
            let end = view.ends.get(*index).copied().unwrap_or(0);
            let detail = format!(
                "expected offset {}, found {found} (the log ends at {end}): records {}..{found} of partition {partition} are not in \
                 the embedded log",
                place.next, place.next
            );
            place.close();
            self.flow.close(partition);
            self.emit(ConsumerEvent::Discontinuity { partition, epoch, detail });
        }
    }
}

fn in_patience(waited: Duration) -> bool {
    (waited.as_millis() / PATIENCE.as_millis()).is_multiple_of(2)
}

/// Takes a row into its lane's batch, if it is its next one and there is room.
fn visit(round: &mut Round, places: &mut [Place], seen: &Seen<'_>) -> rusqlite::Result<Next> {
    let index = seen.partition.0 as usize;
    let Some(place) = places.get_mut(index) else { return Ok(Next::More) };
    match place.fit(round.start, seen.seq, seen.offset.0) {
        Fit::Skip => return Ok(Next::More),
        Fit::Gap => {
            round.gaps.push((index, seen.offset.0));
            place.full = true;
            return Ok(Next::More);
        }
        Fit::Next => {}
    }
    let crowded = seen.size > round.room && !(round.alone && round.taken == 0);
    if crowded || place.has_no_room(seen.size) {
        place.stop_at(seen.seq);
        round.open -= 1;
        if crowded && round.starved.is_none() {
            round.starved = Some(index);
        }
        let stop = round.open == 0 || (crowded && round.patient);
        return Ok(if stop { Next::Before } else { Next::More });
    }
    let content = seen.content()?;
    let (offset, timestamp_ms, key) = (seen.offset, content.timestamp_ms, content.key);
    match content.value {
        Value::Shared(value) if value.len() > COPIED => {
            place.batch.push_owned(offset, timestamp_ms, key, value.clone());
        }
        Value::Borrowed(value) if value.len() > COPIED => {
            place.batch.push_owned(offset, timestamp_ms, key, Bytes::copy_from_slice(value));
        }
        Value::Shared(value) => place.batch.push_copied(offset, timestamp_ms, key, value),
        Value::Borrowed(value) => place.batch.push_copied(offset, timestamp_ms, key, value),
        Value::Elsewhere(value) => {
            let key = Bytes::copy_from_slice(key);
            round.pointed = Some(Pointed { lane: index, seq: seen.seq, offset, timestamp_ms, key, value });
            place.stop_at(seen.seq);
            return Ok(Next::Before);
        }
    }
    place.advance(seen.seq);
    round.taken += seen.size;
    round.room = round.room.saturating_sub(seen.size);
    Ok(if round.taken >= ROUND_BYTES { Next::Enough } else { Next::More })
}

/// Moves the lanes that the scan served to where it ended, and finds those whose records are not there.
fn settle(round: &mut Round, places: &mut [Place], view: &View, to: u64) {
    for (index, place) in places.iter_mut().enumerate() {
        if place.lane.is_none() || place.full || !place.is_covered(round.start) {
            continue;
        }
        place.from = place.from.max(to);
        let end = view.ends.get(index).copied().unwrap_or(0);
        if to >= view.seq && place.next != end {
            round.gaps.push((index, end));
        }
    }
}
