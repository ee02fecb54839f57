//! What comes over a connection, cut into messages as its door frames them.

use std::io;

use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::super::websocket;
use super::connection::shown;
use super::events::{Said, Stream};
use super::http::Responses;

/// How one direction of a connection is framed.
pub(super) enum Reader {
    Http(Responses),
    Lines,
    WebSocket,
    Events(Stream),
}

/// What has come.
#[derive(Debug)]
pub(super) enum Item<'a> {
    Message(&'a [u8]),
    /// A response with another status than 200.
    Status(u16, &'a [u8]),
    /// A WebSocket ping.
    Ping(&'a [u8]),
    /// Where the client of an old SSE stream posts.
    Endpoint(&'a [u8]),
    Nothing,
}

impl Reader {
    /// What is at the front of `bytes`, and how many of them it has taken, once it is whole.
    pub(super) fn read<'a>(&'a mut self, bytes: &'a [u8]) -> io::Result<Option<(Item<'a>, usize)>> {
        match self {
            Self::Http(_) | Self::Lines | Self::WebSocket if bytes.is_empty() => Ok(None),
            Self::Http(responses) => Ok(responses.read(bytes)?.map(|(status, content, len)| match status {
                200 => (Item::Message(content), len),
                _ => (Item::Status(status, content), len),
            })),
            Self::Lines => Ok(memchr::memchr(b'\n', bytes).map(|end| {
                let line = bytes.get(..end).unwrap_or_default();
                (Item::Message(line.strip_suffix(b"\r").unwrap_or(line)), end + 1)
            })),
            Self::WebSocket => {
                let Some((header, start, end)) = websocket::frame_bounds(bytes)? else { return Ok(None) };
                let payload = bytes.get(start..end).unwrap_or_default();
                match header.opcode {
                    OpCode::Data(Data::Text) if header.is_final && header.mask.is_none() => {
                        Ok(Some((Item::Message(payload), end)))
                    }
                    OpCode::Control(Control::Ping) => Ok(Some((Item::Ping(payload), end))),
                    _ => Err(io::Error::other(format!("a frame that nobody asked for: {header:?} {}", shown(payload)))),
                }
            }
            Self::Events(stream) => Ok(stream.read(bytes)?.map(|(said, len)| match said {
                Said::Message(message) => (Item::Message(message), len),
                Said::Endpoint(path) => (Item::Endpoint(path), len),
                Said::Nothing => (Item::Nothing, len),
            })),
        }
    }
}
