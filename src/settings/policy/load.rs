//! The policy file as a whole: which tables there are, and what must fit together across them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use toml::{Table, Value};

use super::fields::{Fields, Report};
use super::{Policy, ToolAccess, access, content, entries, inspect, results, upstream};
use crate::settings::fault::{Effective, Source, Warning, clip};
use crate::settings::inputs::Inputs;

/// The most entries of one kind: upstreams are asked one by one, tools are looked through.
const UPSTREAMS_MAX: usize = 64;
const ENTRIES_MAX: usize = 100_000;

/// Where `{ env = "NAME" }` is looked up: the environment, then `.env`.
pub(crate) struct Lookup<'a> {
    pub(crate) environment: &'a [(OsString, OsString)],
    pub(crate) dotenv: &'a BTreeMap<String, String>,
}

impl Lookup<'_> {
    /// The value of a variable, if it is set, UTF-8 and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let in_environment = self.environment.iter().find(|(other, _)| other == name);
        let value = match in_environment {
            Some((_, value)) => value.to_str(),
            None => self.dotenv.get(name).map(String::as_str),
        };
        value.filter(|value| !value.is_empty())
    }
}

/// The policy, and what reading it has shown.
pub(crate) struct LoadedPolicy {
    pub(crate) policy: Policy,
    pub(crate) report: Report,
}

/// Reads the policy file and the upstream of the command line, which takes the place of the file's.
pub(crate) fn load_policy(inputs: &Inputs, lookup: &Lookup<'_>, call_timeout: Duration) -> LoadedPolicy {
    let mut report = Report::default();
    let table = parse(inputs, &mut report);
    let mut root = Fields::of(String::new(), &table);
    let upstreams = section(&mut root, "upstream", UPSTREAMS_MAX, &mut report);
    let tiers = section(&mut root, "tier", ENTRIES_MAX, &mut report);
    let agents = section(&mut root, "agent", ENTRIES_MAX, &mut report);
    let tools = section(&mut root, "tool", ENTRIES_MAX, &mut report);

    let mut policy = Policy::default();
    for (name, value) in upstreams {
        policy.upstreams.extend(upstream::read(name, value, lookup, call_timeout, &mut report));
    }
    for (name, value) in tiers {
        if let Some(tier) = entries::tier(name, value, &mut report) {
            policy.tiers.insert(name.clone(), tier);
        }
    }
    if let Some(value) = root.raw("principal") {
        policy.principals = access::principals(value, &mut report);
    }
    if let Some(value) = root.raw("content") {
        policy.content = content::content(value, &mut report);
    }
    if let Some(value) = root.raw("inspect") {
        policy.inspect = inspect::inspect(value, &mut report);
    }
    if let Some(value) = root.raw("results") {
        policy.results = results::results(value, &mut report);
    }
    if let Some(value) = root.raw("tools") {
        policy.pin = results::pin(value, &mut report);
    }
    for (name, value) in agents {
        policy.agents.extend(entries::agent(name, value, &mut report));
    }
    for (name, value) in tools {
        policy.tools.extend(entries::tool(name, value, &mut report));
    }
    root.finish(&mut report);
    // Against the names in the file, not those that were accepted: one fault is enough.
    check_references(&policy, &names_of(&table, "tier"), &names_of(&table, "upstream"), &mut report);
    policy.tools.sort_by_key(|tool| {
        let glob = tool.pattern.contains('*');
        (glob, std::cmp::Reverse(tool.pattern.len()), tool.upstream.is_none(), tool.pattern.clone())
    });
    from_command_line(inputs, call_timeout, &mut policy, &mut report);
    LoadedPolicy { policy, report }
}

/// The file as TOML; empty if there is none or it is not TOML.
fn parse(inputs: &Inputs, report: &mut Report) -> Table {
    let Some((path, content)) = &inputs.policy else {
        return Table::new();
    };
    match content.strip_prefix('\u{feff}').unwrap_or(content).parse::<Table>() {
        Ok(table) => table,
        Err(error) => {
            // Its Display would print the line, which may hold a secret.
            let before = error.span().and_then(|span| content.get(..span.start)).unwrap_or("");
            let line = before.matches('\n').count() + 1;
            let message: String =
                error.message().lines().next().unwrap_or("").chars().take_while(|c| *c != '`').collect();
            let why = format!("line {line} is not TOML: {}", message.trim());
            report.fault(&path.display().to_string(), None, &why, "TOML 1.0", "");
            Table::new()
        }
    }
}

/// The tables of a section, sorted by name.
fn section<'a>(
    root: &mut Fields<'a>,
    key: &'static str,
    max: usize,
    report: &mut Report,
) -> Vec<(&'a String, &'a Value)> {
    match root.raw(key) {
        None => Vec::new(),
        Some(Value::Table(table)) if table.len() <= max => table.iter().collect(),
        Some(Value::Table(table)) => {
            report.fault(
                key,
                Some(format!("{} entries", table.len())),
                "has too many entries",
                &format!("at most {max}"),
                "",
            );
            Vec::new()
        }
        Some(_) => {
            report.fault(key, None, "is not a table of tables", &format!("[{key}.NAME]"), &format!("[{key}.example]"));
            Vec::new()
        }
    }
}

fn names_of<'a>(table: &'a Table, key: &str) -> Vec<&'a str> {
    table.get(key).and_then(Value::as_table).map(|names| names.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// Names that stand elsewhere must exist, and two agents cannot have one token.
fn check_references(policy: &Policy, tiers: &[&str], upstreams: &[&str], report: &mut Report) {
    let mut tokens: BTreeMap<[u8; 32], &str> = BTreeMap::new();
    for agent in &policy.agents {
        if let Some(tier) = agent.tier.as_deref().filter(|tier| !tiers.contains(tier)) {
            let path = format!("agent.{}.tier", agent.id);
            report.fault(&path, Some(clip(tier)), "no such tier", &tiers.join(", "), &format!("[tier.{tier}]"));
        }
        if let Some(other) = agent.token_sha256.and_then(|sha256| tokens.insert(sha256, &agent.id)) {
            let path = format!("agent.{}.token_sha256", agent.id);
            report.fault(&path, None, &format!("is the token of agent {other} as well"), "a token of its own", "");
        }
    }
    let mut is_known = |path: String, name: Option<&str>| {
        if let Some(name) = name.filter(|name| !upstreams.contains(name)) {
            let example = format!("[upstream.{name}]");
            report.fault(&path, Some(clip(name)), "no such upstream", &upstreams.join(", "), &example);
        }
    };
    for tool in &policy.tools {
        is_known(format!("tool.{}.upstream", tool.pattern), tool.upstream.as_deref());
    }
    for (path, access) in accesses(policy) {
        for pattern in access.tools.iter().flatten() {
            is_known(format!("{path}.tools"), pattern.upstream.as_deref());
        }
        for pattern in &access.deny_tools {
            is_known(format!("{path}.deny_tools"), pattern.upstream.as_deref());
        }
    }
}

/// What is said of tools anywhere, with where it stands.
fn accesses(policy: &Policy) -> impl Iterator<Item = (String, &ToolAccess)> {
    let agents = policy.agents.iter().map(|agent| (format!("agent.{}", agent.id), &agent.access));
    let tiers = policy.tiers.iter().map(|(name, tier)| (format!("tier.{name}"), &tier.access));
    let kinds = policy.principals.iter().map(|(kind, access)| (format!("principal.{kind}"), access));
    agents.chain(tiers).chain(kinds)
}

/// `--upstream URL` or a command after `--`: named `default`, and the only upstream.
fn from_command_line(inputs: &Inputs, call_timeout: Duration, policy: &mut Policy, report: &mut Report) {
    let line = &inputs.overrides;
    let first_fault = report.faults.len();
    let upstream = match (&line.upstream_url, &line.stdio_command) {
        (None, None) => return,
        (Some(_), Some(_)) => {
            report.fault(
                "--upstream",
                None,
                "contradicts the command after --",
                "one of the two",
                "ringwall serve -- COMMAND",
            );
            None
        }
        (Some(url), None) => upstream::from_url("--upstream", url, call_timeout, report),
        (None, Some(command)) => upstream::from_command("--", command, call_timeout, report),
    };
    for fault in report.faults.iter_mut().skip(first_fault) {
        fault.source = Source::CommandLine;
    }
    let Some(upstream) = upstream else { return };
    if !policy.upstreams.is_empty() {
        let name = if line.upstream_url.is_some() { "--upstream" } else { "--" };
        let text = "takes the place of the policy file's upstreams".into();
        report.warnings.push(Warning { name: name.into(), text });
    }
    report.effective.retain(|effective| !effective.name.starts_with("upstream."));
    report.effective.push(Effective {
        name: "upstream.default".into(),
        value_shown: upstream::shown(&upstream.target),
        source: Source::CommandLine,
    });
    policy.upstreams = vec![upstream];
}
