//! Which keys are certainly not in a file: a Bloom filter (Burton H. Bloom, "Space/Time Trade-offs in Hash Coding with Allowable Errors",
//! 1970). Most requests are new, and a new one need not be looked for on the disk.

use super::IdempotencyKey;

/// 4 MiB. Of 3 million keys one in a hundred others is looked for in vain, of 10 million one in four.
const BITS: u64 = 32 << 20;
const PROBES: u64 = 4;

/// The keys of one generation.
pub(super) struct Filter(Box<[u64]>);

impl Default for Filter {
    fn default() -> Self {
        Self(vec![0; (BITS / 64) as usize].into())
    }
}

impl Filter {
    pub(super) fn insert(&mut self, key: &IdempotencyKey) {
        for bit in probes(key) {
            self.0[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }

    /// `false`: it was never inserted.
    pub(super) fn may_have(&self, key: &IdempotencyKey) -> bool {
        probes(key).all(|bit| self.0[(bit / 64) as usize] & 1 << (bit % 64) != 0)
    }
}

/// A key is a hash already: its halves serve as the two that all probes are made of.
fn probes(key: &IdempotencyKey) -> impl Iterator<Item = u64> {
    let [one, other] = [0, 8].map(|at| {
        let mut half = [0; 8];
        half.copy_from_slice(&key.0[at..at + 8]);
        u64::from_le_bytes(half)
    });
    (0..PROBES).map(move |probe| one.wrapping_add(probe.wrapping_mul(other)) % BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_and_few_others_are() {
        let key = |number: u64| IdempotencyKey::of(&[&number.to_le_bytes()]);
        let mut filter = Filter::default();
        (0..100_000).for_each(|number| filter.insert(&key(number)));
        assert!((0..100_000).all(|number| filter.may_have(&key(number))));
        let others = (100_000..200_000).filter(|number| filter.may_have(&key(*number))).count();
        assert!(others < 10, "{others}");
    }
}
