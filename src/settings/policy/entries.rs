//! `[agent.ID]`, `[tier.NAME]` and `[tool.NAME]`.

use toml::Value;

use super::access::access;
use super::content::{MODES, SENSITIVE_MODES};
use super::fields::{Fields, Report};
use super::inspect::names;
use super::{Agent, Limits, Price, Tier, ToolKind, ToolPolicy};
use crate::guard::inspect::Kind;
use crate::settings::secret::sha256;
use crate::settings::table::hex32;
use crate::state::pins::ToolHash;

const KINDS: &[(&str, ToolKind)] = &[
    ("message", ToolKind::Message),
    ("call", ToolKind::Call),
    ("email", ToolKind::Email),
    ("records", ToolKind::Records),
    ("other", ToolKind::Other),
];

/// By their names.
const VALUES: [(&str, Kind); Kind::ALL.len()] = [
    (Kind::Text.name(), Kind::Text),
    (Kind::Html.name(), Kind::Html),
    (Kind::Sql.name(), Kind::Sql),
    (Kind::Code.name(), Kind::Code),
    (Kind::Path.name(), Kind::Path),
    (Kind::Url.name(), Kind::Url),
    (Kind::Phone.name(), Kind::Phone),
    (Kind::Email.name(), Kind::Email),
    (Kind::Header.name(), Kind::Header),
];

const COUNT_MAX: u64 = 1_000_000_000;

/// Reads one agent; `None` if it has faults.
pub(super) fn agent(id: &str, value: &Value, report: &mut Report) -> Option<Agent> {
    let path = format!("agent.{id}");
    if id.is_empty()
        || id.len() > 128
        || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:@".contains(&byte))
    {
        report.fault(
            &path,
            None,
            "is not accepted as an id",
            "1 to 128 letters, digits and _ - . : @",
            "[agent.support-bot]",
        );
        return None;
    }
    let mut fields = Fields::new(path, value, report)?;
    let allowed = "64 hexadecimal digits: the SHA-256 of the token, never the token itself";
    let example = "\"(printf %s \"$TOKEN\" | sha256sum)\"";
    // The hash of no token at all would let an empty one in.
    let token_sha256 = fields
        .masked("token_sha256", allowed, example, |value| hex32(value.as_str()?).filter(|hash| *hash != sha256(b"")));
    // Without one its tokens are those that the admin API issues. One that cannot be read is no agent without one.
    let is_whole = token_sha256.is_some() == value.get("token_sha256").is_some();
    let enabled = fields.flag("enabled").unwrap_or(true);
    let tier = fields.text("tier", "the name of a [tier.NAME]", "gold", |_| true);
    let limits = limits(&mut fields, report);
    let access = access(&mut fields, report);
    fields.finish(report);
    is_whole.then(|| Agent { id: id.into(), token_sha256, enabled, tier, limits, access })
}

/// Reads one tier; `None` if it is not a table.
pub(super) fn tier(name: &str, value: &Value, report: &mut Report) -> Option<Tier> {
    let mut fields = Fields::new(format!("tier.{name}"), value, report)?;
    let tier = Tier { limits: limit_keys(&mut fields), access: access(&mut fields, report) };
    fields.finish(report);
    Some(tier)
}

/// Reads what is known of one tool, or of all that a pattern matches; `None` if it is not a table.
pub(super) fn tool(pattern: &str, value: &Value, report: &mut Report) -> Option<ToolPolicy> {
    let path = format!("tool.{pattern}");
    if pattern.is_empty() || pattern.len() > 256 || pattern.chars().any(char::is_control) {
        report.fault(
            &path,
            None,
            "is not accepted as a name",
            "1 to 256 characters; * stands for any",
            "[tool.\"comms_*\"]",
        );
        return None;
    }
    let mut fields = Fields::new(path, value, report)?;
    let policy = ToolPolicy {
        pattern: pattern.into(),
        upstream: fields.text("upstream", "the name of an [upstream.NAME]", "crm", |_| true),
        inject_agent_id: fields.flag("inject_agent_id"),
        kind: fields.word("kind", KINDS),
        recipient: argument(&mut fields, "recipient", "to"),
        text: argument(&mut fields, "text", "body"),
        html: argument(&mut fields, "html", "html"),
        subject: argument(&mut fields, "subject", "subject"),
        time_zone: argument(&mut fields, "time_zone", "timeZone"),
        record: argument(&mut fields, "record", "record"),
        announcement: argument(&mut fields, "announcement", "announcement"),
        arguments: fields.words("arguments", &VALUES),
        content: fields.word("content", MODES),
        sensitive: fields.word("sensitive", SENSITIVE_MODES),
        exempt: names(&mut fields, "exempt"),
        pinned: pinned(&mut fields, pattern),
        price: price(&mut fields, report),
        settle: fields.text("settle", "a JSON pointer into the result", "/structuredContent/price", is_pointer),
        limits: limits(&mut fields, report),
    };
    check_price(&policy, &mut fields);
    fields.finish(report);
    Some(policy)
}

/// What says something of a price must be about one that can be told.
fn check_price(policy: &ToolPolicy, fields: &mut Fields<'_>) {
    let example = "price = { fixed_usd = \"0.01\" }";
    if matches!(policy.price, Some(Price::PerSegment { .. })) && policy.text.is_none() {
        let why = "needs text: which argument's segments are counted";
        fields.fault("price", None, why, "text = the name of an argument", "text = \"body\"");
    }
    if policy.settle.is_some() && policy.price.is_none() {
        fields.fault("settle", None, "says what a call has cost, and calls have no price", "beside price", example);
    }
    let limits = &policy.limits;
    let caps = limits.spend_per_day_microusd.or(limits.spend_per_month_microusd);
    if caps.is_some() && policy.price.is_none() {
        fields.fault("limits", None, "has a cap on what is spent, and calls have no price", "beside price", example);
    }
}

/// The hash of a description: of one tool, not of all that a pattern matches.
fn pinned(fields: &mut Fields<'_>, pattern: &str) -> Option<ToolHash> {
    let allowed = "sha256- and 64 hexadecimal digits, as ringwall tools shows them";
    let text = fields.text("pinned", allowed, "sha256-…", |text| ToolHash::of_text(text).is_some())?;
    if pattern.contains('*') {
        fields.fault("pinned", None, "is of one tool, and this is a pattern", "[tool.NAME] without *", "[tool.search]");
    }
    ToolHash::of_text(&text)
}

/// A key whose value names an argument of the tool.
fn argument(fields: &mut Fields<'_>, key: &'static str, example: &str) -> Option<String> {
    fields.text(key, "the name of an argument", example, |text| !text.is_empty() && text.len() <= 256)
}

/// RFC 6901: empty, or parts that begin with `/`, in which `~` is followed by 0 or 1.
fn is_pointer(text: &str) -> bool {
    let escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    text.starts_with('/') && escaped
}

/// `limits = { per_minute = 5, … }`.
fn limits(fields: &mut Fields<'_>, report: &mut Report) -> Limits {
    let path = fields.path_of("limits");
    let Some(mut inner) = fields.raw("limits").and_then(|value| Fields::new(path, value, report)) else {
        return Limits::default();
    };
    let limits = limit_keys(&mut inner);
    inner.finish(report);
    limits
}

fn limit_keys(fields: &mut Fields<'_>) -> Limits {
    Limits {
        per_minute: fields.whole("per_minute", 0, COUNT_MAX),
        per_hour: fields.whole("per_hour", 0, COUNT_MAX),
        per_day: fields.whole("per_day", 0, COUNT_MAX),
        same_number_per_day: fields.whole("same_number_per_day", 0, COUNT_MAX),
        spend_per_day_microusd: fields.usd("spend_per_day_usd"),
        spend_per_month_microusd: fields.usd("spend_per_month_usd"),
    }
}

/// `price = { fixed_usd = "0.01" }`, `{ per_segment_usd = … }` or `{ per_minute_usd = …, max_minutes = … }`.
fn price(fields: &mut Fields<'_>, report: &mut Report) -> Option<Price> {
    let path = fields.path_of("price");
    let value = fields.raw("price")?;
    let mut inner = Fields::new(path, value, report)?;
    let (fixed, segment, minute) = (inner.usd("fixed_usd"), inner.usd("per_segment_usd"), inner.usd("per_minute_usd"));
    let max_minutes = inner.whole("max_minutes", 1, 1440);
    inner.finish(report);
    let price = match (fixed, segment, minute, max_minutes) {
        (Some(microusd), None, None, None) => Some(Price::Fixed { microusd }),
        (None, Some(microusd), None, None) => Some(Price::PerSegment { microusd }),
        (None, None, Some(microusd), Some(max_minutes)) => Some(Price::PerMinute { microusd, max_minutes }),
        _ => None,
    };
    let read = [fixed, segment, minute, max_minutes.map(u64::from)].iter().flatten().count();
    // What cannot be read has a fault of its own.
    let is_read = value.as_table().is_some_and(|table| table.len() == read);
    if price.is_none() && is_read {
        let allowed = "exactly one of fixed_usd, per_segment_usd, and per_minute_usd with max_minutes";
        fields.fault(
            "price",
            None,
            "is not complete, or contradicts itself",
            allowed,
            "price = { fixed_usd = \"0.01\" }",
        );
    }
    price
}
