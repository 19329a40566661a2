//! The blocks of a run: entries of a key, the length of a value (2 bytes, little-endian) and the value, by rising keys; and which block a key
//! belongs to.

use super::IdempotencyKey;
use rusqlite::{Error, Result, types::Type};

/// Entries of a block on average, at most.
const BLOCK: u64 = 64;
/// A run has 2^32 blocks at most.
pub(super) const MOST_BITS: u32 = 32;

/// How many bits of a key tell the blocks of a run with so many entries apart.
pub(super) fn bits_of(entries: u64) -> u32 {
    entries.div_ceil(BLOCK).max(1).next_power_of_two().trailing_zeros().min(MOST_BITS)
}

/// The block that a key belongs to in a run of so many bits.
pub(super) fn block_of(key: &IdempotencyKey, bits: u32) -> u64 {
    let [a, b, c, d, ..] = key.0;
    u64::from(u32::from_be_bytes([a, b, c, d])) >> (MOST_BITS - bits)
}

/// Adds an entry to a block.
pub(super) fn push(block: &mut Vec<u8>, key: &IdempotencyKey, value: &[u8]) -> Result<()> {
    let size = u16::try_from(value.len()).map_err(|error| Error::ToSqlConversionFailure(error.into()))?;
    block.extend_from_slice(&key.0);
    block.extend_from_slice(&size.to_le_bytes());
    block.extend_from_slice(value);
    Ok(())
}

/// The entries of a block.
pub(super) struct Entries<'b>(pub(super) &'b [u8]);

impl<'b> Iterator for Entries<'b> {
    type Item = Result<(IdempotencyKey, &'b [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = self.0.split_first_chunk::<16>().and_then(|(key, rest)| {
            let (size, rest) = rest.split_first_chunk::<2>()?;
            let (value, rest) = rest.split_at_checked(u16::from_le_bytes(*size).into())?;
            Some(((IdempotencyKey(*key), value), rest))
        });
        match entry {
            Some((entry, rest)) => {
                self.0 = rest;
                Some(Ok(entry))
            }
            None => {
                self.0 = &[];
                Some(Err(Error::FromSqlConversionFailure(0, Type::Blob, "a block is damaged".into())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_pushed_comes_back_and_what_is_cut_off_is_damage(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..20), cut in any::<prop::sample::Index>()
        ) {
            let mut block = Vec::new();
            let mut ends = vec![0];
            for value in &values {
                push(&mut block, &IdempotencyKey::of(&[value]), value).unwrap();
                ends.push(block.len());
            }
            let read: Result<Vec<_>> = Entries(&block).collect();
            let read: Vec<_> = read.unwrap().into_iter().map(|(key, value)| (key, value.to_vec())).collect();
            let pushed: Vec<_> = values.iter().map(|value| (IdempotencyKey::of(&[value]), value.clone())).collect();
            prop_assert_eq!(read, pushed);
            let cut = cut.index(block.len());
            prop_assert_eq!(Entries(&block[..cut]).all(|entry| entry.is_ok()), ends.contains(&cut));
        }
    }

    #[test]
    fn a_value_that_is_too_long_is_refused() {
        let key = IdempotencyKey([0; 16]);
        assert!(push(&mut Vec::new(), &key, &[0; 65535]).is_ok());
        assert!(push(&mut Vec::new(), &key, &[0; 65536]).is_err());
    }
}
