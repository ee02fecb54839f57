//! `ringwall token issue|list|rotate|revoke`: agents' tokens, through the admin API of the running gateway.
//!
//! A new token is the one line on standard output, so that `TOKEN=$(ringwall token issue bot)` has it; what else there is to say goes to standard
//! error. Exit status 1 with a sentence on standard error when nothing was changed.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use super::ask::{AdminApi, plain, print};
use super::pages::{self, read};
use crate::control::admin::tokens::{IssuedToken, RotatedToken, TokenShown, TokensPage};
use crate::guard::jwt::is_agent_id;

/// What the command line says.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// Make a token for an agent, and print it this once
    Issue {
        /// The agent's id
        agent: String,
        /// What it is for, for whoever reads the list
        #[arg(long)]
        label: Option<String>,
        /// Its life, such as 12h or 90d; without this it is valid until it is revoked
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        expires_in: Option<u64>,
    },
    /// List the tokens that were issued, the oldest first
    List {
        /// Those of one agent only
        #[arg(long, value_name = "ID")]
        agent: Option<String>,
        /// Those that have ended as well
        #[arg(long)]
        all: bool,
        /// Print one JSON document instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Make a token in the place of another, and print it this once
    Rotate {
        /// As the list shows it
        id: String,
        /// How long the old one stays valid
        #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "24h")]
        grace: u64,
        /// The new one's life; without this it lives as long as the old one was to live
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        expires_in: Option<u64>,
    },
    /// End a token at once, and the connections that were opened with it
    Revoke {
        /// As the list shows it
        id: String,
    },
}

/// Tokens that are asked for at once.
const PAGE: usize = 500;
/// Pages that are asked for at most.
const MAX_PAGES: usize = 10_000;

/// Does what is asked for.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let done = AdminApi::configured().and_then(|api| match &args.act {
        Act::Issue { agent, label, expires_in } => issue(&api, agent, label.as_deref(), *expires_in),
        Act::List { agent, all, json } => list(&api, agent.as_deref(), *all, *json),
        Act::Rotate { id, grace, expires_in } => rotate(&api, id, *grace, *expires_in),
        Act::Revoke { id } => revoke(&api, id),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => print(&mut io::stderr(), format_args!("ringwall token: {text}"), ExitCode::FAILURE),
    }
}

fn issue(api: &AdminApi, agent: &str, label: Option<&str>, expires_in: Option<u64>) -> Result<(), String> {
    let body = serde_json::json!({ "agent": agent, "label": label, "expiresInSeconds": expires_in });
    let issued: IssuedToken = read(&api.send("POST", "/admin/tokens", Some(body.to_string().as_bytes()))?)?;
    show_new(&issued.secret, &issued.token);
    Ok(())
}

fn rotate(api: &AdminApi, id: &str, grace: u64, expires_in: Option<u64>) -> Result<(), String> {
    let body = serde_json::json!({ "graceSeconds": grace, "expiresInSeconds": expires_in });
    let path = format!("/admin/tokens/{}/rotate", named(id)?);
    let rotated: RotatedToken = read(&api.send("POST", &path, Some(body.to_string().as_bytes()))?)?;
    show_new(&rotated.secret, &rotated.token);
    let until = rotated.replaced.expires_at.as_deref().unwrap_or("its revocation");
    print(&mut io::stderr(), format_args!("{id} is valid until {}", plain(until)), ExitCode::SUCCESS);
    Ok(())
}

fn revoke(api: &AdminApi, id: &str) -> Result<(), String> {
    let token: TokenShown = read(&api.ask("DELETE", &format!("/admin/tokens/{}", named(id)?))?)?;
    let agent = plain(&token.agent);
    print(&mut io::stdout(), format_args!("{id} of {agent} is refused from now on"), ExitCode::SUCCESS);
    Ok(())
}

/// The token alone where a program reads it, the rest where a person does.
fn show_new(secret: &str, token: &TokenShown) {
    let (id, agent) = (plain(&token.id), plain(&token.agent));
    let end = token.expires_at.as_deref().map_or_else(String::new, |end| format!(", valid until {}", plain(end)));
    let text = format_args!("token {id} of {agent}{end}, shown this once:");
    print(&mut io::stderr(), text, ExitCode::SUCCESS);
    print(&mut io::stdout(), format_args!("{}", plain(secret)), ExitCode::SUCCESS);
}

fn list(api: &AdminApi, agent: Option<&str>, all: bool, as_json: bool) -> Result<(), String> {
    if let Some(agent) = agent
        && !is_agent_id(agent)
    {
        return Err("an agent's id has 1 to 128 letters, digits and _ - . : @".into());
    }
    let filters = [("state", (!all).then_some("valid")), ("agent", agent)];
    let filter = pages::filtered(format!("/admin/tokens?limit={PAGE}"), &filters);
    let mut tokens = Vec::new();
    pages::each(api, &filter, MAX_PAGES, |page: TokensPage| {
        tokens.extend(page.tokens);
        page.next
    })?;
    let text = if as_json { pages::document(&serde_json::json!({ "tokens": tokens }))? } else { table(&tokens) };
    pages::show(&text);
    Ok(())
}

fn table(tokens: &[TokenShown]) -> String {
    let mut text = format!("{:20}  {:7}  {:24}  {:24}  {:24}  LABEL\n", "ID", "STATE", "AGENT", "LAST USED", "EXPIRES");
    for token in tokens {
        let state = format!("{:?}", token.state).to_lowercase();
        let (used, end) = (token.last_used_at.as_deref(), token.expires_at.as_deref());
        let row = format!(
            "{:20}  {state:7}  {:24}  {:24}  {:24}  {}",
            token.id,
            token.agent,
            used.unwrap_or("never"),
            end.unwrap_or("never"),
            token.label
        );
        let _ = writeln!(text, "{}", plain(&row).trim_end());
    }
    text
}

/// An id that can stand in a path.
fn named(id: &str) -> Result<&str, String> {
    if id.len() == 20 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(id)
    } else {
        Err("an ID is what the list shows in its first column, 20 hexadecimal digits".into())
    }
}

/// `90`, `90s`, `15m`, `12h`, `30d`.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let each = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("a time is a number with s, m, h or d behind it, such as 12h".into()),
    };
    let count: Option<u64> = digits.parse().ok();
    count
        .and_then(|count| count.checked_mul(each))
        .ok_or_else(|| "a time is a number with s, m, h or d behind it".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, expected) in [
            ("0", Some(0)),
            ("90", Some(90)),
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("12h", Some(43_200)),
            ("30d", Some(2_592_000)),
            ("", None),
            ("h", None),
            ("1w", None),
            ("-1", None),
            ("1h30m", None),
            ("99999999999999999999d", None),
            ("9999999999999999999d", None),
        ] {
            assert_eq!(seconds(text).ok(), expected, "{text}");
        }
    }
}
