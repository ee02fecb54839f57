#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]
use proptest::prelude::*;

use super::*;

/// Decodes `input`, given piece by piece; the body, and how many bytes it took when it is complete.
fn decode_in_pieces(framing: Framing, max: u64, pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<usize>), BodyError> {
    let mut body = BodyDecoder::new(framing, max)?;
    let (mut buf, mut decoded, mut taken) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            let step = body.decode(&buf)?;
            decoded.extend_from_slice(step.data.of(&buf));
            buf.drain(..step.consumed);
            taken += step.consumed;
            if step.done {
                assert!(body.is_done() && body.finish().is_ok());
                return Ok((decoded, Some(taken)));
            }
            if step.consumed == 0 {
                break;
            }
        }
    }
    assert!(!body.is_done());
    Ok((decoded, None))
}

fn decode(framing: Framing, max: u64, input: &[u8]) -> Result<(Vec<u8>, Option<usize>), BodyError> {
    decode_in_pieces(framing, max, &[input])
}

#[test]
fn accepted_chunked_bodies() {
    let table: [(&str, &str, &str, &str); 10] = [
        ("empty", "0\r\n\r\n", "", ""),
        ("one chunk", "5\r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("upper-case hex", "A\r\nhelloworld\r\n0\r\n\r\n", "helloworld", ""),
        ("leading zeros", "00a\r\nhelloworld\r\n000\r\n\r\n", "helloworld", ""),
        ("the next request stays", "1\r\nx\r\n0\r\n\r\nGET / HTTP/1.1\r\n", "x", "GET / HTTP/1.1\r\n"),
        ("extension name", "1;a\r\nx\r\n0;b\r\n\r\n", "x", ""),
        ("extension value", "1;a=b;c=d\r\nx\r\n0\r\n\r\n", "x", ""),
        ("quoted extension", "1;a=\"; \\\" \t\";c\r\nx\r\n0\r\n\r\n", "x", ""),
        ("trailer", "1\r\nx\r\n0\r\nDigest: a=b\r\nX-y:\r\n\r\n", "x", ""),
        ("data that looks like framing", "5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n", ""),
    ];
    for (name, input, expected, rest) in table {
        let (decoded, taken) = decode(Framing::Chunked, 100, input.as_bytes()).unwrap();
        assert_eq!(decoded, expected.as_bytes(), "{name}");
        assert_eq!(&input[taken.unwrap()..], rest, "{name}");
    }
}

#[test]
fn refused_chunked_bodies() {
    let long = format!("1;a={}\r\n", "x".repeat(MAX_EXTENSION_BYTES as usize));
    let trailers = format!("0\r\nA: {}\r\n\r\n", "x".repeat(MAX_TRAILER_BYTES as usize));
    let table: [(&str, &str); 38] = [
        ("no size", "\r\n"),
        ("space before size", " 5\r\nhello\r\n"),
        ("space behind size", "5 \r\nhello\r\n"),
        ("tab behind size", "5\t\r\nhello\r\n"),
        ("negative", "-1\r\n"),
        ("plus", "+1\r\n"),
        ("underscore", "1_0\r\n"),
        ("0x", "0x5\r\nhello\r\n"),
        ("17 digits", "00000000000000001\r\nx\r\n"),
        ("bare LF behind size", "5\nhello\r\n"),
        ("bare CR behind size", "5\rhello\r\n"),
        ("bare LF behind data", "5\r\nhello\n0\r\n\r\n"),
        ("bare CR behind data", "5\r\nhello\r0\r\n\r\n"),
        ("data longer than size", "4\r\nhello\r\n0\r\n\r\n"),
        ("data shorter than size", "6\r\nhello\r\n0\r\n\r\n"),
        ("bare LF at the end", "0\r\n\n"),
        ("bare CR at the end", "0\r\n\rx"),
        ("extension without name", "5;\r\nhello\r\n"),
        ("space in extension", "5; a\r\nhello\r\n"),
        ("space before extension", "5 ;a\r\nhello\r\n"),
        ("bad token in extension", "5;bad[=x\r\nhello\r\n"),
        ("CR in extension", "5;a\rX\r\nhello\r\n"),
        ("LF in extension", "5;a\nhello\r\n"),
        ("empty extension value", "5;a=\r\nhello\r\n"),
        ("quoted CR", "5;a=\"\r\n\"\r\nhello\r\n"),
        ("quoted LF", "5;a=\"\n\"\r\nhello\r\n"),
        ("quoted control byte", "5;a=\"\u{1}\"\r\nhello\r\n"),
        ("text behind quoted value", "5;a=\"b\"c\r\nhello\r\n"),
        ("extensions too long", &long),
        ("trailers too long", &trailers),
        ("trailer without colon", "0\r\nabc\r\n\r\n"),
        ("trailer with space before colon", "0\r\nabc : d\r\n\r\n"),
        ("trailer fold", "0\r\nabc: d\r\n e\r\n\r\n"),
        ("trailer NUL", "0\r\nabc: \0\r\n\r\n"),
        ("trailer bare LF", "0\r\nabc: d\n\r\n"),
        ("trailer Content-Length", "0\r\nContent-Length: 50\r\n\r\n"),
        ("trailer Transfer-Encoding", "0\r\na: b\r\nTRANSFER_ENCODING: chunked\r\n\r\n"),
        ("trailer Host", "0\r\nhost: evil.example\r\n\r\n"),
    ];
    for (name, input) in table {
        assert!(matches!(decode(Framing::Chunked, 1000, input.as_bytes()), Err(BodyError::Malformed(_))), "{name}");
    }
}

#[test]
fn bounds() {
    let table: [(&str, Framing, &str, bool); 9] = [
        ("length at the bound", Framing::Length(5), "hello", true),
        ("length over the bound", Framing::Length(6), "", false),
        ("huge length", Framing::Length(u64::MAX), "", false),
        ("chunk at the bound", Framing::Chunked, "5\r\nhello\r\n0\r\n\r\n", true),
        ("chunk over the bound, before its data", Framing::Chunked, "6\r\n", false),
        ("chunks over the bound together", Framing::Chunked, "3\r\nhel\r\n3\r\n", false),
        ("largest chunk size", Framing::Chunked, "ffffffffffffffff\r\n", false),
        ("until close, at the bound", Framing::UntilClose, "hello", true),
        ("until close, over the bound", Framing::UntilClose, "helloo", false),
    ];
    for (name, framing, input, fits) in table {
        let result = decode(framing, 5, input.as_bytes());
        if fits {
            assert_eq!(result.unwrap().0, b"hello", "{name}");
        } else {
            assert_eq!(result, Err(BodyError::TooLarge), "{name}");
        }
    }
    assert_eq!(Reject::from(BodyError::TooLarge).status, 413);
    assert_eq!(Reject::from(BodyError::Malformed("x")).status, 400);
}

#[test]
fn cut_short() {
    for (framing, input, whole) in [
        (Framing::Length(0), "", true),
        (Framing::Length(2), "a", false),
        (Framing::Chunked, "", false),
        (Framing::Chunked, "1\r\na\r\n0\r\n", false),
        (Framing::Chunked, "0\r\n\r\n", true),
        (Framing::UntilClose, "a", true),
    ] {
        let mut body = BodyDecoder::new(framing, 10).unwrap();
        let mut rest = input.as_bytes();
        while !rest.is_empty() {
            rest = &rest[body.decode(rest).unwrap().consumed..];
        }
        assert_eq!(body.finish().is_ok(), whole, "{framing:?} {input:?}");
        assert_eq!(body.is_done(), whole, "{framing:?} {input:?}");
    }
}

proptest! {
    /// What is encoded in chunks is decoded to the same, and not a byte of what follows is taken.
    #[test]
    fn round_trip(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8), rest in prop::collection::vec(any::<u8>(), 0..20)) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            crate::wire::http1::write::chunk(&mut wire, chunk);
        }
        wire.extend_from_slice(crate::wire::http1::write::LAST_CHUNK);
        let len = wire.len();
        wire.extend_from_slice(&rest);
        let (decoded, taken) = decode(Framing::Chunked, 1000, &wire).unwrap();
        prop_assert_eq!(decoded, chunks.concat());
        prop_assert_eq!(taken, Some(len));
    }

    /// Where the input is cut makes no difference, whatever the input is.
    #[test]
    fn split_invariance(input in "([0-9a-f]{1,2}(;[a-z=\"]{0,3})?\r\n[a-z]{0,12}\r?\n?){0,4}0\r\n([a-z]{1,3}:[ x]{0,2}\r\n){0,2}\r\n[a-z]{0,3}", cuts in prop::collection::vec(0usize..80, 0..6)) {
        let input = input.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).chain([0, input.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect();
        prop_assert_eq!(decode_in_pieces(Framing::Chunked, 20, &pieces), decode(Framing::Chunked, 20, input));
    }
}
