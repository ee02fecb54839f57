//! What can be known of an answer without parsing it.
//!
//! Most answers are no errors, and parsing one costs more than the rest of what is done with it. So a search comes first that
//! errs to one side only: whoever asks parses where the answer may be an error, and can leave it where it is none.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::scan::skip_blanks;

/// What `"error"` and `"isError"` have in common.
static NAME_END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"rror\""));
static ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\\u"));

/// Whether this answer may be an error: has a member `error`, or one `isError` that is not false. `false` is certain of any
/// JSON text; `true` may be wrong: the names may stand in a string, or deeper than they count. A name can be written
/// with escapes, so where there is a `\u` it may be an error as well.
#[must_use]
pub fn may_be_error(answer: &[u8]) -> bool {
    let is_harmless = |at: usize| {
        let (before, after) = answer.split_at_checked(at).unwrap_or((answer, &[]));
        let after = after.get(b"rror\"".len()..).unwrap_or_default();
        if before.ends_with(b"\"e") {
            return false;
        }
        if !before.ends_with(b"\"isE") {
            return true;
        }
        let colon = skip_blanks(after, 0);
        let value = skip_blanks(after, colon.saturating_add(1));
        after.get(colon) == Some(&b':') && after.get(value..).is_some_and(|value| value.starts_with(b"false"))
    };
    !NAME_END.find_iter(answer).all(is_harmless) || ESCAPE.find(answer).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::{Kind, Parser};
    use proptest::prelude::*;

    #[test]
    fn an_error_is_never_overlooked_and_the_common_answer_is_known_to_be_none() {
        let table: &[(&str, bool)] = &[
            (r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":false}}"#, false),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#, false),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"text":"an error, no terror","isError" : false}}"#, false),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"mirror":"x"}}"#, false),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"isError":true}}"#, true),
            ("{\"result\":{\"isError\"\r\n\t: true}}", true),
            (r#"{"result":{"isError":false,"isError":true}}"#, true),
            (r#"{"result":{"isError":"#, true),
            (r#"{"result":{"isError""#, true),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}"#, true),
            (r#"{"jsonrpc":"2.0","id":1,"err\u006fr":{"code":1,"message":"m"}}"#, true),
            (r#"{"result":{"is\u0045rror":true}}"#, true),
            // May be wrong on this side.
            (r#"{"result":{"content":[{"text":"\"error\""}]}}"#, false),
            (r#"{"result":{"structuredContent":{"error":null}}}"#, true),
            ("", false),
        ];
        for (answer, expected) in table {
            assert_eq!(may_be_error(answer.as_bytes()), *expected, "{answer}");
        }
    }

    /// Pieces that make errors, what looks like them, and all between.
    fn answers() -> impl Strategy<Value = String> {
        let piece = proptest::sample::select(vec![
            r#""isError":true"#,
            r#""isError": false"#,
            r#""is\u0045rror":true"#,
            r#""isErr\u006fr" :true"#,
            r#""text":"isError\":true \\u \" error""#,
            r#""text":"\"isError\":true""#,
            r#""error":{"code":1,"message":"m"}"#,
            r#""e\u0072ror":{"code":1,"message":"m"}"#,
            r#""structuredContent":{"isError":true}"#,
            r#""x":[1,{"error":2}]"#,
        ]);
        let members = proptest::collection::vec(piece, 0..4).prop_map(|pieces| pieces.join(","));
        let blank = proptest::sample::select(vec!["", " ", "\n"]);
        (members, any::<bool>(), blank).prop_map(|(members, inside, blank)| {
            let head = format!(r#"{{{blank}"jsonrpc":"2.0","id":1,"#);
            if inside { format!(r#"{head}"result":{{{members}}}}}"#) } else { format!(r"{head}{members}}}") }
        })
    }

    proptest! {
        #[test]
        fn what_the_parser_takes_for_an_error_may_be_one(answer in answers()) {
            if let Ok(envelope) = Parser::new(8).parse(answer.as_bytes())
                && (envelope.kind == Kind::ErrorResponse || envelope.result_is_error)
            {
                prop_assert!(may_be_error(answer.as_bytes()), "{answer}");
            }
        }
    }
}
