//! One parameter of a request target's query, where a door takes one (`name=value&…`, RFC 3986 §3.4).
//!
//! Two parameters of one name are refused: whoever looks at the same query in front of us may take the other one.

/// Why a query is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryFault {
    /// The parameter stands there more than once.
    Repeated,
    /// A `%` that two hexadecimal digits do not follow.
    Escape,
}

/// The decoded value of the parameter `name`. Parameters without `=` have an empty value; a `+` is a `+`.
///
/// # Errors
/// [`QueryFault`].
pub fn parameter(query: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, QueryFault> {
    let mut found = None;
    for pair in query.split(|byte| *byte == b'&') {
        let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let (key, value) = pair.split_at_checked(at).unwrap_or_default();
        // A key that is none of ours may be written as it likes.
        if decode(key).is_ok_and(|key| key == name) {
            let value = decode(value.get(1..).unwrap_or_default())?;
            if found.replace(value).is_some() {
                return Err(QueryFault::Repeated);
            }
        }
    }
    Ok(found)
}

fn decode(text: &[u8]) -> Result<Vec<u8>, QueryFault> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let high = digit(bytes.next()).ok_or(QueryFault::Escape)?;
                let low = digit(bytes.next()).ok_or(QueryFault::Escape)?;
                high << 4 | low
            }
            byte => *byte,
        });
    }
    Ok(out)
}

fn digit(byte: Option<&u8>) -> Option<u8> {
    match byte? {
        byte @ b'0'..=b'9' => byte.checked_sub(b'0'),
        byte => byte.to_ascii_lowercase().checked_sub(b'a').filter(|at| *at < 6).map(|at| at + 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_parameter_is_found_or_the_query_is_refused() {
        for (query, expected) in [
            ("", Ok(None)),
            ("token", Ok(Some(""))),
            ("token=", Ok(Some(""))),
            ("token=a", Ok(Some("a"))),
            ("x=1&token=a=b&y=%zz", Ok(Some("a=b"))),
            ("token=a%2Bb+c%2f", Ok(Some("a+b+c/"))),
            ("t%6fken=a", Ok(Some("a"))),
            ("Token=a&tokens=b&xtoken=c", Ok(None)),
            ("token=a&token=a", Err(QueryFault::Repeated)),
            ("token=a&%74oken=b", Err(QueryFault::Repeated)),
            ("token=%", Err(QueryFault::Escape)),
            ("token=%2", Err(QueryFault::Escape)),
            ("token=%g0", Err(QueryFault::Escape)),
            ("token=%0g", Err(QueryFault::Escape)),
            ("token=%+1", Err(QueryFault::Escape)),
        ] {
            let found = parameter(query.as_bytes(), b"token");
            assert_eq!(found, expected.map(|value| value.map(|text| text.as_bytes().to_vec())), "{query}");
        }
    }
}
