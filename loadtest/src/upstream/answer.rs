//! What the upstream answers to a call: a function of the arguments as they arrived, so that the generator, which knows what it sent, notices
//! a byte that was changed on the way, and knows which calls are to fail.

/// What precedes the id of every answer.
pub(crate) const START: &[u8] = br#"{"jsonrpc":"2.0","id":"#;

/// What answers look like. Generator and upstream must be told the same.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Answers {
    /// Length of the text in an answer, bytes; 41 at least
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(crate) answer_bytes: usize,
    /// Part of the calls that fail, 0 to 1. Which ones do depends on their arguments and on the seed alone
    #[arg(long, value_name = "RATIO", default_value_t = 0.0)]
    pub(crate) fail: f64,
    /// How they fail
    #[arg(long, value_name = "KIND", default_value = "tool-error", requires = "fail")]
    pub(crate) fail_as: Failure,
    #[arg(long, value_name = "SEED", default_value_t = 1, requires = "fail")]
    /// Other seeds let other calls fail
    pub(crate) fail_seed: u64,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Failure {
    /// A result that says isError.
    #[default]
    ToolError,
    /// Status 500; over other transports than HTTP a JSON-RPC error.
    Status500,
    /// The connection is reset.
    Reset,
}

const TEXT: &[u8] = br#","result":{"content":[{"type":"text","text":"Received "#;
const END: &[u8] = br#""}],"isError":false}}"#;
const END_FAILED: &[u8] = br#""}],"isError":true}}"#;

/// What follows the id where a call has failed with `Status500`.
pub(crate) const ERROR_END: &[u8] = br#","error":{"code":-32603,"message":"Failed as asked"}}"#;

/// What a text that is to be longer is filled up with.
const FILLING: &[u8] = b" This sentence fills the answer up to its length.";

/// Digits of a length.
const LEN_DIGITS: usize = 8;

/// What `Answers::write_end` appends by default.
pub(crate) fn write_end(out: &mut Vec<u8>, arguments: &[u8]) {
    Answers::default().write_end(out, arguments);
}

impl Answers {
    /// How the call with these arguments fails, if it does.
    pub(crate) fn failure(&self, arguments: &[u8]) -> Option<Failure> {
        if self.fail <= 0.0 {
            return None;
        }
        let word = mix(checksum(arguments), self.fail_seed);
        ((word >> 11) as f64 / (1u64 << 53) as f64 <= self.fail).then_some(self.fail_as)
    }

    /// Appends what follows the id in the answer to a call with these arguments: their length and their checksum, always of the same width.
    ///
    /// The checksum is spelt in letters, since no guard that looks for card or telephone numbers may take offence at it.
    pub(crate) fn write_end(&self, out: &mut Vec<u8>, arguments: &[u8]) {
        out.extend_from_slice(TEXT);
        let text_at = out.len() - b"Received ".len();
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
        let mut missing = self.answer_bytes.saturating_sub(out.len() - text_at);
        while missing > 0 {
            let piece = FILLING.get(..missing).unwrap_or(FILLING);
            out.extend_from_slice(piece);
            missing -= piece.len();
        }
        let failed = self.failure(arguments) == Some(Failure::ToolError);
        out.extend_from_slice(if failed { END_FAILED } else { END });
    }
}

/// A checksum. It differs for certain if one of the words of eight bytes differs, and all but for certain if several do. No defence against intent.
fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let sum = words.iter().fold(bytes.len() as u64, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    mix(sum, u64::from_le_bytes(last))
}

/// A bijection of the sum for every word, and of the word for every sum.
fn mix(sum: u64, word: u64) -> u64 {
    let product = (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
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
    fn an_answer_is_a_tool_result_of_the_length_that_was_asked_for() -> serde_json::Result<()> {
        for (answer_bytes, fail, len) in [(0, 0.0, 41), (41, 0.0, 41), (42, 1.0, 42), (10_000, 0.0, 10_000)] {
            let answers = Answers { answer_bytes, fail, ..Answers::default() };
            let mut out = [START, b"7"].concat();
            answers.write_end(&mut out, b"{}");
            let value: serde_json::Value = serde_json::from_slice(&out)?;
            assert_eq!(value["id"], 7);
            assert_eq!(value["result"]["isError"], fail > 0.0);
            let said = value["result"]["content"][0]["text"].as_str().unwrap_or_default();
            assert!(said.starts_with("Received 00000002 bytes, "), "{said}");
            assert_eq!(said.len(), len);
        }
        Ok(())
    }

    #[test]
    fn failures_have_their_ratio_and_depend_on_the_seed() {
        let failing = |fail: f64, fail_seed: u64| -> Vec<usize> {
            let answers = Answers { fail, fail_seed, ..Answers::default() };
            (0..20_000).filter(|n| answers.failure(format!("{{\"n\":{n}}}").as_bytes()).is_some()).collect()
        };
        assert_eq!((failing(0.0, 1).len(), failing(1.0, 1).len()), (0, 20_000));
        let tenth = failing(0.1, 1);
        assert!((1_800..=2_200).contains(&tenth.len()), "{}", tenth.len());
        assert_eq!(tenth, failing(0.1, 1));
        assert_ne!(tenth, failing(0.1, 2));
    }
}
