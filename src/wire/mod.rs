//! Sans-IO codecs: bytes in, spans out. No runtime, no clock, no I/O, and no allocation in the steady state.
//!
//! - [`http1`]: strict HTTP/1.1 heads and bodies, for the door (requests) and for upstreams (responses), and the
//!   helpers that write both.
//! - [`sse`]: server-sent events, split into complete raw events.
//! - [`lines`]: bounded lines, for stdio and TCP.
//! - [`proxy_protocol`]: what a proxy says of its client, before all else.
//! - [`websocket`]: RFC 6455 frames and upgrades, as server and as client.
//!
//! Every parser answers with [`Span`]s into the caller's buffer, so nothing is copied, and every parser is bounded:
//! the limit stands in its constructor or in a constant beside it.

// All of this reads untrusted bytes.
#![deny(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub mod http1;
pub mod lines;
pub mod proxy_protocol;
pub mod sse;
pub mod traceparent;
pub mod websocket;

pub use crate::span::Span;
