//! How much of a connection may be read, from what has been read of it and which of its requests are in hand.

use super::heads::Heads;
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
/// How many heads the server may see in one look.
const HEADS: usize = 4;
/// What a request takes that waits for those before it, however short it is: actix-http makes room for 16 headers.
const WAITING: u64 = 8 << 10;
/// How much of the next requests is read while one is in hand: enough to see that the peer has gone.
pub(super) const AHEAD: u64 = 64;
/// What is taken for the head of a request without an estimate.
const ALONE: i64 = 512;

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
    heads: Heads,
    /// Heads that were read, at the most, and whose requests have not begun.
    waiting: usize,
    /// What was read since the server has looked, and how many heads it may have.
    unseen: u64,
    unseen_heads: usize,
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
            (self.unclaimed, self.waiting, self.heads) = (0, 0, Heads::default());
        }
        let most = match self.in_hand {
            _ if self.is_body() => return Room::Bytes(self.unclaimed.unsigned_abs()),
            _ if self.is_chunked => LOOK,
            0 => LOOK,
            _ if self.unclaimed > FREE => 0,
            _ => self.left.min(AHEAD),
        };
        let is_seen = self.unseen < most && self.unseen_heads < HEADS;
        match (most, is_seen) {
            (0, _) => Room::AfterRequest,
            (_, false) => Room::AfterLook,
            (_, true) => Room::Bytes(most - self.unseen),
        }
    }

    /// Whether what comes is certainly of a body.
    fn is_body(&self) -> bool {
        !self.is_chunked && self.unclaimed < 0
    }

    /// These bytes were read. Returns how many of them the server may see; the others are to be read again.
    pub(super) fn read(&mut self, bytes: &[u8], now: Instant) -> usize {
        let mut seen = bytes.len();
        if self.is_body() {
            self.heads.skip(seen);
        } else {
            let heads;
            (seen, heads) = self.heads.until(bytes, HEADS - self.unseen_heads);
            self.unseen += seen as u64;
            self.unseen_heads += heads;
            self.waiting += heads;
        }
        if !self.is_chunked {
            self.unclaimed += seen as i64;
        }
        self.left = self.left.saturating_sub(seen as u64);
        self.has_begun = false;
        if self.in_hand == 0 {
            self.since.get_or_insert(now);
        }
        seen
    }

    /// The server looks at everything before it reads on.
    pub(super) fn looked(&mut self) {
        (self.unseen, self.unseen_heads) = (0, 0);
    }

    /// A request is in hand; `head` estimates the size of its head. Returns what those take that came with it and wait for it.
    pub(super) fn begin(&mut self, head: impl FnOnce() -> u64, body: Body) -> u64 {
        self.in_hand += 1;
        self.has_begun = true;
        self.since = None;
        self.waiting = self.waiting.saturating_sub(1);
        if std::mem::replace(&mut self.is_chunked, body == Body::Chunked) {
            // Nobody has read the last body to its end, and so it was not seen where this head began.
            self.unclaimed = 0;
        }
        let Body::Sized(size) = body else {
            self.unclaimed = 0;
            return 0;
        };
        self.left = size.saturating_add(if self.waiting == 0 { AHEAD } else { 0 });
        self.unclaimed -= size.min(1 << 60) as i64;
        // Mostly it has come alone, and all of it is the head.
        let is_alone = (0..=ALONE).contains(&self.unclaimed);
        self.unclaimed = if is_alone { 0 } else { self.unclaimed - head() as i64 };
        // In a body there may be what looks like one.
        if size == 0 || self.unclaimed > 0 { self.waiting as u64 * WAITING } else { 0 }
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
    fn read(reading: &mut Reading, there: &mut &[u8]) -> u64 {
        let before = there.len();
        while let (Room::Bytes(most), false) = (reading.room(), there.is_empty()) {
            let piece = &there[..there.len().min(most as usize)];
            let seen = reading.read(piece, Instant::now());
            assert!(seen > 0);
            *there = &there[seen..];
        }
        reading.looked();
        (before - there.len()) as u64
    }

    const TINY: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    proptest! {
        /// However long a head really was and whatever is in a body, all of a stated body is read while its request is in hand, and
        /// little more.
        #[test]
        fn a_body_is_read_to_its_end(
            head in 20..4000_usize, off in -60..4000_i64, size in 0..100_000_usize, text in "[a\r\n]{1,9}",
            pieces in prop::collection::vec(1..50_000_usize, 1..20),
        ) {
            let total = head + size;
            let mut stream = vec![b'h'; head - 4];
            stream.extend_from_slice(b"\r\n\r\n");
            stream.extend(text.bytes().cycle().take(size));
            stream.extend(TINY.bytes().cycle().take(2 * total + 100_000));
            let mut reading = Reading::default();
            let (mut come, mut has_read) = (0, 0);
            let mut begun = false;
            for piece in pieces.into_iter().cycle().take(100_000) {
                come = (come + piece).min(stream.len());
                has_read += read(&mut reading, &mut &stream[has_read..come]) as usize;
                if !begun && has_read >= head {
                    begun = true;
                    reading.begin(|| (head as i64 - off).max(1) as u64, Body::Sized(size as u64));
                }
                if reading.room() == Room::AfterRequest {
                    break;
                }
            }
            prop_assert!(has_read >= total, "{has_read} of {total}");
            prop_assert!(has_read as u64 <= total as u64 + LOOK + AHEAD, "{has_read} of {total}");
            prop_assert_eq!(reading.room(), Room::AfterRequest);
            reading.end();
            prop_assert_ne!(reading.room(), Room::AfterRequest);
        }
    }

    #[test]
    fn few_requests_wait_behind_another() {
        let stream = TINY.repeat(10_000);
        let mut there = stream.as_bytes();
        let mut reading = Reading::default();
        let mut waiting = 0;
        for _ in 0..1000 {
            if waiting == 0 {
                read(&mut reading, &mut there);
                waiting = reading.waiting as u64;
            }
            assert!((1..=HEADS as u64).contains(&waiting), "{waiting}");
            waiting -= 1;
            assert_eq!(reading.begin(|| TINY.len() as u64, Body::Sized(0)), waiting * WAITING);
            let ahead = [(); 2].map(|()| read(&mut reading, &mut there));
            assert_eq!(ahead, [if waiting == 0 { AHEAD } else { 0 }, 0]);
            assert_eq!(reading.deadline(), None);
            waiting = reading.waiting as u64;
            reading.end();
        }
    }

    #[test]
    fn a_head_has_its_time_and_its_memory() {
        let mut reading = Reading::default();
        let began = Instant::now();
        let later = began + Duration::from_secs(9);
        let head = vec![b'h'; FREE as usize];
        for _ in 0..3 {
            assert_eq!((reading.deadline(), reading.head_memory()), (None, 0));
            reading.read(b"h", began);
            reading.read(&head[1..], later);
            assert_eq!((reading.deadline(), reading.head_memory()), (Some(began + HEAD_TIMEOUT), 0));
            reading.read(b"h", later);
            assert_eq!(reading.head_memory(), LARGEST_HEAD);
            reading.begin(|| FREE as u64 + 1, Body::Sized(0));
            assert_eq!((reading.deadline(), reading.head_memory()), (None, 0));
            reading.end();
            reading.room();
        }
    }

    /// Bytes of a chunked body may be requests as soon as it has ended.
    #[test]
    fn a_chunked_body_is_read_look_by_look_until_it_ends() {
        let stream = [&[b'c'; 10 * LOOK as usize][..], TINY.repeat(1000).as_bytes()].concat();
        let mut there = &stream[..];
        let mut reading = Reading::default();
        read(&mut reading, &mut there);
        assert_eq!(reading.begin(|| 200, Body::Chunked), 0);
        for _ in 1..10 {
            assert_eq!(read(&mut reading, &mut there), LOOK);
        }
        assert_eq!(read(&mut reading, &mut there), (HEADS * TINY.len()) as u64);
        reading.body_ended();
        let ahead = [(); 2].map(|()| read(&mut reading, &mut there));
        assert_eq!(ahead, [AHEAD, 0]);
    }
}
