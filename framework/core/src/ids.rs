//! The names of things: partitions, offsets, epochs. Words and meanings are Kafka's.

use std::fmt;

/// One partition of the pipeline's task topic, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Partition(pub u32);

/// The place of a record in its partition, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One assignment of one partition to one process: a fence.
///
/// The high half is the group's generation, which grows with every rebalance of the whole group. The low half begins at the
/// member's birth and counts the epochs of the partition: a static member that is started again within its session has its
/// partitions back without a rebalance. So a later owner of a partition always has the greater epoch, in any process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch `ordinal` of a partition under `generation`.
    pub fn new(generation: u32, ordinal: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(ordinal))
    }

    /// The group generation this epoch was made under.
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// One request by the log to give or take partitions. It is answered exactly once, by the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Intent(pub u64);

/// One commit request, so that its answer can be told from another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub u64);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation(), self.0 as u32)
    }
}
