//! The broker against children that are only queues: routing, sharing, bounds, expiry. No process, no clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bench;
mod bounds;
mod ends;
mod messages;
mod sharing;
