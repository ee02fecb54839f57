//! Black-box tests' tools: the real program in a folder of its own ([`Gateway`]), a client that says exactly the bytes it is
//! told to ([`Client`]), one that speaks messages as lines or WebSocket frames ([`Peer`]), and servers that follow a script and remember every byte ([`Upstream`]).
//!
//! Nothing here sleeps where an event can be awaited; every wait has a time limit that only a hung gateway reaches.
#![allow(dead_code, reason = "each test program uses its own part of this")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the threads of a test are its own")]

mod caller;
mod client;
mod gateway;
mod message;
mod peer;
mod upstream;

#[allow(unused_imports, reason = "each test program uses its own part of this")]
pub(crate) use self::{
    caller::{Caller, DOORS, Door},
    client::{Client, Response, TOKEN},
    gateway::Gateway,
    message::{call, id_of, initialize, modern, post, result, stateless},
    peer::{Frame, KEY, Peer, authenticate, upgrade, upgrade_request},
    upstream::{Conversation, Next, Nobody, Received, Upstream, answer, answer_json},
};

use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine; only what hangs reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Asks `done` until it says yes. For what cannot be awaited: another process's state.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A file of third-party vectors as JSON rows. `None`, said in a line, where they are not at hand; in CI they must be.
pub(crate) fn rows(file: &str) -> Option<Vec<serde_json::Value>> {
    let folder = std::env::var_os("RINGWALL_DATA").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        std::path::PathBuf::from,
    );
    let path = folder.join("http").join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        assert!(std::env::var_os("CI").is_none(), "{} is missing", path.display());
        println!("skipped: {} is missing (set RINGWALL_DATA)", path.display());
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).expect("a JSON row")).collect())
}

/// The bytes that a JSON string of a vector stands for: one a character where all fit, else UTF-8.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(character).ok()).collect::<Option<_>>().unwrap_or_else(|| text.into())
}
