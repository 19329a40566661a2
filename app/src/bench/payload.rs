//! The tasks of a run: each says who it is and can be made again from that, so that nothing has to be remembered to
//! check every byte of what comes back.

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::ops::Range;

/// What payloads are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fill {
    /// Bytes that do not compress.
    Random,
    /// Text that compresses as recorded page events do.
    Json,
}

/// The sizes of a run's payloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sizes(pub(crate) Range<u64>);

impl Sizes {
    /// Reads `"10KB"` or `"10KB..5MB"`, both ends included.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let size = |part: &str| part.trim().parse::<bytesize::ByteSize>().map(|size| size.as_u64());
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let (min, max) = (size(min)?, size(max)?);
        if min > max {
            return Err(format!("the range {text} ends before it begins"));
        }
        if min < HEADER as u64 {
            return Err(format!("a payload has at least {HEADER} bytes: it carries its own identity"));
        }
        Ok(Self(min..max + 1))
    }

    /// The largest size.
    pub(crate) fn max(&self) -> u64 {
        self.0.end - 1
    }

    /// A size for a random number: every doubling of the size is equally likely.
    fn pick(&self, random: u64) -> u64 {
        let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
        let (min, max) = (self.0.start as f64, self.0.end as f64);
        ((min * (max / min).powf(share)) as u64).clamp(self.0.start, self.max())
    }
}

/// The bytes in front of each payload's filler.
pub(crate) const HEADER: usize = 40;
const MAGIC: [u8; 4] = *b"PBN1";

/// Which task a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The run.
    pub(crate) run: u64,
    /// The key's number.
    pub(crate) key: u32,
    /// The task's number within its key, from 0.
    pub(crate) sequence: u32,
    /// The payload's size, this header included.
    pub(crate) length: u64,
    /// When it was made, in microseconds since the Unix epoch.
    pub(crate) sent_us: u64,
    checksum: u32,
}

impl Identity {
    /// Reads a payload's header.
    pub(crate) fn read(header: &[u8; HEADER]) -> Result<Self> {
        ensure!(header[..4] == MAGIC, "a payload does not begin as this benchmark's do");
        let u32_at =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        Ok(Self {
            checksum: u32_at(4),
            run: u64_at(8),
            key: u32_at(16),
            sequence: u32_at(20),
            length: u64_at(24),
            sent_us: u64_at(32),
        })
    }

    fn write(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&MAGIC);
        header[4..8].copy_from_slice(&self.checksum.to_le_bytes());
        header[8..16].copy_from_slice(&self.run.to_le_bytes());
        header[16..20].copy_from_slice(&self.key.to_le_bytes());
        header[20..24].copy_from_slice(&self.sequence.to_le_bytes());
        header[24..32].copy_from_slice(&self.length.to_le_bytes());
        header[32..].copy_from_slice(&self.sent_us.to_le_bytes());
        header
    }
}

/// One task's bytes, in two pieces.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    /// Who it is.
    pub(crate) header: [u8; HEADER],
    /// The rest.
    pub(crate) filler: Bytes,
}

impl Payload {
    /// The size of both pieces.
    pub(crate) fn len(&self) -> usize {
        HEADER + self.filler.len()
    }

    /// A name that no other task has: its run, key and number.
    pub(crate) fn name(&self) -> String {
        hex::encode(&self.header[8..24])
    }
}

/// Makes the payloads of one run, any of them at any time.
#[derive(Debug, Clone)]
pub(crate) struct Maker {
    run: u64,
    sizes: Sizes,
    pool: Bytes,
}

impl Maker {
    /// For the run `run`.
    pub(crate) fn new(run: u64, sizes: Sizes, fill: Fill) -> Self {
        const SPARE: u64 = 4 << 20;
        let pool = pool(run, fill, (sizes.max() + SPARE) as usize).into();
        Self { run, sizes, pool }
    }

    /// The run's number.
    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    /// The name of a key.
    pub(crate) fn key_name(&self, key: u32) -> String {
        format!("{}{key}", self.key_prefix())
    }

    /// What the names of all this run's keys begin with.
    pub(crate) fn key_prefix(&self) -> String {
        format!("bench-{:016x}-", self.run)
    }

    /// The payload of a task.
    pub(crate) fn payload(&self, key: u32, sequence: u32, sent_us: u64) -> Payload {
        let filler = self.filler(key, sequence);
        let length = (HEADER + filler.len()) as u64;
        let mut identity = Identity { run: self.run, key, sequence, length, sent_us, checksum: 0 };
        identity.checksum = checksum(&identity.write(), &filler);
        Payload { header: identity.write(), filler }
    }

    /// The filler of a task.
    pub(crate) fn filler(&self, key: u32, sequence: u32) -> Bytes {
        let random = mix(self.run ^ mix(u64::from(key) << 32 | u64::from(sequence)));
        let length = self.sizes.pick(random) as usize - HEADER;
        let start = (mix(random) % (self.pool.len() - length) as u64) as usize;
        self.pool.slice(start..start + length)
    }

    /// Whether a header that came back is one that this run sent: everything but the time can be made again, and the
    /// checksum covers that.
    pub(crate) fn check(&self, header: &[u8; HEADER]) -> Result<Identity> {
        let identity = Identity::read(header)?;
        ensure!(identity.run == self.run, "a payload of another run ({:016x})", identity.run);
        let filler = self.filler(identity.key, identity.sequence);
        if identity.length != (HEADER + filler.len()) as u64 || identity.checksum != checksum(header, &filler)
        {
            bail!("the header of task {} of key {} is damaged", identity.sequence, identity.key);
        }
        Ok(identity)
    }
}

/// CRC-32 of all but the checksum itself.
fn checksum(header: &[u8; HEADER], filler: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[8..]);
    crc.update(filler);
    crc.finalize()
}

/// SplitMix64's finaliser: neighbours become strangers.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn pool(run: u64, fill: Fill, size: usize) -> Vec<u8> {
    let mut random = SmallRng::seed_from_u64(run);
    let mut pool = Vec::with_capacity(size + 256);
    match fill {
        Fill::Random => {
            pool.resize(size, 0);
            random.fill_bytes(&mut pool);
        }
        Fill::Json => {
            while pool.len() < size {
                let mut below = |limit: u32| random.next_u32() % limit;
                let (x, y, node, ago, time) =
                    (below(1920), below(1080), below(5000), below(500), below(90_000_000));
                pool.extend_from_slice(
                    format!(
                        r#"{{"type":3,"data":{{"source":1,"positions":[{{"x":{x},"y":{y},"id":{node},"timeOffset":-{ago}}}]}},"timestamp":17500{time:08}}},"#
                    )
                    .as_bytes(),
                );
            }
            pool.truncate(size);
        }
    }
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maker(sizes: &str) -> Maker {
        Maker::new(7, Sizes::parse(sizes).unwrap(), Fill::Random)
    }

    #[test]
    fn a_payload_is_recognised_and_made_again() {
        let maker = maker("1KB..64KB");
        let sent = maker.payload(3, 9, 1234);
        let identity = maker.check(&sent.header).unwrap();
        assert_eq!((identity.key, identity.sequence, identity.sent_us), (3, 9, 1234));
        assert_eq!(identity.length as usize, sent.len());
        assert_eq!(maker.filler(3, 9), sent.filler);
    }

    #[test]
    fn a_header_with_any_bit_changed_is_refused() {
        let maker = maker("100B");
        let sent = maker.payload(3, 9, 1234);
        for bit in 0..HEADER * 8 {
            let mut header = sent.header;
            header[bit / 8] ^= 1 << (bit % 8);
            assert!(maker.check(&header).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn sizes_stay_within_their_range_and_reach_both_halves() {
        let sizes = Sizes::parse("10KB..5MB").unwrap();
        let picked: Vec<u64> = (0..2000).map(|i| sizes.pick(mix(i))).collect();
        assert!(picked.iter().all(|size| (10_000..=5_000_000).contains(size)));
        let small = picked.iter().filter(|size| **size < 223_607).count();
        assert!((800..1200).contains(&small), "half of them below the geometric mean, got {small}");
    }

    #[test]
    fn one_size_is_a_range_of_one() {
        let sizes = Sizes::parse("1KiB").unwrap();
        assert_eq!((sizes.pick(0), sizes.pick(u64::MAX)), (1024, 1024));
        assert!(Sizes::parse("5MB..1KB").is_err());
        assert!(Sizes::parse("1B").is_err());
    }
}
