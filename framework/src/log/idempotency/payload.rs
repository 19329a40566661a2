//! What tells the payloads that come under one key apart.

use super::half;
use highway::{HighwayHash, HighwayHasher, Key};
use sha2::{Digest, Sha256};

/// A payload's digest, by its log's hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PayloadDigest(pub [u8; 16]);

/// A payload that is being digested as it comes. The default is half of a SHA-256.
#[derive(Debug, Clone)]
pub struct PayloadHash(Hash);

#[derive(Debug, Clone)]
enum Hash {
    Sha256(Sha256),
    Keyed(Box<HighwayHasher>),
}

impl Default for PayloadHash {
    fn default() -> Self {
        Self(Hash::Sha256(Sha256::new()))
    }
}

impl PayloadHash {
    /// HighwayHash of 128 bits (Alakuijala, Cox and Wassenberg, "Fast keyed hash/pseudo-random function using SIMD multiply and permute",
    /// 2016): several times faster, and as good for whoever does not know the key.
    pub fn keyed(key: &[u8; 32]) -> Self {
        let word = |word| u64::from_le_bytes(std::array::from_fn(|byte| key[word * 8 + byte]));
        Self(Hash::Keyed(Box::new(HighwayHasher::new(Key(std::array::from_fn(word))))))
    }

    /// Takes the payload's next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Hash::Sha256(hash) => hash.update(bytes),
            Hash::Keyed(hash) => hash.append(bytes),
        }
    }

    /// The digest of what it took.
    pub fn digest(self) -> PayloadDigest {
        PayloadDigest(match self.0 {
            Hash::Sha256(hash) => half(hash),
            Hash::Keyed(hash) => {
                let [low, high] = hash.finalize128();
                (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
            }
        })
    }

    /// The digest of a whole payload.
    pub fn of(mut self, payload: &[u8]) -> PayloadDigest {
        self.update(payload);
        self.digest()
    }
}

impl std::fmt::Debug for PayloadDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(last: u64) -> PayloadHash {
        let mut key = [0; 32];
        for (index, word) in [1, 2, 3, last].into_iter().enumerate() {
            key[index * 8..][..8].copy_from_slice(&word.to_le_bytes());
        }
        PayloadHash::keyed(&key)
    }

    #[test]
    fn a_digest_is_of_the_payload_and_of_the_key_however_it_came() {
        let payload: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let hashes = [PayloadHash::default(), keyed(4), keyed(5)];
        for (index, hash) in hashes.iter().enumerate() {
            let mut in_parts = hash.clone();
            payload.chunks(33).for_each(|part| in_parts.update(part));
            let digest = in_parts.digest();
            assert_eq!(digest, hash.clone().of(&payload));
            assert_ne!(digest, hash.clone().of(&payload[1..]));
            assert!(hashes[..index].iter().all(|other| other.clone().of(&payload) != digest));
        }
        // What is stored is compared for a long time. The example of the crate, which is that of the reference.
        let digest = keyed(4).of(&[255]);
        assert_eq!(format!("{digest:?}"), "3c7fe762247d00bb1f99b316f9084522");
    }
}
