//! Never a second request out of one: AWS's desync classes and smuggler's Transfer-Encoding mutations.

use super::undisputed::undisputed_end;
use super::{End, bytes, rows, run, with_host};

/// "Never a second request out of one", precisely: a second request is only ever found where the undisputed reading ends
/// the first, and where there is no such reading, none is found at all and the connection closes.
fn check_desync(name: &str, stream: &[u8], faults: &mut Vec<String>) {
    let (taken, end) = run(stream);
    let disputed = undisputed_end(stream);
    let fault = match (taken.get(1), disputed) {
        (Some(second), Some(first_end)) => second.start != first_end,
        (Some(_), None) => true,
        (None, None) => !taken.is_empty() || !matches!(end, End::Refused(_) | End::Incomplete),
        (None, Some(_)) => false,
    };
    if fault {
        faults.push(format!("{name}: {end:?}, {taken:?}: {}", stream.escape_ascii()));
    }
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn aws_desync() {
    let Some(rows) = rows("aws_desync.jsonl") else {
        return;
    };
    let mut faults = Vec::new();
    let mut severe = 0;
    for row in &rows {
        let id = row["id"].as_str().unwrap();
        let head = bytes(row["payload"].as_str().unwrap());
        for head in [with_host(&head), head] {
            for body in [
                String::new(),
                SMUGGLED.into(),
                format!("0\r\n\r\n{SMUGGLED}"),
                format!("{}{SMUGGLED}", "x".repeat(1000)),
            ] {
                check_desync(id, &[&head, body.as_bytes()].concat(), &mut faults);
            }
            if row["label"] == "Severe" {
                severe += 1;
                let (taken, end) = run(&head);
                if !taken.is_empty() || !matches!(end, End::Refused(_)) {
                    faults.push(format!("severe, and not refused: {id}: {end:?} {}", head.escape_ascii()));
                }
            }
        }
    }
    println!("desync classes: {} rows, {} severe", rows.len(), severe / 2);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn transfer_encoding_mutations() {
    let Some(rows) = rows("smuggler_te_mutations.jsonl") else {
        return;
    };
    let (mut faults, mut refused) = (Vec::new(), 0);
    for row in &rows {
        let id = row["id"].as_str().unwrap();
        let chunk = format!("{:x}\r\n", SMUGGLED.len());
        // One reader believes the length, the other the chunks, or the other way round.
        for (body, length) in [
            (format!("0\r\n\r\n{SMUGGLED}"), 5 + SMUGGLED.len()),
            (format!("{chunk}{SMUGGLED}\r\n0\r\n\r\n"), chunk.len()),
        ] {
            let head = row["payload"].as_str().unwrap();
            let head = head.replace("__METHOD__", "POST").replace("__ENDPOINT__", "/").replace("__RANDOM__", "1");
            let head = head.replace("__HOST__", "a").replace("__REPLACE_CL__", &length.to_string());
            let stream = [bytes(&head), b"\r\n".to_vec(), body.into_bytes()].concat();
            if matches!(run(&stream), (taken, End::Refused(_)) if taken.is_empty()) {
                refused += 1;
            } else {
                println!("not refused: {id}: {}", stream.escape_ascii());
            }
            check_desync(id, &stream, &mut faults);
        }
    }
    println!("Transfer-Encoding mutations: {refused} of {} streams refused", 2 * rows.len());
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
}
