//! Http11Probe's rows, against what a door over this codec would answer.

use ringwall::wire::http1::request::Method;
use serde_json::Value;

use super::{End, bytes, rows, run};

/// What a door over this codec answers first: status (none: it waits), and whether it then closes.
fn verdict(stream: &[u8]) -> (Option<u16>, bool) {
    let (taken, end) = run(stream);
    let Some(first) = taken.first() else {
        return match end {
            End::Refused(status) => (Some(status), true),
            _ => (None, false),
        };
    };
    let known = [&b"/"[..], b"*", b"/echo", b"/cookie"].contains(&first.path.as_slice());
    let status = match first.method {
        Method::Other => 405,
        _ if !known => 404,
        _ if first.upgrade => 426,
        Method::Options => 204,
        _ => 200,
    };
    (Some(status), taken.len() == 1 && matches!(end, End::Closed | End::ClosedBeforeTheRest))
}

/// The payload of a row. The published ones are ASCII, with `?` for every other byte; where such a byte is the point of the
/// row it is put back (`é`, and the overlong `/`).
fn probe_payload(id: &str, payload: &str) -> Vec<u8> {
    let (from, to): (&[u8], &[u8]) = match id {
        "MAL-NON-ASCII-URL" => (b"caf??", b"caf\xc3\xa9"),
        "MAL-URL-OVERLONG-UTF8" => (b"/??", b"/\xc0\xaf"),
        _ => return bytes(payload),
    };
    let at = payload.as_bytes().windows(from.len()).position(|window| window == from).expect("the placeholder");
    [&payload.as_bytes()[..at], to, &payload.as_bytes()[at + from.len()..]].concat()
}

/// Whether the probe's published run passed a server for this very status, whatever the label says in short.
fn is_published_as_pass(row: &Value, status: Option<u16>) -> bool {
    let published = row["published"].as_object().into_iter().flatten();
    published
        .map(|(_, verdict)| verdict)
        .any(|verdict| verdict[0] == "Pass" && status.is_some_and(|status| verdict[1] == status))
}

/// Whether a verdict is what Http11Probe's label expects.
fn passes(label: &str, (status, closes): (Option<u16>, bool)) -> bool {
    // "X (pass), Y (warn)": only X is a pass.
    let label = label.split("(pass)").next().unwrap_or(label);
    let Some(status) = status else {
        return label.contains("timeout");
    };
    if let Some(rest) = label.strip_prefix('!') {
        return rest != status.to_string();
    }
    let expected = label.split([' ', '/']).any(|word| {
        word == status.to_string() || (word == "2xx" && status / 100 == 2) || (word == "Reject" && status == 400)
    });
    expected && (!label.contains("+ close") || closes)
}

#[test]
fn http11probe() {
    let Some(rows) = rows("http11probe.jsonl") else {
        return;
    };
    let (mut scored, mut passed, mut faults) = (0, 0, Vec::new());
    for row in &rows {
        let (id, label) = (row["id"].as_str().unwrap(), row["label"].as_str().unwrap());
        let verdict = verdict(&probe_payload(id, row["payload"].as_str().unwrap()));
        let pass = passes(label, verdict) || is_published_as_pass(row, verdict.0);
        if row["scored"] == true {
            scored += 1;
            passed += usize::from(pass);
        }
        if !pass {
            println!("{id} (scored: {}): expected {label}, got {verdict:?}", row["scored"]);
            if row["class"] == "Smuggling" {
                faults.push(id.to_owned());
            }
        }
    }
    println!("Http11Probe: {passed} of {scored} scored rows pass");
    assert!(faults.is_empty(), "smuggling rows fail: {faults:?}");
    assert!(passed * 100 >= scored * 93, "{passed} of {scored}");
}
