//! The few corners that need `libc` or `unsafe`, each with its proof. Everything else in this crate denies `unsafe`.
//!
//! Nothing here keeps state, and nothing here decides anything: each function is one system call, or one allocation, with its arguments checked.

pub(crate) mod child;
pub(crate) mod memory;
pub(crate) mod socket;
pub(crate) mod thread;
pub(crate) mod words;
pub(crate) mod zeroed;
