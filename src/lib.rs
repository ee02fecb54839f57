//! Ringwall.

pub mod wire;
