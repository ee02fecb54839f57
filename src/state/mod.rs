//! All memory that more than one thread writes.
//!
//! Lock-free, of fixed size, and plain: nothing here reads a clock, does I/O or knows a runtime. Time comes in as
//! epoch milliseconds, randomness as a hasher. `sync` swaps the atomics for loom's under `cfg(loom)`.

pub mod addresses;
pub mod admission;
pub mod attempts;
mod bell;
pub mod blocks;
pub mod call_limit;
pub mod call_records;
pub mod connections;
pub mod credentials;
pub mod doors;
pub mod events;
pub mod health;
mod keyed_hash;
pub mod lifecycle;
pub mod networks;
pub mod pins;
pub mod queue;
pub mod rates;
mod seqlock;
pub mod sessions;
pub mod shards;
mod slots;
pub mod spend;
mod sync;
pub mod tools;
pub mod upstream_credential;
mod window;
