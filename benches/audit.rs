//! How many events a second the audit writer puts on disk, and how fast a trail is verified: `cargo bench --bench audit [-- EVENTS [DIR]]`.
//!
//! One thread pushes tool calls as fast as the queue takes them, beside the writer, which formats, chains, writes and syncs. The time ends when all of them are
//! synced. Then the trail is verified, with its checkpoint, and beside that the same bytes are read and hashed by SHA-256 alone, on one core: faster than that
//! one core cannot verify them. Both read from the page cache, which one reading before has filled. A million events in a temporary directory unless said
//! otherwise.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "what cannot be set up ends the bench; its threads are its own"
)]

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringwall::control::audit::checkpoint::{self, Noted};
use ringwall::control::audit::verify::{Expected, From, verify};
use ringwall::control::audit::{AuditConfig, AuditShared, AuditWriter};
use ringwall::control::keys::Key;
use ringwall::observe::metrics::AuditMetrics;
use ringwall::state::events::{Bell, Event, EventKind, EventQueue, Outcome};
use ringwall::state::lifecycle::Lifecycle;
use sha2::{Digest as _, Sha256};

/// As in the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEY: [u8; 32] = [7; 32];

fn main() {
    // Cargo says `--bench`.
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let events: u64 = words.next().map_or(1_000_000, |word| word.parse().expect("a number of events"));
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = words.next().map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let (trail, state) = (dir.join("security"), dir.join("data"));
    fs::create_dir_all(&state).expect("a directory");

    let (took, groups) = write(events, &trail, &state);
    println!(
        "{events} events durable in {took:.2?}: {:.0} a second, in {groups} groups, each synced",
        rate(events, took)
    );

    // The writer lets go of what it has written.
    hash(&trail);
    let begun = Instant::now();
    let Noted::At(checkpoint) = checkpoint::read(&state, &Key::new(KEY)).expect("the checkpoint") else {
        panic!("there is no checkpoint");
    };
    let expected = Expected { key: &Key::new(KEY), checkpoint: Some(checkpoint), beginning: From::First, anchor: None };
    let whole = verify(&trail, &expected).expect("a whole trail");
    assert!(whole.lines > events, "the events and the trail's lines about itself");
    let took = begun.elapsed();
    println!(
        "{} lines verified in {took:.2?}: {:.0} a second, {:.0} MB/s",
        whole.lines,
        rate(whole.lines, took),
        rate(whole.bytes, took) / 1e6
    );
    let took = hash(&trail);
    println!("the same bytes read and hashed in {took:.2?}: {:.0} MB/s", rate(whole.bytes, took) / 1e6);
}

fn write(events: u64, trail: &Path, state: &Path) -> (Duration, u64) {
    let bell = Arc::new(Bell::default());
    let queue = Arc::new(EventQueue::new(Arc::clone(&bell)));
    let metrics = Arc::new(AuditMetrics::default());
    let config = AuditConfig {
        dir: Some(trail.to_owned()),
        state_dir: state.to_owned(),
        key: Key::new(KEY),
        pseudonym_key: Key::new([8; 32]),
        clock: || 1_795_305_600_000,
    };
    let shared = AuditShared {
        queues: vec![Arc::clone(&queue)],
        bell,
        lifecycle: Arc::new(Lifecycle::new(1, Vec::new())),
        metrics: Arc::clone(&metrics),
        mailbox: None,
    };
    let writer = AuditWriter::start(config, shared).expect("a writer");
    let begun = Instant::now();
    for n in 0..events {
        let id = n.to_string();
        // A hundred clients, taking turns.
        let ip = [10, 0, 0, u8::try_from(n % 100).unwrap_or_default()];
        let event = Event::new(EventKind::ToolCall, 1_795_305_600_000 + n / 200).with_ip(ip.into());
        let event = event.with_agent("support-bot").with_tool(b"comms_send_message").with_request_id(id.as_bytes());
        let event = event.with_call(Outcome::Ok, 200, 153);
        // As a call does: it takes a place first, or waits.
        let place = loop {
            match queue.reserve() {
                Ok(place) => break place,
                Err(_) => std::thread::yield_now(),
            }
        };
        place.commit(event);
    }
    writer.stop().expect("a disk with room");
    let took = begun.elapsed();
    assert_eq!(metrics.written.get(), events, "all of them");
    (took, metrics.groups.get())
}

fn hash(trail: &Path) -> Duration {
    let begun = Instant::now();
    let mut hash = Sha256::new();
    let mut block = vec![0; 256 << 10];
    for file in fs::read_dir(trail).expect("the trail") {
        let mut file = fs::File::open(file.expect("a file").path()).expect("a file");
        while let Ok(n @ 1..) = file.read(&mut block) {
            hash.update(block.get(..n).unwrap_or_default());
        }
    }
    std::hint::black_box(hash.finalize());
    begun.elapsed()
}

fn rate(count: u64, took: Duration) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a rate, for people")]
    let count = count as f64;
    count / took.as_secs_f64()
}
