//! Frames that we send (RFC 6455 §5). All functions append to the caller's buffer.
//!
//! `key` is `None` from a server. A client passes a key that is new and unpredictable for each frame (§5.3).

use super::CloseCode;
use super::frame::{MAX_CONTROL_BYTES, MaskingKey, Opcode, mask};

/// Most bytes of a close reason: a control frame without the code.
pub const MAX_REASON_BYTES: usize = MAX_CONTROL_BYTES - 2;

/// Appends a whole text message. That `payload` is UTF-8 is the caller's to know.
pub fn text(out: &mut Vec<u8>, payload: &[u8], key: Option<MaskingKey>) {
    frame(out, Opcode::Text, true, payload, key);
}

/// Appends a whole binary message.
pub fn binary(out: &mut Vec<u8>, payload: &[u8], key: Option<MaskingKey>) {
    frame(out, Opcode::Binary, true, payload, key);
}

/// Appends a Ping; of `payload` the first 125 bytes (§5.5).
pub fn ping(out: &mut Vec<u8>, payload: &[u8], key: Option<MaskingKey>) {
    frame(out, Opcode::Ping, true, control(payload), key);
}

/// Appends a Pong; `payload` is that of the Ping it answers (§5.5.3), of which the first 125 bytes.
pub fn pong(out: &mut Vec<u8>, payload: &[u8], key: Option<MaskingKey>) {
    frame(out, Opcode::Pong, true, control(payload), key);
}

/// Appends a Close. Without a code it has no body, which is the answer to one without (§5.5.1). The reason is cut at a
/// character's end to at most 123 bytes.
pub fn close(out: &mut Vec<u8>, code: Option<CloseCode>, reason: &str, key: Option<MaskingKey>) {
    let reason = reason.get(..reason.floor_char_boundary(MAX_REASON_BYTES)).unwrap_or_default();
    let mut body = arrayvec::ArrayVec::<u8, MAX_CONTROL_BYTES>::new();
    if let Some(code) = code {
        // Two bytes and at most 123 have room.
        let _ = body.try_extend_from_slice(&code.number().to_be_bytes());
        let _ = body.try_extend_from_slice(reason.as_bytes());
    }
    frame(out, Opcode::Close, true, &body, key);
}

/// Appends one frame as it is said: for messages sent in fragments, of which the first has the message's opcode, the
/// others are `Continuation`, and the last has `fin` (§5.4).
pub fn frame(out: &mut Vec<u8>, opcode: Opcode, fin: bool, payload: &[u8], key: Option<MaskingKey>) {
    header(out, opcode, fin, payload.len() as u64, key);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = key {
        mask(out.get_mut(start..).unwrap_or_default(), key);
    }
}

/// Appends a frame's header alone: a server, which does not mask, can put the payload behind it in its own way.
pub fn header(out: &mut Vec<u8>, opcode: Opcode, fin: bool, len_bytes: u64, key: Option<MaskingKey>) {
    let masked = if key.is_some() { 0x80 } else { 0 };
    out.push(if fin { 0x80 | opcode.bits() } else { opcode.bits() });
    match (u8::try_from(len_bytes), u16::try_from(len_bytes)) {
        (Ok(short @ ..=125), _) => out.push(masked | short),
        (_, Ok(medium)) => {
            out.push(masked | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&len_bytes.to_be_bytes());
        }
    }
    if let Some(key) = key {
        out.extend_from_slice(&key);
    }
}

fn control(payload: &[u8]) -> &[u8] {
    payload.get(..MAX_CONTROL_BYTES).unwrap_or(payload)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = b"before".to_vec();
        write(&mut out);
        assert!(out.starts_with(b"before"));
        out.split_off(6)
    }

    /// The frames of RFC 6455 §5.7.
    #[test]
    fn examples_of_the_standard() {
        let key = Some([0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(written(|out| text(out, b"Hello", None)), b"\x81\x05Hello");
        assert_eq!(written(|out| text(out, b"Hello", key)), b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
        assert_eq!(written(|out| frame(out, Opcode::Text, false, b"Hel", None)), b"\x01\x03Hel");
        assert_eq!(written(|out| frame(out, Opcode::Continuation, true, b"lo", None)), b"\x80\x02lo");
        assert_eq!(written(|out| ping(out, b"Hello", None)), b"\x89\x05Hello");
        assert_eq!(written(|out| pong(out, b"Hello", key)), b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
        let out = written(|out| binary(out, &[7; 256], None));
        assert_eq!((&out[..4], out.len()), (&b"\x82\x7e\x01\x00"[..], 260));
        let out = written(|out| binary(out, &[7; 65536], None));
        assert_eq!((&out[..10], out.len()), (&b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"[..], 65546));
    }

    #[test]
    fn lengths_are_minimal() {
        let table: [(u64, &[u8]); 7] = [
            (0, b"\x81\x00"),
            (125, b"\x81\x7d"),
            (126, b"\x81\x7e\x00\x7e"),
            (255, b"\x81\x7e\x00\xff"),
            (256, b"\x81\x7e\x01\x00"),
            (65535, b"\x81\x7e\xff\xff"),
            (65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ];
        for (len, expected) in table {
            assert_eq!(written(|out| header(out, Opcode::Text, true, len, None)), expected, "{len}");
        }
    }

    #[test]
    fn closes() {
        assert_eq!(written(|out| close(out, None, "unsaid", None)), b"\x88\x00");
        assert_eq!(written(|out| close(out, Some(CloseCode::NORMAL), "", None)), b"\x88\x02\x03\xe8");
        assert_eq!(
            written(|out| close(out, Some(CloseCode::GOING_AWAY), "Server shutting down", None)),
            b"\x88\x16\x03\xe9Server shutting down"
        );
        let masked = written(|out| close(out, Some(CloseCode::NORMAL), "", Some([1, 2, 3, 4])));
        assert_eq!(masked, b"\x88\x82\x01\x02\x03\x04\x02\xea");
    }

    #[test]
    fn control_frames_are_cut() {
        let reason = format!("{}\u{e9}\u{20ac}", "a".repeat(122));
        let out = written(|out| close(out, Some(CloseCode::NORMAL), &reason, None));
        assert_eq!((out[1], out.len()), (124, 126), "122 letters: the next character would end at 124");
        let reason = format!("{}\u{e9}\u{20ac}", "a".repeat(121));
        let out = written(|out| close(out, Some(CloseCode::NORMAL), &reason, None));
        assert_eq!((out[1], &out[125..]), (125, "\u{e9}".as_bytes()));
        assert_eq!(written(|out| ping(out, &[7; 126], None))[..2], [0x89, 125]);
        assert_eq!(written(|out| pong(out, &[7; 1000], None)).len(), 127);
    }
}
