//! Guards: `src/guard`, and sealed sessions.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ringwall::bench::Sealing;
use ringwall::guard::hosts::Hosts;
use ringwall::guard::identity::{self, AgentArgument};
use ringwall::guard::inspect::{self, Inspection};
use ringwall::guard::{Authenticator, Issued, Principal, TrustedProxies};
use ringwall::rpc::Parser;
use ringwall::settings::secret::sha256;
use ringwall::settings::{Inputs, Policy, SanitizeMode, Settings};
use ringwall::state::credentials::Credentials;

use crate::case::Case;
use crate::inputs::{AGENT, CALL, DOOR_TOKEN, TALKATIVE_CALL, TOKEN, UNNAMED_CALL, UPSTREAM_SESSION};

/// Some time in 2026.
const NOW_MS: u64 = 1_795_305_600_000;

pub(crate) fn cases() -> Vec<Case> {
    [from_the_head(), identities(), inspections(), sessions()].into_iter().flatten().collect()
}

/// The policy of the benches: one upstream over HTTP, one agent. With one, look-ups by random hash seeds cost the same each time.
pub(crate) fn policy() -> String {
    let hash: String = sha256(TOKEN.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "[upstream.crm]\nurl = \"http://127.0.0.1:3001/mcp\"\ninject_agent_id = true\n[agent.{AGENT}]\ntoken_sha256 = \"{hash}\"\n"
    )
}

/// The settings beside it.
pub(crate) const SETTINGS: [(&str, &str); 2] = [("WS_AUTH_TOKEN", DOOR_TOKEN), ("TRUSTED_PROXIES", "10.0.0.0/8")];

fn settings() -> Settings {
    let inputs = Inputs {
        environment: SETTINGS.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        policy: Some((PathBuf::from("ringwall.toml"), policy())),
        ..Inputs::default()
    };
    Settings::load(&inputs).map_err(|_| ()).expect("the settings of the benches are valid").settings
}

fn from_the_head() -> Vec<Case> {
    let settings = settings();
    let bound = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let hosts = Hosts::new(&[], &[bound], settings.browser.origins.clone());
    let proxies = TrustedProxies::new(&settings.doors.trusted_proxies);
    let peer = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    vec![
        Case::new("guard/host", 0, move || hosts.check(black_box(Some(b"127.0.0.1:8080")), None).is_ok()),
        Case::new("guard/client behind two proxies", 0, move || {
            let lines: [&[u8]; 1] = [b"203.0.113.9, 10.0.0.2"];
            proxies.client_ip(black_box(peer), black_box(lines)) == IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9))
        }),
        token("guard/agent's token", format!("Bearer {TOKEN}"), &settings, |found| {
            found.is_some_and(|principal| principal.agent().is_some())
        }),
        token("guard/door's token", format!("Bearer {DOOR_TOKEN}"), &settings, |found| found == Some(Principal::Door)),
        token("guard/wrong token", "Bearer wrong".to_owned(), &settings, |found| found.is_none()),
    ]
}

fn token(name: &'static str, value: String, settings: &Settings, right: fn(Option<Principal>) -> bool) -> Case {
    let authenticator = Authenticator::new(&settings.auth, &settings.policy.agents);
    let tokens = Credentials::default();
    Case::new(name, 0, move || {
        let issued = Issued { tokens: &tokens, now_ms: NOW_MS };
        right(authenticator.check(black_box(Some(value.as_bytes())), issued).ok().map(|shown| shown.principal))
    })
}

fn identities() -> Vec<Case> {
    let agent = Principal::Agent(AGENT.into());
    let check = |name, raw: &'static str, right: fn(&AgentArgument) -> bool| {
        let (mut parser, agent) = (Parser::new(64), agent.clone());
        let envelope = parser.parse(raw.as_bytes()).expect("the inputs are messages");
        Case::new(name, 0, move || {
            identity::check(black_box(&agent), black_box(&envelope), &parser).is_ok_and(|found| right(&found))
        })
    };
    let tag = agent.clone();
    vec![
        check("guard/agent named", CALL, |found| *found == AgentArgument::Keep),
        check("guard/agent not named", UNNAMED_CALL, |found| matches!(found, AgentArgument::Insert(_))),
        Case::new("guard/principal's tag", 0, move || black_box(&tag).tag() != [0; 16]),
    ]
}

/// All rules on. What has no sign costs the first look; a call with an apostrophe and a semicolon costs the second as well.
fn inspections() -> Vec<Case> {
    let look = |name, raw: &'static str| {
        let mut parser = Parser::new(64);
        let envelope = parser.parse(raw.as_bytes()).expect("the inputs are messages");
        let params = envelope.params.expect("the inputs have params");
        let inspection = Inspection::new(SanitizeMode::Block, &Policy::default());
        let mut scratch = inspect::Scratch::default();
        Case::new(name, raw.len(), move || {
            let decoded = parser.decoded(black_box(params));
            inspection.look(decoded, raw.as_bytes(), || None, &mut scratch).is_ok_and(|found| found.is_none())
        })
    };
    vec![look("guard/inspected", CALL), look("guard/inspected twice", TALKATIVE_CALL)]
}

fn sessions() -> Vec<Case> {
    let mut opening = Sealing::default();
    let sealing = Sealing::default();
    let sealed = sealing.seal(UPSTREAM_SESSION).expect("a short id can be sealed");
    vec![
        Case::new("session/sealed", 0, move || sealing.seal(black_box(UPSTREAM_SESSION)).is_some()),
        Case::new("session/opened", sealed.len(), move || {
            opening.open(black_box(sealed.as_bytes())) == Some(UPSTREAM_SESSION)
        }),
    ]
}
