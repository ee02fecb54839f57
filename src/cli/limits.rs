//! `ringwall limits [AGENT]`: how much agents may do on a running gateway, how much of it is used and left, and when it begins anew.
//!
//! Asks the admin listener: for one agent, or page by page for all that it knows. Exit status 1 with a sentence on standard error when there is
//! nothing to show.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use super::ask::{AdminApi, plain, print};
use super::pages::{self, read};
use crate::control::admin::limits::{AgentLimitsShown, LimitShown, LimitsPage};
use crate::guard::jwt::is_agent_id;

/// What the command line says.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Of one agent only
    agent: Option<String>,
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
}

/// Agents of a page.
const PAGE: usize = 200;
/// Pages that are asked for at most.
const MAX_PAGES: usize = 2_000;

/// Shows them.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    match AdminApi::configured().and_then(|api| show(&api, args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => print(&mut io::stderr(), format_args!("ringwall limits: {text}"), ExitCode::FAILURE),
    }
}

fn show(api: &AdminApi, args: &Args) -> Result<(), String> {
    let all = match &args.agent {
        None => list(api)?,
        Some(id) if is_agent_id(id) => {
            let agent: AgentLimitsShown = read(&api.ask("GET", &format!("/admin/agents/{id}/limits"))?)?;
            LimitsPage { enabled: true, everyone: vec![], door: vec![], tools: vec![], agents: vec![agent], next: None }
        }
        Some(_) => return Err("an agent's id has 1 to 128 letters, digits and _ - . : @".into()),
    };
    let text = if args.json {
        format!("{}\n", serde_json::to_string(&all).map_err(|error| error.to_string())?)
    } else {
        table(&all)
    };
    pages::show(&text);
    Ok(())
}

fn list(api: &AdminApi) -> Result<LimitsPage, String> {
    let mut all: Option<LimitsPage> = None;
    pages::each(api, &format!("/admin/limits?limit={PAGE}"), MAX_PAGES, |mut page: LimitsPage| {
        let next = page.next.take();
        match &mut all {
            Some(all) => all.agents.extend(page.agents),
            None => all = Some(page),
        }
        next
    })?;
    let Some(all) = all else { return Err("the gateway has no list".into()) };
    Ok(all)
}

fn table(all: &LimitsPage) -> String {
    const TITLES: [&str; 7] = ["WHO", "LIMIT", "USED", "LEFT", "OF", "RESETS IN", "SAID BY"];
    let mut cells = vec![TITLES.map(str::to_owned)];
    let mut add = |who: &str, usage: &[LimitShown]| {
        cells.extend(usage.iter().map(|one| {
            let resets = if one.used == 0 { "-".to_owned() } else { duration(one.resets_in_ms) };
            let numbers = [one.used, one.left, one.max].map(|number| number.to_string());
            let [used, left, max] = numbers;
            [plain(who), plain(&one.limit), used, left, max, resets, plain(&one.source)]
        }));
    };
    add("everyone", &all.everyone);
    add("(door token)", &all.door);
    for tool in &all.tools {
        add(&format!("tool {}/{}", tool.upstream, tool.tool), &tool.usage);
    }
    for agent in &all.agents {
        add(&agent.agent, &agent.usage);
    }
    let mut widths = [0; TITLES.len()];
    for line in &cells {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    if !all.enabled {
        out.push_str("RATE_LIMIT_ENABLED=false: nothing of this is in force\n");
    }
    for line in &cells {
        let mut text = String::new();
        for (width, cell) in widths.iter().zip(line) {
            let _ = write!(text, "{cell:width$}  ");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// The two largest units: `4m 5s`, `23h 59m`; what is below a second is one.
fn duration(ms: u64) -> String {
    let seconds = ms.div_ceil(1000);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        _ => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(limit: &str, used: u64, resets_in_ms: u64) -> LimitShown {
        let (limit, source) = (limit.to_owned(), "default".to_owned());
        LimitShown { limit, max: 10, used, left: 10 - used, resets_at: None, resets_in_ms, source }
    }

    #[test]
    fn a_table_says_what_is_used_and_when_it_begins_anew() {
        let page = LimitsPage {
            enabled: true,
            everyone: vec![used("global-requests", 3, 59_001)],
            door: Vec::new(),
            tools: Vec::new(),
            agents: vec![AgentLimitsShown {
                agent: "bot\u{1b}[2J".to_owned(),
                given: None,
                in_force: crate::control::admin::limits::LimitsShown::default(),
                usage: vec![used("per-minute", 0, 0), used("per-day", 10, 7_261_000)],
            }],
            next: None,
        };
        let expected = "WHO       LIMIT            USED  LEFT  OF  RESETS IN  SAID BY\n\
                        everyone  global-requests  3     7     10  1m 0s      default\n\
                        bot [2J   per-minute       0     10    10  -          default\n\
                        bot [2J   per-day          10    0     10  2h 1m      default\n";
        assert_eq!(table(&page), expected);
        let off = table(&LimitsPage { enabled: false, ..page });
        assert!(off.starts_with("RATE_LIMIT_ENABLED=false") && off.ends_with(expected), "{off}");
    }
}
