#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]
use proptest::prelude::*;

use super::*;

/// What the splitter makes of a stream that arrives in these pieces: the raw events, and whether it ends at a boundary.
fn split(pieces: &[&[u8]], max: usize) -> Result<(Vec<Vec<u8>>, bool), EventTooLong> {
    let (mut splitter, mut buf, mut events) = (Splitter::new(max), Vec::new(), Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        while let Some(span) = splitter.next_event(&buf)? {
            events.push(span.of(&buf).to_vec());
            buf.drain(..span.end as usize);
        }
    }
    Ok((events, splitter.at_boundary()))
}

/// Event, data and id of a dispatched event.
type Said = (Vec<u8>, Vec<u8>, Option<Vec<u8>>);

/// The standard's own algorithm, on the whole stream.
fn oracle(stream: &[u8]) -> Vec<Said> {
    let stream = stream.strip_prefix(BYTE_ORDER_MARK).unwrap_or(stream);
    let mut lines = vec![Vec::new()];
    let mut bytes = stream.iter().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' => {
                bytes.next_if_eq(&&b'\n');
                lines.push(Vec::new());
            }
            b'\n' => lines.push(Vec::new()),
            other => lines.last_mut().unwrap().push(*other),
        }
    }
    lines.pop();
    let (mut dispatched, mut event, mut data, mut id) = (Vec::new(), Vec::new(), None::<Vec<u8>>, None);
    for line in lines {
        if line.is_empty() {
            if let Some(data) = data.take() {
                dispatched.push((std::mem::take(&mut event), data, id.take()));
            }
            (event, id) = (Vec::new(), None);
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let name = &line[..colon.unwrap_or(line.len())];
        let value = colon.map_or(&b""[..], |colon| &line[colon + 1..]);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"event" => event = value.to_vec(),
            b"id" if !value.contains(&0) => id = Some(value.to_vec()),
            b"data" => match &mut data {
                None => data = Some(value.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            },
            _ => {}
        }
    }
    dispatched
}

#[test]
fn splits() {
    let table: [(&str, &str, &[&str], bool); 12] = [
        ("nothing", "", &[], true),
        ("one", "data: a\n\n", &["data: a\n\n"], true),
        ("two and a half", "data: a\n\ndata: b\n\nda", &["data: a\n\n", "data: b\n\n"], false),
        ("CRLF", "data: a\r\n\r\ndata: b\r\n\r\n", &["data: a\r\n\r\n", "data: b\r\n\r\n"], true),
        ("CR", "data: a\r\rdata: b\r\r", &["data: a\r\r", "data: b\r\r"], true),
        ("mixed", "data: a\r\n\ndata: b\n\r\n", &["data: a\r\n\n", "data: b\n\r\n"], true),
        ("comment", ": ping\n\n", &[": ping\n\n"], true),
        ("blank lines", "\n\n\n", &["\n", "\n", "\n"], true),
        ("byte order mark", "\u{feff}data: a\n\n", &["data: a\n\n"], true),
        ("mark later on", "\n\u{feff}data: a\n\n", &["\n", "\u{feff}data: a\n\n"], true),
        ("line without end", "data: a", &[], false),
        ("line without blank line", "data: a\n", &[], false),
    ];
    for (name, stream, expected, boundary) in table {
        let (events, at_boundary) = split(&[stream.as_bytes()], 100).unwrap();
        let events: Vec<&str> = events.iter().map(|event| std::str::from_utf8(event).unwrap()).collect();
        assert_eq!((&events[..], at_boundary), (expected, boundary), "{name}");
    }
}

#[test]
fn reads_fields() {
    let event = |data, event, id| Event { data, event, id };
    let table: [(&str, &[u8], Event<'_>); 11] = [
        ("data", b"data: {}\n\n", event(Some(b"{}"), None, None)),
        ("no space", b"data:{}\n\n", event(Some(b"{}"), None, None)),
        ("two spaces", b"data:  a\n\n", event(Some(b" a"), None, None)),
        ("no colon", b"data\n\n", event(Some(b""), None, None)),
        ("three lines", b"data: a\r\ndata\r\ndata: b\r\n\r\n", event(Some(b"a\n\nb"), None, None)),
        ("all", b"id: 7\nevent: x\ndata: a:b\nretry: 5\n\n", event(Some(b"a:b"), Some(b"x"), Some(b"7"))),
        ("last id wins", b"id: 1\nid: 2\n\n", event(None, None, Some(b"2"))),
        ("NUL in id", b"id: 1\nid: \0\n\n", event(None, None, Some(b"1"))),
        ("comment", b": data: a\n\n", event(None, None, None)),
        ("other names", b"Data: a\n data: b\ndata : c\n\n", event(None, None, None)),
        ("LF of the CR before", b"\ndata: a\r\n\r", event(Some(b"a"), None, None)),
    ];
    for (name, raw, expected) in table {
        assert_eq!(read_event(raw, &mut Vec::new()), expected, "{name}");
    }
}

#[test]
fn bounds() {
    let event = b"data: 0123\n\n";
    assert!(split(&[event], event.len()).is_ok());
    assert_eq!(split(&[event], event.len() - 1), Err(EventTooLong));
    assert_eq!(split(&[&event[..event.len() - 1]], event.len() - 1), Err(EventTooLong), "without waiting for the end");
    assert!(split(&[event, event, event], event.len()).is_ok(), "the bound is each event's");
    assert!(split(&[BYTE_ORDER_MARK, event], event.len()).is_ok());
}

#[test]
fn nothing_waits_for_what_follows() {
    let (events, boundary) = split(&[b"data: a\r\n\r", b"\n", b"data: b\n\n"], 100).unwrap();
    assert_eq!(events, [&b"data: a\r\n\r"[..], b"\n", b"data: b\n\n"]);
    assert!(boundary);
}

#[test]
fn half_a_mark_is_no_boundary() {
    let mut splitter = Splitter::new(100);
    assert_eq!(splitter.next_event(b""), Ok(None));
    assert!(splitter.at_boundary());
    assert_eq!(splitter.next_event(b"\xef\xbb"), Ok(None));
    assert!(!splitter.at_boundary());
    assert_eq!(splitter.next_event(b"\xef\xbb\xbf"), Ok(None));
    assert!(splitter.at_boundary());
}

proptest! {
    /// However a stream is cut, the events cover the same bytes in order, and they say what the standard says.
    #[test]
    fn agrees_with_the_standard(stream in "(\u{feff})?((data|id|event|x)?:? ?[a:]{0,3}[\r\n]{1,3}){0,8}[a-d]{0,2}", cuts in prop::collection::vec(0usize..120, 0..8)) {
        let stream = stream.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        let (events, boundary) = split(&pieces, 1000).unwrap();
        let whole = split(&[stream], 1000).unwrap();
        prop_assert_eq!((events.concat(), boundary), (whole.0.concat(), whole.1));
        let body = stream.strip_prefix(BYTE_ORDER_MARK).unwrap_or(stream);
        prop_assert!(body.starts_with(&events.concat()));
        let mut said = Vec::new();
        for raw in &events {
            let mut scratch = Vec::new();
            let event = read_event(raw, &mut scratch);
            if let Some(data) = event.data {
                said.push((event.event.unwrap_or_default().to_vec(), data.to_vec(), event.id.map(<[u8]>::to_vec)));
            }
        }
        prop_assert_eq!(said, oracle(stream));
    }
}
