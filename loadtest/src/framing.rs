//! Heads and bodies of HTTP/1.1 messages, for a generator and an upstream that see the same head again and again.

use std::io;

/// Longest head that is waited for.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Length(usize),
    Chunked,
}

/// The head that came last, and what it says. A kept-alive connection repeats it: then one comparison of bytes takes the place of parsing.
pub(crate) struct LastHead<T> {
    bytes: Vec<u8>,
    said: Option<(Body, T)>,
}

impl<T: Clone> LastHead<T> {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), said: None }
    }

    /// What the head at the front of `bytes` says, and its length, once it is whole. `parse` is asked for heads that differ from the last one.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        parse: impl FnOnce(&[u8]) -> io::Result<Option<(usize, Body, T)>>,
    ) -> io::Result<Option<(usize, Body, T)>> {
        if let Some((body, said)) = &self.said
            && bytes.starts_with(&self.bytes)
        {
            return Ok(Some((self.bytes.len(), *body, said.clone())));
        }
        let Some((len, body, said)) = parse(bytes)? else {
            if bytes.len() > MAX_HEAD_BYTES {
                return Err(io::Error::other("a head that does not end"));
            }
            return Ok(None);
        };
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes.get(..len).unwrap_or_default());
        self.said = Some((body, said.clone()));
        Ok(Some((len, body, said)))
    }
}

/// How the body of a message with these headers ends; a message without a word on it has none.
pub(crate) fn body_of(headers: &[httparse::Header<'_>]) -> io::Result<Body> {
    let mut body = Body::Length(0);
    for header in headers {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(Body::Chunked);
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let len = std::str::from_utf8(header.value).ok().and_then(|value| value.trim().parse().ok());
            body = Body::Length(len.ok_or_else(|| io::Error::other("Content-Length is no number"))?);
        }
    }
    Ok(body)
}

/// The content of the body at the front of `bytes`, and its length on the wire, once it is whole. Chunks are joined in `joined`.
pub(crate) fn content<'a>(
    bytes: &'a [u8],
    body: Body,
    joined: &'a mut Vec<u8>,
) -> io::Result<Option<(&'a [u8], usize)>> {
    match body {
        Body::Length(len) => Ok(bytes.get(..len).map(|content| (content, len))),
        Body::Chunked => {
            joined.clear();
            let mut at = 0;
            loop {
                let Some((data, len)) = chunk(bytes.get(at..).unwrap_or_default())? else { return Ok(None) };
                joined.extend_from_slice(data);
                at += len;
                if data.is_empty() {
                    return Ok(Some((joined, at)));
                }
            }
        }
    }
}

/// The data of the chunk at the front of `bytes`, empty in the last one, and its length on the wire, once it is whole. Trailers, which nobody here
/// sends, are an error.
pub(crate) fn chunk(bytes: &[u8]) -> io::Result<Option<(&[u8], usize)>> {
    let (line, size) = match httparse::parse_chunk_size(bytes) {
        Ok(httparse::Status::Complete(found)) => found,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(io::Error::other("a chunk without a size")),
    };
    let size = usize::try_from(size).map_err(io::Error::other)?;
    let Some(end) = size.checked_add(line + 2) else { return Err(io::Error::other("a chunk without end")) };
    let Some(whole) = bytes.get(line..end) else { return Ok(None) };
    let data =
        whole.strip_suffix(b"\r\n").ok_or_else(|| io::Error::other("a chunk that does not end where it says"))?;
    Ok(Some((data, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_whole_at_their_last_byte_and_not_before() -> io::Result<()> {
        for (wire, body, expected) in [
            (&b"{}next"[..], Body::Length(2), (&b"{}"[..], 2)),
            (b"next", Body::Length(0), (b"", 0)),
            (b"3\r\n{\"a\r\n4;x=y\r\n\":1}\r\n0\r\n\r\nnext", Body::Chunked, (b"{\"a\":1}", 26)),
            (b"0\r\n\r\nnext", Body::Chunked, (b"", 5)),
        ] {
            for cut in 0..expected.1 {
                assert_eq!(content(wire.get(..cut).unwrap_or_default(), body, &mut Vec::new())?, None, "{cut}");
            }
            assert_eq!(content(wire, body, &mut Vec::new())?, Some(expected));
        }
        for wrong in [&b"x\r\n"[..], b"1\r\nab\r\n", b"fffffffffffffffe\r\n"] {
            assert!(content(wrong, Body::Chunked, &mut Vec::new()).is_err(), "{wrong:?}");
        }
        Ok(())
    }

    #[test]
    fn a_head_is_parsed_again_when_a_byte_of_it_differs() -> io::Result<()> {
        let mut parsed = 0;
        let mut last = LastHead::new();
        for (bytes, times) in
            [("a: 1\n\nrest", 1), ("a: 1\n\nother", 1), ("a: 2\n\nrest", 2), ("a: 1\n\n", 3), ("a: 1\n", 3)]
        {
            let found = last.read(bytes.as_bytes(), |bytes| {
                let end = bytes.windows(2).position(|two| two == b"\n\n");
                parsed += usize::from(end.is_some());
                Ok(end.map(|end| (end + 2, Body::Length(bytes.len() - end - 2), ())))
            })?;
            assert_eq!((found.is_some(), parsed), (bytes.contains("\n\n"), times), "{bytes:?}");
        }
        Ok(())
    }
}
