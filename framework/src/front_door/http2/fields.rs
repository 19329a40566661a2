//! How many headers a header block has. Where a field ends can be told without the table that it may point to.

use super::frames::count_off;

/// Counts the headers of a header block (HPACK, RFC 7541, 6).
#[derive(Debug, Default)]
pub(super) struct Fields {
    next: Next,
    /// Texts that belong to the field and are still to come.
    texts: u8,
}

#[derive(Debug, Default, Clone, Copy)]
enum Next {
    #[default]
    Field,
    /// The rest of an index.
    Index,
    /// A text's length.
    Length,
    /// The rest of one, and how far its bits are shifted.
    LongLength(usize, u32),
    /// So much of a text.
    Text(usize),
}

impl Fields {
    /// Reads on. Returns how many headers begin here.
    pub(super) fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut fields = 0;
        while let Some((&byte, rest)) = bytes.split_first() {
            if let Next::Text(mut left) = self.next {
                let taken = count_off(&mut left, bytes.len());
                bytes = &bytes[taken..];
                self.next = if left > 0 { Next::Text(left) } else { self.after_text() };
                continue;
            }
            bytes = rest;
            self.next = match self.next {
                Next::Field => {
                    let (index, longest, texts) = match byte {
                        0x80.. => (byte & 0x7f, 0x7f, 0),
                        0x40.. => (byte & 0x3f, 0x3f, 1),
                        // No field: another size of the table.
                        0x20.. => (byte & 0x1f, 0x1f, 0),
                        _ => (byte & 0x0f, 0x0f, 1),
                    };
                    fields += u64::from(!(0x20..0x40).contains(&byte));
                    // Where no name is pointed to, it is written.
                    self.texts = if index == 0 { texts * 2 } else { texts };
                    if index == longest { Next::Index } else { self.text() }
                }
                Next::Index if byte & 0x80 != 0 => Next::Index,
                Next::Index => self.text(),
                Next::Length if byte & 0x7f == 0x7f => Next::LongLength(0x7f, 0),
                Next::Length => self.text_of(usize::from(byte & 0x7f)),
                Next::LongLength(length, shift) => {
                    let more = usize::from(byte & 0x7f).checked_shl(shift).unwrap_or(usize::MAX);
                    let length = length.saturating_add(more);
                    if byte & 0x80 != 0 { Next::LongLength(length, shift + 7) } else { self.text_of(length) }
                }
                Next::Text(left) => Next::Text(left),
            };
        }
        fields
    }

    fn text(&self) -> Next {
        if self.texts == 0 { Next::Field } else { Next::Length }
    }

    fn text_of(&mut self, length: usize) -> Next {
        if length > 0 { Next::Text(length) } else { self.after_text() }
    }

    fn after_text(&mut self) -> Next {
        self.texts -= 1;
        self.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 7541, appendix C, one after another, however they are cut.
    #[test]
    fn headers_are_counted() {
        let blocks: [(&[u8], u64); 6] = [
            (b"\x40\x0acustom-key\x0dcustom-header", 1),
            (b"\x04\x0c/sample/path", 1),
            (b"\x10\x08password\x06secret", 1),
            (b"\x82\x86\x84\x41\x0fwww.example.com", 4),
            (b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", 4),
            // Another size of the table, an index and a length of several bytes, and a text without a byte.
            (
                &[&b"\x3f\xe1\x1f\xff\x80\x01\x40\x01a\x7f\x49"[..], &[b'x'; 200], b"\x40\x01b\x00"].concat(),
                3,
            ),
        ];
        for cut in 1..300 {
            for (block, expected) in blocks {
                let mut fields = Fields::default();
                let counted: u64 = block.chunks(cut).map(|piece| fields.count(piece)).sum();
                assert_eq!(counted, expected, "{block:?} by {cut}");
                assert!(matches!(fields.next, Next::Field), "{block:?} by {cut}");
            }
        }
    }
}
