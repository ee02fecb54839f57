//! Finding lines: which lines say what is asked for.
//!
//! A line is compared as the bytes that it is: its form is fixed, and no value can hold what stands between fields, because quotes in values are escaped. What is
//! asked for is brought into the form that it has in the trail first, pseudonyms included. The chain is not verified.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use std::borrow::Cow;

use jiff::Timestamp;
use memchr::memmem::Finder;

use super::line::{PREFIX, push_json_string};
use super::pseudonym::Pseudonyms;
use crate::state::events::Severity;

/// What a line must say; empty: every line.
#[derive(Default)]
pub struct Filter {
    /// Of each group one.
    any: Vec<Vec<Finder<'static>>>,
    severity: Option<Severity>,
    /// As the trail writes it: such texts sort by time.
    since: Option<String>,
    until: Option<String>,
    /// In small letters.
    text: Option<Finder<'static>>,
}

/// What somebody asks for, in words; empty: every line.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    /// Of one of these kinds.
    pub event: &'a [&'a str],
    /// At least this serious.
    pub severity: Option<Severity>,
    /// From this address, or what has this pseudonym.
    pub ip: Option<&'a str>,
    /// Of this client.
    pub client: Option<&'a str>,
    /// Of this agent.
    pub agent: Option<&'a str>,
    /// About this tool.
    pub tool: Option<&'a str>,
    /// Decided by this rule.
    pub rule: Option<&'a str>,
    /// About the message with this id.
    pub request: Option<&'a str>,
    /// Not older.
    pub since: Option<Timestamp>,
    /// Older.
    pub until: Option<Timestamp>,
    /// With this text anywhere.
    pub text: Option<&'a str>,
}

/// An address is asked for that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAddress;

impl Wanted<'_> {
    /// The filter that finds it.
    ///
    /// # Errors
    /// [`NoAddress`].
    pub fn filter(&self, pseudonyms: &Pseudonyms) -> Result<Filter, NoAddress> {
        let mut filter = Filter::default();
        filter.field("event", self.event, pseudonyms);
        if let Some(ip) = self.ip {
            let pseudonym = pseudonyms.of(ip).map_or_else(|| ip.to_owned(), |pseudonym| pseudonym.to_string());
            if !pseudonym.starts_with("ip:") {
                return Err(NoAddress);
            }
            filter.field("ip", &[&pseudonym], pseudonyms);
        }
        for (name, value) in
            [("clientId", self.client), ("agentId", self.agent), ("tool", self.tool), ("rule", self.rule)]
        {
            filter.field(name, value.as_slice(), pseudonyms);
        }
        self.request.iter().for_each(|id| filter.request(id, pseudonyms));
        self.severity.iter().for_each(|least| filter.severity(*least));
        self.since.iter().for_each(|at| filter.since(*at));
        self.until.iter().for_each(|at| filter.until(*at));
        self.text.iter().for_each(|text| filter.text(text, pseudonyms));
        Ok(filter)
    }
}

/// Behind what is asked for stand the links.
const LINKS: &[u8] = b",\"prev\":\"";
/// Before a line's timestamp, and how long it is.
const TIMESTAMP: &[u8] = b"{\"timestamp\":\"";
const TIMESTAMP_LEN: usize = 24;

impl Filter {
    /// Lines in which a text field has one of these values, as they are.
    pub fn field(&mut self, name: &str, values: &[&str], pseudonyms: &Pseudonyms) {
        let one = |value: &&str| {
            let mut needle = format!(",\"{name}\":").into_bytes();
            push_json_string(&mut needle, &pseudonyms.replaced(value));
            Finder::new(&needle).into_owned()
        };
        if !values.is_empty() {
            self.any.push(values.iter().map(one).collect());
        }
    }

    /// Lines of the message with this id.
    pub fn request(&mut self, id: &str, pseudonyms: &Pseudonyms) {
        // As a number, and as a string.
        self.field("requestId", &[id, &format!("\"{id}\"")], pseudonyms);
    }

    /// Lines at least this serious.
    pub fn severity(&mut self, least: Severity) {
        self.severity = Some(least);
    }

    /// Lines not older than this.
    pub fn since(&mut self, at: Timestamp) {
        self.since = Some(format!("{at:.3}"));
    }

    /// Lines older than this.
    pub fn until(&mut self, at: Timestamp) {
        self.until = Some(format!("{at:.3}"));
    }

    /// Lines with this text anywhere but in their links; capitals do not matter.
    pub fn text(&mut self, text: &str, pseudonyms: &Pseudonyms) {
        let mut escaped = Vec::new();
        push_json_string(&mut escaped, &pseudonyms.replaced(text));
        let inner = escaped.get(1..escaped.len() - 1).unwrap_or_default().to_ascii_lowercase();
        self.text = Some(Finder::new(&inner).into_owned());
    }

    /// Whether a line, without its newline, says it all.
    #[must_use]
    pub fn matches(&self, line: &[u8]) -> bool {
        let Some(json) = line.strip_prefix(PREFIX.as_bytes()) else { return false };
        let body = memchr::memmem::rfind(json, LINKS).and_then(|end| json.get(..end)).unwrap_or(json);
        let Some(time) = body.strip_prefix(TIMESTAMP).and_then(|rest| rest.get(..TIMESTAMP_LEN)) else { return false };
        self.since.as_ref().is_none_or(|since| time >= since.as_bytes())
            && self.until.as_ref().is_none_or(|until| time < until.as_bytes())
            && self.severity.is_none_or(|least| severity_of(body).is_some_and(|severity| severity >= least))
            && self.any.iter().all(|group| group.iter().any(|needle| needle.find(body).is_some()))
            && self.text.as_ref().is_none_or(|text| text.find(&small(body)).is_some())
    }
}

fn small(body: &[u8]) -> Cow<'_, [u8]> {
    if body.iter().any(u8::is_ascii_uppercase) { Cow::Owned(body.to_ascii_lowercase()) } else { Cow::Borrowed(body) }
}

fn severity_of(body: &[u8]) -> Option<Severity> {
    let name = b",\"severity\":\"";
    let rest = body.get(memchr::memmem::find(body, name)? + name.len()..)?;
    let name = rest.split(|byte| *byte == b'"').next()?;
    Severity::ALL.iter().copied().find(|severity| severity.wire_name().as_bytes() == name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control::audit::line::{ChainEnd, Formatter};
    use crate::control::keys::Key;
    use crate::state::events::{Event, EventKind};

    fn pseudonyms() -> Pseudonyms {
        Pseudonyms::new(&Key::new([8; 32]))
    }

    fn line() -> Vec<u8> {
        let mut out = Vec::new();
        let event = Event::new(EventKind::ContentBlocked, 1_795_331_198_123)
            .with_ip([203, 0, 113, 9].into())
            .with_agent("support-bot")
            .with_tool(b"send_\"sms\"")
            .with_rule("threat")
            .with_request_id(b"\"7\"")
            .with_details(format_args!("To sam@example.com, \"rule\":\"x\" said"));
        Formatter::new(&Key::new([7; 32]), ChainEnd::default(), pseudonyms()).append(&mut out, &event);
        out.pop();
        out
    }

    fn filter(build: impl FnOnce(&mut Filter, &Pseudonyms)) -> bool {
        let mut filter = Filter::default();
        build(&mut filter, &pseudonyms());
        filter.matches(&line())
    }

    #[test]
    fn what_is_asked_for_is_found_and_nothing_like_it() {
        assert!(filter(|_, _| ()));
        for (name, value, is_found) in [
            ("event", "content_blocked", true),
            ("event", "content", false),
            ("agentId", "support-bot", true),
            ("agentId", "support", false),
            ("tool", "send_\"sms\"", true),
            ("tool", "sms", false),
            ("rule", "threat", true),
            // It stands in the details alone.
            ("rule", "x", false),
        ] {
            assert_eq!(filter(|filter, p| filter.field(name, &[value], p)), is_found, "{name} {value}");
        }
        assert!(filter(|filter, p| filter.field("event", &["alert", "content_blocked"], p)));
        assert!(!filter(|filter, p| {
            filter.field("event", &["content_blocked"], p);
            filter.field("rule", &["hate"], p);
        }));
        let ip = pseudonyms().of("203.0.113.9").unwrap();
        assert!(filter(|filter, p| filter.field("ip", &[&ip], p)));
        assert!(filter(|filter, p| filter.request("7", p)));
        assert!(!filter(|filter, p| filter.request("70", p)));
    }

    #[test]
    fn texts_times_and_severities() {
        for (text, is_found) in
            [("SAID", true), ("sam@example.com", true), ("said \"", false), ("\"rule\"", true), ("0000000000", false)]
        {
            assert_eq!(filter(|filter, p| filter.text(text, p)), is_found, "{text}");
        }
        for (severity, is_found) in [(Severity::Info, true), (Severity::Medium, true), (Severity::High, false)] {
            assert_eq!(filter(|filter, _| filter.severity(severity)), is_found);
        }
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        for (since, until, is_found) in [
            ("2026-11-22T07:06:38.123Z", "2026-11-22T07:06:38.124Z", true),
            ("2026-11-22T07:06:38.124Z", "2027-01-01T00:00:00Z", false),
            ("2026-01-01T00:00:00Z", "2026-11-22T07:06:38.123Z", false),
            ("2026-11-22T08:06:38.123+01:00", "2027-01-01T00:00:00Z", true),
        ] {
            let found = filter(|filter, _| {
                filter.since(at(since));
                filter.until(at(until));
            });
            assert_eq!(found, is_found, "{since} {until}");
        }
        assert!(!Filter::default().matches(b"foreign"));
    }
}
