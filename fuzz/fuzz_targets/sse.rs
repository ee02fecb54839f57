//! Event streams: whole, byte by byte, and as the standard reads them.
#![no_main]

#[path = "../src/wire.rs"]
mod wire;

libfuzzer_sys::fuzz_target!(|data: &[u8]| wire::sse(data));
