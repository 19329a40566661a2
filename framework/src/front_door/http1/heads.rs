//! Where heads may end: at empty lines, but for those in a body whose size was stated.

use memchr::memchr;

/// What was read so far has ended here.
#[derive(Debug)]
pub(super) struct Heads {
    line: Line,
    /// In a head, or before one: not in a body that has no stated size.
    is_head: bool,
    /// The size that this head states for its body.
    size: u64,
    /// What is left of a body.
    body: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Beginning,
    /// After a carriage return at its beginning.
    Returned,
    Within,
}

impl Default for Heads {
    fn default() -> Self {
        Self { line: Line::Beginning, is_head: true, size: 0, body: 0 }
    }
}

impl Heads {
    /// Looks for ends of heads, `most` of them. Returns how many bytes there are to the last of them, or all bytes where there are fewer,
    /// and how many there may be: never too few.
    pub(super) fn until(&mut self, bytes: &[u8], most: usize) -> (usize, usize) {
        let (mut at, mut found) = (0, 0);
        while found < most {
            at += self.skip(bytes.len() - at);
            let rest = &bytes[at..];
            let Some(end) = memchr(b'\n', rest) else {
                self.line = self.line.after(rest);
                return (bytes.len(), found);
            };
            let line = &rest[..end];
            at += end + 1;
            if self.line.after(line) == Line::Within {
                if self.is_head && self.line == Line::Beginning {
                    self.field(line);
                }
            } else {
                found += 1;
                self.body = std::mem::take(&mut self.size);
            }
            self.line = Line::Beginning;
        }
        (at, found)
    }

    /// So many bytes of a body were read that need not be looked at.
    pub(super) fn skip(&mut self, bytes: usize) -> usize {
        let skipped = self.body.min(bytes as u64);
        self.body -= skipped;
        skipped as usize
    }

    /// A line of a head: only a whole one says anything here. What the server refuses is not told apart.
    fn field(&mut self, line: &[u8]) {
        let Some(colon) = memchr(b':', line) else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            (self.is_head, self.size) = (false, 0);
        }
    }
}

impl Line {
    /// After some of it.
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

    /// How many ends of heads there may be in what comes in pieces of this size.
    fn count(heads: &mut Heads, mut rest: &[u8], piece: usize, most: usize) -> usize {
        let mut found = 0;
        while !rest.is_empty() {
            let (seen, ends) = heads.until(&rest[..piece.min(rest.len())], most);
            assert!(seen > 0 && ends <= most);
            found += ends;
            rest = &rest[seen..];
        }
        found
    }

    proptest! {
        /// In whichever pieces bytes come, each empty line counts.
        #[test]
        fn every_empty_line_may_be_an_end(text in "[a\r\n]{0,60}", piece in 1..20_usize, most in 1..5_usize) {
            let expected = text.split_inclusive('\n').filter(|line| matches!(*line, "\n" | "\r\n")).count();
            prop_assert_eq!(count(&mut Heads::default(), text.as_bytes(), piece, most), expected);
        }

        /// Those of a body of a stated size do not; where the line that states it came in two pieces, they do.
        #[test]
        fn no_end_is_missed_and_none_is_found_in_a_body(
            requests in prop::collection::vec(("[a\r\n]{0,30}", any::<bool>()), 1..10), piece in 1..200_usize,
        ) {
            let mut stream = String::new();
            let mut in_bodies = 0;
            for (body, is_sized) in &requests {
                let framing = if *is_sized { format!("CONTENT-length:  {}", body.len()) } else { "Host: x".into() };
                let body = if *is_sized { body.as_str() } else { "" };
                stream += &format!("POST / HTTP/1.1\r\n{framing}\r\n\r\n{body}");
                in_bodies += body.matches('\n').count() + 1;
            }
            let found = count(&mut Heads::default(), stream.as_bytes(), piece, usize::MAX);
            prop_assert!((requests.len()..=requests.len() + in_bodies).contains(&found), "{found}");
            prop_assert_eq!(count(&mut Heads::default(), stream.as_bytes(), stream.len(), 3), requests.len());
        }
    }

    #[test]
    fn what_a_chunked_body_says_is_no_size() {
        let stream = b"POST / HTTP/1.1\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nContent-Length: 100\r\n\r\n\r\n\r\n\r\n";
        assert_eq!(count(&mut Heads::default(), stream, 1000, 9), 5);
    }
}
