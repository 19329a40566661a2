//! Empty lines: each may be the end of a head.

use memchr::memchr;

/// Where in a line what was read so far has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Lines {
    /// Somewhere in one that is not empty.
    #[default]
    Within,
    /// At its beginning.
    Beginning,
    /// After a carriage return at its beginning.
    Returned,
}

impl Lines {
    /// Looks for empty lines, `most` of them. Returns how many bytes there are to the end of the last, or all bytes where there are
    /// fewer, and how many there were.
    pub(super) fn until_empty(&mut self, bytes: &[u8], most: usize) -> (usize, usize) {
        let (mut at, mut found) = (0, 0);
        while found < most {
            let rest = &bytes[at..];
            let Some(end) = memchr(b'\n', rest) else {
                *self = self.after(rest);
                return (bytes.len(), found);
            };
            found += usize::from(self.after(&rest[..end]) != Self::Within);
            *self = Self::Beginning;
            at += end + 1;
        }
        (at, found)
    }

    /// After some of a line.
    fn after(self, part: &[u8]) -> Self {
        match (self, part) {
            (at, []) => at,
            (Self::Beginning, [b'\r']) => Self::Returned,
            _ => Self::Within,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// In whichever pieces bytes come, the same lines are empty.
        #[test]
        fn empty_lines_are_found_in_pieces(text in "[a\r\n]{0,60}", cut in 1..20_usize, most in 1..5_usize) {
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            let is_empty = |line: &&&str| matches!(**line, "\n" | "\r\n");
            // The first is the rest of one.
            let expected = lines.iter().skip(1).filter(is_empty).count();
            let (mut state, mut found, mut rest) = (Lines::default(), 0, text.as_bytes());
            while !rest.is_empty() {
                let (seen, empty) = state.until_empty(&rest[..cut.min(rest.len())], most);
                prop_assert!(seen > 0 && empty <= most);
                prop_assert!(empty < most || rest[..seen].ends_with(b"\n"));
                found += empty;
                rest = &rest[seen..];
            }
            prop_assert_eq!(found, expected);
        }
    }
}
