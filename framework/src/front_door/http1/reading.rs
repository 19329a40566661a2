//! How much of a connection may be read, from what has been read of it and which of its requests are in hand.

use std::time::Duration;
use tokio::time::Instant;

/// How long the head of a request may take from its first byte on.
pub(in super::super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest head; the server refuses one that is larger.
const LARGEST_HEAD: u64 = 128 << 10;
/// What may come of a head before memory is reserved for all of it.
const FREE: i64 = 16 << 10;
/// How much is read before the server looks at it: with most requests all of their bodies.
const LOOK: u64 = 16 << 10;
/// The same while the end of a body may be in it, and further requests after that.
const CHUNKED_LOOK: u64 = 8 << 10;
/// How much of the next requests is read while one is in hand: enough to see that the peer has gone.
pub(super) const AHEAD: u64 = 256;
/// What is taken for the head of a request without an estimate.
const ALONE: i64 = 512;
/// How many times its size on the wire a request may take in memory while it waits for those before it: the least has 18 bytes.
const SPREAD: u64 = 50;

/// The body of a request, as its head describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Sized(u64),
    /// Bytes until it says that it ends.
    Chunked,
}

/// What may be read now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Up to so many bytes.
    Bytes(u64),
    /// Something, when the server has looked at what was read.
    AfterLook,
    /// Something, when a request has ended.
    AfterRequest,
}

/// What has been read of one connection.
#[derive(Debug, Default)]
pub(super) struct Reading {
    in_hand: u32,
    /// The last request's body has no stated size, and its end was not seen.
    is_chunked: bool,
    /// Bytes that were read and belong to no request that has begun; below 0, what such requests have yet to come. How long a head
    /// was is an estimate, which white space makes too small.
    unclaimed: i64,
    /// What may be read at the most while the last request is in hand, whatever its head was.
    left: u64,
    /// What was read since the server has looked.
    unseen: u64,
    /// Since when bytes have come without a request in hand.
    since: Option<Instant>,
    /// A request has begun since the last byte came.
    has_begun: bool,
}

impl Reading {
    /// What may be read now.
    pub(super) fn room(&mut self) -> Room {
        if self.in_hand == 0 && self.has_begun && self.unclaimed > -(AHEAD as i64) {
            // All that was whole has begun: this is what estimates were off by, or the start of a head that will count when it goes on.
            self.unclaimed = 0;
        }
        let most = match (self.is_chunked, self.in_hand) {
            (false, _) if self.unclaimed < 0 => return Room::Bytes(self.unclaimed.unsigned_abs()),
            (true, _) => CHUNKED_LOOK,
            (_, 0) => LOOK,
            _ if self.unclaimed > FREE => 0,
            _ => self.left.min(AHEAD),
        };
        match most.saturating_sub(self.unseen) {
            0 if most == 0 => Room::AfterRequest,
            0 => Room::AfterLook,
            bytes => Room::Bytes(bytes),
        }
    }

    /// So many bytes were read.
    pub(super) fn read(&mut self, bytes: u64, now: Instant) {
        if self.is_chunked || self.unclaimed >= 0 {
            self.unseen += bytes;
        }
        if !self.is_chunked {
            self.unclaimed += bytes as i64;
        }
        self.left = self.left.saturating_sub(bytes);
        self.has_begun = false;
        if self.in_hand == 0 {
            self.since.get_or_insert(now);
        }
    }

    /// The server looks at everything before it reads on.
    pub(super) fn looked(&mut self) {
        self.unseen = 0;
    }

    /// A request is in hand; `head` estimates the size of its head. Returns what requests may take that came with it and wait for it.
    pub(super) fn begin(&mut self, head: impl FnOnce() -> u64, body: Body) -> u64 {
        self.in_hand += 1;
        self.has_begun = true;
        self.since = None;
        if std::mem::replace(&mut self.is_chunked, body == Body::Chunked) {
            // Nobody has read the last body to its end, and so it was not seen where this head began.
            self.unclaimed = 0;
        }
        match body {
            Body::Sized(size) => {
                self.left = size.saturating_add(AHEAD);
                self.unclaimed -= size.min(1 << 60) as i64;
                // Mostly it has come alone, and all of it is the head.
                self.unclaimed =
                    if (0..=ALONE).contains(&self.unclaimed) { 0 } else { self.unclaimed - head() as i64 };
            }
            Body::Chunked => self.unclaimed = 0,
        }
        match u64::try_from(self.unclaimed) {
            Ok(waiting) if waiting > AHEAD => waiting * SPREAD,
            _ => 0,
        }
    }

    /// The last request's body has come to its end.
    pub(super) fn body_ended(&mut self) {
        if std::mem::take(&mut self.is_chunked) {
            self.left = AHEAD;
        }
    }

    /// A request is answered.
    pub(super) fn end(&mut self) {
        self.in_hand -= 1;
    }

    /// What has to be reserved for the head that comes.
    pub(super) fn head_memory(&self) -> u64 {
        if self.in_hand == 0 && self.unclaimed > FREE { LARGEST_HEAD } else { 0 }
    }

    /// When the head that comes has to be whole.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + HEAD_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads what there is, as the server does: until nothing may be read any more.
    fn read(reading: &mut Reading, there: &mut u64) -> u64 {
        let before = *there;
        while let Room::Bytes(most) = reading.room() {
            let bytes = most.min(*there);
            if bytes == 0 {
                break;
            }
            reading.read(bytes, Instant::now());
            *there -= bytes;
        }
        reading.looked();
        before - *there
    }

    proptest! {
        /// However long a head really was, all of a stated body is read while its request is in hand, and little more.
        #[test]
        fn a_body_is_read_to_its_end(
            head in 20..4000_u64, off in -60..4000_i64, size in 0..100_000_u64, pieces in prop::collection::vec(1..50_000_u64, 1..20),
        ) {
            let mut reading = Reading::default();
            let (mut there, mut pieces) = (0, pieces.into_iter().cycle());
            let (total, mut come, mut has_read) = (head + size, 0, 0);
            while has_read < head {
                there += pieces.next().unwrap();
                has_read += read(&mut reading, &mut there);
            }
            come += has_read + there;
            reading.begin(|| (head as i64 - off).max(1) as u64, Body::Sized(size));
            for _ in 0..2 * total {
                has_read += read(&mut reading, &mut there);
                if there == 0 && come < 10 * total {
                    let piece = pieces.next().unwrap();
                    (there, come) = (there + piece, come + piece);
                }
            }
            prop_assert!(has_read >= total.min(come), "{has_read} of {total}");
            prop_assert!(has_read <= total + LOOK + AHEAD, "{has_read} of {total}");
            prop_assert_eq!(reading.room(), Room::AfterRequest);
            reading.end();
            prop_assert_ne!(reading.room(), Room::AfterRequest);
        }
    }

    #[test]
    fn what_waits_behind_a_request_is_little_or_has_its_memory() {
        let mut reading = Reading::default();
        let mut there = 1 << 20;
        assert_eq!(read(&mut reading, &mut there), LOOK);
        assert_eq!(reading.begin(|| 18, Body::Sized(0)), (LOOK - 18) * SPREAD);
        let mut ahead = 0;
        for _ in 0..100 {
            ahead += read(&mut reading, &mut there);
        }
        assert_eq!(ahead, AHEAD);
        assert_eq!(reading.deadline(), None);
    }

    #[test]
    fn a_head_has_its_time_and_its_memory() {
        let mut reading = Reading::default();
        let began = Instant::now();
        for _ in 0..3 {
            assert_eq!((reading.deadline(), reading.head_memory()), (None, 0));
            reading.read(1, began);
            reading.read(FREE as u64 - 1, began + Duration::from_secs(9));
            assert_eq!((reading.deadline(), reading.head_memory()), (Some(began + HEAD_TIMEOUT), 0));
            reading.read(1, began + Duration::from_secs(9));
            assert_eq!(reading.head_memory(), LARGEST_HEAD);
            reading.begin(|| FREE as u64 + 1, Body::Sized(0));
            assert_eq!((reading.deadline(), reading.head_memory()), (None, 0));
            reading.end();
            reading.room();
        }
    }

    /// Bytes of a chunked body may be requests as soon as it has ended: the server sees them in small pieces.
    #[test]
    fn a_chunked_body_is_read_look_by_look_until_it_ends() {
        let mut reading = Reading::default();
        let mut there = 1 << 20;
        read(&mut reading, &mut there);
        assert_eq!(reading.begin(|| 200, Body::Chunked), 0);
        for _ in 0..100 {
            assert_eq!(read(&mut reading, &mut there), CHUNKED_LOOK);
        }
        reading.body_ended();
        assert_eq!((read(&mut reading, &mut there), read(&mut reading, &mut there)), (AHEAD, 0));
    }
}
