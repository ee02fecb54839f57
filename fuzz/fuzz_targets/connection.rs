//! A whole connection: a client's bytes through the real door, against an upstream whose answers are part of the input.
#![no_main]

#[path = "../src/connection/mod.rs"]
mod connection;

libfuzzer_sys::fuzz_target!(|data: &[u8]| connection::connection(data));
