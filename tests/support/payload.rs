//! What a load's task carries: from the bytes alone one can tell which task it is and whether it is whole.

use crate::random::Random;
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// The hex SHA-256 of `bytes`: the form in which `/v1/recordings` states it.
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The payload of one task, about `size` bytes and never under 200. Every second one compresses well.
pub fn make(key: &str, sequence: u64, size: usize) -> Bytes {
    let mut random = Random::new(partita_core::murmur2(key.as_bytes()) as u64 ^ (sequence << 32));
    let filler_len = size.saturating_sub(200).max(1);
    let filler = if sequence.is_multiple_of(2) {
        let event = format!(
            r#"{{"type":3,"data":{{"source":1,"positions":[{}]}},"timestamp":{}}}"#,
            random.bits(),
            random.bits()
        );
        event.bytes().cycle().take(filler_len).collect()
    } else {
        random.bytes(filler_len)
    };
    let mut payload =
        format!("partita-test {key} {sequence} {filler_len} {}\n", digest(&filler)).into_bytes();
    payload.extend_from_slice(&filler);
    payload.into()
}

/// The key and sequence of a payload, or what is wrong with it.
pub fn parse(payload: &[u8]) -> Result<(String, u64), String> {
    let end = payload.iter().position(|&byte| byte == b'\n').ok_or("no first line")?;
    let (line, filler) = (String::from_utf8_lossy(&payload[..end]).into_owned(), &payload[end + 1..]);
    let words: Vec<&str> = line.split(' ').collect();
    let ["partita-test", key, sequence, length, sum] = words[..] else {
        return Err(format!("another first line: {line:?}"));
    };
    if length.parse() != Ok(filler.len()) {
        return Err(format!("{} bytes of {length}", filler.len()));
    }
    if digest(filler) != sum {
        return Err("its bytes are not what they were".into());
    }
    Ok((key.into(), sequence.parse().map_err(|e| format!("{sequence}: {e}"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_tells_its_task_and_every_damage_is_noticed() {
        for sequence in [6, 7] {
            let whole = make("some-key", sequence, 10_000);
            assert_eq!(parse(&whole), Ok(("some-key".into(), sequence)));
            assert!(parse(&whole[..whole.len() - 1]).is_err());
            let mut flipped = whole.to_vec();
            flipped[5_000] ^= 1;
            assert!(parse(&flipped).is_err());
        }
        assert_ne!(make("k", 1, 5_000), make("k", 3, 5_000));
    }
}
