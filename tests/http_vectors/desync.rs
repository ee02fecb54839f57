//! Never a second request out of one: AWS's desync classes and smuggler's Transfer-Encoding mutations.

use super::{End, bytes, rows, run, with_host};

/// Where the first request of `stream` ends by the only reading that everybody shares, or `None` where readers may differ.
///
/// Written without the parser, and suspicious: a line is about framing when its name, stripped of everything that is no
/// letter, contains `contentlength` or `transferencoding`, or when it has no colon, or a byte that some take for a line end.
fn undisputed_end(stream: &[u8]) -> Option<usize> {
    let head_end = stream.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = &stream[..head_end - 4];
    let text = String::from_utf8_lossy(head).into_owned();
    let mut framing = Vec::new();
    for line in text.split("\r\n").skip(1) {
        let (name, value) = line.split_once(':')?;
        let letters: String = name.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_lowercase();
        if letters.contains("contentlength")
            || letters.contains("transferencoding")
            || line.contains(['\r', '\n', '\0'])
        {
            framing.push((name.to_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }
    match framing.as_slice() {
        [] => Some(head_end),
        [(name, value)] if name == "content-length" => {
            let plain = value.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| value.parse::<usize>().ok()).flatten().map(|length| head_end + length)
        }
        [(name, value)] if name == "transfer-encoding" && value.eq_ignore_ascii_case("chunked") => {
            let mut at = head_end;
            loop {
                let line = stream[at..].windows(2).position(|window| window == b"\r\n")?;
                let size = usize::from_str_radix(std::str::from_utf8(&stream[at..at + line]).ok()?, 16).ok()?;
                at += line + 2 + size + 2;
                if size == 0 {
                    return Some(at);
                }
            }
        }
        _ => None,
    }
}

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
