//! What lines are asked for, on the command line.

use std::path::Path;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::control::audit::pseudonym::{self, Pseudonyms};
use crate::control::audit::search::{Filter, NoAddress, Wanted};
use crate::control::keys::{self, Key, KeyError};
use crate::state::events::{EventKind, Severity};

/// Lines must say all of it.
#[derive(Debug, Default, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Of this kind, e.g. tool_call; may be given several times
    #[arg(long, value_name = "EVENT", value_parser = event)]
    event: Vec<&'static str>,
    /// At least this serious: info, low, medium, high, critical
    #[arg(long, value_name = "SEVERITY", value_parser = severity)]
    severity: Option<Severity>,
    /// From this address; its pseudonym will do
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Of this client, e.g. http-1f
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// Of this agent
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// About this tool
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// Decided by this rule
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// About the message with this JSON-RPC id
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// Not older than this: 2026-11-22, 2026-11-22T08:00:00Z, or 90m, 24h, 7d ago
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Older than this
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// With this text in it; capitals do not matter
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
}

impl Args {
    /// Whether every line will do.
    pub(super) fn is_empty(&self) -> bool {
        let Self { event, severity, ip, client, agent, tool, rule, request, since, until, text } = self;
        let texts = [ip, client, agent, tool, rule, request, text];
        event.is_empty()
            && severity.is_none()
            && since.is_none()
            && until.is_none()
            && texts.iter().all(|text| text.is_none())
    }

    /// The filter, with the key of a gateway's data directory where a pseudonym has to be computed.
    pub(super) fn filter(&self, state: &Path) -> Result<Filter, String> {
        let texts = [&self.ip, &self.agent, &self.tool, &self.rule, &self.request, &self.text];
        let is_plain = |text: &&String| !text.contains(['@', '+', ':', '.']);
        let needs_key = !texts.into_iter().flatten().all(|text| is_plain(&text));
        let pseudonyms = pseudonyms(state, needs_key)?;
        let wanted = Wanted {
            event: &self.event,
            severity: self.severity,
            ip: self.ip.as_deref(),
            client: self.client.as_deref(),
            agent: self.agent.as_deref(),
            tool: self.tool.as_deref(),
            rule: self.rule.as_deref(),
            request: self.request.as_deref(),
            since: self.since,
            until: self.until,
            text: self.text.as_deref(),
        };
        wanted
            .filter(&pseudonyms)
            .map_err(|NoAddress| format!("{:?} is no address", self.ip.as_deref().unwrap_or_default()))
    }
}

/// Those of a gateway's trail. Where its key is not to be had and not needed, any will do.
pub(super) fn pseudonyms(state: &Path, is_needed: bool) -> Result<Pseudonyms, String> {
    match keys::load_existing(state, pseudonym::KEY_FILE) {
        Ok(key) => Ok(Pseudonyms::new(&key)),
        Err(_) if !is_needed => Ok(Pseudonyms::new(&Key::new([0; 32]))),
        Err(error @ KeyError::Io { .. }) => {
            Err(format!("{error}. Pseudonyms are computed with it; DATA_DIR says where the gateway has it"))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn event(name: &str) -> Result<&'static str, String> {
    let names = EventKind::ALL.iter().map(|kind| kind.wire_name());
    let all = names.clone().collect::<Vec<_>>().join(", ");
    names.clone().find(|known| *known == name).ok_or(format!("there are: {all}"))
}

fn severity(name: &str) -> Result<Severity, String> {
    let is_meant = |severity: &&Severity| severity.wire_name().eq_ignore_ascii_case(name);
    Severity::ALL.iter().find(is_meant).copied().ok_or("info, low, medium, high or critical".to_owned())
}

fn time(text: &str) -> Result<Timestamp, String> {
    time_at(text, crate::worker::epoch_ms())
}

fn time_at(text: &str, now_ms: u64) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    if let Ok(day) = text.parse::<Date>() {
        return day.to_zoned(TimeZone::UTC).map(|at| at.timestamp()).map_err(|error| error.to_string());
    }
    let seconds = |number: &str, unit: u64| number.parse::<u64>().ok()?.checked_mul(unit);
    let ago = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((number, "s")) => seconds(number, 1),
        Some((number, "m")) => seconds(number, 60),
        Some((number, "h")) => seconds(number, 3_600),
        Some((number, "d")) => seconds(number, 86_400),
        _ => None,
    };
    let at = ago.and_then(|ago| i64::try_from(now_ms.saturating_sub(ago.checked_mul(1_000)?)).ok());
    at.and_then(|at| Timestamp::from_millisecond(at).ok())
        .ok_or("a day (2026-11-22), a time (2026-11-22T08:00:00Z) or how long ago (90m, 24h, 7d)".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_give_them() {
        let now = 1_795_305_600_000;
        for (text, expected) in [
            ("2026-11-22", "2026-11-22T00:00:00Z"),
            ("2026-11-22T08:00:00Z", "2026-11-22T08:00:00Z"),
            ("2026-11-22T08:00:00+02:00", "2026-11-22T06:00:00Z"),
            ("90m", "2026-11-21T22:30:00Z"),
            ("24h", "2026-11-21T00:00:00Z"),
            ("7d", "2026-11-15T00:00:00Z"),
            ("999999999d", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(time_at(text, now).unwrap(), expected.parse().unwrap(), "{text}");
        }
        for wrong in ["", "d", "1w", "-1h", "yesterday", "2026-13-01", "99999999999999999999d", "é"] {
            assert!(time_at(wrong, now).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(event("tool_call"), Ok("tool_call"));
        assert!(event("tool_calls").unwrap_err().contains("tool_call"));
        assert_eq!(severity("high"), Ok(Severity::High));
        assert!(severity("bad").is_err());
    }
}
