//! What must hold of a whole connection, whatever its client and its upstream send.
//!
//! A gateway with one worker runs in this process. Each input is one connection to its door over loopback: a client that sends what the input
//! says, cut into writes as it says, and an upstream that answers what it says. Both are played by one thread, this one.
//!
//! # An input
//! `FLAGS CUTS CUT… CLIENT %%UP%% ANSWER %%UP%% ANSWER …`: a byte of flags (the constants below), a byte whose low three bits are the number
//! of cuts, two bytes a cut (big endian, modulo the length), then text: what the client sends, and the upstream's answers in the order in
//! which requests reach it. `{{S}}` in the client's part stands for the sealed id of a session, `{{L}}` in an answer for 64 KiB of it. An answer that is whole by its own head
//! leaves its connection open, any other ends with the connection. When the answers have run out, an empty result is.
//!
//! # What is checked
//! - Every request that the strict parser finds in the client's bytes is answered, or the connection ends and says why; in time.
//! - What comes back is well-formed HTTP, never more answers than requests (and one refusal), nothing behind an answer that closes.
//! - The upstream gets no more calls than were made with a valid token, each well-formed, with the body that the client sent.
//! - No token, cookie or unsealed session id crosses from one side to the other.
//! - The worker serves `/health` afterwards, and no connection stays open.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed check is a panic here"
)]

mod oracle;
mod play;
mod world;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use world::World;

/// There are two upstreams, so that lists are merged and sessions joined.
const SEVERAL: u8 = 1;
/// The client goes away when it has sent everything.
const LEAVES: u8 = 2;
/// The client ends its side when it has sent everything.
const HALF_CLOSES: u8 = 4;
/// The upstream's answers are cut like the client's bytes.
const CUT_ANSWERS: u8 = 8;
/// The upstream stops in the middle of its answer, where the client does not wait for it.
const STALLS: u8 = 16;
/// The upstream closes its connection after each answer.
const UPSTREAM_CLOSES: u8 = 32;
/// The upstream answers before it has the whole request.
const ANSWERS_EARLY: u8 = 64;

/// Between the client's bytes and the upstream's answers.
const SEPARATOR: &[u8] = b"%%UP%%";
/// Stands for a sealed session id.
const SESSION: &[u8] = b"{{S}}";
/// Stands for [`LONG_BYTES`] bytes, more than the gateway gathers before it passes an answer on; the first few times in an answer.
const LONG: &[u8] = b"{{L}}";
const LONG_BYTES: usize = 64 * 1024;
const MOST_LONG: usize = 3;

/// One input, taken apart.
struct Input {
    flags: u8,
    cuts: Vec<usize>,
    client: Vec<u8>,
    answers: Vec<Vec<u8>>,
}

impl Input {
    fn read(data: &[u8], session: &str) -> Option<Self> {
        let (&[flags, count], rest) = data.split_first_chunk::<2>()?;
        let (cuts, mut rest) = rest.split_at_checked(2 * usize::from(count & 7))?;
        let cuts = cuts.chunks(2).map(|cut| usize::from(cut[0]) << 8 | usize::from(cut[1])).collect();
        let mut parts = Vec::new();
        while let Some(at) = memchr::memmem::find(rest, SEPARATOR) {
            parts.push(&rest[..at]);
            rest = &rest[at + SEPARATOR.len()..];
        }
        parts.push(rest);
        let client = replace(parts.remove(0), SESSION, session.as_bytes(), usize::MAX);
        let long = [b'x'; LONG_BYTES];
        let answers = parts.into_iter().map(|answer| replace(answer, LONG, &long, MOST_LONG)).collect();
        Some(Self { flags, cuts, client, answers })
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// `bytes` in the pieces in which they are written.
    fn pieces(&self, bytes: &[u8], cut: bool) -> Vec<Vec<u8>> {
        let mut at: Vec<usize> =
            if cut { self.cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect() } else { Vec::new() };
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        at.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).filter(|piece| !piece.is_empty()).collect()
    }
}

fn replace(text: &[u8], what: &[u8], with: &[u8], times: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    for at in memchr::memmem::find_iter(text, what).take(times) {
        let at = at - (text.len() - rest.len());
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(with);
        rest = &rest[at + what.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// Runs between two looks at `/health`.
const HEALTH_EVERY: u64 = 64;

/// One connection.
pub(crate) fn connection(data: &[u8]) {
    let mut world = world();
    if let Some(input) = Input::read(data, &world.session(data.first().is_some_and(|flags| flags & SEVERAL != 0))) {
        let seen = world.play(&input);
        oracle::check(&input, &seen);
        if world.runs.is_multiple_of(HEALTH_EVERY) {
            world.check_health();
        }
    }
}

/// After the last input: whether the workers still serve.
#[allow(dead_code, reason = "a fuzzer has no last input")]
pub(crate) fn check_health() {
    world().check_health();
}

fn world() -> MutexGuard<'static, World> {
    static WORLD: OnceLock<Mutex<World>> = OnceLock::new();
    WORLD.get_or_init(|| Mutex::new(World::start())).lock().unwrap_or_else(PoisonError::into_inner)
}
