//! The oracle of the desync tests, for the codec and for the real door.

/// Where the first request of `stream` ends by the only reading that everybody shares, or `None` where readers may differ.
///
/// Written without the parser, and suspicious: a line is about framing when its name, stripped of everything that is no
/// letter, contains `contentlength` or `transferencoding`, or when it has no colon, or a byte that some take for a line end.
pub(crate) fn undisputed_end(stream: &[u8]) -> Option<usize> {
    let head_end = memchr::memmem::find(stream, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&stream[..head_end - 4]).into_owned();
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
                let line = memchr::memmem::find(stream.get(at..)?, b"\r\n")?;
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
