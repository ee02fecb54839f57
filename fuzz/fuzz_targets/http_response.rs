//! Responses and their bodies: whole, and byte by byte.
#![no_main]

#[path = "../src/wire.rs"]
mod wire;

libfuzzer_sys::fuzz_target!(|data: &[u8]| wire::http_response(data));
