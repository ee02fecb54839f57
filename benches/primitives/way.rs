//! The way of one call from the bytes of its request to its audit line, in parts and as a whole. What is missing is what costs most in
//! fact: the kernel, the runtime, sockets and timers; `loadtest` measures those.

use std::hint::black_box;

use ringwall::bench::{Decided, Plane, Read};

use crate::case::Case;
use crate::guards::{SETTINGS, policy};
use crate::inputs::{
    CALL, MODERN_CALL, MODERN_FIELDS, PARAM_FIELDS, TOKEN, TOOLS, UNNAMED_CALL, UPSTREAM_SESSION, answered, post,
    session_fields,
};
use crate::shared::formatter;

pub(crate) fn cases() -> Vec<Case> {
    let session = plane().session(TOKEN, UPSTREAM_SESSION).expect("a short id can be sealed");
    let plain = || post(CALL, &session_fields(""));
    let in_session = || post(CALL, &session_fields(&session));
    let modern = || post(MODERN_CALL, MODERN_FIELDS);
    let with_params = post(MODERN_CALL, &format!("{MODERN_FIELDS}{PARAM_FIELDS}"));
    let learned = plane();
    assert!(learned.learn(TOOLS.as_bytes()), "the page of tools is a message");
    vec![
        read("way/request read, 2025-11-25", plain()),
        read("way/request read, in a session", in_session()),
        read("way/request read, 2026-07-28", modern()),
        decided("way/decided, in a session", plane(), in_session()),
        decided("way/decided, agent put in", plane(), post(UNNAMED_CALL, &session_fields(""))),
        decided("way/decided, 2026-07-28", plane(), modern()),
        decided("way/decided, with parameter headers", learned, with_params),
        outgoing("way/request for the upstream, in a session", in_session()),
        outgoing("way/request for the upstream, agent put in", post(UNNAMED_CALL, &session_fields(""))),
        answer(),
        recorded(in_session()),
        whole("way/whole, 2025-11-25", plain()),
        whole("way/whole, in a session", in_session()),
        whole("way/whole, 2026-07-28", modern()),
    ]
}

/// One for each case: a worker's scratch holds what was read last.
fn plane() -> Plane {
    Plane::new(&policy(), &SETTINGS).expect("the settings of the benches are valid")
}

fn read(name: &'static str, request: Vec<u8>) -> Case {
    let (plane, mut read) = (plane(), Read::default());
    Case::new(name, request.len(), move || plane.read(black_box(&request), &mut read))
}

/// A request that was read and may pass.
fn ready(plane: &Plane, request: &[u8]) -> (Read, Decided) {
    let mut read = Read::default();
    assert!(plane.read(request, &mut read), "the request is accepted");
    let decided = plane.decide(request, &read).expect("the call may pass");
    (read, decided)
}

fn decided(name: &'static str, plane: Plane, request: Vec<u8>) -> Case {
    let (read, _) = ready(&plane, &request);
    Case::new(name, 0, move || plane.decide(black_box(&request), &read).is_some())
}

fn outgoing(name: &'static str, request: Vec<u8>) -> Case {
    let plane = plane();
    let (read, decided) = ready(&plane, &request);
    Case::new(name, request.len(), move || {
        plane.outgoing(black_box(&request), &read, &decided).is_some_and(|out| out.starts_with(b"POST /mcp "))
    })
}

fn answer() -> Case {
    let (plane, answered, mut out) = (plane(), answered(), Vec::with_capacity(1024));
    Case::new("way/answer for the client", answered.len(), move || {
        out.clear();
        plane.answer(black_box(&answered), &mut out)
    })
}

/// With its line; the place for it is taken in `decide`.
fn recorded(request: Vec<u8>) -> Case {
    let plane = plane();
    let (read, _) = ready(&plane, &request);
    let (mut formatter, mut line) = (formatter(), Vec::with_capacity(1024));
    Case::new("way/decided, recorded and its line", 0, move || {
        let Some(decided) = plane.decide(&request, &read) else { return false };
        plane.record(black_box(&request), &read, decided);
        line.clear();
        plane.take_event().is_some_and(|event| {
            formatter.append(&mut line, &event);
            !line.is_empty()
        })
    })
}

fn whole(name: &'static str, request: Vec<u8>) -> Case {
    let (plane, answered, mut read) = (plane(), answered(), Read::default());
    let (mut out, mut formatter, mut line) = (Vec::with_capacity(1024), formatter(), Vec::with_capacity(1024));
    Case::new(name, request.len(), move || {
        if !plane.read(black_box(&request), &mut read) {
            return false;
        }
        let Some(decided) = plane.decide(&request, &read) else { return false };
        let forwarded = plane.outgoing(&request, &read, &decided).is_some_and(|bytes| !black_box(bytes).is_empty());
        out.clear();
        let answered = plane.answer(black_box(&answered), &mut out);
        plane.record(&request, &read, decided);
        line.clear();
        let event = plane.take_event();
        if let Some(event) = &event {
            formatter.append(&mut line, event);
        }
        forwarded && answered && event.is_some()
    })
}
