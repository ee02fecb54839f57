//! `traceparent` of W3C Trace Context: which trace a request belongs to.
//!
//! It is read for our own spans alone; what the client sent goes on unchanged. What is not well-formed is as good as absent
//! (Trace Context, "traceparent Header Field Values" and "Versioning of traceparent").
#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

/// A trace, and the span in it that has called us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Not zero.
    pub trace_id: u128,
    /// Not zero.
    pub span_id: u64,
    /// Whether the caller records its span.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads a field's value. `None` for what Trace Context does not accept.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(55)?;
        let mut parts = known.split(|byte| *byte == b'-');
        let version = hex(parts.next()?, 2)?;
        let trace_id = hex(parts.next()?, 32)?;
        let span_id = u64::try_from(hex(parts.next()?, 16)?).ok()?;
        let flags = hex(parts.next()?, 2)?;
        // Version 00 has nothing behind the flags; a later one may have more, behind another hyphen. ff is no version.
        let ends_well = rest.is_empty() || (version > 0 && rest.first() == Some(&b'-'));
        (parts.next().is_none() && ends_well && version != 0xff && trace_id != 0 && span_id != 0).then_some(Self {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
        })
    }
}

/// `digits` lower-case hexadecimal digits.
fn hex(text: &[u8], digits: usize) -> Option<u128> {
    (text.len() == digits).then_some(())?;
    text.iter().try_fold(0u128, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some((value << 4) | u128::from(digit))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn what_the_standard_accepts() {
        let parent = |sampled| {
            Some(TraceParent {
                trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
                span_id: 0x00f0_67aa_0ba9_02b7,
                sampled,
            })
        };
        for (text, want) in [
            (format!("00-{TRACE}-{SPAN}-01"), parent(true)),
            (format!("00-{TRACE}-{SPAN}-00"), parent(false)),
            (format!("00-{TRACE}-{SPAN}-03"), parent(true)),
            (format!("cc-{TRACE}-{SPAN}-01"), parent(true)),
            (format!("cc-{TRACE}-{SPAN}-01-what-comes-later"), parent(true)),
            (format!("cc-{TRACE}-{SPAN}-01."), None),
            (format!("00-{TRACE}-{SPAN}-01-more"), None),
            (format!("00-{TRACE}-{SPAN}-01 "), None),
            (format!("ff-{TRACE}-{SPAN}-01"), None),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None),
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), None),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
            (format!("00-{TRACE}-{SPAN}-0"), None),
            (format!("00-{TRACE}-{SPAN}-0x"), None),
            (format!("0-{TRACE}0-{SPAN}-01"), None),
            (format!("00_{TRACE}-{SPAN}-01"), None),
            (format!("00-{TRACE}-{SPAN}"), None),
            (String::new(), None),
        ] {
            assert_eq!(TraceParent::parse(text.as_bytes()), want, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_taken_names_a_trace_and_a_span(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            if let Some(parent) = TraceParent::parse(&bytes) {
                proptest::prop_assert!(parent.trace_id != 0 && parent.span_id != 0);
            }
        }
    }
}
