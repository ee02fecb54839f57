//! MCP servers that are programs: `stdio:` upstreams, shared by the clients of all workers.
//!
//! All children of all upstreams live on one thread with a runtime of its own ([`spawn`]). Workers reach it through [`ChildrenHandle`],
//! which never blocks, and get a bounded queue of messages back for each call ([`CallHandle`]).
//!
//! ```text
//!  worker ── ChildrenHandle::call ─► inbox ─► broker ─► stdin queue ─► writer ─► child
//!         ◄─ CallHandle::recv ◄───── queue ◄─ broker ◄─ lines ◄─────── reader ◄─┘
//! ```
//!
//! - `seam`, `handle`: what workers see.
//! - `broker`, `legacy`, `routing`, `stateless`, `upkeep`, with `instance` and `sessions`: whose message goes where. No I/O, no clock.
//! - `line`, `lines`, `splice`: a child's output taken apart, and tokens exchanged in place.
//! - `process`, `stderr`, `backoff`, `thread`: the processes.
//!
//! Promises: a client gets only what is provably its own; one stuck child hinders no other; everything has a bound; no process of a child's
//! group outlives the gateway or the child; no variable of the gateway's environment but the usual nine reaches a child.

mod backoff;
mod broker;
mod handle;
mod instance;
mod legacy;
mod line;
mod lines;
mod process;
mod routing;
mod seam;
mod sessions;
mod socket;
mod splice;
mod stateless;
mod stderr;
mod thread;
mod upkeep;
mod websocket;

#[cfg(test)]
mod tests;

pub use handle::{CallHandle, ChildCounters, ChildState, ChildrenHandle};
pub use seam::{
    Busy, CallKind, ChildCall, ChildMessage, ChildSpec, Gone, Parts, ProgramSpec, Server, SessionId, SocketSpec,
    SpawnFault,
};
pub use thread::spawn;
