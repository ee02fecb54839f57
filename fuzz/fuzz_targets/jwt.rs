//! Tokens as attackers write them, with and without the key, and JWK sets.
#![no_main]

#[path = "../src/jwt.rs"]
mod jwt;

libfuzzer_sys::fuzz_target!(|data: &[u8]| jwt::jwt(data));
