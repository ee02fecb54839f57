//! Lists of the admin API, read page by page, for the commands that show one.
//!
//! A list of any length takes bounded answers, and a gateway that never says "last" ends nevertheless.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::de::DeserializeOwned;

use super::ask::AdminApi;

/// A path with a query for each filter that has a value. `path` has a query already.
pub(super) fn filtered(path: String, filters: &[(&str, Option<&str>)]) -> String {
    let mut path = path;
    for (name, value) in filters {
        if let Some(value) = value {
            let _ = write!(path, "&{name}={}", percent_encoded(value));
        }
    }
    path
}

/// Asks for one page after the other, at most so many. `take` says what the next one's cursor is; `None`: that was the last.
///
/// # Errors
/// What the gateway answers, as a sentence.
pub(super) fn each<P: DeserializeOwned>(
    api: &AdminApi,
    list: &str,
    most: usize,
    mut take: impl FnMut(P) -> Option<String>,
) -> Result<(), String> {
    let mut path = list.to_owned();
    for _ in 0..most {
        match take(read(&api.ask("GET", &path)?)?) {
            Some(next) => path = filtered(list.to_owned(), &[("cursor", Some(next.as_str()))]),
            None => break,
        }
    }
    Ok(())
}

/// What the gateway has answered.
///
/// # Errors
/// A sentence. An answer may hold a token, so nothing of it is repeated.
pub(super) fn read<T: DeserializeOwned>(body: &str) -> Result<T, String> {
    serde_json::from_str(body).map_err(|_| "the gateway's answer cannot be read. Is it of another version?".to_owned())
}

/// One JSON document, for people as well.
///
/// # Errors
/// A sentence.
pub(super) fn document(json: &serde_json::Value) -> Result<String, String> {
    serde_json::to_string_pretty(json).map(|text| text + "\n").map_err(|error| error.to_string())
}

/// Puts text on standard output. Whoever closes the pipe has seen enough.
pub(super) fn show(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A value as it can stand in a query (RFC 3986 §2.1).
fn percent_encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn filters_cannot_break_out_of_their_query() {
        let filters = [("agent", Some("a&b=c d/ä\r\n")), ("tool", None), ("door", Some("a-b_c.d~1"))];
        let path = filtered("/admin/x?limit=5".to_owned(), &filters);
        assert_eq!(path, "/admin/x?limit=5&agent=a%26b%3Dc%20d%2F%C3%A4%0D%0A&door=a-b_c.d~1");
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_not_repeated() {
        let error = read::<u32>("\"rwt_secret\"").unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}
