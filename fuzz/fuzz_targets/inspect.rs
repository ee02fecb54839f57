//! Any bytes as a value of each kind, as a key, and as a message: no panic, no place outside of the value, and no time that grows faster than they do.
#![no_main]

#[path = "../../tests/support/inspect_fuzz.rs"]
mod inspect_fuzz;

libfuzzer_sys::fuzz_target!(|raw: &[u8]| inspect_fuzz::inspect(raw));
