//! What goes into the next transaction.
//!
//! Small records go together. A large value is spread over several transactions, so that small ones never wait for all of it;
//! only later records of its own partition do, because offsets follow the order of the calls.

use partita_core::Partition;
use std::collections::HashSet;

/// Small records of one transaction.
const GROUP_RECORDS: usize = 1024;
/// Bytes of small records in one transaction; one record may be larger.
const GROUP_BYTES: u64 = 4 << 20;
/// Chunks of large values in one transaction.
const GROUP_CHUNKS: u64 = 16;

/// What is to be known of a pending op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Offsets to commit.
    Commit,
    /// A record of so many bytes in one row.
    Small(Partition, u64),
    /// A record with so many chunks still to be written.
    Large(Partition, u64),
}

/// One step of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Write the rest of the op at this index and be done with it.
    Complete(usize),
    /// Write this many of its chunks.
    Stream(usize, u64),
}

/// The steps of the next transaction, by rising index, never empty for a queue that is not.
pub(super) fn plan(pending: impl Iterator<Item = Shape>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut waiting: HashSet<Partition> = HashSet::new();
    let (mut records, mut bytes, mut chunks) = (0, 0, GROUP_CHUNKS);
    for (index, shape) in pending.enumerate() {
        match shape {
            Shape::Commit => steps.push(Step::Complete(index)),
            Shape::Small(partition, _) | Shape::Large(partition, _)
                if !waiting.is_empty() && waiting.contains(&partition) => {}
            Shape::Small(_, size) => {
                if records >= GROUP_RECORDS || (records > 0 && bytes + size > GROUP_BYTES) {
                    break;
                }
                records += 1;
                bytes += size;
                steps.push(Step::Complete(index));
            }
            Shape::Large(_, left) if left <= chunks => {
                chunks -= left;
                steps.push(Step::Complete(index));
            }
            Shape::Large(partition, _) => {
                // One large value at a time, in the order of arrival: chunk ids rise, and the first is done soonest.
                if chunks > 0 {
                    steps.push(Step::Stream(index, chunks));
                    chunks = 0;
                }
                waiting.insert(partition);
            }
        }
    }
    steps
}

/// Whether anything of it will be answered, and so must be synced.
pub(super) fn answers(steps: &[Step]) -> bool {
    steps.iter().any(|step| matches!(step, Step::Complete(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shapes() -> impl Strategy<Value = Vec<Shape>> {
        let shape = prop_oneof![
            1 => Just(Shape::Commit),
            6 => (0..4_u32, 1..3_000_000_u64).prop_map(|(p, size)| Shape::Small(Partition(p), size)),
            3 => (0..4_u32, 1..60_u64).prop_map(|(p, left)| Shape::Large(Partition(p), left)),
        ];
        prop::collection::vec(shape, 1..60)
    }

    fn partition(shape: Shape) -> Option<Partition> {
        match shape {
            Shape::Commit => None,
            Shape::Small(partition, _) | Shape::Large(partition, _) => Some(partition),
        }
    }

    proptest! {
        #[test]
        fn every_partition_is_written_in_the_order_of_its_calls(mut pending in shapes()) {
            let mut ids: Vec<usize> = (0..pending.len()).collect();
            let mut written: Vec<(usize, Shape)> = Vec::new();
            let original = pending.clone();
            let mut rounds = 0;
            while !pending.is_empty() {
                rounds += 1;
                prop_assert!(rounds <= 400, "it never ends");
                let steps = plan(pending.iter().copied());
                prop_assert!(!steps.is_empty());
                let streamed: u64 = steps.iter().map(|step| match *step {
                    Step::Stream(_, count) => count,
                    Step::Complete(index) => if let Shape::Large(_, left) = pending[index] { left } else { 0 },
                }).sum();
                prop_assert!(streamed <= GROUP_CHUNKS);
                for step in steps.iter().rev() {
                    match *step {
                        Step::Stream(index, count) => {
                            let Shape::Large(_, left) = &mut pending[index] else { panic!("{step:?}") };
                            prop_assert!(*left > count);
                            *left -= count;
                        }
                        Step::Complete(_) => {}
                    }
                }
                for step in &steps {
                    if let Step::Complete(index) = *step { written.push((ids[index], original[ids[index]])); }
                }
                for step in steps.iter().rev() {
                    if let Step::Complete(index) = *step { pending.remove(index); ids.remove(index); }
                }
            }
            for p in 0..4 {
                let order: Vec<usize> =
                    written.iter().filter(|(_, s)| partition(*s) == Some(Partition(p))).map(|(id, _)| *id).collect();
                prop_assert!(order.is_sorted(), "partition {p}: {order:?}");
            }
        }
    }

    #[test]
    fn a_small_record_passes_a_large_one_of_another_partition_but_not_of_its_own() {
        let (a, b) = (Partition(0), Partition(1));
        let steps = plan([Shape::Large(a, 200), Shape::Small(a, 1), Shape::Small(b, 1)].into_iter());
        assert_eq!(steps, [Step::Stream(0, GROUP_CHUNKS), Step::Complete(2)]);
    }
}
