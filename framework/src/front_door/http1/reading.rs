//! How much of a connection may be read: one request, and the next when that is answered.

use super::framing::{Framing, Taken};
use std::time::Duration;
use tokio::time::Instant;

/// How long the head of a request may take from its first byte on.
pub(in super::super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest head; the server refuses one that is larger.
const LARGEST_HEAD: u64 = 128 << 10;
/// What may come of a head before memory is reserved for all of it.
const FREE: u64 = 16 << 10;

/// What has been read of one connection.
#[derive(Debug, Default)]
pub(super) struct Reading {
    framing: Framing,
    /// What was read of the request, as long as that is its head.
    head: u64,
    /// The request has begun, and is being handled.
    has_begun: bool,
    is_in_hand: bool,
    /// Since when something of a request is there that is not in hand.
    since: Option<Instant>,
}

impl Reading {
    /// Of a connection that begins now: its first head has its time from then on.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: Some(now), ..Self::default() }
    }

    /// Whether a head has begun to come, and is not whole.
    pub(super) fn is_in_head(&self) -> bool {
        self.head > 0
    }

    /// Whether more may be read: not behind a request that is not answered.
    pub(super) fn may_go_on(&self) -> bool {
        !self.framing.is_over() || (self.has_begun && !self.is_in_hand)
    }

    /// These bytes were read, which may be. Returns what of them is the same request's.
    pub(super) fn read(&mut self, bytes: &[u8], now: Instant) -> Taken {
        if self.framing.is_over() {
            *self = Self::default();
        }
        let taken = self.framing.advance(bytes);
        self.head = if self.framing.is_in_head() { self.head + taken.request as u64 } else { 0 };
        if taken.request > 0 && !self.is_in_hand {
            self.since.get_or_insert(now);
        }
        taken
    }

    /// Whether it cannot be said where the request ends.
    pub(super) fn is_unclear(&self) -> bool {
        self.framing.is_unclear()
    }

    /// Whether the request is in hand, and its body comes.
    pub(super) fn is_receiving(&self) -> bool {
        self.is_in_hand && !self.framing.is_over()
    }

    /// The request is in hand.
    pub(super) fn begin(&mut self) {
        (self.has_begun, self.is_in_hand, self.since) = (true, true, None);
    }

    /// It is answered.
    pub(super) fn end(&mut self) {
        self.is_in_hand = false;
        self.framing.give_up();
    }

    /// What has to be reserved for the head that comes.
    pub(super) fn head_memory(&self) -> u64 {
        if self.head > FREE { LARGEST_HEAD } else { 0 }
    }

    /// When a head has to be whole, or a body whose request is answered.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let is_coming = self.framing.is_before() || self.framing.is_in_head();
        let is_timed = is_coming || (self.has_begun && !self.framing.is_over());
        self.since.filter(|_| is_timed).map(|since| since + HEAD_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_request_is_read_when_the_last_is_answered() {
        let mut reading = Reading::default();
        let request = b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nsome text";
        for _ in 0..3 {
            assert!(reading.may_go_on());
            let stream = request.repeat(2);
            assert_eq!(reading.read(&stream[..45], Instant::now()).request, 45);
            assert!(reading.may_go_on(), "its body is not whole");
            reading.begin();
            assert!(reading.may_go_on());
            assert_eq!(reading.read(&stream[45..], Instant::now()).request, request.len() - 45);
            assert!(!reading.may_go_on());
            reading.end();
        }
    }

    #[test]
    fn a_request_that_is_read_and_has_not_begun_is_not_answered() {
        let mut reading = Reading::default();
        reading.read(b"GET / HTTP/1.1\r\n\r\n", Instant::now());
        assert!(!reading.may_go_on());
    }

    #[test]
    fn a_head_has_its_time_and_its_memory() {
        let mut reading = Reading::default();
        let began = Instant::now();
        let later = began + Duration::from_secs(9);
        let head = vec![b'h'; FREE as usize];
        for _ in 0..3 {
            // Not for empty lines.
            reading.read(b"\r\n\r\n", began - Duration::from_secs(9));
            assert_eq!((reading.deadline(), reading.head_memory()), (None, 0));
            reading.read(b"h", began);
            reading.read(&head[1..], later);
            assert_eq!((reading.deadline(), reading.head_memory()), (Some(began + HEAD_TIMEOUT), 0));
            reading.read(b"h", later);
            assert_eq!(reading.head_memory(), LARGEST_HEAD);
            reading.read(b"\r\n\r\n", later);
            reading.begin();
            assert_eq!((reading.deadline(), reading.head_memory()), (None, 0));
            reading.end();
        }
    }

    #[test]
    fn the_first_head_has_its_time_from_the_beginning_on_and_a_later_one_from_its_first_byte() {
        let began = Instant::now();
        let mut reading = Reading::new(began);
        assert_eq!((reading.deadline(), reading.is_in_head()), (Some(began + HEAD_TIMEOUT), false));
        let later = began + Duration::from_secs(3);
        reading.read(b"\r\nGET", later);
        assert_eq!((reading.deadline(), reading.is_in_head()), (Some(began + HEAD_TIMEOUT), true));
        reading.read(b" / HTTP/1.1\r\n\r\n", later);
        reading.begin();
        reading.end();
        assert_eq!(reading.deadline(), None, "an idle connection has another");
        reading.read(b"G", later);
        assert_eq!(reading.deadline(), Some(later + HEAD_TIMEOUT));
    }

    #[test]
    fn a_body_that_nobody_reads_has_its_time() {
        let now = Instant::now();
        let mut reading = Reading::default();
        reading.read(b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", now);
        assert_eq!(reading.deadline(), None, "its head is whole");
        reading.begin();
        reading.end();
        reading.read(b"1\r\n", now);
        assert_eq!(reading.deadline(), Some(now + HEAD_TIMEOUT));
        reading.read(b"x\r\n0\r\n\r\n", now);
        assert_eq!((reading.deadline(), reading.may_go_on()), (None, true));
    }

    #[test]
    fn what_follows_a_body_that_nobody_reads_is_no_request() {
        let mut reading = Reading::default();
        reading.read(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n", Instant::now());
        reading.begin();
        reading.end();
        let rest = [b'x'; 100_000];
        assert_eq!(reading.read(&rest, Instant::now()).request, rest.len());
        assert_eq!(reading.head_memory(), 0);
    }
}
