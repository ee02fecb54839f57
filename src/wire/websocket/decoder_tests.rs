#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use super::super::write;
use super::*;

const KEY: MaskingKey = [0x37, 0xfa, 0x21, 0x3d];

/// An event with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, Vec<u8>),
}

/// What a stream says: its events, and the fault that ends it.
pub(super) type Stream = (Vec<Said>, Option<Fault>);

/// Decodes `stream` as it arrives in pieces that end at `ends`. Checks what must hold after every piece.
pub(super) fn decode(role: Role, max: u32, stream: &[u8], ends: impl IntoIterator<Item = usize>) -> Stream {
    let (mut decoder, mut buf, mut said, mut from) = (Decoder::new(role, max), Vec::new(), Vec::new(), 0);
    for end in ends {
        buf.extend_from_slice(&stream[from..end]);
        from = end;
        loop {
            match decoder.next_event(&mut buf) {
                Ok(Some(event)) => {
                    said.push(match event {
                        Event::Text(span) => Said::Text(span.of(&buf).to_vec()),
                        Event::Binary(span) => Said::Binary(span.of(&buf).to_vec()),
                        Event::Ping(span) => Said::Ping(span.of(&buf).to_vec()),
                        Event::Pong(span) => Said::Pong(span.of(&buf).to_vec()),
                        Event::Close { code, reason } => {
                            Said::Close(code.map(CloseCode::number), reason.of(&buf).to_vec())
                        }
                    });
                }
                Ok(None) => break,
                Err(fault) => {
                    assert!(decoder.has_ended() && buf.is_empty());
                    buf.extend_from_slice(b"\x81\x80\0\0\0\0");
                    assert_eq!(decoder.next_event(&mut buf), Ok(None), "nothing comes after a fault");
                    assert!(buf.is_empty());
                    return (said, Some(fault));
                }
            }
        }
        assert!(buf.len() <= max as usize + MAX_CONTROL_BYTES + frame::MAX_HEADER_BYTES, "the buffer is bounded");
        if decoder.has_ended() {
            assert!(buf.is_empty() && matches!(said.last(), Some(Said::Close(..))));
        }
    }
    (said, None)
}

/// The same whole and byte by byte; what is said must be the same.
pub(super) fn both(role: Role, max: u32, stream: &[u8]) -> Stream {
    let whole = decode(role, max, stream, [stream.len()]);
    assert_eq!(whole, decode(role, max, stream, 1..=stream.len()), "byte by byte: {}", stream.escape_ascii());
    whole
}

fn text(payload: &str) -> Said {
    Said::Text(payload.as_bytes().to_vec())
}

/// One frame as a client sends it; `first` is its first byte.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write::text(&mut out, payload, Some(KEY));
    out[0] = first;
    out
}

#[test]
fn examples_of_the_standard() {
    let hello = || text("Hello");
    let client: [(&[u8], Vec<Said>); 6] = [
        (b"\x81\x05Hello", vec![hello()]),
        (b"\x01\x03Hel\x80\x02lo", vec![hello()]),
        (b"\x89\x05Hello", vec![Said::Ping(b"Hello".to_vec())]),
        (b"\x8a\x05Hello", vec![Said::Pong(b"Hello".to_vec())]),
        (&[&b"\x82\x7e\x01\x00"[..], &[7; 256]].concat(), vec![Said::Binary(vec![7; 256])]),
        (&[&b"\x82\x7f\0\0\0\0\0\x01\0\0"[..], &[7; 65536]].concat(), vec![Said::Binary(vec![7; 65536])]),
    ];
    for (stream, said) in client {
        assert_eq!(both(Role::Client, 1 << 20, stream), (said, None));
    }
    let server: [(&[u8], Vec<Said>); 2] = [
        (b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", vec![hello()]),
        (b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", vec![Said::Pong(b"Hello".to_vec())]),
    ];
    for (stream, said) in server {
        assert_eq!(both(Role::Server, 1 << 20, stream), (said, None));
    }
}

/// A name, the frames, and what they say.
type Case<'t> = (&'t str, &'t [&'t [u8]], &'t [Said]);

#[test]
fn messages() {
    let table: [Case<'_>; 13] = [
        ("empty text", &[&masked(0x81, b"")], &[text("")]),
        ("empty binary", &[&masked(0x82, b"")], &[Said::Binary(vec![])]),
        ("two", &[&masked(0x81, b"one"), &masked(0x81, b"two")], &[text("one"), text("two")]),
        ("fragments", &[&masked(0x01, b"a"), &masked(0x00, b"bc"), &masked(0x80, b"d")], &[text("abcd")]),
        ("empty fragments", &[&masked(0x01, b""), &masked(0x00, b""), &masked(0x80, b"")], &[text("")]),
        ("empty last fragment", &[&masked(0x02, b"a"), &masked(0x80, b"")], &[Said::Binary(b"a".to_vec())]),
        (
            "ping between fragments",
            &[&masked(0x01, b"frag"), &masked(0x89, b"ping"), &masked(0x80, b"ment")],
            &[Said::Ping(b"ping".to_vec()), text("fragment")],
        ),
        (
            "controls between fragments, messages around",
            &[
                &masked(0x81, b"before"),
                &masked(0x01, b"a"),
                &masked(0x8a, b""),
                &masked(0x00, b"b"),
                &masked(0x89, &[b'p'; 125]),
                &masked(0x80, b"c"),
                &masked(0x81, b"behind"),
            ],
            &[text("before"), Said::Pong(vec![]), Said::Ping(vec![b'p'; 125]), text("abc"), text("behind")],
        ),
        ("a character over two frames", &[&masked(0x01, b"\xe2\x82"), &masked(0x80, b"\xac")], &[text("\u{20ac}")]),
        (
            "a character over a ping",
            &[&masked(0x01, b"\xe2"), &masked(0x89, b"\xff"), &masked(0x80, b"\x82\xac")],
            &[Said::Ping(vec![0xff]), text("\u{20ac}")],
        ),
        ("binary that is no text", &[&masked(0x82, b"\xff\xfe")], &[Said::Binary(vec![0xff, 0xfe])]),
        (
            "close inside a fragmented message",
            &[&masked(0x01, b"a"), &masked(0x88, b"\x03\xe8")],
            &[Said::Close(Some(1000), vec![])],
        ),
        (
            "nothing behind a close",
            &[&masked(0x88, b"\x03\xe9bye"), &masked(0x81, b"late"), b"\xff\xff\xff"],
            &[Said::Close(Some(1001), b"bye".to_vec())],
        ),
    ];
    for (name, stream, said) in table {
        assert_eq!(both(Role::Server, 200, &stream.concat()), (said.to_vec(), None), "{name}");
    }
}

#[test]
fn faults() {
    use Fault as F;
    let table: [(&str, &[&[u8]], Fault); 33] = [
        ("RSV1", &[b"\xc1"], F::ReservedBit),
        ("RSV2", &[b"\xa1"], F::ReservedBit),
        ("RSV3 on a ping", &[b"\x99"], F::ReservedBit),
        ("opcode 3", &[b"\x83"], F::ReservedOpcode),
        ("opcode 7", &[b"\x87"], F::ReservedOpcode),
        ("opcode 11", &[b"\x8b"], F::ReservedOpcode),
        ("opcode 15", &[b"\x8f"], F::ReservedOpcode),
        ("ping without FIN", &[b"\x09"], F::FragmentedControl),
        ("close without FIN", &[b"\x08"], F::FragmentedControl),
        ("ping of 126 bytes", &[b"\x89\xfe"], F::LongControl),
        ("close with a 64-bit length", &[b"\x88\xff"], F::LongControl),
        ("16-bit length of 125", &[b"\x81\xfe\x00\x7d"], F::LengthNotMinimal),
        ("64-bit length of 65535", &[b"\x81\xff\0\0\0\0\0\0\xff\xff"], F::LengthNotMinimal),
        ("most significant bit", &[b"\x81\xff\x80\0\0\0\0\0\0\x01"], F::LengthOver63Bits),
        ("not masked", &[b"\x81\x05"], F::NotMasked),
        ("ping not masked", &[b"\x89\x00"], F::NotMasked),
        ("continuation first", &[b"\x80"], F::UnexpectedContinuation),
        ("continuation behind a message", &[&masked(0x81, b"a"), b"\x00"], F::UnexpectedContinuation),
        ("text inside text", &[&masked(0x01, b"a"), b"\x81"], F::ExpectedContinuation),
        ("binary inside text", &[&masked(0x01, b"a"), b"\x02"], F::ExpectedContinuation),
        ("close of one byte", &[&masked(0x88, b"\x03")], F::ShortCloseCode),
        ("close reason not UTF-8", &[&masked(0x88, b"\x03\xe8\xff")], F::ReasonNotUtf8),
        ("close reason cut short", &[&masked(0x88, b"\x03\xe8\xe2\x82")], F::ReasonNotUtf8),
        ("text not UTF-8", &[&masked(0x81, b"a\xff")], F::TextNotUtf8),
        ("text ends inside a character", &[&masked(0x81, b"a\xe2\x82")], F::TextNotUtf8),
        ("fragments end inside a character", &[&masked(0x01, b"\xe2"), &masked(0x80, b"\x82")], F::TextNotUtf8),
        ("first fragment not UTF-8", &[&masked(0x01, b"\xed\xa0")], F::TextNotUtf8),
        ("character broken by the next fragment", &[&masked(0x01, b"\xe2"), &masked(0x00, b"a")], F::TextNotUtf8),
        ("over the limit, header alone", &[b"\x81\xfe\x00\xc9"], F::TooBig),
        ("over the limit in binary", &[b"\x82\xfe\x00\xc9"], F::TooBig),
        ("63 bits of length", &[b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff"], F::TooBig),
        ("33 bits of length", &[b"\x81\xff\0\0\0\x01\0\0\0\0"], F::TooBig),
        ("over the limit with a fragment", &[&masked(0x01, &[b'a'; 120]), b"\x00\xd1"], F::TooBig),
    ];
    for (name, stream, fault) in table {
        let stream = stream.concat();
        let (_, found) = both(Role::Server, 200, &stream);
        assert_eq!(found, Some(fault), "{name}");
        // Not before the byte that proves it, except where the fault is in what a whole frame says.
        let before = &stream[..stream.len() - 1];
        assert_eq!(both(Role::Server, 200, before).1, None, "{name}, one byte less");
    }
    assert_eq!(both(Role::Client, 200, b"\x81\x85"), (vec![], Some(F::Masked)));
    assert_eq!(both(Role::Client, 200, b"\x8a\x80"), (vec![], Some(F::Masked)));
}

#[test]
fn limits_are_exact() {
    let exact = [masked(0x01, &[b'a'; 120]), masked(0x89, &[b'p'; 125]), masked(0x80, &[b'b'; 80])].concat();
    assert_eq!(both(Role::Server, 200, &exact).0.len(), 2, "a ping is no part of the message");
    assert_eq!(both(Role::Server, 199, &exact).1, Some(Fault::TooBig));
    let next = [exact.clone(), masked(0x81, &[b'a'; 200])].concat();
    assert_eq!(both(Role::Server, 200, &next).0.len(), 3, "each message has the whole limit");
    let nothing = [masked(0x81, b""), masked(0x89, b"p")].concat();
    assert_eq!(both(Role::Server, 0, &nothing).0.len(), 2);
    assert_eq!(both(Role::Server, 0, &masked(0x81, b"a")).1, Some(Fault::TooBig));
}

#[test]
fn empty_frames_are_bounded() {
    let many = |empty: u8| {
        let mut stream = masked(0x01, b"");
        (1..empty).for_each(|_| stream.extend(masked(0x00, b"")));
        stream.extend(masked(0x80, b"end"));
        stream
    };
    assert_eq!(both(Role::Server, 200, &many(MAX_EMPTY_FRAMES)), (vec![text("end")], None));
    assert_eq!(both(Role::Server, 200, &many(MAX_EMPTY_FRAMES + 1)), (vec![], Some(Fault::TooManyEmptyFrames)));
    let messages: Vec<u8> = (0..=MAX_EMPTY_FRAMES).flat_map(|_| masked(0x81, b"")).collect();
    assert_eq!(both(Role::Server, 200, &messages).0.len(), usize::from(MAX_EMPTY_FRAMES) + 1, "each message anew");
}

#[test]
fn close_codes() {
    for number in 0..=u16::MAX {
        let mut stream = vec![0x88, 2];
        stream.extend_from_slice(&number.to_be_bytes());
        let expected = match number {
            1000..=1003 | 1007..=1014 | 3000..=4999 => (vec![Said::Close(Some(number), vec![])], None),
            _ => (vec![], Some(Fault::InvalidCloseCode)),
        };
        assert_eq!(decode(Role::Client, 0, &stream, [4]), expected, "{number}");
    }
    assert_eq!(both(Role::Client, 0, b"\x88\x00"), (vec![Said::Close(None, vec![])], None));
    let longest = [&b"\x88\x7d\x03\xf3"[..], &[b'r'; 123]].concat();
    assert_eq!(both(Role::Client, 0, &longest).0, [Said::Close(Some(1011), vec![b'r'; 123])]);
}

#[test]
fn every_fault_has_its_code() {
    use Fault as F;
    let table: [(u16, &[Fault]); 4] = [
        (
            1002,
            &[
                F::ReservedBit,
                F::ReservedOpcode,
                F::FragmentedControl,
                F::LongControl,
                F::LengthNotMinimal,
                F::LengthOver63Bits,
                F::NotMasked,
                F::Masked,
                F::UnexpectedContinuation,
                F::ExpectedContinuation,
                F::ShortCloseCode,
                F::InvalidCloseCode,
            ],
        ),
        (1007, &[F::TextNotUtf8, F::ReasonNotUtf8]),
        (1008, &[F::TooManyEmptyFrames]),
        (1009, &[F::TooBig]),
    ];
    for (number, faults) in table {
        for fault in faults {
            assert_eq!(fault.close_code().number(), number, "{fault}");
            assert!(fault.to_string().len() <= write::MAX_REASON_BYTES);
        }
    }
}

/// Text fails with the byte that nothing can mend, inside a frame of which most is still to come (Autobahn 6.4).
#[test]
fn text_fails_as_it_arrives() {
    let mut bad = "κόσμε".as_bytes().to_vec();
    bad.extend_from_slice(b"\xf4\x90\x80\x80");
    bad.extend_from_slice(&[b'a'; 80]);
    let stream = masked(0x81, &bad);
    let proof = 6 + "κόσμε".len() + 2;
    assert_eq!(both(Role::Server, 200, &stream[..proof]).1, Some(Fault::TextNotUtf8));
    assert_eq!(both(Role::Server, 200, &stream[..proof - 1]), (vec![], None));
}

/// A message that is there whole stays where it is, behind those before it.
#[test]
fn whole_messages_are_not_moved() {
    let mut buf = [masked(0x81, b"first"), masked(0x82, &[7; 300])].concat();
    let whole = buf.as_ptr();
    let mut decoder = Decoder::new(Role::Server, 1000);
    assert_eq!(decoder.next_event(&mut buf), Ok(Some(Event::Text(Span::new(6, 11)))));
    assert_eq!(decoder.next_event(&mut buf), Ok(Some(Event::Binary(Span::new(11 + 8, 11 + 308)))));
    assert_eq!(buf.as_ptr(), whole);
    assert!(!decoder.in_message());
    assert_eq!(decoder.next_event(&mut buf), Ok(None));
    assert!(buf.is_empty());
}

/// What is left after `None`: the message so far, and less than a header or control frame.
#[test]
fn the_buffer_holds_the_message_alone() {
    let mut decoder = Decoder::new(Role::Server, 1000);
    let mut buf = [masked(0x81, b"x"), masked(0x01, b"abc"), masked(0x89, b"p"), masked(0x00, b"defgh")].concat();
    buf.truncate(buf.len() - 2);
    while decoder.next_event(&mut buf).unwrap().is_some() {}
    assert_eq!((&buf[..], decoder.in_message(), decoder.missing_bytes()), (&b"abcdef"[..], true, 2));
    buf.extend_from_slice(&masked(0x00, b"defgh")[9..]);
    buf.extend_from_slice(&masked(0x89, b"ping")[..8]);
    assert_eq!(decoder.next_event(&mut buf), Ok(None));
    assert_eq!((&buf[..8], buf.len(), decoder.missing_bytes()), (&b"abcdefgh"[..], 16, 0));
    buf.extend_from_slice(&masked(0x89, b"ping")[8..]);
    let Ok(Some(Event::Ping(span))) = decoder.next_event(&mut buf) else { unreachable!("a ping") };
    assert_eq!(span.of(&buf), b"ping");
    assert_eq!(decoder.next_event(&mut buf), Ok(None));
    assert_eq!(buf, b"abcdefgh");
}

/// An idle WebSocket costs this, and an empty buffer.
#[test]
fn an_idle_decoder_is_small() {
    let size = size_of::<Decoder>();
    println!("Decoder: {size} bytes");
    assert!(size <= 48, "{size}");
    assert!(!std::mem::needs_drop::<Decoder>(), "it owns nothing on the heap");
}
