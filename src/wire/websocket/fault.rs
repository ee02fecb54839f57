//! Close codes (RFC 6455 §7.4), and the faults of a peer, each with the clause that it breaks.

use std::fmt;

/// A status code that may stand in a Close frame: 1000–1003, 1007–1014 and 3000–4999. What RFC 6455 §7.4 reserves for
/// local use (1005, 1006, 1015), leaves undefined (1004, 1016–2999) or does not know (below 1000, above 4999) cannot be
/// made, so it can be neither sent nor accepted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// The endpoint goes away: shutdown, or nothing heard for too long.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// A kind of data that is not served, as binary is not.
    pub const UNSUPPORTED_DATA: CloseCode = CloseCode(1003);
    /// Data that contradicts its kind: text that is not UTF-8.
    pub const INVALID_PAYLOAD: CloseCode = CloseCode(1007);
    /// The peer broke a rule of ours.
    pub const POLICY_VIOLATION: CloseCode = CloseCode(1008);
    /// A message too big to be dealt with.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// We failed.
    pub const INTERNAL_ERROR: CloseCode = CloseCode(1011);
    /// We are overloaded; the peer should try again later (IANA registry).
    pub const TRY_AGAIN_LATER: CloseCode = CloseCode(1013);

    /// The code with this number, if it may stand in a Close frame.
    #[must_use]
    pub const fn new(number: u16) -> Option<CloseCode> {
        match number {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(CloseCode(number)),
            _ => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the peer did wrong. Send a Close frame with [`Fault::close_code`] and end the connection (RFC 6455 §7.1.7). The
/// text fits a close reason and never holds a received value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// RSV1, RSV2 or RSV3 is set, and no extension was agreed on (§5.2).
    #[error("reserved bit set")]
    ReservedBit,
    /// Opcode 3–7 or 11–15 (§5.2).
    #[error("reserved opcode")]
    ReservedOpcode,
    /// A control frame without FIN (§5.5).
    #[error("fragmented control frame")]
    FragmentedControl,
    /// A control frame of more than 125 bytes (§5.5).
    #[error("control frame over 125 bytes")]
    LongControl,
    /// A length in more bytes than it needs (§5.2: "the minimal number of bytes MUST be used").
    #[error("length not minimal")]
    LengthNotMinimal,
    /// A 64-bit length with its most significant bit set (§5.2).
    #[error("length over 63 bits")]
    LengthOver63Bits,
    /// A client's frame is not masked (§5.1).
    #[error("frame not masked")]
    NotMasked,
    /// A server's frame is masked (§5.1).
    #[error("frame masked")]
    Masked,
    /// A continuation frame, but no message to continue (§5.4).
    #[error("continuation without a message")]
    UnexpectedContinuation,
    /// A text or binary frame inside a fragmented message (§5.4).
    #[error("message inside a fragmented message")]
    ExpectedContinuation,
    /// A Close body of one byte: a code has two (§5.5.1).
    #[error("close code cut short")]
    ShortCloseCode,
    /// A close code that must not be sent (§7.4).
    #[error("invalid close code")]
    InvalidCloseCode,
    /// Text that is not UTF-8, or cannot become it (§8.1).
    #[error("text is not UTF-8")]
    TextNotUtf8,
    /// A close reason that is not UTF-8 (§5.5.1, §8.1).
    #[error("close reason is not UTF-8")]
    ReasonNotUtf8,
    /// A message over the limit, by the headers of its frames (§10.4).
    #[error("message too big")]
    TooBig,
    /// More than [`MAX_EMPTY_FRAMES`](super::MAX_EMPTY_FRAMES) empty frames in one message (§10.4).
    #[error("too many empty frames")]
    TooManyEmptyFrames,
}

impl Fault {
    /// The code to close with (§7.4.1).
    #[must_use]
    pub const fn close_code(self) -> CloseCode {
        match self {
            Fault::ReservedBit
            | Fault::ReservedOpcode
            | Fault::FragmentedControl
            | Fault::LongControl
            | Fault::LengthNotMinimal
            | Fault::LengthOver63Bits
            | Fault::NotMasked
            | Fault::Masked
            | Fault::UnexpectedContinuation
            | Fault::ExpectedContinuation
            | Fault::ShortCloseCode
            | Fault::InvalidCloseCode => CloseCode::PROTOCOL_ERROR,
            Fault::TextNotUtf8 | Fault::ReasonNotUtf8 => CloseCode::INVALID_PAYLOAD,
            Fault::TooBig => CloseCode::TOO_BIG,
            Fault::TooManyEmptyFrames => CloseCode::POLICY_VIOLATION,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CloseCode;

    #[test]
    fn codes_that_may_be_sent() {
        let may = |number: u16| matches!(number, 1000..=1003 | 1007..=1014 | 3000..=4999);
        for number in 0..=u16::MAX {
            assert_eq!(CloseCode::new(number).map(CloseCode::number), may(number).then_some(number), "{number}");
        }
    }

    #[test]
    fn named_codes_may_be_sent() {
        for code in [
            CloseCode::NORMAL,
            CloseCode::GOING_AWAY,
            CloseCode::PROTOCOL_ERROR,
            CloseCode::UNSUPPORTED_DATA,
            CloseCode::INVALID_PAYLOAD,
            CloseCode::POLICY_VIOLATION,
            CloseCode::TOO_BIG,
            CloseCode::INTERNAL_ERROR,
            CloseCode::TRY_AGAIN_LATER,
        ] {
            assert_eq!(CloseCode::new(code.number()), Some(code));
        }
    }
}
