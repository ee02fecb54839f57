#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::settings::{Inputs, Settings};

/// Some midnight, UTC.
const MIDNIGHT: u64 = 1_800_057_600_000;
/// Noon of that day.
const NOON: u64 = MIDNIGHT + 12 * 3_600_000;

fn table() -> RateTable {
    RateTable::new(4096, [7; 16])
}

fn rates() -> Rates {
    let mut rates = Settings::load(&Inputs::default()).unwrap().settings.rates;
    (rates.http_per_ip, rates.http_global, rates.client_max, rates.client_burst) = (3, 5, 4, 2);
    rates
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Which of these pass, and why the first that does not is refused.
fn ask(times: usize, mut ask: impl FnMut() -> Result<(), Exceeded>) -> (usize, Option<Exceeded>) {
    let asked: Vec<_> = (0..times).map(|_| ask()).collect();
    (asked.iter().filter(|one| one.is_ok()).count(), asked.into_iter().find_map(Result::err))
}

#[test]
fn an_address_is_asked_before_everyone_and_uses_up_nothing_it_is_refused() {
    let (table, rates) = (table(), rates());
    let traffic = Traffic::new(&rates, &table).unwrap();
    let (passed, refused) = ask(50, || traffic.request(&table, ip("192.0.2.1"), NOON));
    assert_eq!((passed, refused.unwrap().limit), (3, RateLimit::AddressRequests));
    // 47 refused requests have taken nothing of what is everyone's.
    let (passed, refused) = ask(5, || traffic.request(&table, ip("192.0.2.2"), NOON));
    let refused = refused.unwrap();
    assert_eq!((passed, refused.limit, refused.current, refused.max), (2, RateLimit::GlobalRequests, 5, 5));
    // What everyone's limit has refused is not counted as the address's.
    let later = NOON + 60_000;
    let (passed, _) = ask(5, || traffic.request(&table, ip("192.0.2.2"), later));
    assert_eq!(passed, 3);
    assert_eq!(traffic.global_usage(&table, later).usage.used, 3);
}

#[test]
fn an_address_of_ipv6_is_its_network_and_a_mapped_one_is_ipv4() {
    let (table, rates) = (table(), Rates { http_global: 100, ..rates() });
    let traffic = Traffic::new(&rates, &table).unwrap();
    for (addresses, expected) in [
        (["2001:db8:1:2::1", "2001:db8:1:2:ffff::2"], 3),
        (["2001:db8:1:3::1", "2001:db8:1:4::1"], 6),
        (["192.0.2.9", "::ffff:192.0.2.9"], 3),
    ] {
        let mut turn = addresses.iter().cycle();
        let (passed, _) = ask(20, || traffic.request(&table, ip(turn.next().unwrap()), NOON));
        assert_eq!(passed, expected, "{addresses:?}");
    }
}

#[test]
fn a_client_has_a_window_and_a_burst_in_it() {
    let (table, rates) = (table(), rates());
    let traffic = Traffic::new(&rates, &table).unwrap();
    let agent = client_key(&table, &Principal::Agent(Arc::from("a")), ip("192.0.2.1"));
    let (passed, refused) = ask(5, || traffic.message(&table, agent, NOON));
    let refused = refused.unwrap();
    assert_eq!((passed, refused.limit, refused.retry_after_ms), (2, RateLimit::ClientBurst, 1_000));
    let (passed, refused) = ask(5, || traffic.message(&table, agent, NOON + 1_000));
    assert_eq!(
        (passed, refused.unwrap().limit),
        (2, RateLimit::ClientMessages),
        "what the burst refused was given back"
    );
    let (_, refused) = ask(1, || traffic.message(&table, agent, NOON + 2_500));
    let refused = refused.unwrap();
    assert_eq!((refused.limit, refused.current, refused.max), (RateLimit::ClientMessages, 4, 4));
    assert_eq!(refused.retry_after_ms, 57_500, "when the first two are over");
    for (principal, address) in [
        (Principal::Agent(Arc::from("b")), "192.0.2.1"),
        (Principal::Door, "192.0.2.1"),
        (Principal::Anonymous, "192.0.2.1"),
        (Principal::Anonymous, "192.0.2.2"),
    ] {
        let other = client_key(&table, &principal, ip(address));
        let (passed, _) = ask(3, || traffic.message(&table, other, NOON + 2_500));
        assert_eq!(passed, 2, "{principal:?} {address} is another client");
    }
    assert_eq!(
        client_key(&table, &Principal::Door, ip("192.0.2.1")),
        client_key(&table, &Principal::Door, ip("192.0.2.2"))
    );
}

#[test]
fn a_window_of_a_second_is_the_burst() {
    for (client_max, client_burst, limit) in [(4, 2, RateLimit::ClientBurst), (2, 4, RateLimit::ClientMessages)] {
        let (table, window) = (table(), Duration::from_secs(1));
        let traffic = Traffic::new(&Rates { client_window: window, client_max, client_burst, ..rates() }, &table);
        let key = client_key(&table, &Principal::Door, ip("192.0.2.1"));
        let (passed, refused) = ask(5, || traffic.unwrap().message(&table, key, NOON));
        assert_eq!((passed, refused.unwrap().limit), (2, limit));
    }
}

#[test]
fn connections_are_counted_apart_from_messages() {
    let (table, rates) = (table(), rates());
    let traffic = Traffic::new(&rates, &table).unwrap();
    let (passed, refused) = ask(3, || traffic.connection(&table, ip("192.0.2.1"), NOON));
    assert_eq!((passed, refused.unwrap().limit), (2, RateLimit::AddressConnectionBurst));
    let (passed, refused) = ask(3, || traffic.connection(&table, ip("192.0.2.1"), NOON + 5_000));
    assert_eq!((passed, refused.unwrap().limit), (2, RateLimit::AddressConnections));
    let key = client_key(&table, &Principal::Anonymous, ip("192.0.2.1"));
    assert!(traffic.message(&table, key, NOON + 5_000).is_ok());
}

#[test]
fn switched_off_there_are_no_limits() {
    assert!(Traffic::new(&Rates { enabled: false, ..rates() }, &table()).is_none());
}

const LIMITS: AgentLimits = AgentLimits {
    per_minute: 2,
    per_hour: 3,
    per_day: 4,
    same_number_per_day: 1,
    spend_per_day_microusd: 0,
    spend_per_month_microusd: 0,
};

fn action(limits: &AgentLimits) -> Action<'_> {
    Action { subject: Subject::Agent("a"), limits, upstream: "crm", tool: "dial", tool_limits: None, number: None }
}

/// Charges a call as a door does.
fn charge(table: &RateTable, action: &Action<'_>, now_ms: u64) -> Result<Charged, Exceeded> {
    let mut charged = action.charge_calls(table, now_ms)?;
    action.charge_number(table, &mut charged, now_ms)?;
    Ok(charged)
}

fn used(table: &RateTable, limits: &AgentLimits, now_ms: u64) -> [u64; 3] {
    used_by(table, Subject::Agent("a"), limits, now_ms).map(|used| used.usage.used)
}

#[test]
fn the_minute_is_asked_first_then_the_hour_then_the_day_and_a_refused_call_is_counted_nowhere() {
    let (table, action) = (table(), action(&LIMITS));
    let minute = 60_000;
    // (when, what it is refused for, what is counted then)
    let calls = [
        (0, None, [1, 1, 1]),
        (0, None, [2, 2, 2]),
        (1, Some(RateLimit::AgentMinute), [2, 2, 2]),
        (minute, None, [1, 3, 3]),
        (minute + 1, Some(RateLimit::AgentHour), [1, 3, 3]),
        (60 * minute, None, [1, 2, 4]),
        (62 * minute, Some(RateLimit::AgentDay), [0, 1, 4]),
        (12 * 60 * minute, None, [1, 1, 1]),
    ];
    for (after, refused, counted) in calls {
        let now = NOON + after;
        assert_eq!(charge(&table, &action, now).err().map(|exceeded| exceeded.limit), refused, "{after}");
        assert_eq!(used(&table, &LIMITS, now), counted, "{after}");
    }
}

#[test]
fn a_refusal_says_how_much_and_until_when() {
    let (table, action) = (table(), action(&LIMITS));
    charge(&table, &action, NOON).unwrap();
    charge(&table, &action, NOON + 10_000).unwrap();
    let minute = charge(&table, &action, NOON + 15_000).unwrap_err();
    assert_eq!((minute.current, minute.max, minute.retry_after_ms), (2, 2, 45_000));
    assert_eq!(minute.text(), "Rate limit exceeded: per-minute (2/2). Resets in up to 60 seconds.");
    assert_eq!((minute.limit.limit_type(), minute.retry_after_s()), (Some("per-minute"), 45));
    charge(&table, &action, NOON + 60_000).unwrap();
    let hour = charge(&table, &action, NOON + 121_000).unwrap_err();
    assert_eq!(hour.text(), "Rate limit exceeded: per-hour (3/3). Resets in up to 60 minutes.");
    assert_eq!(hour.retry_after_ms, 3_600_000 - 121_000);
    charge(&table, &action, NOON + 3_600_000).unwrap();
    let day = charge(&table, &action, NOON + 2 * 3_600_000).unwrap_err();
    assert_eq!(day.text(), "Rate limit exceeded: per-day (4/4). Resets at midnight UTC.");
    assert_eq!(day.retry_after_ms, 10 * 3_600_000, "to the millisecond");
}

#[test]
fn a_number_may_be_called_so_often_a_day_by_one_caller() {
    let limits = AgentLimits { per_minute: 100, per_hour: 100, per_day: 100, ..LIMITS };
    let table = table();
    let to = |number: &'static [u8]| Action { number: Some(number), ..action(&limits) };
    charge(&table, &to(b"15551234567"), NOON).unwrap();
    let refused = charge(&table, &to(b"15551234567"), NOON).unwrap_err();
    assert_eq!(refused.text(), "Rate limit exceeded: contact-frequency (1/1). Resets at midnight UTC.");
    assert_eq!(used(&table, &limits, NOON), [1, 1, 1], "given back");
    charge(&table, &to(b"15551234568"), NOON).unwrap();
    charge(&table, &Action { subject: Subject::Agent("b"), ..to(b"15551234567") }, NOON).unwrap();
    charge(&table, &action(&limits), NOON).unwrap();
    charge(&table, &to(b"15551234567"), MIDNIGHT + 86_400_000).unwrap();
}

#[test]
fn a_tool_has_limits_of_its_own_over_all_who_call_it() {
    let (table, plenty) = (table(), AgentLimits { per_minute: 100, per_hour: 100, per_day: 100, ..LIMITS });
    let own = Limits { per_minute: Some(2), per_day: Some(3), same_number_per_day: Some(1), ..Limits::default() };
    let by = |subject| Action { subject, tool_limits: Some(&own), ..action(&plenty) };
    charge(&table, &by(Subject::Agent("a")), NOON).unwrap();
    charge(&table, &by(Subject::Agent("b")), NOON).unwrap();
    let refused = charge(&table, &by(Subject::Agent("a")), NOON).unwrap_err();
    assert_eq!((refused.limit, refused.limit.limit_type()), (RateLimit::ToolMinute, Some("per-minute")));
    assert_eq!(used(&table, &plenty, NOON), [1, 1, 1], "the agent's minute was given back");
    let cased = Action { tool: "DIAL", ..by(Subject::Agent("c")) };
    assert_eq!(charge(&table, &cased, NOON).unwrap_err().limit, RateLimit::ToolMinute, "one tool in any case");
    charge(&table, &Action { upstream: "erp", ..by(Subject::Agent("a")) }, NOON).unwrap();
    charge(&table, &by(Subject::Agent("a")), NOON + 60_000).unwrap();
    let day = charge(&table, &by(Subject::Agent("a")), NOON + 120_000).unwrap_err();
    assert_eq!(day.limit, RateLimit::ToolDay);
    let left: Vec<_> = used_of_tool(&table, "crm", "dial", &own, NOON + 120_000)
        .into_iter()
        .map(|used| (used.limit, used.usage.used, used.usage.left))
        .collect();
    assert_eq!(left, [(RateLimit::ToolMinute, 0, 2), (RateLimit::ToolDay, 3, 0)]);
}

#[test]
fn a_tool_s_own_limit_of_one_number_is_asked_last() {
    let plenty = AgentLimits { per_minute: 100, per_hour: 100, per_day: 100, same_number_per_day: 5, ..LIMITS };
    let own = Limits { same_number_per_day: Some(1), ..Limits::default() };
    let table = table();
    let call =
        |tool: &'static str| Action { tool, tool_limits: Some(&own), number: Some(b"15551234567"), ..action(&plenty) };
    charge(&table, &call("dial"), NOON).unwrap();
    let refused = charge(&table, &call("dial"), NOON).unwrap_err();
    assert_eq!((refused.limit, refused.max), (RateLimit::ToolSameNumber, 1));
    for _ in 0..3 {
        assert!(charge(&table, &call("dial"), NOON).is_err());
    }
    charge(&table, &call("ring"), NOON).unwrap();
    assert_eq!(used(&table, &plenty, NOON), [2, 2, 2]);
}

#[test]
fn what_was_not_made_is_given_back_whole_and_once() {
    let limits = AgentLimits { same_number_per_day: 1, ..LIMITS };
    let own = Limits {
        per_minute: Some(1),
        per_hour: Some(1),
        per_day: Some(1),
        same_number_per_day: Some(1),
        ..Limits::default()
    };
    let call = Action { tool_limits: Some(&own), number: Some(b"15551234567"), ..action(&limits) };
    let table = table();
    for _ in 0..10 {
        let mut charged = charge(&table, &call, NOON).unwrap();
        assert_eq!(charged.taken.len(), MAX_TAKEN, "all that there are");
        assert!(charge(&table, &call, NOON).is_err());
        charged.give_back(&table, NOON);
        charged.give_back(&table, NOON);
        assert_eq!(used(&table, &limits, NOON), [0, 0, 0]);
    }
}

#[test]
fn a_limit_of_none_lets_nothing_pass_and_says_so() {
    let limits = AgentLimits { per_hour: 0, ..LIMITS };
    let table = table();
    let refused = charge(&table, &action(&limits), NOON).unwrap_err();
    assert_eq!((refused.limit, refused.current, refused.max), (RateLimit::AgentHour, 0, 0));
    assert_eq!(used(&table, &limits, NOON), [0, 0, 0]);
}

#[test]
fn whose_call_it_is() {
    let mut parser = Parser::new(64);
    let mut subject = |principal: &Principal, arguments: &str| {
        let raw = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"dial\",\"arguments\":{arguments}}}}}"
        );
        let envelope = parser.parse(raw.as_bytes()).unwrap();
        format!("{:?}", Subject::new(principal, ip("192.0.2.1"), &envelope, &parser))
    };
    let agent = Principal::Agent(Arc::from("a"));
    for (principal, arguments, expected) in [
        (&agent, "{}", "Agent(\"a\")"),
        (&agent, "{\"agentId\":\"a\"}", "Agent(\"a\")"),
        (&Principal::Door, "{}", "Door"),
        (&Principal::Door, "{\"agentId\":\"b\"}", "Agent(\"b\")"),
        (&Principal::Door, "{\"agentId\":\"not one\"}", "Door"),
        (&Principal::Door, "{\"agentId\":7}", "Door"),
        (&Principal::Anonymous, "{\"agentId\":\"b\"}", "Address(192.0.2.1)"),
        (&Principal::Demo, "{}", "Address(192.0.2.1)"),
    ] {
        assert_eq!(subject(principal, arguments), expected, "{principal:?} {arguments}");
    }
}

#[test]
fn every_limit_has_a_rule_of_its_own() {
    let mut rules: Vec<_> = RateLimit::ALL.iter().map(|limit| limit.rule()).collect();
    rules.sort_unstable();
    rules.dedup();
    assert_eq!(rules.len(), RateLimit::ALL.len());
    for limit in RateLimit::ALL {
        let exceeded = Exceeded { limit: *limit, current: 7, max: 7, retry_after_ms: 1, window_ms: 60_000 };
        assert_eq!(exceeded.retry_after_s(), 1, "never 0");
        let (told, text) = (limit.tell(), exceeded.text());
        assert_eq!(limit.limit_type().is_some(), told == Tell::Call, "{limit:?}");
        assert_eq!(limit.limit_type().is_some(), text.contains("(7/7)") && text.contains("Resets"), "{text}");
    }
}
