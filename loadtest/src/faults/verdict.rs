//! What an answer is: the right one, a refusal that the documents know, or something that must not be.
//!
//! Judged from the bytes alone, against the one right answer that a call has, so that nothing needs to be trusted about whose answer it is.

use serde::Deserialize;

use super::call::Call;

/// How a call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// Byte for byte the answer that it has.
    Right,
    /// What its upstream has said to it, which is not its answer.
    AsSent,
    /// -32001: it was not made, the upstream cannot be reached.
    Unreached,
    /// -32001: it was not made, too many are in flight.
    Busy,
    /// -32001: the connection ended during the call.
    Broken,
    /// -32001: the upstream did not answer in time.
    Late,
    /// -32001: the answer is not valid HTTP, or too long to be held.
    NotHttp,
    /// -32001: the answer is not a response to this call, or an HTTP status.
    NotAnAnswer,
    /// -32001: the server's answer is too long.
    TooLong,
    /// -32001: the session has ended with its upstream's connection.
    SessionLost,
    /// -32603: the call cannot be recorded.
    Unrecorded,
    /// It was not made: nothing more may be spent.
    Capped,
    /// It was made, and its result is longer than one may be (docs/results.md).
    Withheld,
    /// The request took too long to come.
    Slow,
    /// The client has left before its call was whole.
    Unsent,
    /// The connection ended before the answer.
    Cut,
    /// The client has left.
    Left,
    /// There was neither an answer nor an end.
    Lost,
    /// Anything else.
    Wrong,
}

impl Verdict {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 19] = [
        Self::Right,
        Self::AsSent,
        Self::Unreached,
        Self::Busy,
        Self::Broken,
        Self::Late,
        Self::NotHttp,
        Self::NotAnAnswer,
        Self::TooLong,
        Self::SessionLost,
        Self::Unrecorded,
        Self::Capped,
        Self::Withheld,
        Self::Slow,
        Self::Unsent,
        Self::Cut,
        Self::Left,
        Self::Lost,
        Self::Wrong,
    ];

    pub(crate) fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Whether it is certain that the upstream has not seen the call.
    pub(crate) fn says_not_made(self) -> bool {
        matches!(self, Self::Unreached | Self::Busy | Self::Unrecorded | Self::Capped | Self::Slow | Self::Unsent)
    }
}

/// A set of verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowed(u32);

impl Allowed {
    pub(crate) const NOTHING: Self = Self(0);

    pub(crate) fn of(verdicts: &[Verdict]) -> Self {
        Self(verdicts.iter().fold(0, |set, verdict| set | 1 << *verdict as u16))
    }

    pub(crate) fn has(self, verdict: Verdict) -> bool {
        self.0 & 1 << verdict as u16 != 0
    }
}

/// An answer as it arrived.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    /// The HTTP status; on doors that carry messages none.
    pub(crate) status: Option<u16>,
    /// Whether it says that it is JSON; on doors that carry messages all are.
    pub(crate) is_json: bool,
    pub(crate) body: &'a [u8],
}

/// Judges what has come for `call`.
pub(crate) fn of(call: &Call, answer: &Answer<'_>) -> Verdict {
    let id = call.id();
    if answer.is_json && answer.status.is_none_or(|status| status == 200) && answer.body == call.answer(&id).as_bytes()
    {
        return Verdict::Right;
    }
    if call.is_as_sent(answer.body) {
        return Verdict::AsSent;
    }
    if answer.status == Some(408) && answer.body == SLOW.as_bytes() {
        return Verdict::Slow;
    }
    refused_result(&id, answer).unwrap_or_else(|| refusal(&id, answer))
}

/// A tool's result that the gateway wrote itself: nothing more may be spent (docs/spend.md), or the tool's own is too long (docs/results.md).
fn refused_result(id: &str, answer: &Answer<'_>) -> Option<Verdict> {
    #[derive(Deserialize)]
    struct Refused<'a> {
        #[serde(borrow)]
        id: &'a serde_json::value::RawValue,
        result: RefusedResult,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct RefusedResult {
        is_error: bool,
        structured_content: Why,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Why {
        limit_type: Option<String>,
        rule: Option<String>,
    }
    let Refused { id: of, result } = serde_json::from_slice(answer.body).ok()?;
    if of.get() != id || !result.is_error || answer.status.is_some_and(|status| status != 200) {
        return None;
    }
    match (result.structured_content.limit_type.as_deref(), result.structured_content.rule.as_deref()) {
        (Some("daily-spend" | "monthly-spend"), _) => Some(Verdict::Capped),
        (None, Some("result-size")) => Some(Verdict::Withheld),
        _ => None,
    }
}

const SLOW: &str = r#"{"error":"Request timeout: send the whole request at once"}"#;

#[derive(Deserialize)]
struct Refusal<'a> {
    #[serde(borrow)]
    id: &'a serde_json::value::RawValue,
    error: RefusalError,
}

#[derive(Deserialize)]
struct RefusalError {
    code: i64,
    message: String,
}

/// Texts behind `Upstream error: ` (docs/http-faults.md), and what they mean.
const TEXTS: &[(&str, Verdict, &[u16])] = &[
    ("the upstream's host name does not resolve; the call was not made", Verdict::Unreached, &[502]),
    ("the upstream cannot be reached; the call was not made", Verdict::Unreached, &[502]),
    ("the server cannot be reached; the call was not made", Verdict::Unreached, &[503]),
    ("the server is restarting; the call was not made", Verdict::Unreached, &[503]),
    ("the server went away before the call was sent; the call was not made", Verdict::Unreached, &[503]),
    ("the server did not answer the handshake; the call was not made", Verdict::Unreached, &[503]),
    ("the upstream has no session for the client; the call was not made", Verdict::Unreached, &[]),
    ("the upstream closed the connection before it answered; the call was not made", Verdict::Unreached, &[]),
    ("the upstream did not answer in time; the call was not made", Verdict::Unreached, &[]),
    ("the upstream has too many calls in flight; the call was not made", Verdict::Busy, &[503]),
    ("too many calls are waiting for the servers; the call was not made", Verdict::Busy, &[503]),
    ("the server is busy; the call was not made", Verdict::Busy, &[503]),
    (
        "the upstream closed the connection before it answered; whether the call was carried out is unknown",
        Verdict::Broken,
        &[502],
    ),
    (
        "the connection to the server ended during the call; whether the call was carried out is unknown",
        Verdict::Broken,
        &[502],
    ),
    ("the upstream did not answer in time; whether the call was carried out is unknown", Verdict::Late, &[504]),
    ("the server's answer is too long; whether the call was carried out is unknown", Verdict::TooLong, &[502]),
    ("the answer is not valid HTTP", Verdict::NotHttp, &[502]),
    ("the answer is not a response to this call", Verdict::NotAnAnswer, &[]),
    ("HTTP status 503", Verdict::NotAnAnswer, &[]),
];

/// Judges a message that is not the right answer: a refusal with the call's id, under the status that the documents give.
fn refusal(id: &str, answer: &Answer<'_>) -> Verdict {
    let Ok(refusal) = serde_json::from_slice::<Refusal<'_>>(answer.body) else { return Verdict::Wrong };
    if refusal.id.get() != id {
        return Verdict::Wrong;
    }
    let fits = |statuses: &[u16]| answer.status.is_none_or(|status| statuses.contains(&status));
    match (refusal.error.code, refusal.error.message.as_str()) {
        (-32001, "Session not found: initialize again") if fits(&[404]) => Verdict::SessionLost,
        (-32603, "Service unavailable - calls cannot be recorded") if fits(&[503]) => Verdict::Unrecorded,
        (-32001, text) => {
            let Some(text) = text.strip_prefix("Upstream error: ") else { return Verdict::Wrong };
            let known = TEXTS.iter().find(|(known, _, statuses)| *known == text && fits(statuses));
            known.map_or(Verdict::Wrong, |(_, verdict, _)| *verdict)
        }
        _ => Verdict::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(id: &str, code: i64, text: &str) -> String {
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{code},\"message\":\"{text}\"}}}}")
    }

    fn judged(body: &str, status: Option<u16>) -> Verdict {
        refusal("7", &Answer { status, is_json: true, body: body.as_bytes() })
    }

    #[test]
    fn a_refusal_counts_with_its_own_id_code_text_and_status_only() {
        let late = "Upstream error: the upstream did not answer in time; whether the call was carried out is unknown";
        assert_eq!(judged(&error("7", -32001, late), Some(504)), Verdict::Late);
        assert_eq!(judged(&error("7", -32001, late), None), Verdict::Late);
        assert_eq!(judged(&error("7", -32001, late), Some(502)), Verdict::Wrong, "another status");
        assert_eq!(judged(&error("8", -32001, late), None), Verdict::Wrong, "another's id");
        assert_eq!(judged(&error("\"7\"", -32001, late), None), Verdict::Wrong, "another kind of id");
        assert_eq!(judged(&error("null", -32001, late), None), Verdict::Wrong);
        assert_eq!(judged(&error("7", -32000, late), None), Verdict::Wrong, "another code");
        assert_eq!(judged(&error("7", -32001, "Upstream error: oh"), None), Verdict::Wrong, "an unknown text");
        assert_eq!(judged("{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}", None), Verdict::Wrong);
        assert_eq!(judged("", None), Verdict::Wrong);
        let unrecorded = error("7", -32603, "Service unavailable - calls cannot be recorded");
        assert_eq!(judged(&unrecorded, Some(503)), Verdict::Unrecorded);
        assert_eq!(judged(&unrecorded, Some(200)), Verdict::Wrong);
        let lost = error("7", -32001, "Session not found: initialize again");
        assert_eq!((judged(&lost, None), judged(&lost, Some(200))), (Verdict::SessionLost, Verdict::Wrong));
    }

    #[test]
    fn only_a_refusal_of_this_call_for_its_cost_is_one() {
        let body = |id: &str, kind: &str, failed: bool| {
            format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"isError":{failed},"content":[],"structuredContent":{{"error":"x","limitType":"{kind}","max":1.0}}}}}}"#
            )
        };
        let found = |body: &str, status| refused_result("7", &Answer { status, is_json: true, body: body.as_bytes() });
        let capped = |body: &str, status| found(body, status) == Some(Verdict::Capped);
        assert!(capped(&body("7", "daily-spend", true), Some(200)) && capped(&body("7", "monthly-spend", true), None));
        assert!(!capped(&body("7", "daily-spend", true), Some(429)), "another status");
        assert!(!capped(&body("8", "daily-spend", true), None), "another's id");
        assert!(!capped(&body("7", "per-minute", true), None), "another limit");
        assert!(!capped(&body("7", "daily-spend", false), None), "no refusal");
        let long = |rule: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":7,"result":{{"isError":true,"content":[],"structuredContent":{{"error":"x","rule":"{rule}"}}}}}}"#
            )
        };
        assert_eq!(found(&long("result-size"), Some(200)), Some(Verdict::Withheld));
        assert_eq!((found(&long("result-secret"), None), found(&long("result-size"), Some(502))), (None, None));
    }

    #[test]
    fn a_set_has_what_it_was_made_of() {
        let set = Allowed::of(&[Verdict::Right, Verdict::Wrong]);
        for verdict in Verdict::ALL {
            assert_eq!(set.has(verdict), matches!(verdict, Verdict::Right | Verdict::Wrong), "{verdict:?}");
        }
    }
}
