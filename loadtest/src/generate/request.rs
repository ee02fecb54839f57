//! Calls as bytes, made before a run: only the id is yet to be written.

use std::io;

use super::super::small_call::Dialect;
use super::super::websocket;
use super::mix::{Call, ID_DIGITS};
use super::{Door, Load};

/// Frames of clients are masked. The same mask for all: it protects proxies that mistake frames for requests, of which there are none here.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A request whose id is yet to be written.
pub(super) struct Request {
    /// With room for the id.
    bytes: Vec<u8>,
    id_at: usize,
    /// What the digits of the id are masked with.
    mask: [u8; ID_DIGITS],
}

impl Request {
    pub(super) fn new(load: &Load, call: &Call) -> io::Result<Self> {
        let (start, end) = call.message_in(load.dialect);
        let id_in_message = start.len();
        let message = [start, vec![b'0'; ID_DIGITS], end].concat();
        let plain = |bytes, id_at| Self { bytes, id_at, mask: [0; ID_DIGITS] };
        Ok(match load.door {
            Door::Tcp => plain([message.as_slice(), b"\n"].concat(), id_in_message),
            Door::Http | Door::Sse => {
                let head = head(load, Some(&call.tool), message.len())?.into_bytes();
                let id_at = head.len() + id_in_message;
                plain([head, message].concat(), id_at)
            }
            Door::WebSocket => {
                let (len, mut bytes) = (message.len(), Vec::new());
                websocket::write_frame(&mut bytes, message, Some(MASK))?;
                let id_at = bytes.len() - len + id_in_message;
                let masked = |digit: usize| MASK.get((id_in_message + digit) % MASK.len()).copied().unwrap_or_default();
                Self { bytes, id_at, mask: std::array::from_fn(masked) }
            }
        })
    }

    /// Appends the request with this id.
    pub(super) fn write(&self, out: &mut Vec<u8>, id: [u8; ID_DIGITS]) {
        let at = out.len() + self.id_at;
        out.extend_from_slice(&self.bytes);
        if let Some(place) = out.get_mut(at..at + ID_DIGITS) {
            for ((byte, digit), mask) in place.iter_mut().zip(id).zip(self.mask) {
                *byte = digit ^ mask;
            }
        }
    }
}

/// A message that is no call, wrapped as its door wants it; without its first line over HTTP.
pub(super) fn wrap(load: &Load, message: &str) -> io::Result<Vec<u8>> {
    let message = message.trim_end().as_bytes();
    Ok(match load.door {
        Door::Tcp => [message, b"\n"].concat(),
        Door::Http | Door::Sse => [head(load, None, message.len())?.as_bytes(), message].concat(),
        Door::WebSocket => {
            let mut bytes = Vec::new();
            websocket::write_frame(&mut bytes, message.to_vec(), Some(MASK))?;
            bytes
        }
    })
}

/// The answer to a ping.
pub(super) fn write_pong(out: &mut Vec<u8>, payload: &[u8]) -> io::Result<()> {
    let mut frame = tungstenite::protocol::frame::Frame::pong(payload.to_vec());
    frame.header_mut().mask = Some(MASK);
    frame.format(out).map_err(io::Error::other)
}

/// What names the target in a request.
pub(super) fn host(load: &Load) -> String {
    load.tls.as_ref().map_or_else(|| load.target.to_string(), |tls| tls.name.clone())
}

pub(super) fn authorization(load: &Load) -> String {
    if load.token.is_empty() { String::new() } else { format!("Authorization: Bearer {}\r\n", load.token) }
}

/// The head of a POST, all but its first line.
fn head(load: &Load, tool: Option<&str>, len: usize) -> io::Result<String> {
    let era = match (load.door, load.dialect, tool) {
        // Clients of the old transport know no such headers.
        (Door::Sse, ..) => String::new(),
        (_, Dialect::Modern, Some(tool)) => {
            if !tool.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(io::Error::other(format!("the tool {tool:?} cannot be named in a header")));
            }
            format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: {tool}\r\n")
        }
        _ => "MCP-Protocol-Version: 2025-11-25\r\n".to_owned(),
    };
    Ok(format!(
        "Host: {}\r\n{}Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n{era}Content-Length: {len}\r\n\r\n",
        host(load),
        authorization(load),
    ))
}
