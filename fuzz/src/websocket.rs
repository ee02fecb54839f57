//! What must hold of the WebSocket codec for every input: frames to a server, frames to a client, both sides' upgrades.
//!
//! The first byte chooses which, and how the rest is cut. The fuzz target and `tests/corpus_replay.rs` share this.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failed check is a panic here")]

use ringwall::wire::http1::Progress;
use ringwall::wire::http1::request::{RequestHead, parse_request};
use ringwall::wire::http1::response::ResponseHead;
use ringwall::wire::websocket::handshake::client::Ask;
use ringwall::wire::websocket::handshake::server::{read_upgrade, write_reject_fields, write_switch};
use ringwall::wire::websocket::{
    CloseCode, Decoder, Event, MAX_CONTROL_BYTES, MAX_EMPTY_FRAMES, MAX_HEADER_BYTES, Role,
};

const MAX_MESSAGE_BYTES: u32 = 1000;

pub(crate) fn websocket(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice >> 6 {
        0 | 1 => frames(rest, if choice >> 6 == 0 { Role::Server } else { Role::Client }, usize::from(choice & 63) + 1),
        2 => request(rest),
        _ => answer(rest),
    }
}

/// Opcode and bytes of each event (of a Close its code as well), and the code of the fault that ends the stream.
type Said = (Vec<(u8, Vec<u8>)>, Option<u16>);

fn frames(stream: &[u8], role: Role, step: usize) {
    let whole = decode(stream, role, stream.len().max(1));
    assert_eq!(whole, decode(stream, role, 1), "byte by byte");
    assert_eq!(whole, decode(stream, role, step), "in pieces of {step}");
    let mut said = Vec::new();
    let fault = Plain { rest: stream, role, open: None, said: &mut said }.read().err();
    assert_eq!(whole, (said, fault), "as the standard reads");
}

fn decode(stream: &[u8], role: Role, step: usize) -> Said {
    let (mut decoder, mut buf, mut said) = (Decoder::new(role, MAX_MESSAGE_BYTES), Vec::new(), Vec::new());
    for piece in stream.chunks(step) {
        buf.extend_from_slice(piece);
        loop {
            let (opcode, payload) = match decoder.next_event(&mut buf) {
                Ok(None) => break,
                Ok(Some(Event::Text(span))) => (1, span.of(&buf).to_vec()),
                Ok(Some(Event::Binary(span))) => (2, span.of(&buf).to_vec()),
                Ok(Some(Event::Ping(span))) => (9, span.of(&buf).to_vec()),
                Ok(Some(Event::Pong(span))) => (10, span.of(&buf).to_vec()),
                Ok(Some(Event::Close { code, reason })) => {
                    let mut body = code.map_or(Vec::new(), |code| code.number().to_be_bytes().to_vec());
                    body.extend_from_slice(reason.of(&buf));
                    (8, body)
                }
                Err(fault) => {
                    assert!(decoder.has_ended() && buf.is_empty());
                    return (said, Some(fault.close_code().number()));
                }
            };
            said.push((opcode, payload));
        }
        assert!(buf.len() <= MAX_MESSAGE_BYTES as usize + MAX_CONTROL_BYTES + MAX_HEADER_BYTES, "a bounded buffer");
        assert!(!decoder.has_ended() || buf.is_empty());
    }
    (said, None)
}

/// The standard read plainly: all bytes are there, each frame is copied, each text checked anew with every frame.
struct Plain<'s> {
    rest: &'s [u8],
    role: Role,
    /// Opcode, payload and empty frames of the message that is being received.
    open: Option<(u8, Vec<u8>, u32)>,
    said: &'s mut Vec<(u8, Vec<u8>)>,
}

impl Plain<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn number(&mut self, bytes: usize) -> Option<u64> {
        let number = self.rest.get(..bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        self.rest = &self.rest[bytes..];
        Some(number)
    }

    fn read(&mut self) -> Result<(), u16> {
        while self.frame()?.is_some() {}
        Ok(())
    }

    /// One frame; `None` behind a Close and where bytes are missing.
    fn frame(&mut self) -> Result<Option<()>, u16> {
        let Some(first) = self.byte() else { return Ok(None) };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        let control = opcode >= 8;
        let known = matches!(opcode, 0 | 1 | 2 | 8 | 9 | 10);
        if first & 0x70 != 0 || !known || (control && !fin) || (!control && (opcode == 0) != self.open.is_some()) {
            return Err(1002);
        }
        let Some(second) = self.byte() else { return Ok(None) };
        if (second & 0x80 != 0) != (self.role == Role::Server) || (control && second & 0x7f > 125) {
            return Err(1002);
        }
        let (size, least) = match second & 0x7f {
            126 => (2, 126),
            127 => (8, 65536),
            _ => (0, 0),
        };
        let Some(long) = self.number(size) else { return Ok(None) };
        let len = if size == 0 { u64::from(second & 0x7f) } else { long };
        if len < least || len >= 1 << 63 {
            return Err(1002);
        }
        let before = self.open.as_ref().map_or(0, |open| open.1.len() as u64);
        if !control && before + len > u64::from(MAX_MESSAGE_BYTES) {
            return Err(1009);
        }
        let Some(key) = self.number(if self.role == Role::Server { 4 } else { 0 }) else { return Ok(None) };
        let whole = self.rest.len() as u64 >= len;
        let (payload, rest) = self.rest.split_at(self.rest.len().min(len as usize));
        let key = (key as u32).to_be_bytes();
        let payload: Vec<u8> = payload.iter().enumerate().map(|(index, byte)| byte ^ key[index % 4]).collect();
        self.rest = rest;
        if control { self.control(opcode, payload, whole) } else { self.data(opcode, fin, payload, len, whole) }
    }

    fn data(&mut self, opcode: u8, fin: bool, payload: Vec<u8>, len: u64, whole: bool) -> Result<Option<()>, u16> {
        let mut open = self.open.take().unwrap_or((opcode, Vec::new(), 0));
        open.1.extend(payload);
        open.2 += u32::from(len == 0);
        if open.2 > u32::from(MAX_EMPTY_FRAMES) {
            return Err(1008);
        }
        if open.0 == 1 {
            match std::str::from_utf8(&open.1) {
                Err(error) if error.error_len().is_some() || (fin && whole) => return Err(1007),
                _ => {}
            }
        }
        if fin && whole {
            self.said.push((open.0, open.1));
        } else {
            self.open = Some(open);
        }
        Ok(whole.then_some(()))
    }

    fn control(&mut self, opcode: u8, payload: Vec<u8>, whole: bool) -> Result<Option<()>, u16> {
        if !whole {
            return Ok(None);
        }
        if opcode != 8 {
            self.said.push((opcode, payload));
            return Ok(Some(()));
        }
        match payload.split_first_chunk::<2>() {
            None if !payload.is_empty() => return Err(1002),
            Some((code, _)) if CloseCode::new(u16::from_be_bytes(*code)).is_none() => return Err(1002),
            Some((_, reason)) if std::str::from_utf8(reason).is_err() => return Err(1007),
            _ => {}
        }
        self.said.push((8, payload));
        Ok(None)
    }
}

/// A request for an upgrade is agreed to in one head that names no token, or refused with what the refusal needs.
fn request(data: &[u8]) {
    let mut head = RequestHead::default();
    if parse_request(data, 0, &mut head) != Ok(Progress::Complete) {
        return;
    }
    let mut out = Vec::new();
    match read_upgrade(&head, data) {
        Ok(upgrade) => {
            write_switch(&mut out, &upgrade);
            let text = std::str::from_utf8(&out).unwrap();
            let start = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
            let (accept, rest) = text.strip_prefix(start).unwrap().split_at(28);
            assert!(accept.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)));
            assert_eq!(rest, if upgrade.mcp { "\r\nSec-WebSocket-Protocol: mcp\r\n\r\n" } else { "\r\n\r\n" });
            let offered = head.values(data, b"sec-websocket-protocol").count();
            assert!(offered > 0 || (!upgrade.mcp && upgrade.bearer.is_none()));
            if let Some(bearer) = upgrade.bearer {
                let before = &data[..bearer.start as usize];
                assert!(before.ends_with(b"bearer.") && !bearer.is_empty() && bearer.end < head.len);
            }
        }
        Err(reject) => {
            assert!(matches!(reject.status, 400 | 405 | 426), "{reject}");
            write_reject_fields(&mut out, reject);
            assert_eq!(out.is_empty(), reject.status == 400);
        }
    }
}

/// An answer to our request for an upgrade says the same whole and byte by byte.
fn answer(data: &[u8]) {
    let ask =
        Ask { authority: b"a", target: b"/", nonce: *b"the sample nonce", subprotocol: Some("mcp"), extra_lines: b"" };
    let (mut whole, mut pieces) = (ResponseHead::default(), ResponseHead::default());
    let result = ask.read_answer(data, 0, &mut whole);
    let mut piecewise = Ok(Progress::Partial);
    for end in 1..=data.len() {
        piecewise = ask.read_answer(&data[..end], end - 1, &mut pieces);
        if piecewise != Ok(Progress::Partial) {
            break;
        }
    }
    assert_eq!(result == Ok(Progress::Complete), piecewise == Ok(Progress::Complete));
    if result == Ok(Progress::Complete) {
        assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        assert_eq!(whole.status, 101);
        let accept: Vec<&[u8]> = whole.values(data, b"sec-websocket-accept").collect();
        assert_eq!(accept, [b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]);
    }
}
