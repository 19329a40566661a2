//! The records of the journal of requests, and how what is known of a request is kept in the index.

use crate::log::idempotency::Value;
use partita_core::{ClaimId, Offset, RequestClaim, RequestDigest, RequestNote, RequestState};
use partita_proto::v1::{Request, request::Kind};
use prost::Message;

/// A note as a record's value.
pub(super) fn encode(note: RequestNote) -> Vec<u8> {
    let claim = |id: ClaimId| id.0.to_be_bytes().to_vec().into();
    let request = match note {
        RequestNote::Claimed(RequestClaim { id, digest, from, .. }, replaces) => Request {
            kind: Kind::Claimed.into(),
            claim: claim(id),
            digest: digest.to_vec().into(),
            offset: from.0,
            replaces: replaces.map(claim).unwrap_or_default(),
        },
        RequestNote::Stored(digest, offset) => Request {
            kind: Kind::Stored.into(),
            digest: digest.to_vec().into(),
            offset: offset.0,
            ..Request::default()
        },
        RequestNote::Released(id) => {
            Request { kind: Kind::Released.into(), claim: claim(id), ..Request::default() }
        }
    };
    request.encode_to_vec()
}

/// What a record says that the journal took at `at_ms`; `None` for what is no note.
pub(super) fn decode(value: &[u8], at_ms: i64) -> Option<RequestNote> {
    let request = Request::decode(value).ok()?;
    let digest = || request.digest[..].try_into().ok();
    let offset = Offset(request.offset);
    match request.kind() {
        Kind::Claimed => {
            let claim =
                RequestClaim { id: claim_id(&request.claim)?, digest: digest()?, from: offset, at_ms };
            Some(RequestNote::Claimed(claim, claim_id(&request.replaces)))
        }
        Kind::Stored => Some(RequestNote::Stored(digest()?, offset)),
        Kind::Released => claim_id(&request.claim).map(RequestNote::Released),
        Kind::Unspecified => None,
    }
}

/// A claim's name, as it stands in a record or its header.
pub(in super::super) fn claim_id(bytes: &[u8]) -> Option<ClaimId> {
    bytes.try_into().ok().map(|bytes| ClaimId(u128::from_be_bytes(bytes)))
}

const FREE: u8 = 0;
const CLAIMED: u8 = 1;
const STORED: u8 = 2;

/// A state as the index keeps it: a byte for its kind, then its fields, big-endian.
pub(super) fn state_to_bytes(state: &RequestState) -> Value {
    let mut bytes = Value::new();
    match state {
        RequestState::Free => bytes.push(FREE),
        RequestState::Claimed(claim, before) => {
            bytes.push(CLAIMED);
            for RequestClaim { id, digest, from, at_ms } in
                [Some(claim), before.as_ref()].into_iter().flatten()
            {
                bytes.extend_from_slice(digest);
                bytes.extend_from_slice(&from.0.to_be_bytes());
                bytes.extend_from_slice(&id.0.to_be_bytes());
                bytes.extend_from_slice(&at_ms.to_be_bytes());
            }
        }
        RequestState::Stored(digest, offset) => {
            bytes.push(STORED);
            bytes.extend_from_slice(digest);
            bytes.extend_from_slice(&offset.0.to_be_bytes());
        }
    }
    bytes
}

/// What `state_to_bytes` wrote.
pub(super) fn state_from_bytes(bytes: &[u8]) -> Option<RequestState> {
    let (kind, rest) = bytes.split_first()?;
    match *kind {
        FREE => rest.is_empty().then_some(RequestState::Free),
        CLAIMED => {
            let (claim, rest) = claim_from_bytes(rest)?;
            if rest.is_empty() {
                return Some(RequestState::Claimed(claim, None));
            }
            let (before, rest) = claim_from_bytes(rest)?;
            rest.is_empty().then_some(RequestState::Claimed(claim, Some(before)))
        }
        STORED => {
            let (digest, rest): (&RequestDigest, _) = rest.split_first_chunk()?;
            let offset = Offset(u64::from_be_bytes(rest.try_into().ok()?));
            Some(RequestState::Stored(*digest, offset))
        }
        _ => None,
    }
}

fn claim_from_bytes(bytes: &[u8]) -> Option<(RequestClaim, &[u8])> {
    let (digest, rest): (&RequestDigest, _) = bytes.split_first_chunk()?;
    let (from, rest) = rest.split_first_chunk()?;
    let (id, rest) = rest.split_first_chunk()?;
    let (at_ms, rest) = rest.split_first_chunk()?;
    let from = Offset(u64::from_be_bytes(*from));
    let (id, at_ms) = (ClaimId(u128::from_be_bytes(*id)), i64::from_be_bytes(*at_ms));
    Some((RequestClaim { id, digest: *digest, from, at_ms }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_breaks_the_reader(
            id: u128, digest: [u8; 16], offset: u64, at_ms: i64, replaces: Option<u128>, garbage: Vec<u8>
        ) {
            let claim = RequestClaim { id: ClaimId(id), digest, from: Offset(offset), at_ms };
            for note in [
                RequestNote::Claimed(claim, replaces.map(ClaimId)),
                RequestNote::Stored(digest, Offset(offset)),
                RequestNote::Released(ClaimId(id)),
            ] {
                prop_assert_eq!(decode(&encode(note), at_ms), Some(note));
            }
            for state in
                [RequestState::Free, RequestState::Claimed(claim, replaces.map(|id| RequestClaim { id: ClaimId(id), ..claim })), RequestState::Stored(digest, Offset(offset))]
            {
                prop_assert_eq!(state_from_bytes(&state_to_bytes(&state)), Some(state));
            }
            let _ = (decode(&garbage, 0), state_from_bytes(&garbage));
        }
    }
}
