//! What both directions share of a frame (RFC 6455 §5.2–§5.3): opcodes, lengths, masking.

use super::{Fault, Role};

/// Most payload bytes of a control frame (RFC 6455 §5.5).
pub const MAX_CONTROL_BYTES: usize = 125;

/// Most bytes in front of a payload: two, a 64-bit length, a masking key.
pub const MAX_HEADER_BYTES: usize = 14;

/// What a client's payload is XORed with; new and unpredictable for each frame (RFC 6455 §5.3, §10.3).
pub type MaskingKey = [u8; 4];

/// The opcodes that are defined (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    /// Close, Ping or Pong: never fragmented, at most 125 bytes, allowed between fragments (RFC 6455 §5.5).
    #[must_use]
    pub const fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }

    /// Its four bits.
    pub(super) const fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0,
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        }
    }

    const fn of(bits: u8) -> Option<Opcode> {
        match bits {
            0 => Some(Opcode::Continuation),
            1 => Some(Opcode::Text),
            2 => Some(Opcode::Binary),
            8 => Some(Opcode::Close),
            9 => Some(Opcode::Ping),
            10 => Some(Opcode::Pong),
            _ => None,
        }
    }
}

/// What a frame's first byte says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
}

impl Start {
    pub(super) fn read(byte: u8) -> Result<Start, Fault> {
        if byte & 0x70 != 0 {
            return Err(Fault::ReservedBit);
        }
        let start = Start { fin: byte & 0x80 != 0, opcode: Opcode::of(byte & 0x0f).ok_or(Fault::ReservedOpcode)? };
        if start.opcode.is_control() && !start.fin { Err(Fault::FragmentedControl) } else { Ok(start) }
    }
}

/// Checks the mask bit of a frame's second byte, and gives the seven bits of length.
pub(super) fn short_length(byte: u8, role: Role) -> Result<u8, Fault> {
    match (role, byte & 0x80 != 0) {
        (Role::Server, false) => Err(Fault::NotMasked),
        (Role::Client, true) => Err(Fault::Masked),
        _ => Ok(byte & 0x7f),
    }
}

/// The payload's length and how many bytes behind the second it takes; `None` when `rest`, what stands behind the second
/// byte, is too short.
pub(super) fn length(short: u8, rest: &[u8]) -> Result<Option<(u64, usize)>, Fault> {
    let (length, size, least) = match short {
        126 => match rest.first_chunk::<2>() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 2, 126),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 8, 1 << 16),
            None => return Ok(None),
        },
        _ => (u64::from(short), 0, 0),
    };
    if length < least {
        return Err(Fault::LengthNotMinimal);
    }
    if length >> 63 != 0 { Err(Fault::LengthOver63Bits) } else { Ok(Some((length, size))) }
}

/// XORs `bytes` with `key` over and over, beginning with its first byte (RFC 6455 §5.3). To go on behind `bytes`, rotate
/// the key left by their number.
pub fn mask(bytes: &mut [u8], key: MaskingKey) {
    let [a, b, c, d] = key;
    let wide = u128::from_ne_bytes([a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d]);
    // Four 128-bit words a turn become as many vector operations, at any alignment.
    let (blocks, rest) = bytes.as_chunks_mut::<64>();
    for block in blocks {
        for word in block.as_chunks_mut::<16>().0 {
            *word = (u128::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
    }
    let (words, rest) = rest.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(key)).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// The key for what stands `len` bytes further on.
pub(super) fn advanced(mut key: MaskingKey, len: usize) -> MaskingKey {
    key.rotate_left(len % 4);
    key
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    /// A name, the seven bits, what follows them, and what is read.
    type Case = (&'static str, u8, &'static [u8], Result<Option<(u64, usize)>, Fault>);

    #[test]
    fn lengths() {
        let table: [Case; 15] = [
            ("none", 0, b"", Ok(Some((0, 0)))),
            ("longest short", 125, b"", Ok(Some((125, 0)))),
            ("16 bits", 126, b"\x00\x7e", Ok(Some((126, 2)))),
            ("all 16 bits", 126, b"\xff\xff", Ok(Some((65535, 2)))),
            ("16 bits for 125", 126, b"\x00\x7d", Err(Fault::LengthNotMinimal)),
            ("16 bits for 0", 126, b"\x00\x00", Err(Fault::LengthNotMinimal)),
            ("16 bits, one byte here", 126, b"\x01", Ok(None)),
            ("16 bits, none here", 126, b"", Ok(None)),
            ("64 bits", 127, b"\0\0\0\0\0\x01\0\0", Ok(Some((65536, 8)))),
            ("64 bits for 65535", 127, b"\0\0\0\0\0\0\xff\xff", Err(Fault::LengthNotMinimal)),
            ("64 bits for 5", 127, b"\0\0\0\0\0\0\0\x05", Err(Fault::LengthNotMinimal)),
            ("63 bits", 127, b"\x7f\xff\xff\xff\xff\xff\xff\xff", Ok(Some((u64::MAX >> 1, 8)))),
            ("most significant bit", 127, b"\x80\0\0\0\0\0\0\0", Err(Fault::LengthOver63Bits)),
            ("all bits", 127, b"\xff\xff\xff\xff\xff\xff\xff\xff", Err(Fault::LengthOver63Bits)),
            ("64 bits, seven bytes here", 127, b"\xff\xff\xff\xff\xff\xff\xff", Ok(None)),
        ];
        for (name, short, rest, expected) in table {
            assert_eq!(length(short, rest), expected, "{name}");
        }
    }

    #[test]
    fn first_bytes() {
        for byte in 0..=u8::MAX {
            let expected = match (byte >> 4 & 7, byte & 15, byte >> 7) {
                (1.., _, _) => Err(Fault::ReservedBit),
                (_, 3..=7 | 11.., _) => Err(Fault::ReservedOpcode),
                (_, 8..=10, 0) => Err(Fault::FragmentedControl),
                (_, bits, fin) => Ok((fin == 1, bits)),
            };
            assert_eq!(Start::read(byte).map(|start| (start.fin, start.opcode.bits())), expected, "{byte:#x}");
        }
    }

    proptest! {
        /// The wide loop does what the formula of §5.3 says, at every offset in memory, also in two parts.
        #[test]
        fn masks(bytes in prop::collection::vec(any::<u8>(), 0..300), key: [u8; 4], from in 0usize..20, cut in 0usize..300) {
            let from = from.min(bytes.len());
            let expected: Vec<u8> = bytes[from..].iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
            let mut whole = bytes.clone();
            mask(&mut whole[from..], key);
            prop_assert_eq!(&whole[from..], &expected[..]);
            prop_assert_eq!(&whole[..from], &bytes[..from]);
            let mut parts = bytes;
            let (first, second) = parts[from..].split_at_mut(cut.min(expected.len()));
            mask(first, key);
            mask(second, advanced(key, first.len()));
            prop_assert_eq!(&parts[from..], &expected[..]);
        }
    }
}
