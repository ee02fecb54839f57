//! Ours beside tungstenite, on streams that either has written and on streams that were broken.
//!
//! Where the two differ on purpose:
//! - tungstenite takes a length in more bytes than it needs, also for a control frame; §5.2 says it MUST be the fewest.
//!   Ours refuses.
//! - tungstenite reports a forbidden close code as a Close 1002 "Protocol violation", ours as a fault. And it forbids 1014,
//!   which IANA registered after the RFC.
//! - tungstenite looks at a frame when it is whole, ours at each byte. So a stream on which ours found a fault is
//!   continued for tungstenite with zeros, until every frame that it lets begin has ended.
//! - tungstenite bears any number of empty fragments; no stream here has as many as ours bears.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::{self, Cursor, Read, Write};

use proptest::prelude::*;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Message as Theirs, Role as TheirRole, WebSocket, WebSocketConfig};

use super::super::write;
use super::tests::{Said, Stream, decode};
use super::*;

const MAX: u32 = 70_000;

/// One frame to be sent.
#[derive(Clone, Debug)]
struct Sent {
    opcode: Opcode,
    fin: bool,
    payload: Vec<u8>,
    key: MaskingKey,
}

/// A conversation's one direction: its frames and what they say.
type Script = (Vec<Sent>, Vec<Said>);

fn control() -> impl Strategy<Value = (Opcode, Vec<u8>, MaskingKey)> {
    let opcode = prop_oneof![Just(Opcode::Ping), Just(Opcode::Pong)];
    (opcode, prop::collection::vec(any::<u8>(), 0..=125), any::<MaskingKey>())
}

/// A message of one frame or several, of which each but the first may come behind a control frame.
fn message() -> impl Strategy<Value = Script> {
    let text =
        prop_oneof![8 => "[ -~é\u{20ac}\u{10348}]{0,60}", 1 => "[aé]{120,300}", 1 => Just("\u{20ac}".repeat(22_000))];
    let payload = prop_oneof![
        3 => text.prop_map(|text| (Opcode::Text, text.into_bytes())),
        1 => prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| (Opcode::Binary, bytes)),
    ];
    let cut = (any::<prop::sample::Index>(), prop::option::weighted(0.3, control()), any::<MaskingKey>());
    (payload, prop::collection::vec(cut, 0..5), any::<MaskingKey>()).prop_map(|((opcode, payload), mut cuts, key)| {
        cuts.sort_by_key(|(at, ..)| at.index(payload.len() + 1));
        let (mut frames, mut said, mut from, mut key) = (Vec::new(), Vec::new(), 0, key);
        let opcode_at = |from: usize| if from == 0 { opcode } else { Opcode::Continuation };
        for (number, (at, control, next_key)) in cuts.iter().enumerate() {
            let end = at.index(payload.len() + 1);
            let payload = payload[from..end].to_vec();
            frames.push(Sent { opcode: opcode_at(number), fin: false, payload, key });
            if let Some((opcode, payload, key)) = control.clone() {
                said.push(if opcode == Opcode::Ping {
                    Said::Ping(payload.clone())
                } else {
                    Said::Pong(payload.clone())
                });
                frames.push(Sent { opcode, fin: true, payload, key });
            }
            (from, key) = (end, *next_key);
        }
        frames.push(Sent { opcode: opcode_at(cuts.len()), fin: true, payload: payload[from..].to_vec(), key });
        said.push(if opcode == Opcode::Text { Said::Text(payload) } else { Said::Binary(payload) });
        (frames, said)
    })
}

/// Messages, and at the end perhaps a Close.
fn script() -> impl Strategy<Value = Script> {
    let code = prop_oneof![1000u16..=1003, 1007u16..=1013, 3000u16..=4999];
    let close = (prop::option::of((code, "[a-zé]{0,50}")), any::<MaskingKey>());
    (prop::collection::vec(message(), 0..5), prop::option::of(close)).prop_map(|(messages, close)| {
        let (mut frames, mut said) = (Vec::new(), Vec::new());
        for (more_frames, more_said) in messages {
            frames.extend(more_frames);
            said.extend(more_said);
        }
        if let Some((body, key)) = close {
            let mut payload = Vec::new();
            if let Some((code, reason)) = &body {
                payload.extend_from_slice(&code.to_be_bytes());
                payload.extend_from_slice(reason.as_bytes());
            }
            frames.push(Sent { opcode: Opcode::Close, fin: true, payload, key });
            let (code, reason) = body.unzip();
            said.push(Said::Close(code, reason.unwrap_or_default().into_bytes()));
        }
        (frames, said)
    })
}

/// The frames as we send them to somebody who receives in `to`.
fn ours(frames: &[Sent], to: Role) -> Vec<u8> {
    let mut out = Vec::new();
    for Sent { opcode, fin, payload, key } in frames {
        write::frame(&mut out, *opcode, *fin, payload, (to == Role::Server).then_some(*key));
    }
    out
}

/// The frames as tungstenite sends them, with keys of its own.
fn theirs(frames: &[Sent], to: Role) -> Vec<u8> {
    let from = if to == Role::Server { TheirRole::Client } else { TheirRole::Server };
    let mut socket = WebSocket::from_raw_socket(Pipe::default(), from, None);
    for Sent { opcode, fin, payload, .. } in frames {
        let payload = payload.clone();
        let frame = match opcode {
            Opcode::Continuation => Frame::message(payload, OpCode::Data(Data::Continue), *fin),
            Opcode::Text => Frame::message(payload, OpCode::Data(Data::Text), *fin),
            Opcode::Binary => Frame::message(payload, OpCode::Data(Data::Binary), *fin),
            Opcode::Ping => Frame::ping(payload),
            Opcode::Pong => Frame::pong(payload),
            Opcode::Close => Frame::close(payload.split_first_chunk::<2>().map(|(code, reason)| CloseFrame {
                code: u16::from_be_bytes(*code).into(),
                reason: std::str::from_utf8(reason).unwrap().into(),
            })),
        };
        assert_eq!(matches!(frame.header().opcode, OpCode::Control(Control::Close)), *opcode == Opcode::Close);
        socket.send(Theirs::Frame(frame)).unwrap();
    }
    std::mem::take(&mut socket.get_mut().sent)
}

/// What tungstenite says that `stream` says, until its end, a Close, or an error; and whether it was an error.
fn read_by_theirs(stream: &[u8], role: Role) -> (Vec<Said>, bool) {
    let role = if role == Role::Server { TheirRole::Server } else { TheirRole::Client };
    let max = Some(MAX as usize);
    let config = WebSocketConfig::default().max_message_size(max).max_frame_size(max).read_buffer_size(4096);
    let pipe = Pipe { received: Cursor::new(stream.to_vec()), sent: Vec::new() };
    let mut socket = WebSocket::from_raw_socket(pipe, role, Some(config));
    let mut said = Vec::new();
    loop {
        said.push(match socket.read() {
            Ok(Theirs::Text(text)) => Said::Text(text.as_bytes().to_vec()),
            Ok(Theirs::Binary(bytes)) => Said::Binary(bytes.to_vec()),
            Ok(Theirs::Ping(bytes)) => Said::Ping(bytes.to_vec()),
            Ok(Theirs::Pong(bytes)) => Said::Pong(bytes.to_vec()),
            Ok(Theirs::Close(None)) => {
                said.push(Said::Close(None, Vec::new()));
                return (said, false);
            }
            Ok(Theirs::Close(Some(CloseFrame { code, reason }))) => {
                if reason.as_str() == "Protocol violation" {
                    return (said, true);
                }
                said.push(Said::Close(Some(code.into()), reason.as_bytes().to_vec()));
                return (said, false);
            }
            Ok(Theirs::Frame(_)) => panic!("a raw frame is never read"),
            Err(tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                return (said, false);
            }
            Err(_) => return (said, true),
        });
    }
}

#[derive(Debug, Default)]
struct Pipe {
    received: Cursor<Vec<u8>>,
    sent: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.received.read(buf)
    }
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.sent.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Server), Just(Role::Client)]
}

/// Ours, in pieces of `steps` bytes over and over; and byte by byte where the stream is short.
fn read_by_ours(stream: &[u8], role: Role, steps: &[usize]) -> Stream {
    let mut end = 0;
    let mut ends: Vec<usize> = steps
        .iter()
        .cycle()
        .map_while(|step| {
            let start = end;
            end = stream.len().min(start + step);
            (start < stream.len()).then_some(end)
        })
        .collect();
    ends.insert(0, 0);
    let said = decode(role, MAX, stream, ends);
    if stream.len() < 3000 {
        assert_eq!(decode(role, MAX, stream, 0..=stream.len()), said, "byte by byte");
    }
    said
}

/// How a valid stream is broken.
#[derive(Clone, Debug)]
enum Break {
    Set(u8),
    Flip(u8),
    Remove,
    Insert(u8),
    Truncate,
    /// The bytes up to here once more.
    Repeat,
}

fn breaks() -> impl Strategy<Value = Vec<(prop::sample::Index, Break)>> {
    let kind = prop_oneof![
        any::<u8>().prop_map(Break::Set),
        (0u8..8).prop_map(Break::Flip),
        Just(Break::Remove),
        any::<u8>().prop_map(Break::Insert),
        Just(Break::Truncate),
        Just(Break::Repeat),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), kind), 1..4)
}

/// Breaks near a border of frames, most of the time: elsewhere is payload.
fn broken(
    mut stream: Vec<u8>,
    borders: &[usize],
    near: &[Option<u8>],
    breaks: &[(prop::sample::Index, Break)],
) -> Vec<u8> {
    for (number, (at, kind)) in breaks.iter().enumerate() {
        if stream.is_empty() {
            break;
        }
        let at = match near[number % near.len()] {
            Some(behind) if !borders.is_empty() => at.get(borders) + usize::from(behind),
            _ => at.index(stream.len()),
        };
        let at = at.min(stream.len() - 1);
        match kind {
            Break::Set(byte) => stream[at] = *byte,
            Break::Flip(bit) => stream[at] ^= 1 << bit,
            Break::Remove => drop(stream.remove(at)),
            Break::Insert(byte) => stream.insert(at, *byte),
            Break::Truncate => stream.truncate(at),
            Break::Repeat => stream.extend_from_within(..at),
        }
    }
    stream
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn ours_reads_theirs((frames, said) in script(), role in role(), steps in prop::collection::vec(1usize..9000, 1..5)) {
        let stream = theirs(&frames, role);
        prop_assert_eq!(read_by_ours(&stream, role, &steps), (said, None));
    }

    #[test]
    fn theirs_reads_ours((frames, said) in script(), role in role()) {
        prop_assert_eq!(read_by_theirs(&ours(&frames, role), role), (said, false));
    }

    /// The same events before the same end, on streams of which a few bytes are wrong.
    #[test]
    fn both_refuse_the_same(
        (frames, _) in script(),
        role in role(),
        steps in prop::collection::vec(1usize..40, 1..5),
        breaks in breaks(),
        near in prop::collection::vec(prop::option::weighted(0.8, 0u8..8), 3),
    ) {
        let borders: Vec<usize> = (0..frames.len()).map(|count| ours(&frames[..count], role).len()).collect();
        let mut stream = broken(ours(&frames, role), &borders, &near, &breaks);
        let (said, fault) = read_by_ours(&stream, role, &steps);
        if fault.is_some() {
            stream.resize(stream.len() + MAX as usize + 100, 0);
        }
        let (their_said, their_fault) = read_by_theirs(&stream, role);
        if matches!(fault, Some(Fault::LengthNotMinimal | Fault::LongControl)) {
            prop_assert!(their_said.starts_with(&said), "{:?}", fault);
        } else if !matches!(said.last(), Some(Said::Close(Some(1014), _))) {
            prop_assert_eq!((their_said, their_fault), (said, fault.is_some()), "{:?}", fault);
        }
    }
}
