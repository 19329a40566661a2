//! The frames of a connection, found and not understood (RFC 9113, 4.1).

/// What a client begins with.
pub(super) const PREFACE: usize = 24;
/// A frame's head.
pub(super) const HEAD: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const PADDED: u8 = 8;
pub(super) const PRIORITY: u8 = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Frame {
    pub(super) fn read(head: &[u8; HEAD]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *head;
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        }
    }
}

/// What is found in a stream of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'b> {
    Head(Frame),
    /// Some of the payload of the last frame.
    Payload(&'b [u8]),
}

/// Finds the frames in a stream of bytes.
pub(super) struct Frames {
    /// Bytes in front of the first frame.
    skip: usize,
    payload: usize,
    head: [u8; HEAD],
    have: usize,
}

impl Frames {
    pub(super) fn after(skip: usize) -> Self {
        Self { skip, payload: 0, head: [0; HEAD], have: 0 }
    }

    pub(super) fn each<E>(
        &mut self,
        mut bytes: &[u8],
        mut found: impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        bytes = &bytes[count_off(&mut self.skip, bytes.len())..];
        while !bytes.is_empty() {
            let (payload, rest) = bytes.split_at(count_off(&mut self.payload, bytes.len()));
            if !payload.is_empty() {
                found(Part::Payload(payload))?;
            }
            let taken = (HEAD - self.have).min(rest.len());
            self.head[self.have..self.have + taken].copy_from_slice(&rest[..taken]);
            self.have += taken;
            bytes = &rest[taken..];
            if self.have == HEAD {
                let frame = Frame::read(&self.head);
                (self.payload, self.have) = (frame.length, 0);
                found(Part::Head(frame))?;
            }
        }
        Ok(())
    }
}

/// Takes as much off a count as there is.
pub(super) fn count_off(left: &mut usize, available: usize) -> usize {
    let taken = available.min(*left);
    *left -= taken;
    taken
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    pub(in super::super) fn bytes(frame: Frame) -> Vec<u8> {
        let mut bytes = (frame.length as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([frame.kind, frame.flags]);
        bytes.extend(frame.stream.to_be_bytes());
        bytes.resize(HEAD + frame.length, 0xff);
        bytes
    }

    pub(in super::super) fn frame(kind: u8, flags: u8, stream: u32, length: usize) -> Frame {
        Frame { length, kind, flags, stream }
    }

    proptest! {
        #[test]
        fn frames_are_found_however_they_are_cut(
            frames in prop::collection::vec((0..10_u8, any::<u8>(), 0..1_u32 << 31, 0..300_usize), 0..30),
            cuts in prop::collection::vec(1..50_usize, 1..20),
        ) {
            let frames: Vec<Frame> = frames.into_iter().map(|(k, f, s, l)| frame(k, f, s, l)).collect();
            let mut stream = vec![0; PREFACE];
            frames.iter().for_each(|frame| stream.extend(bytes(*frame)));
            let (mut found, mut reader, mut rest) = (Vec::new(), Frames::after(PREFACE), &stream[..]);
            for cut in cuts.iter().cycle() {
                let (piece, others) = rest.split_at((*cut).min(rest.len()));
                let Ok(()) = reader.each(piece, |part| {
                    match part {
                        Part::Head(frame) => found.push((frame, 0)),
                        Part::Payload(payload) => found.last_mut().unwrap().1 += payload.len(),
                    }
                    Ok::<(), Infallible>(())
                });
                rest = others;
                if rest.is_empty() { break; }
            }
            let frames: Vec<_> = frames.into_iter().map(|frame| (frame, frame.length)).collect();
            prop_assert_eq!(found, frames);
        }
    }
}
