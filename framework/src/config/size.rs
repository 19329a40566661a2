//! Sizes in settings: read as bytes or with a unit, written so that reading them gives the same number.

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serializer};

/// The size with the largest unit that divides it.
pub(super) fn exact(size: ByteSize) -> String {
    const UNITS: [(u64, &str); 6] = [
        (1 << 30, "GiB"),
        (1_000_000_000, "GB"),
        (1 << 20, "MiB"),
        (1_000_000, "MB"),
        (1 << 10, "KiB"),
        (1000, "kB"),
    ];
    let bytes = size.as_u64();
    match UNITS.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

pub(super) fn serialize<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&exact(*size))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    ByteSize::deserialize(deserializer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_size_is_written_so_that_it_is_read_as_the_same_number(bytes in prop_oneof![0..1_u64 << 45, (0..1000_u64).prop_map(|n| n << 20)]) {
            let size = ByteSize::b(bytes);
            prop_assert_eq!(exact(size).parse::<ByteSize>().unwrap(), size);
        }
    }

    #[test]
    fn round_numbers_are_written_with_their_unit() {
        for (bytes, text) in
            [(0, "0B"), (100_000_000, "100MB"), (512 << 20, "512MiB"), (16 << 10, "16KiB"), (1001, "1001B")]
        {
            assert_eq!(exact(ByteSize::b(bytes)), text);
        }
    }
}
