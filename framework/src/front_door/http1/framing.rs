//! Where a request of HTTP/1.1 ends (RFC 9112, 6 and 7.1).
//!
//! It goes by what actix-http takes for a request. What that refuses, and so is the last of its connection, may end anywhere.

use memchr::memchr;
use std::mem;

/// What is kept of a line that comes in pieces. A longer one is none that says where a request ends.
const LINE: usize = 1 << 10;

/// How far into a request what was read so far goes.
#[derive(Debug, Default)]
pub(super) struct Framing {
    at: At,
    /// The beginning of a line that is not whole.
    line: Vec<u8>,
    /// What the head has said so far.
    size: u64,
    is_chunked: bool,
    is_stream: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    /// Before it, where empty lines may be.
    #[default]
    Before,
    Head,
    /// In bytes of a body, or of a chunk, of which so many are to come.
    Body(u64),
    Chunk(u64),
    /// In the line after a chunk, in the one before the next, and in those after the last.
    ChunkEnd,
    ChunkSize,
    Trailers,
    /// In what has no end.
    Stream,
    Over,
}

impl Framing {
    /// These bytes follow. Returns how many of them belong to the request.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && self.at != At::Over {
            let rest = &bytes[at..];
            at += match &mut self.at {
                At::Body(left) | At::Chunk(left) => {
                    let taken = (*left).min(rest.len() as u64);
                    *left -= taken;
                    self.at = match self.at {
                        At::Body(0) => At::Over,
                        At::Chunk(0) => At::ChunkEnd,
                        other => other,
                    };
                    taken as usize
                }
                At::Stream => rest.len(),
                _ => self.advance_line(rest),
            };
        }
        at
    }

    /// Whether all of it was read.
    pub(super) fn is_over(&self) -> bool {
        self.at == At::Over
    }

    /// Whether something of its head was read, and not all of it.
    pub(super) fn is_in_head(&self) -> bool {
        self.at == At::Head || (self.at == At::Before && !matches!(&self.line[..], b"" | b"\r"))
    }

    fn advance_line(&mut self, bytes: &[u8]) -> usize {
        let end = memchr(b'\n', bytes);
        let part = &bytes[..end.unwrap_or(bytes.len())];
        if end.is_some() && self.line.is_empty() {
            self.line(part);
        } else {
            self.line.extend_from_slice(&part[..part.len().min(LINE - self.line.len())]);
            if end.is_some() {
                let mut line = mem::take(&mut self.line);
                self.line(&line);
                line.clear();
                self.line = line;
            }
        }
        end.map_or(bytes.len(), |end| end + 1)
    }

    fn line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.at = match self.at {
            At::Before if line.is_empty() => At::Before,
            At::Before => At::Head,
            At::Head if line.is_empty() => self.body(),
            At::Head => {
                self.field(line);
                At::Head
            }
            At::ChunkSize => match chunk_size(line) {
                Some(0) => At::Trailers,
                Some(size) => At::Chunk(size),
                None => At::Stream,
            },
            At::Trailers if line.is_empty() => At::Over,
            At::ChunkEnd => At::ChunkSize,
            other => other,
        };
    }

    fn body(&self) -> At {
        match self.size {
            _ if self.is_chunked => At::ChunkSize,
            _ if self.is_stream => At::Stream,
            0 => At::Over,
            size => At::Body(size),
        }
    }

    fn field(&mut self, line: &[u8]) {
        let Some(colon) = memchr(b':', line) else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            self.size = size.unwrap_or(0);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.is_stream |= value.eq_ignore_ascii_case(b"websocket");
        }
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| matches!(byte, b';' | b' ' | b'\t')).next()?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A request as a client may write it.
    fn request() -> impl Strategy<Value = Vec<u8>> {
        let body = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "(GET / HTTP/1.1\r\n|Content-Length: 7\r\n|\r\n|a){0,9}".prop_map(String::into_bytes),
        ];
        let head = ("(\r\n|\n){0,2}", "(X:  [a-z]{0,20}\r?\n|Upgrade: h2c\r\n){0,4}", any::<bool>());
        (head, body, prop::option::of(1..50_usize)).prop_map(|((before, fields, is_first), body, chunks)| {
            let framing = match chunks {
                Some(_) => "transfer-Encoding:chunked\r\n".into(),
                None if body.is_empty() => String::new(),
                None => format!("CONTENT-length: \t{}  \r\n", body.len()),
            };
            let fields = if is_first { framing + &fields } else { fields + &framing };
            let mut request = format!("{before}POST / HTTP/1.1\r\n{fields}\r\n").into_bytes();
            match chunks {
                None => request.extend(body),
                Some(size) => {
                    for chunk in body.chunks(size) {
                        request.extend(format!("{:X} ;a=b\r\n", chunk.len()).bytes());
                        request.extend(chunk.iter().chain(b"\r\n"));
                    }
                    request.extend(b"0\r\nDigest: x\r\n\r\n");
                }
            }
            request
        })
    }

    proptest! {
        /// In whichever pieces requests come, each ends where it ends.
        #[test]
        fn each_request_ends_where_it_ends(requests in prop::collection::vec(request(), 1..6), piece in 1..300_usize) {
            let stream = requests.concat();
            let mut rest = &stream[..];
            for request in &requests {
                let mut framing = Framing::default();
                let before = rest.len();
                while !framing.is_over() {
                    prop_assert!(!rest.is_empty());
                    let belong = framing.advance(&rest[..piece.min(rest.len())]);
                    prop_assert!(belong > 0);
                    rest = &rest[belong..];
                }
                prop_assert_eq!(before - rest.len(), request.len());
            }
        }
    }

    #[test]
    fn a_head_is_one_from_its_first_byte_on() {
        let mut framing = Framing::default();
        for (bytes, is_in_head) in
            [("\r", false), ("\n\n", false), ("G", true), ("ET / HTTP/1.1\r\n", true), ("\r\n", false)]
        {
            assert_eq!(framing.advance(bytes.as_bytes()), bytes.len());
            assert_eq!(framing.is_in_head(), is_in_head, "{bytes:?}");
        }
        assert!(framing.is_over());
    }

    #[test]
    fn what_is_spoken_instead_of_http_has_no_end() {
        let mut framing = Framing::default();
        let stream = b"GET /socket HTTP/1.1\r\nUpgrade: WebSocket\r\n\r\nframes\r\n\r\nframes";
        assert_eq!((framing.advance(stream), framing.is_over()), (stream.len(), false));
        let mut chunked = Framing::default();
        let stream = b"GET /socket HTTP/1.1\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nframes";
        assert_eq!(chunked.advance(stream), stream.len() - b"frames".len());
    }
}
