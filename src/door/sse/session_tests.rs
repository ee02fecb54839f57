#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::task::Context;

use super::*;
use crate::state::lifecycle::Lifecycle;

const ALICE: [u8; 16] = [1; 16];
const BOB: [u8; 16] = [2; 16];

struct Post {
    lifecycle: Arc<Lifecycle>,
}

impl Post {
    fn new() -> Self {
        Self { lifecycle: Arc::new(Lifecycle::new(1, Vec::new())) }
    }

    fn by(&self, principal: [u8; 16], session: SessionId, message: &[u8]) -> Posted {
        Posted { session, principal, message: message.to_vec(), in_flight: self.lifecycle.begin_call(0) }
    }
}

fn open(sessions: &Sessions, secret: u8, max_bytes: usize) -> (Seat, SessionId) {
    sessions.open(0, ([secret; 16], ALICE), -1, max_bytes, 0).unwrap()
}

fn next(session: &Session) -> Poll<Option<Waiting>> {
    std::pin::pin!(session.next()).poll(&mut Context::from_waker(Waker::noop()))
}

fn is_emptied(session: &Session) -> bool {
    std::pin::pin!(session.emptied()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn an_id_has_one_spelling() {
    let id = SessionId::of(1023, 70_000, [0xfe; 16]);
    let text = id.encode();
    assert_eq!(text.len(), 30);
    assert!(SessionId::decode(text.as_bytes()) == Some(id));
    for other in [
        String::new(),
        text[..29].to_owned(),
        format!("{text}A"),
        format!("{text}=="),
        text.repeat(100),
        text.replace('-', "+"),
        format!("{} ", &text[..29]),
        // The last character carries four bits; the others must be zero.
        format!("{}{}", &text[..29], if text.ends_with('g') { 'h' } else { 'g' }),
    ] {
        assert!(SessionId::decode(other.as_bytes()) != Some(id), "{other}");
    }
}

#[test]
fn a_session_is_known_to_its_principal_under_its_whole_id_and_while_it_is_open() {
    let (sessions, post) = (Sessions::default(), Post::new());
    let (seat, id) = open(&sessions, 7, 1000);
    assert_eq!(sessions.take(post.by(ALICE, id, b"{}"), 0, 0), Handed::Taken);
    assert_eq!(sessions.take(post.by(BOB, id, b"{}"), 0, 0), Handed::Unknown, "another principal");
    for bit in 0..128 {
        let mut secret = [7; 16];
        secret[bit / 8] ^= 1 << (bit % 8);
        let other = SessionId::of(0, id.slot, secret);
        assert_eq!(sessions.take(post.by(ALICE, other, b"{}"), 0, 0), Handed::Unknown, "bit {bit}");
    }
    assert_eq!(sessions.take(post.by(ALICE, SessionId::of(0, 1, id.secret), b"{}"), 0, 0), Handed::Unknown);
    drop(seat);
    assert_eq!(sessions.take(post.by(ALICE, id, b"{}"), 0, 0), Handed::Unknown, "it is over");
    let (_seat, next) = open(&sessions, 8, 1000);
    assert_eq!(next.slot, id.slot, "the place is used again");
    assert_eq!(sessions.take(post.by(ALICE, id, b"{}"), 0, 0), Handed::Unknown, "the place is another's now");
    assert_eq!(sessions.take(post.by(ALICE, next, b"{}"), 0, 0), Handed::Taken);
}

#[test]
fn messages_wait_in_order_within_bounds_and_count_as_in_flight_until_they_are_taken_up() {
    let (sessions, post) = (Sessions::default(), Post::new());
    let (mut seat, id) = open(&sessions, 7, 100);
    assert!(next(&seat.session).is_pending());
    assert_eq!(sessions.take(post.by(ALICE, id, &[b'a'; 60]), 0, 0), Handed::Taken);
    assert_eq!(sessions.take(post.by(ALICE, id, &[b'b'; 41]), 0, 0), Handed::Full, "too many bytes");
    assert_eq!(sessions.take(post.by(ALICE, id, &[b'b'; 40]), 0, 0), Handed::Taken);
    assert_eq!(post.lifecycle.calls_in_flight(), 2, "what was refused is in flight no more");
    let Poll::Ready(Some(first)) = next(&seat.session) else { panic!("a message waits") };
    assert_eq!(first.message, [b'a'; 60]);
    assert_eq!(
        sessions.take(post.by(ALICE, id, b"c"), 0, 0),
        Handed::Full,
        "it is being taken up: it still takes room"
    );
    seat.session.taken_up(&first);
    drop(first);
    assert_eq!(sessions.take(post.by(ALICE, id, b"c"), 0, 0), Handed::Taken);
    seat.close();
    for expected in [&[b'b'; 40][..], b"c"] {
        assert!(!is_emptied(&seat.session));
        let Poll::Ready(Some(waiting)) = next(&seat.session) else { panic!("what was accepted is taken up") };
        assert_eq!(waiting.message, expected);
        seat.session.taken_up(&waiting);
    }
    assert!(is_emptied(&seat.session));
    assert!(matches!(next(&seat.session), Poll::Ready(None)));
    assert_eq!(post.lifecycle.calls_in_flight(), 0);
}

#[test]
fn so_many_messages_wait_and_no_more() {
    let (sessions, post) = (Sessions::default(), Post::new());
    let (seat, id) = open(&sessions, 7, usize::MAX);
    for _ in 0..bounds::SSE_POSTED {
        assert_eq!(sessions.take(post.by(ALICE, id, b"{}"), 0, 0), Handed::Taken);
    }
    assert_eq!(sessions.take(post.by(ALICE, id, b"{}"), 0, 0), Handed::Full);
    seat.session.hang_up();
    assert!(is_emptied(&seat.session), "what waits for a client that is sent away is dropped");
    assert!(matches!(next(&seat.session), Poll::Ready(None)));
}
