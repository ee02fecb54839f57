//! The PROXY protocol, versions 1 and 2 (HAProxy, "The PROXY protocol", §2): what a proxy says of its client, in front of the
//! first byte of a connection.
//!
//! Whether a peer may say such a thing is not decided here: only a header of a trusted proxy is ever looked for. Strict and
//! bounded: version 1 is at most [`MAX_V1_BYTES`], version 2 at most [`MAX_V2_BYTES`] with its extensions, which are
//! walked and not used. Headers that name no TCP client (`UNKNOWN`, `LOCAL`, unspecified, Unix sockets) are taken off and
//! give no address.
//!
//! ```
//! use ringwall::wire::proxy_protocol::{Step, parse};
//!
//! let received = b"PROXY TCP4 203.0.113.9 10.0.0.1 54321 443\r\nGET / HTTP/1.1\r\n";
//! let Ok(Step::Header { consumed, source }) = parse(received) else { panic!() };
//! assert_eq!(source, Some("203.0.113.9:54321".parse().unwrap()));
//! assert_eq!(&received[consumed..], b"GET / HTTP/1.1\r\n");
//! assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Ok(Step::Absent));
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest version 1 header, with its line end (§2.1).
pub const MAX_V1_BYTES: usize = 107;
/// The longest version 2 header that is accepted: what fits the smallest TCP segment that everybody takes (§2, §2.2).
pub const MAX_V2_BYTES: usize = 536;

const V1_START: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The start of a header, or too little to tell.
    NeedMore,
    /// No header: the bytes belong to the protocol behind it.
    Absent,
    /// A whole header.
    Header {
        /// Its bytes, to be taken off the front.
        consumed: usize,
        /// The client; `None` where the proxy speaks for itself or does not say. IPv4-mapped addresses are IPv4.
        source: Option<SocketAddr>,
    },
}

/// A header that breaks the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum Broken {
    #[error("PROXY line too long")]
    LineTooLong,
    #[error("malformed PROXY line")]
    Line,
    #[error("unknown version or command of a binary PROXY header")]
    Command,
    #[error("unknown address family of a binary PROXY header")]
    Family,
    #[error("binary PROXY header too long")]
    TooLong,
    #[error("addresses or extensions of a binary PROXY header do not fit its length")]
    Length,
}

/// Looks at the first bytes of a connection, all that have come so far.
///
/// # Errors
/// [`Broken`], as soon as it is certain; the connection can only be closed.
pub fn parse(buf: &[u8]) -> Result<Step, Broken> {
    if begins(buf, V1_START) {
        return text(buf);
    }
    if begins(buf, V2_SIGNATURE) {
        return binary(buf);
    }
    Ok(Step::Absent)
}

/// Whether one is the start of the other.
fn begins(buf: &[u8], with: &[u8]) -> bool {
    buf.iter().zip(with).all(|(a, b)| a == b)
}

/// Version 1: one line.
fn text(buf: &[u8]) -> Result<Step, Broken> {
    let window = buf.get(..MAX_V1_BYTES).unwrap_or(buf);
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if buf.len() >= MAX_V1_BYTES { Err(Broken::LineTooLong) } else { Ok(Step::NeedMore) };
    };
    let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Broken::Line)?;
    let line = line.strip_prefix(V1_START).ok_or(Broken::Line)?;
    let consumed = end.saturating_add(1);
    // What stands behind UNKNOWN is to be ignored (§2.1).
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(Step::Header { consumed, source: None });
    }
    let line = std::str::from_utf8(line).map_err(|_| Broken::Line)?;
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or(Broken::Line);
    let (family, source, destination) = (word()?, word()?, word()?);
    let (source_port, destination_port) = (word()?, word()?);
    if words.next().is_some() {
        return Err(Broken::Line);
    }
    let source = address(family, source)?;
    address(family, destination)?;
    port(destination_port)?;
    Ok(Step::Header { consumed, source: Some(canonical(source, port(source_port)?)) })
}

fn address(family: &str, text: &str) -> Result<IpAddr, Broken> {
    let parsed = match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6),
        _ => return Err(Broken::Line),
    };
    parsed.map_err(|_| Broken::Line)
}

/// Decimal, without leading zeros (§2.1).
fn port(text: &str) -> Result<u16, Broken> {
    let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    if plain { text.parse().map_err(|_| Broken::Line) } else { Err(Broken::Line) }
}

fn canonical(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

/// Version 2: a fixed part, addresses, extensions.
fn binary(buf: &[u8]) -> Result<Step, Broken> {
    // The signature ends a header that is no header either way, so each byte is judged when it is there.
    let Some(&command) = buf.get(12) else { return Ok(Step::NeedMore) };
    let speaks_for_itself = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Broken::Command),
    };
    let Some(&family) = buf.get(13) else { return Ok(Step::NeedMore) };
    // TCP alone: what comes over a TCP door is no datagram.
    let address_bytes = match family {
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        // With LOCAL, the family is to be ignored (§2.2).
        _ if speaks_for_itself => 0,
        _ => return Err(Broken::Family),
    };
    let Some(&[high, low]) = buf.get(14..V2_FIXED_BYTES) else { return Ok(Step::NeedMore) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let consumed = V2_FIXED_BYTES.saturating_add(length);
    if consumed > MAX_V2_BYTES {
        return Err(Broken::TooLong);
    }
    if !speaks_for_itself && length < address_bytes {
        return Err(Broken::Length);
    }
    let Some(rest) = buf.get(V2_FIXED_BYTES..consumed) else { return Ok(Step::NeedMore) };
    if speaks_for_itself || family == 0x00 {
        // Whatever else it holds is to be skipped (§2.2).
        return Ok(Step::Header { consumed, source: None });
    }
    let (addresses, extensions) = rest.split_at_checked(address_bytes).ok_or(Broken::Length)?;
    walk(extensions)?;
    let source = match addresses {
        [a, b, c, d, _, _, _, _, high, low, _, _] => {
            Some(canonical(Ipv4Addr::new(*a, *b, *c, *d).into(), u16::from_be_bytes([*high, *low])))
        }
        _ if family == 0x21 => {
            let octets = addresses.first_chunk::<16>().ok_or(Broken::Length)?;
            let port = addresses.get(32..34).and_then(|port| port.first_chunk::<2>()).ok_or(Broken::Length)?;
            Some(canonical(Ipv6Addr::from(*octets).into(), u16::from_be_bytes(*port)))
        }
        _ => None,
    };
    Ok(Step::Header { consumed, source })
}

/// Type, length, value, to the end (§2.2).
fn walk(mut extensions: &[u8]) -> Result<(), Broken> {
    while let [_, high, low, rest @ ..] = extensions {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        extensions = rest.get(length..).ok_or(Broken::Length)?;
    }
    if extensions.is_empty() { Ok(()) } else { Err(Broken::Length) }
}

#[cfg(test)]
#[path = "proxy_protocol_tests.rs"]
mod tests;
