//! Idempotent appends to a log that several processes write to, none of which can ask the others.
//!
//! They share a journal of requests, which all read in the same order: who wants to append writes a claim there and holds it if it is
//! the first; then appends, with the claim's name in the record; then writes where it was stored. A claim of which nothing more is
//! heard was given up or cut short: whoever needs to know looks for its record in the log, once no such record can come any more.
//!
//! ```text
//! free -> claimed -> stored            claimed, silent for long -> its record is looked for -> stored, or claimed anew
//!              \-> released -> free    claimed anew, released -> the first one's record is looked for again
//! ```

use crate::Offset;
use std::time::Duration;

/// One attempt to append: a name that no other attempt has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimId(pub u128);

/// The digest of a request's payload.
pub type RequestDigest = [u8; 16];

/// What a record of the journal says about its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestNote {
    /// Somebody is about to append it.
    Claimed(RequestClaim, Option<ClaimId>),
    /// It is stored at this offset.
    Stored(RequestDigest, Offset),
    /// The claim's holder has not appended it, and will not.
    Released(ClaimId),
}

/// A claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestClaim {
    /// Its name.
    pub id: ClaimId,
    /// The payload's.
    pub digest: RequestDigest,
    /// The record is not before this offset.
    pub from: Offset,
    /// When the journal took it, in milliseconds since the Unix epoch by the log's clock.
    pub at_ms: i64,
}

/// What is known of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RequestState {
    /// Nobody has stored it, and nobody is about to.
    #[default]
    Free,
    /// Somebody may be storing it, perhaps in the place of a claim whose record was not found. Where the second is released, the first is looked
    /// for again: a log that does not show its last records yet may have it all the same.
    Claimed(RequestClaim, Option<RequestClaim>),
    /// It is stored at this offset.
    Stored(RequestDigest, Offset),
}

/// What is to be done about a request that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestVerdict {
    /// Claim it.
    Claim,
    /// Tell its sender to come again.
    InFlight,
    /// Look in the log for the record of this claim, and of the one in whose place it was made. Where there is none, claim the request in its place.
    Look(RequestClaim, Option<RequestClaim>),
    /// Answer with its offset.
    Repeated(Offset),
    /// Refuse it: this name belongs to another payload.
    Reused,
}

/// How long each step may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestTimes {
    /// From a claim's writing to the append under it.
    pub claim: Duration,
    /// How long an append may take; later its record is not written any more.
    pub append: Duration,
    /// For a broker's hands to be empty, and for clocks that do not run alike.
    pub margin: Duration,
}

impl RequestTimes {
    /// The time after which a claim that was read has its record, or never will.
    pub fn settled_after(&self) -> Duration {
        self.claim + self.append + self.margin
    }
}

impl RequestState {
    /// What is known after the next record about the request. Everybody who reads the journal comes to the same.
    #[must_use]
    pub fn after(self, note: RequestNote) -> Self {
        match (self, note) {
            // The first place stands, whoever found it.
            (Self::Stored(digest, offset), _) => Self::Stored(digest, offset),
            (_, RequestNote::Stored(digest, offset)) => Self::Stored(digest, offset),
            (Self::Free, RequestNote::Claimed(claim, _)) => Self::Claimed(claim, None),
            (Self::Claimed(held, _), RequestNote::Claimed(claim, replaces)) if replaces == Some(held.id) => {
                Self::Claimed(claim, Some(held))
            }
            (state @ Self::Claimed(..), RequestNote::Claimed(..)) => state,
            (Self::Claimed(held, before), RequestNote::Released(id)) if held.id == id => {
                before.map_or(Self::Free, |before| Self::Claimed(before, None))
            }
            (state, RequestNote::Released(_)) => state,
        }
    }

    /// Whether this claim may go on to append.
    pub fn is_held_by(&self, id: ClaimId) -> bool {
        matches!(self, Self::Claimed(held, _) if held.id == id)
    }

    /// What is to be done about a request with this payload. `known_for`: since a claim was read.
    pub fn judge(&self, digest: RequestDigest, known_for: Duration, times: &RequestTimes) -> RequestVerdict {
        match *self {
            Self::Free => RequestVerdict::Claim,
            Self::Claimed(..) if known_for < times.settled_after() => RequestVerdict::InFlight,
            Self::Claimed(claim, before) => RequestVerdict::Look(claim, before),
            Self::Stored(stored, offset) if stored == digest => RequestVerdict::Repeated(offset),
            Self::Stored(..) => RequestVerdict::Reused,
        }
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
