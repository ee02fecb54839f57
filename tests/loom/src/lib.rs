//! The lock-free parts of `state/`, compiled against loom.
//!
//! A package of its own because `--cfg loom` reaches every crate of a build, and the network crates do not compile with
//! it. The sources are the gateway's own, by path; their loom tests stand beside them. Without `--cfg loom` this package is
//! empty.
#![cfg(loom)]

#[path = "../../../src/state/admission.rs"]
pub mod admission;
#[path = "../../../src/state/bell.rs"]
mod bell;
#[path = "../../../src/state/call_limit.rs"]
pub mod call_limit;
#[path = "../../../src/state/connections.rs"]
pub mod connections;
#[path = "../../../src/state/doors.rs"]
pub mod doors;
#[path = "../../../src/state/keyed_hash.rs"]
mod keyed_hash;
#[path = "../../../src/state/rates.rs"]
pub mod rates;
#[path = "../../../src/state/seqlock.rs"]
mod seqlock;
#[path = "../../../src/state/slots.rs"]
mod slots;
#[path = "../../../src/state/sync.rs"]
mod sync;
#[path = "../../../src/state/window.rs"]
mod window;
