//! What was seen of a run, as the checkers read it.

use partita_core::{Offset, Partition};

/// A record's place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Its partition.
    pub partition: Partition,
    /// Its offset there.
    pub offset: Offset,
}

/// Shorthand for a position.
pub fn at(partition: u32, offset: u64) -> Position {
    Position { partition: Partition(partition), offset: Offset(offset) }
}

/// One try of a client to hand a task over. A key's tries are in the order in which its one client made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The task's key.
    pub key: String,
    /// The task's number among its key's.
    pub sequence: u64,
    /// The SHA-256 of its payload: no two tasks have the same.
    pub digest: String,
    /// What the client knows of it.
    pub outcome: Outcome,
}

/// What a client knows of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 202: durable, there.
    Ok(Position),
    /// Definitely not written.
    Failed,
    /// Nobody said. Also an attempt that was never answered.
    Unknown,
}

/// One end of one delivery of a task. A key's ends are in the order in which they happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The key of the record.
    pub key: String,
    /// The SHA-256 of what was handled.
    pub digest: String,
    /// Where it was read.
    pub position: Position,
}

/// What a worker did to its partitions, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A task ended.
    Ended(Position),
    /// This is committed: the next offset to read.
    Committed(Position),
}

/// Everything that was seen of a run.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// What the clients saw.
    pub attempts: Vec<Attempt>,
    /// What was handled.
    pub ends: Vec<End>,
    /// What was committed, and when.
    pub steps: Vec<Step>,
}
