//! WebSocket (RFC 6455), both roles: we are the server of agents and the client of `ws://` upstreams.
//!
//! - [`Decoder`]: received bytes in, messages and control frames out.
//! - [`write`](mod@write): frames that we send.
//! - [`handshake`]: the HTTP upgrade, asked for and answered.
//! - [`Fault`] and [`CloseCode`]: what a peer did wrong, and the number that tells it so.
//!
//! No extension is ever agreed on (permessage-deflate costs memory and invites compression bombs), so a reserved bit is
//! a fault. Nothing here answers by itself: pongs, the closing handshake, deadlines and the rate of pings are the
//! caller's. There is no randomness either: masking keys and nonces come in as values.
//!
//! ```
//! use ringwall::wire::websocket::{Decoder, Event, Role, write};
//!
//! let mut received = Vec::new();
//! write::text(&mut received, b"{}", Some([0x37, 0xfa, 0x21, 0x3d])); // what an agent sends
//! let mut decoder = Decoder::new(Role::Server, 1024);
//! let Some(Event::Text(span)) = decoder.next_event(&mut received)? else { panic!() };
//! assert_eq!(span.of(&received), b"{}");
//! assert_eq!(decoder.next_event(&mut received)?, None);
//! assert!(received.is_empty());
//! # Ok::<(), ringwall::wire::websocket::Fault>(())
//! ```

mod decoder;
mod fault;
mod frame;
pub mod handshake;
mod utf8;
pub mod write;

use super::Span;
pub use decoder::{Decoder, Event, MAX_EMPTY_FRAMES};
pub use fault::{CloseCode, Fault};
pub use frame::{MAX_CONTROL_BYTES, MAX_HEADER_BYTES, MaskingKey, Opcode, mask};

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Received frames must be masked, ours must not (RFC 6455 §5.1).
    Server,
    /// Received frames must not be masked, ours must (RFC 6455 §5.1).
    Client,
}
