//! `ringwall tools list|accept`: what tools say of themselves, by its hash, through the admin API of the running gateway.
//!
//! Exit status 1 with a sentence on standard error when nothing was accepted, or there is nothing to show.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use super::ask::{AdminApi, plain, print};
use crate::control::admin::tools::{ToolShown, ToolsPage};

/// What the command line says.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// List the tools that were listed, with the hashes of their descriptions
    List {
        /// Only those whose description is not the accepted one
        #[arg(long)]
        changed: bool,
        /// Print one JSON document instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Accept the description of a tool that was seen last
    Accept {
        /// The upstream
        upstream: String,
        /// Its own name of the tool
        tool: String,
        /// The hash that `list` shows as seen
        hash: String,
    },
}

/// Tools that are asked for at once: the longest names fill a page of less than a mebibyte.
const PAGE: usize = 200;
/// Pages that are asked for: more than there can be, so that a gateway that never says "last" ends nevertheless.
const MAX_PAGES: usize = 2_000;

/// Does what is asked for.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let done = AdminApi::configured().and_then(|api| match &args.act {
        Act::List { changed, json } => list(&api, *changed, *json),
        Act::Accept { upstream, tool, hash } => accept(&api, upstream, tool, hash),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => print(&mut io::stderr(), format_args!("ringwall tools: {text}"), ExitCode::FAILURE),
    }
}

fn accept(api: &AdminApi, upstream: &str, tool: &str, hash: &str) -> Result<(), String> {
    let body = serde_json::json!({ "upstream": upstream, "tool": tool, "hash": hash });
    let shown: ToolShown = read(&api.send("POST", "/admin/tools/accept", Some(body.to_string().as_bytes()))?)?;
    let text = format!("{} of {}: {} is accepted", shown.tool, shown.upstream, shown.accepted);
    print(&mut io::stdout(), format_args!("{}", plain(&text)), ExitCode::SUCCESS);
    Ok(())
}

fn list(api: &AdminApi, changed: bool, as_json: bool) -> Result<(), String> {
    let first = format!("/admin/tools?limit={PAGE}&changed={changed}");
    let mut all: ToolsPage = read(&api.ask("GET", &first)?)?;
    for _ in 0..MAX_PAGES {
        let Some(next) = all.next.take() else { break };
        let page: ToolsPage = read(&api.ask("GET", &format!("{first}&cursor={next}"))?)?;
        all.tools.extend(page.tools);
        all.next = page.next;
    }
    let text = if as_json {
        serde_json::to_string_pretty(&all).map_err(|error| error.to_string())? + "\n"
    } else {
        table(&all)
    };
    // Whoever closes the pipe has seen enough.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}

fn table(all: &ToolsPage) -> String {
    let width = |title: &str, of: fn(&ToolShown) -> &str| {
        all.tools.iter().map(|tool| of(tool).chars().count()).max().unwrap_or(0).max(title.len())
    };
    let upstreams = width("UPSTREAM", |tool| &tool.upstream);
    let tools = width("TOOL", |tool| &tool.tool);
    let mut text = match all.pin.as_str() {
        "off" => "[tools] pin is \"off\": descriptions are not looked at\n".to_owned(),
        _ => String::new(),
    };
    let _ = writeln!(text, "{:upstreams$}  {:tools$}  {:8}  SEEN", "UPSTREAM", "TOOL", "STATE");
    for tool in &all.tools {
        let state = if tool.changed { "changed" } else { "accepted" };
        let row = format!("{:upstreams$}  {:tools$}  {state:8}  {}", tool.upstream, tool.tool, tool.seen);
        let _ = writeln!(text, "{}", plain(&row));
    }
    text
}

fn read<T: serde::de::DeserializeOwned>(body: &str) -> Result<T, String> {
    serde_json::from_str(body)
        .map_err(|error| format!("the gateway's answer cannot be read: {error}. Is it of another version?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_has_changed_and_drives_no_terminal() {
        let tool = |tool: &str, changed| ToolShown {
            upstream: "crm".to_owned(),
            tool: tool.to_owned(),
            accepted: "sha256-a".to_owned(),
            seen: "sha256-b".to_owned(),
            seen_since: String::new(),
            changed,
            by_policy: false,
        };
        let page = ToolsPage {
            pin: "block".to_owned(),
            tools: vec![tool("find\u{1b}[2J", true), tool("x", false)],
            next: None,
        };
        let expected = "UPSTREAM  TOOL      STATE     SEEN\n\
                        crm       find [2J  changed   sha256-b\n\
                        crm       x         accepted  sha256-b\n";
        assert_eq!(table(&page), expected);
        assert!(table(&ToolsPage { pin: "off".to_owned(), ..page }).starts_with("[tools] pin is \"off\""));
    }
}
