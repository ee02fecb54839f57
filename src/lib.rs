//! Ringwall.
