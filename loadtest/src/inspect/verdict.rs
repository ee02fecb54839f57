//! What a client is told about a call.

use serde::Deserialize;

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The upstream has answered.
    Passed,
    /// A guard has refused it, by this rule; a firewall, by its status.
    Refused(String),
}

#[derive(Deserialize)]
struct Answer {
    result: Option<Outcome>,
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct Outcome {
    #[serde(default, rename = "structuredContent")]
    structured: Option<Structured>,
}

#[derive(Deserialize)]
struct Structured {
    rule: Option<String>,
}

#[derive(Deserialize)]
struct Fault {
    code: i64,
}

impl Verdict {
    /// Reads an answer: its status, and for 200 its body. Whatever is neither a refusal nor the upstream's own answer is an error of the run.
    pub(super) fn of(status: u16, body: &[u8]) -> Result<Self, String> {
        let shown = || String::from_utf8_lossy(body.get(..body.len().min(300)).unwrap_or_default()).into_owned();
        if status == 403 || status == 400 {
            return Ok(Self::Refused(status.to_string()));
        }
        if status != 200 {
            return Err(format!("status {status}: {}", shown()));
        }
        let answer: Answer = serde_json::from_slice(body).map_err(|error| format!("{error}: {}", shown()))?;
        match (answer.result, answer.error) {
            (Some(Outcome { structured: Some(Structured { rule: Some(rule) }) }), None) => Ok(Self::Refused(rule)),
            (Some(_), None) => Ok(Self::Passed),
            (None, Some(Fault { code })) => Ok(Self::Refused(code.to_string())),
            _ => Err(format!("no answer: {}", shown())),
        }
    }

    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    pub(super) fn shown(&self) -> &str {
        match self {
            Self::Passed => "passed",
            Self::Refused(rule) => rule,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_an_answer() {
        let refused = |rule: &str| Ok(Verdict::Refused(rule.into()));
        for (status, body, want) in [
            (200, r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#, Ok(Verdict::Passed)),
            (
                200,
                r#"{"id":1,"result":{"isError":true,"structuredContent":{"error":"no","rule":"xss"}}}"#,
                refused("xss"),
            ),
            (200, r#"{"id":1,"result":{"structuredContent":{"rule":null}}}"#, Ok(Verdict::Passed)),
            (200, r#"{"id":1,"error":{"code":-32600,"message":"x"}}"#, refused("-32600")),
            (403, "<html>", refused("403")),
            (400, "", refused("400")),
        ] {
            assert_eq!(Verdict::of(status, body.as_bytes()), want, "{status} {body}");
        }
        for (status, body) in [(502, ""), (200, "no"), (200, "{}"), (401, "{}")] {
            assert!(Verdict::of(status, body.as_bytes()).is_err(), "{status} {body}");
        }
    }
}
