//! Enough of JSON to find the parts of a message, as bytes: the members of an object, each with its value as it was sent.
//!
//! Values are passed over, not checked: what is wrong with them is for those to notice who use them.

/// The parts of a JSON-RPC message that the upstream looks at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) id: Option<&'a [u8]>,
    /// With its quotes.
    pub(crate) method: &'a [u8],
    /// The `arguments` of its `params`.
    pub(crate) arguments: &'a [u8],
}

impl<'a> Message<'a> {
    /// Looks through one object; `None` if it is none.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut message = Self::default();
        let mut params = &b""[..];
        for_members(bytes, |key, value| match key {
            b"id" => message.id = Some(value),
            b"method" => message.method = value,
            b"params" => params = value,
            _ => {}
        })?;
        if params.first() == Some(&b'{') {
            for_members(params, |key, value| {
                if key == b"arguments" {
                    message.arguments = value;
                }
            })?;
        }
        Some(message)
    }
}

/// Calls `found` for each member of the object. `None` if it does not end.
fn for_members<'a>(object: &'a [u8], mut found: impl FnMut(&'a [u8], &'a [u8])) -> Option<()> {
    let mut at = space(object, 0);
    if object.get(at) != Some(&b'{') {
        return None;
    }
    at = space(object, at + 1);
    if object.get(at) == Some(&b'}') {
        return Some(());
    }
    loop {
        let key_end = string_end(object, at)?;
        let key = object.get(at + 1..key_end - 1)?;
        at = space(object, key_end);
        if object.get(at) != Some(&b':') {
            return None;
        }
        at = space(object, at + 1);
        let end = value_end(object, at)?;
        found(key, object.get(at..end)?);
        at = space(object, end);
        match object.get(at)? {
            b',' => at = space(object, at + 1),
            b'}' => return Some(()),
            _ => return None,
        }
    }
}

fn space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// Where the string that begins at `at` has ended.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        let found = at + memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes.get(found) == Some(&b'"') {
            return Some(found + 1);
        }
        at = found + 2;
    }
}

/// Where the value that begins at `at` has ended.
fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string_end(bytes, at),
        b'{' | b'[' => {
            let (mut at, mut depth) = (at + 1, 1usize);
            while depth > 0 {
                match bytes.get(at)? {
                    b'"' => {
                        at = string_end(bytes, at)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
            }
            Some(at)
        }
        _ => {
            let len = bytes
                .get(at..)?
                .iter()
                .position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n'))?;
            (len > 0).then_some(at + len)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Message;

    #[test]
    fn the_parts_are_found_wherever_they_stand() {
        let read = |text: &'static str| {
            let message = Message::read(text.as_bytes());
            let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
            message.map(|message| (message.id.map(text), text(message.method), text(message.arguments)))
        };
        for (message, parts) in [
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","arguments":{"b":"}\"]","c":[1,{}]},"_meta":{"id":8}}}"#,
                Some((Some("7"), "\"tools/call\"", r#"{"b":"}\"]","c":[1,{}]}"#)),
            ),
            (
                " { \"params\" : { \"arguments\" : { \"id\" : 9 } } , \"method\" : \"m\" , \"id\" : \"x\\\\\" } ",
                Some((Some("\"x\\\\\""), "\"m\"", "{ \"id\" : 9 }")),
            ),
            (r#"{"method":"notifications/initialized"}"#, Some((None, "\"notifications/initialized\"", ""))),
            (r#"{"id":null,"params":[{"arguments":1}]}"#, Some((Some("null"), "", ""))),
            ("{}", Some((None, "", ""))),
            ("", None),
            ("[]", None),
            (r#"{"id":1"#, None),
            (r#"{"id":"#, None),
            (r#"{"id":,}"#, None),
            (r#"{"id" 1}"#, None),
            (r#"{"id":"a\"}"#, None),
            (r#"{"a":[}"#, None),
        ] {
            assert_eq!(read(message), parts, "{message}");
        }
    }
}
