//! Where a request of HTTP/1.1 ends (RFC 9112, 6 and 7.1).
//!
//! It goes by what actix-http takes for a request, byte by byte where a body comes in chunks: whoever could make the two differ could have
//! requests taken for a body. What actix-http refuses is the last of its connection and may end anywhere.

use memchr::memchr;
use std::mem;

/// What is kept of a line that comes in pieces.
const LINE: usize = 1 << 10;

/// How far into a request what was read so far goes.
#[derive(Debug, Default)]
pub(super) struct Framing {
    at: At,
    /// The beginning of a line that is not whole.
    line: Vec<u8>,
    /// That is not all there was of it.
    is_cut: bool,
    /// What the head has said so far.
    size: u64,
    is_chunked: bool,
    is_connect: bool,
    is_web_socket: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    /// Before it, where empty lines may be.
    #[default]
    Before,
    Head,
    /// In a body of which so many bytes are to come.
    Body(u64),
    Chunked(Chunked),
    /// In what has no end of its own.
    Stream,
    Over,
    /// A line that may say where it ends is too long.
    Unclear,
}

/// Where in a body that comes in chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunked {
    Size {
        digits: bool,
        size: u64,
    },
    /// After the digits of a size.
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the beginning of a line after the last chunk.
    EndCr,
    EndLf,
    Trailer,
    TrailerLf,
}

/// How much of some bytes is what.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Empty lines before a request.
    pub(super) empty: usize,
    /// What belongs to the request, after those.
    pub(super) request: usize,
}

impl Framing {
    /// These bytes follow.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Taken {
        let is_empty = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let empty = match self.at {
            At::Before if self.line.is_empty() => bytes.iter().take_while(|byte| is_empty(byte)).count(),
            _ => 0,
        };
        let bytes = &bytes[empty..];
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            at += match self.at {
                At::Before | At::Head => self.advance_line(rest),
                At::Body(left) => {
                    let taken = left.min(rest.len() as u64);
                    self.at = if taken == left { At::Over } else { At::Body(left - taken) };
                    taken as usize
                }
                At::Chunked(Chunked::Data(left)) => {
                    let taken = left.min(rest.len() as u64);
                    let left = left - taken;
                    self.at = At::Chunked(if left == 0 { Chunked::DataCr } else { Chunked::Data(left) });
                    taken as usize
                }
                At::Chunked(chunked) => {
                    self.at = chunked.after(rest[0]);
                    1
                }
                At::Stream => rest.len(),
                At::Over | At::Unclear => break,
            };
        }
        Taken { empty, request: at }
    }

    /// Whether nothing of it has come.
    pub(super) fn is_before(&self) -> bool {
        self.at == At::Before
    }

    /// Whether all of it was read.
    pub(super) fn is_over(&self) -> bool {
        self.at == At::Over
    }

    /// Whether it cannot be said where it ends.
    pub(super) fn is_unclear(&self) -> bool {
        self.at == At::Unclear
    }

    /// Whether something of its head was read, and not all of it.
    pub(super) fn is_in_head(&self) -> bool {
        self.at == At::Head || (self.at == At::Before && !self.line.is_empty())
    }

    /// Nobody reads its body. One of a stated size is the last on its connection, whatever follows it.
    pub(super) fn give_up(&mut self) {
        if matches!(self.at, At::Body(_)) {
            self.at = At::Stream;
        }
    }

    fn advance_line(&mut self, bytes: &[u8]) -> usize {
        let end = memchr(b'\n', bytes);
        let part = &bytes[..end.unwrap_or(bytes.len())];
        if end.is_some() && self.line.is_empty() {
            self.line(part);
        } else {
            let kept = part.len().min(LINE - self.line.len());
            self.line.extend_from_slice(&part[..kept]);
            self.is_cut |= kept < part.len();
            if end.is_some() {
                let mut line = mem::take(&mut self.line);
                self.line(&line);
                line.clear();
                (self.line, self.is_cut) = (line, false);
            }
        }
        end.map_or(bytes.len(), |end| end + 1)
    }

    fn line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.at {
            At::Before => {
                self.is_connect = line.starts_with(b"CONNECT ");
                self.at = At::Head;
            }
            _ if line.is_empty() => self.at = self.body(),
            _ => self.field(line),
        }
    }

    fn body(&self) -> At {
        match self.size {
            _ if self.is_chunked => At::Chunked(Chunked::SIZE),
            _ if self.is_web_socket => At::Stream,
            0 if self.is_connect => At::Stream,
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
            self.is_web_socket |= value.eq_ignore_ascii_case(b"websocket");
        } else {
            return;
        }
        if self.is_cut {
            self.at = At::Unclear;
        }
    }
}

impl Chunked {
    const SIZE: Self = Self::Size { digits: false, size: 0 };

    /// After another byte, which is none of a chunk's.
    fn after(self, byte: u8) -> At {
        let next = match (self, byte) {
            (Self::Size { size, .. }, byte) if byte.is_ascii_hexdigit() => {
                let digit = u64::from((byte as char).to_digit(16).unwrap_or(0));
                size.checked_mul(16).map(|size| Self::Size { digits: true, size: size + digit })
            }
            (Self::Size { digits: true, size }, b' ' | b'\t' | b';') => Some(Self::Extension(size)),
            (Self::Size { digits: true, size } | Self::Extension(size), b'\r') => Some(Self::SizeLf(size)),
            (Self::Extension(size), _) => Some(Self::Extension(size)),
            (Self::SizeLf(0), b'\n') => Some(Self::EndCr),
            (Self::SizeLf(size), b'\n') => Some(Self::Data(size)),
            (Self::DataCr, b'\r') => Some(Self::DataLf),
            (Self::DataLf, b'\n') => Some(Self::SIZE),
            (Self::EndCr, b'\r') => Some(Self::EndLf),
            (Self::EndLf, b'\n') => return At::Over,
            (Self::EndCr, _) => Some(Self::Trailer),
            (Self::Trailer, b'\r') => Some(Self::TrailerLf),
            (Self::Trailer, _) => Some(Self::Trailer),
            (Self::TrailerLf, b'\n') => Some(Self::EndCr),
            _ => None,
        };
        // What is refused ends its connection.
        next.map_or(At::Stream, At::Chunked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A request as a client may write it, without the empty lines before it.
    fn request() -> impl Strategy<Value = Vec<u8>> {
        let body = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "(GET / HTTP/1.1\r\n|Content-Length: 7\r\n|\r\n|a){0,9}".prop_map(String::into_bytes),
        ];
        let head = ("(X:  [a-z]{0,20}\r?\n|Upgrade: h2c\r\n){0,4}", any::<bool>());
        (head, body, prop::option::of(1..50_usize), "(\n|A: \r?[a-z]{0,9}){0,3}").prop_map(
            |((fields, is_first), body, chunks, trailers)| {
                let framing = match chunks {
                    Some(_) => "transfer-Encoding:chunked\r\n".into(),
                    None if body.is_empty() => String::new(),
                    None => format!("CONTENT-length: \t{}  \r\n", body.len()),
                };
                let fields = if is_first { framing + &fields } else { fields + &framing };
                let mut request = format!("POST / HTTP/1.1\r\n{fields}\r\n").into_bytes();
                match chunks {
                    None => request.extend(body),
                    Some(size) => {
                        for chunk in body.chunks(size) {
                            request.extend(format!("00{:X} ;a=b\r\n", chunk.len()).bytes());
                            request.extend(chunk.iter().chain(b"\r\n"));
                        }
                        request.extend(b"0\r\n");
                        // A line feed alone ends no trailer, and a carriage return must be followed by one.
                        let trailers = trailers.replace('\r', "\r\n");
                        request.extend(trailers.trim_start_matches("\r\n").bytes());
                        request.extend(if trailers.is_empty() { &b"\r\n"[..] } else { b"a\r\n\r\n" });
                    }
                }
                request
            },
        )
    }

    proptest! {
        /// In whichever pieces requests come, each ends where it ends.
        #[test]
        fn each_request_ends_where_it_ends(
            requests in prop::collection::vec(("(\r\n|\n){0,2}", request()), 1..6), piece in 1..300_usize,
        ) {
            let stream: Vec<u8> =
                requests.iter().flat_map(|(empty, request)| [empty.as_bytes(), request].concat()).collect();
            let mut rest = &stream[..];
            for (empty, request) in &requests {
                let mut framing = Framing::default();
                let mut taken = Taken { empty: 0, request: 0 };
                while !framing.is_over() {
                    prop_assert!(!rest.is_empty());
                    let Taken { empty, request } = framing.advance(&rest[..piece.min(rest.len())]);
                    prop_assert!(empty + request > 0);
                    taken = Taken { empty: taken.empty + empty, request: taken.request + request };
                    rest = &rest[empty + request..];
                }
                prop_assert_eq!(taken, Taken { empty: empty.len(), request: request.len() });
            }
        }
    }

    #[test]
    fn a_head_is_one_from_its_first_byte_on() {
        let mut framing = Framing::default();
        for (bytes, is_in_head) in
            [("\r", false), ("\n\n", false), ("G", true), ("ET / HTTP/1.1\r\n", true), ("\r\n", false)]
        {
            framing.advance(bytes.as_bytes());
            assert_eq!(framing.is_in_head(), is_in_head, "{bytes:?}");
        }
        assert!(framing.is_over());
    }

    #[test]
    fn only_what_is_spoken_instead_of_http_has_no_end() {
        for head in ["GET /socket HTTP/1.1\r\nUpgrade: WebSocket", "CONNECT x:1 HTTP/1.1"] {
            let mut framing = Framing::default();
            let stream = format!("{head}\r\n\r\nframes\r\n\r\nframes");
            assert_eq!(framing.advance(stream.as_bytes()).request, stream.len());
            assert!(!framing.is_over());
        }
        for (head, body) in [
            ("GET /socket HTTP/1.1\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
            ("CONNECT x:1 HTTP/1.1\r\nContent-Length: 1", "x"),
        ] {
            let mut framing = Framing::default();
            let request = format!("{head}\r\n\r\n{body}");
            assert_eq!(framing.advance(format!("{request}frames").as_bytes()).request, request.len());
        }
    }

    #[test]
    fn a_line_that_is_cut_and_says_where_it_ends_is_unclear() {
        for (name, is_unclear) in [("Content-Length", true), ("X", false)] {
            let mut framing = Framing::default();
            let head = format!("GET / HTTP/1.1\r\n{name}:{}5\r\n\r\n", " ".repeat(2000));
            for byte in head.as_bytes() {
                framing.advance(&[*byte]);
            }
            assert_eq!((framing.is_unclear(), framing.is_over()), (is_unclear, !is_unclear));
        }
    }

    /// Leading zeros of a size are as many as one likes, and a line feed alone ends no line after the last chunk.
    #[test]
    fn no_chunk_is_taken_for_another() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (body, over) in [
            (format!("{}10\r\n0123456789abcdef\r\n0\r\n\r\n", "0".repeat(5000)), true),
            ("0\r\n\nPOST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n".into(), true),
            ("0\r\n\n\n".into(), false),
        ] {
            for piece in [1, 1000, 100_000] {
                let mut framing = Framing::default();
                let stream = format!("{head}{body}GET");
                let mut at = 0;
                while at < stream.len() && !framing.is_over() {
                    at += framing.advance(&stream.as_bytes()[at..stream.len().min(at + piece)]).request;
                }
                assert_eq!(
                    (framing.is_over(), at),
                    (over, stream.len() - if over { 3 } else { 0 }),
                    "{body}"
                );
            }
        }
    }
}
