//! WebSocket frames and upgrades: whole, byte by byte, and as the standard reads them.
#![no_main]

#[path = "../src/websocket.rs"]
mod websocket;

libfuzzer_sys::fuzz_target!(|data: &[u8]| websocket::websocket(data));
