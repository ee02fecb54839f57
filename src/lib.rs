//! Ringwall: a security gateway for AI agents. It stands between agents and the MCP servers whose tools they call.
//!
//! This crate is the program's inside; its interface is the program, and nothing here is promised to stay as it is. What is
//! promised is written in the README and in ARCHITECTURE.md.
//!
//! # The map
//! The journey of a message is the layout of the source: [`door`] (bytes in) → [`rpc`] (what it says) → [`guard`] (whether it
//! may) → [`upstream`] (bytes out), with [`wire`] below both ends. [`worker`] runs it, one thread a core. [`state`] is all memory
//! that several threads write. [`control`] is everything that is on no message's way. [`gateway`] starts and ends it all.
//!
//! # Invariants
//! 1. `wire`, `rpc`, `guard` and `state` never import a runtime, read a clock or do I/O.
//! 2. Dependencies point one way: door → rpc → guard → state; door → upstream → wire. Nothing on a worker imports `control`.
//! 3. A guard answers with a value; [`guard::Denial`] alone decides what follows from it.
//! 4. What is forwarded is what arrived; what must differ is spliced in, never re-serialized.
//! 5. Everything has a bound: the settings, [`bounds`], `wire::http1`, `rpc::bounds`.
//! 6. Secrets are [`settings::Secret`]: they cannot be printed.
//! 7. What cannot be decided is denied.

// Nothing outside of tests may panic by index, unwrap or macro: no byte from outside reaches one, because there is none.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
pub mod bounds;
pub mod cli;
pub mod control;
pub mod door;
pub mod gateway;
pub mod guard;
pub mod observe;
pub mod rpc;
pub mod settings;
pub mod span;
pub mod state;
pub mod store;
mod sys;
pub mod upstream;
pub mod vault;
pub mod wire;
pub mod worker;
