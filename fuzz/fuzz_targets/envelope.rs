//! Any bytes as a message, as a batch, and as the members of one: no panic, and what is found lies where it is said to lie.
#![no_main]

#[path = "../../tests/support/envelope_fuzz.rs"]
mod envelope_fuzz;

libfuzzer_sys::fuzz_target!(|raw: &[u8]| envelope_fuzz::envelope(raw));
