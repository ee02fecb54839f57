//! What the upstream answers to a call: a function of the arguments as they arrived, so that the generator, which knows what it sent, notices
//! a byte that was changed on the way.

/// What precedes the id of every answer.
pub(crate) const START: &[u8] = br#"{"jsonrpc":"2.0","id":"#;

const TEXT: &[u8] = br#","result":{"content":[{"type":"text","text":"Received "#;
const END: &[u8] = br#""}],"isError":false}}"#;

/// Digits of a length.
const LEN_DIGITS: usize = 8;

/// Appends what follows the id in the answer to a call with these arguments: their length and their checksum, always of the same width.
///
/// The checksum is spelt in letters, since no guard that looks for card or telephone numbers may take offence at it.
pub(crate) fn write_end(out: &mut Vec<u8>, arguments: &[u8]) {
    out.extend_from_slice(TEXT);
    let mut digits = [b'0'; LEN_DIGITS];
    let mut rest = arguments.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits);
    out.extend_from_slice(b" bytes, ");
    let sum = checksum(arguments);
    let letters: [u8; 16] = std::array::from_fn(|at| b'a' + ((sum >> (60 - 4 * at)) & 15) as u8);
    out.extend_from_slice(&letters);
    out.extend_from_slice(END);
}

/// A checksum. It differs for certain if one of the words of eight bytes differs, and all but for certain if several do. No defence against intent.
fn checksum(bytes: &[u8]) -> u64 {
    let mut sum = bytes.len() as u64;
    let mut add = |word: u64| {
        // Each step is a bijection of the sum and of the word.
        sum = (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        sum ^= sum >> 32;
    };
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        add(u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    add(u64::from_le_bytes(last));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(arguments: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_end(&mut out, arguments);
        out
    }

    #[test]
    fn every_bit_of_the_arguments_and_their_length_count() {
        let arguments = br#"{"to":"+15551234567","body":"Hello"}"#;
        let right = end(arguments);
        for at in 0..arguments.len() {
            for bit in 0..8 {
                let mut changed = arguments.to_vec();
                changed[at] ^= 1 << bit;
                assert_ne!(end(&changed), right, "bit {bit} of byte {at}");
            }
            assert_ne!(end(&arguments[..at]), right);
            assert_eq!(end(&arguments[..at]).len(), right.len());
        }
        let with_zero = [arguments.as_slice(), b"\0"].concat();
        assert_ne!(end(&with_zero), right);
    }

    #[test]
    fn an_answer_is_a_tool_result() -> serde_json::Result<()> {
        let text = [START, b"7", &end(b"{}")].concat();
        let value: serde_json::Value = serde_json::from_slice(&text)?;
        assert_eq!(value["id"], 7);
        assert_eq!(value["result"]["isError"], false);
        let said = value["result"]["content"][0]["text"].as_str().unwrap_or_default();
        assert!(said.starts_with("Received 00000002 bytes, "), "{said}");
        Ok(())
    }
}
