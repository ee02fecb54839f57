//! JSON-RPC and MCP as bytes: what a message says, found without changing a byte of it.
//!
//! The gateway decides from the parsed body and forwards the received bytes (ARCHITECTURE.md, invariant 4), so everything
//! here speaks of [`Span`]s into the received buffer. [`Parser`] checks a message and finds its parts, [`era`] compares the
//! mirrored headers with it, [`splice`] and [`reply`] write, [`list`] takes lists of tools, prompts and resources apart,
//! [`cut`] leaves some of a list's tools.
//!
//! Sans-IO: no runtime, no clock, no sockets; nothing allocates once its buffers have grown to the traffic.

pub mod bounds;
pub mod cut;
pub mod envelope;
pub mod era;
pub mod glance;
mod keys;
pub mod list;
pub(crate) mod lookalike;
pub mod malformed;
pub mod method;
pub mod param_headers;
pub mod parser;
mod read;
pub mod reply;
mod routing;
pub mod scan;
pub mod splice;
mod tape;
#[cfg(test)]
mod tests;
pub mod text;

pub use crate::span::Span;
pub use envelope::{AgentId, Envelope, Id, IdKind, Kind, Member, Presence};
pub use era::{Era, Revision};
pub use malformed::{Fault, Malformed};
pub use method::Method;
pub use param_headers::ParamHeaders;
pub use parser::Parser;
pub use text::Text;
