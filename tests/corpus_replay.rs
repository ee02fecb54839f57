//! Replays the kept fuzz corpora, and every input that once broke something, through the fuzz targets' own checks.
#![allow(clippy::expect_used, reason = "tests")]

// The harness plays clients and servers on threads of its own; the bans are for what runs on a worker.
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
#[path = "../fuzz/src/connection/mod.rs"]
mod connection;
#[path = "support/envelope_fuzz.rs"]
mod envelope_fuzz;
#[path = "support/inspect_fuzz.rs"]
mod inspect_fuzz;
#[path = "../fuzz/src/jwt.rs"]
mod jwt;
#[path = "../fuzz/src/websocket.rs"]
mod websocket;
#[path = "../fuzz/src/wire.rs"]
mod wire;

use std::fs;
use std::path::Path;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("a kept corpus") {
        let path = entry.expect("a readable folder").path();
        // Named before it is run, so that a failure says which input it was.
        println!("{}", path.display());
        check(&fs::read(&path).expect("a readable input"));
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

#[test]
fn http_request() {
    replay("http_request", wire::http_request);
}

#[test]
fn http_response() {
    replay("http_response", wire::http_response);
}

#[test]
fn sse() {
    replay("sse", wire::sse);
}

#[test]
fn websocket() {
    replay("websocket", websocket::websocket);
}

#[test]
fn jwt() {
    replay("jwt", jwt::jwt);
}

#[test]
fn envelope() {
    replay("envelope", envelope_fuzz::envelope);
}

#[test]
fn inspect() {
    replay("inspect", inspect_fuzz::inspect);
}

#[test]
fn connection() {
    replay("connection", connection::connection);
    connection::check_health();
}
