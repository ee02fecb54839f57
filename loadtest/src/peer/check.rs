//! What a peer must show before it is measured: a call goes through and the answer is right; and who is there to refuse, refuses.

use std::io;

use serde_json::Value;

use super::super::generate::Call;
use super::super::upstream::answer;
use super::exchange::{Response, post};
use super::{Kind, Target};

/// Two ids as long as those of a run.
const IDS: [&str; 2] = ["1000000007", "9876543210"];

/// Checks a peer; of a gateway that writes answers anew, learns how they end.
pub(super) fn works(kind: Kind, target: &mut Target) -> io::Result<()> {
    match kind {
        Kind::McpProxy | Kind::Contextforge => learn(target)?,
        Kind::Ringwall => refuses_strangers(target)?,
        Kind::RingwallOff if !target.token.is_empty() => {
            return Err(io::Error::other("a token where none is asked for"));
        }
        Kind::Modsecurity => refuses_attacks(target)?,
        _ => {}
    }
    right_call(target)
}

/// Makes one call; an error unless the answer is, byte for byte, the one that the generator expects.
pub(crate) fn right_call(target: &Target) -> io::Result<()> {
    let response = call(target, target.token, &target.call, IDS[0])?;
    let right = [answer::START, IDS[0].as_bytes(), &target.call.answer_end].concat();
    if response.status != 200 || response.body != right {
        return Err(io::Error::other(format!("a wrong answer: {}", response.shown())));
    }
    Ok(())
}

fn call(target: &Target, token: &str, call: &Call, id: &str) -> io::Result<Response> {
    let (start, end) = call.message();
    post(target.address, target.path, token, &target.session, &[&start, id.as_bytes(), &end].concat())
}

/// With guards on: nobody comes in without a token or with a wrong one, and no agent speaks for another.
fn refuses_strangers(target: &Target) -> io::Result<()> {
    let wrong = target.token.replace("agent", "tnega");
    for (token, who) in [("", "a call without a token"), (wrong.as_str(), "a call with a wrong token")] {
        let response = call(target, token, &target.call, IDS[0])?;
        if response.status != 401 {
            return Err(io::Error::other(format!("{who} is not refused: {}", response.shown())));
        }
    }
    let mut foreign = target.call.clone();
    foreign.arguments = br#"{"agentId":"somebody-else","to":"+15551234567","body":"Hello"}"#.to_vec();
    let response = call(target, target.token, &foreign, IDS[0])?;
    let passed = response.body.windows(8).any(|bytes| bytes == b"Received");
    if passed {
        return Err(io::Error::other(format!("a call in another agent's name is not refused: {}", response.shown())));
    }
    Ok(())
}

/// With the core rules on: a script in an argument is refused.
fn refuses_attacks(target: &Target) -> io::Result<()> {
    let mut attack = target.call.clone();
    attack.arguments = br#"{"to":"+15551234567","body":"<script>alert(document.cookie)</script>"}"#.to_vec();
    let response = call(target, target.token, &attack, IDS[0])?;
    if response.status == 403 {
        return Ok(());
    }
    Err(io::Error::other(format!("the rules are not on: an attack is not refused with 403: {}", response.shown())))
}

/// Makes a call through a gateway and takes over how its answers end, if they say what the upstream says and are the same for every id.
fn learn(target: &mut Target) -> io::Result<()> {
    let mut ends = Vec::new();
    for id in IDS {
        let response = call(target, target.token, &target.call, id)?;
        let wrong = || io::Error::other(format!("a wrong answer: {}", response.shown()));
        if response.status != 200 || !says_what_the_upstream_says(&response.body, id, &target.call.arguments) {
            return Err(wrong());
        }
        let rest = response.body.strip_prefix(answer::START).and_then(|rest| rest.strip_prefix(id.as_bytes()));
        ends.push(rest.ok_or_else(wrong)?.to_vec());
    }
    let (last, first) = (ends.pop().unwrap_or_default(), ends.pop().unwrap_or_default());
    if first != last {
        return Err(io::Error::other("answers differ from call to call in more than their id"));
    }
    target.call.answer_end = last;
    Ok(())
}

/// Whether an answer has the id and the text that belong to these arguments, or to the same ones in the order of their names.
fn says_what_the_upstream_says(body: &[u8], id: &str, arguments: &[u8]) -> bool {
    let Ok(got) = serde_json::from_slice::<Value>(body) else { return false };
    let text = |value: &Value| value.pointer("/result/content/0/text").and_then(Value::as_str).map(str::to_owned);
    let sorted = serde_json::from_slice::<std::collections::BTreeMap<String, Value>>(arguments);
    let sorted = sorted.and_then(|members| serde_json::to_vec(&members)).unwrap_or_default();
    let said = [arguments, &sorted].map(|arguments| {
        let mut answer = [answer::START, id.as_bytes()].concat();
        answer::write_end(&mut answer, arguments);
        serde_json::from_slice::<Value>(&answer).ok().as_ref().and_then(text)
    });
    let right_id = got.get("id").and_then(Value::as_u64) == id.parse().ok();
    let no_error = got.pointer("/result/isError").is_none_or(|error| error == &Value::Bool(false));
    right_id && no_error && text(&got).is_some() && said.contains(&text(&got))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_the_upstream_says_or_is_wrong() {
        let arguments = br#"{"to":"x","body":"y"}"#;
        let answer = |arguments: &[u8]| {
            let mut answer = [answer::START, IDS[0].as_bytes()].concat();
            answer::write_end(&mut answer, arguments);
            String::from_utf8_lossy(&answer).into_owned()
        };
        let right = answer(arguments);
        let says = |body: &str, id| says_what_the_upstream_says(body.as_bytes(), id, arguments);
        assert!(says(&right, IDS[0]));
        assert!(says(&answer(br#"{"body":"y","to":"x"}"#), IDS[0]), "a gateway may sort members");
        assert!(!says(&answer(br#"{"body":"z","to":"x"}"#), IDS[0]));
        assert!(!says(&right, IDS[1]));
        assert!(!says(&right.replace("\"isError\":false", "\"isError\":true"), IDS[0]));
        assert!(!says(&right.replace("text", "txet"), IDS[0]));
        assert!(!says("", IDS[0]));
    }
}
