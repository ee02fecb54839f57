//! Lines and WebSocket frames, cut and made for clients and upstreams of the harness. The frames are tungstenite's, so that ringwall's codec is
//! not asked whether it agrees with itself.

use std::io::{self, Cursor};

use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

/// The nonce of the standard's own example (RFC 6455 §1.3).
const NONCE: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// How messages are told apart on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Lines,
    /// Frames; those that a client sends are masked.
    Frames {
        masked: bool,
    },
}

/// Something whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Message(Vec<u8>),
    /// What a ping carries.
    Ping(Vec<u8>),
    /// The other side closes; its code.
    Close(Option<u16>),
    /// A pong, or an empty line.
    Nothing,
}

impl Framing {
    /// A message as it goes over the wire.
    pub(crate) fn message(self, text: &str) -> Vec<u8> {
        match self {
            Self::Lines => format!("{text}\n").into_bytes(),
            Self::Frames { .. } => self.frame(text.as_bytes().to_vec(), OpCode::Data(Data::Text)),
        }
    }

    /// A frame with any opcode.
    pub(crate) fn frame(self, payload: Vec<u8>, opcode: OpCode) -> Vec<u8> {
        let mask = (self == Self::Frames { masked: true }).then_some([0x37, 0xfa, 0x21, 0x3d]);
        let header = FrameHeader { is_final: true, opcode, mask, ..FrameHeader::default() };
        let frame = Frame::from_payload(header, payload.into());
        let mut out = Vec::new();
        // Writing to a vector cannot fail.
        let _ = frame.format(&mut out);
        out
    }

    pub(crate) fn pong(self, payload: Vec<u8>) -> Vec<u8> {
        self.frame(payload, OpCode::Control(Control::Pong))
    }

    /// How a side says that it ends: 1000 for frames, nothing for lines.
    pub(crate) fn goodbye(self) -> Vec<u8> {
        match self {
            Self::Lines => Vec::new(),
            Self::Frames { .. } => self.frame(1000_u16.to_be_bytes().to_vec(), OpCode::Control(Control::Close)),
        }
    }

    /// Takes the first whole piece off.
    pub(crate) fn take(self, received: &mut Vec<u8>) -> io::Result<Option<Piece>> {
        match self {
            Self::Lines => {
                let Some(end) = memchr::memchr(b'\n', received) else { return Ok(None) };
                let mut line: Vec<u8> = received.drain(..=end).collect();
                line.pop();
                Ok(Some(if line.is_empty() { Piece::Nothing } else { Piece::Message(line) }))
            }
            Self::Frames { .. } => take_frame(received),
        }
    }
}

fn take_frame(received: &mut Vec<u8>) -> io::Result<Option<Piece>> {
    let mut cursor = Cursor::new(received.as_slice());
    let Some((header, len)) = FrameHeader::parse(&mut cursor).map_err(io::Error::other)? else { return Ok(None) };
    let start = usize::try_from(cursor.position()).map_err(io::Error::other)?;
    let end = start + usize::try_from(len).map_err(io::Error::other)?;
    let Some(payload) = received.get(start..end) else { return Ok(None) };
    let mut payload = payload.to_vec();
    received.drain(..end);
    if let Some(mask) = header.mask {
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    }
    match header.opcode {
        OpCode::Data(Data::Text) if header.is_final => Ok(Some(Piece::Message(payload))),
        OpCode::Control(Control::Ping) => Ok(Some(Piece::Ping(payload))),
        OpCode::Control(Control::Pong) => Ok(Some(Piece::Nothing)),
        OpCode::Control(Control::Close) => {
            Ok(Some(Piece::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code)))))
        }
        other => Err(io::Error::other(format!("a frame that nobody expects: {other:?}"))),
    }
}

/// What a client begins with.
pub(crate) fn upgrade(host: std::net::SocketAddr, token: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {NONCE}\r\n\
         Sec-WebSocket-Version: 13\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
}

/// The length of the head that answers an upgrade, and its status, once it is whole. An agreement to another key is a fault.
pub(crate) fn upgraded(received: &[u8]) -> io::Result<Option<(usize, u16)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(len) = head.parse(received).map_err(io::Error::other)? else { return Ok(None) };
    let accept = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("sec-websocket-accept"));
    let agrees = accept.is_some_and(|header| header.value == derive_accept_key(NONCE.as_bytes()).as_bytes());
    match head.code {
        Some(101) if !agrees => Err(io::Error::other("an upgrade for another key")),
        code => Ok(Some((len, code.unwrap_or_default()))),
    }
}

/// What a server agrees to an upgrade with, and the length of the request, once it is whole.
pub(crate) fn agree(received: &[u8]) -> io::Result<Option<(usize, String)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(len) = head.parse(received).map_err(io::Error::other)? else { return Ok(None) };
    let key = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("sec-websocket-key"));
    let key = key.ok_or_else(|| io::Error::other("no upgrade"))?;
    let accept = derive_accept_key(key.value);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\
         Sec-WebSocket-Protocol: mcp\r\n\r\n"
    );
    Ok(Some((len, answer)))
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_cut_again_however_it_arrives() {
        for framing in [Framing::Lines, Framing::Frames { masked: true }, Framing::Frames { masked: false }] {
            let whole = [framing.message("{\"a\":1}"), framing.message(&"x".repeat(70_000))].concat();
            let (mut received, mut pieces) = (Vec::new(), Vec::new());
            for part in whole.chunks(999) {
                received.extend_from_slice(part);
                while let Some(piece) = framing.take(&mut received).expect("well made") {
                    pieces.push(piece);
                }
            }
            let expected = [b"{\"a\":1}".to_vec(), "x".repeat(70_000).into_bytes()].map(Piece::Message);
            assert_eq!(pieces, expected, "{framing:?}");
        }
    }

    #[test]
    fn control_frames_are_told_apart() {
        for masked in [true, false] {
            let framing = Framing::Frames { masked };
            let mut received = [framing.goodbye(), framing.pong(vec![1])].concat();
            assert_eq!(framing.take(&mut received).expect("well made"), Some(Piece::Close(Some(1000))));
            assert_eq!(framing.take(&mut received).expect("well made"), Some(Piece::Nothing));
            let mut ping = framing.frame(vec![1, 2], OpCode::Control(Control::Ping));
            assert_eq!(framing.take(&mut ping).expect("well made"), Some(Piece::Ping(vec![1, 2])));
        }
    }

    #[test]
    fn an_upgrade_is_agreed_to_for_its_own_key() {
        let asked = upgrade(std::net::SocketAddr::from(([127, 0, 0, 1], 1)), "t");
        let (len, answer) = agree(asked.as_bytes()).expect("an upgrade").expect("a whole one");
        assert_eq!(len, asked.len());
        assert_eq!(upgraded(answer.as_bytes()).expect("agrees"), Some((answer.len(), 101)));
        assert!(upgraded(answer.replace("Accept: ", "Accept: x").as_bytes()).is_err());
    }
}
