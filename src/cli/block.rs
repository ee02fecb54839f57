//! `ringwall block add|list|lift`: who may not come in, through the admin API of the running gateway.
//!
//! Exit status 1 with a sentence on standard error when nothing was changed, or when a change is not lasting.

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::process::ExitCode;

use ipnet::IpNet;

use super::ask::{AdminApi, plain, print};
use super::pages::{self, read};
use super::token::seconds;
use crate::control::admin::blocks::{BlockShown, BlocksPage};

/// What the command line says.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// Block an address or a network on every listener, and close its connections
    Add {
        /// An address or a CIDR, IPv4 or IPv6
        network: String,
        /// Why, for whoever reads the list
        #[arg(long)]
        reason: Option<String>,
        /// How long, such as 12h or 90d; without this it holds until it is lifted
        #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
        lifetime: Option<u64>,
    },
    /// List what is blocked, the deny list of the settings not among it
    List {
        /// Those of one kind only
        #[arg(long, value_parser = ["operator", "lockout", "abuse"])]
        kind: Option<String>,
        /// Print one JSON document instead of a table
        #[arg(long)]
        json: bool,
    },
    /// End a block, whatever its kind
    Lift {
        /// As the list shows it
        network: String,
    },
}

/// Blocks that are asked for at once.
const PAGE: usize = 500;
/// Pages that are asked for: more than there can be.
const MAX_PAGES: usize = 1_000;

/// Does what is asked for.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let done = AdminApi::configured().and_then(|api| match &args.act {
        Act::Add { network, reason, lifetime } => add(&api, network, reason.as_deref(), *lifetime),
        Act::List { kind, json } => list(&api, kind.as_deref(), *json),
        Act::Lift { network } => lift(&api, network),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => print(&mut io::stderr(), format_args!("ringwall block: {text}"), ExitCode::FAILURE),
    }
}

fn add(api: &AdminApi, network: &str, reason: Option<&str>, lifetime: Option<u64>) -> Result<(), String> {
    named(network)?;
    let body = serde_json::json!({ "network": network, "reason": reason, "expiresInSeconds": lifetime });
    let block: BlockShown = read(&api.send("POST", "/admin/blocks", Some(body.to_string().as_bytes()))?)?;
    let until = block.until.as_deref().unwrap_or("it is lifted");
    let text = format_args!("{} is blocked until {}", plain(&block.network), plain(until));
    print(&mut io::stdout(), text, ExitCode::SUCCESS);
    Ok(())
}

fn lift(api: &AdminApi, network: &str) -> Result<(), String> {
    let block: BlockShown = read(&api.ask("DELETE", &format!("/admin/blocks/{}", named(network)?))?)?;
    print(&mut io::stdout(), format_args!("{} is not blocked any more", plain(&block.network)), ExitCode::SUCCESS);
    Ok(())
}

fn list(api: &AdminApi, kind: Option<&str>, as_json: bool) -> Result<(), String> {
    let filter = pages::filtered(format!("/admin/blocks?limit={PAGE}"), &[("kind", kind)]);
    let mut blocks = Vec::new();
    pages::each(api, &filter, MAX_PAGES, |page: BlocksPage| {
        blocks.extend(page.blocks);
        page.next
    })?;
    let text = if as_json { pages::document(&serde_json::json!({ "blocks": blocks }))? } else { table(&blocks) };
    pages::show(&text);
    Ok(())
}

fn table(blocks: &[BlockShown]) -> String {
    let width = blocks.iter().map(|block| block.network.len()).max().unwrap_or(0).max("NETWORK".len());
    let mut text = format!("{:width$}  {:8}  {:24}  {:24}  REASON\n", "NETWORK", "KIND", "SINCE", "UNTIL");
    for block in blocks {
        let kind = format!("{:?}", block.kind).to_lowercase();
        let until = block.until.as_deref().unwrap_or("lifted");
        let row = format!("{:width$}  {kind:8}  {:24}  {until:24}  {}", block.network, block.since, block.reason);
        let _ = writeln!(text, "{}", plain(&row).trim_end());
    }
    text
}

/// A network as it can stand in a path.
fn named(network: &str) -> Result<String, String> {
    let known = network.parse::<IpAddr>().is_ok() || network.parse::<IpNet>().is_ok();
    if known {
        Ok(network.replace('/', "%2F"))
    } else {
        Err("a network is an address or a CIDR, such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32".into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control::admin::blocks::Kind;

    #[test]
    fn networks_are_named_as_a_path_takes_them() {
        for (given, expected) in [
            ("203.0.113.7", Some("203.0.113.7")),
            ("203.0.113.0/24", Some("203.0.113.0%2F24")),
            ("2001:db8::/32", Some("2001:db8::%2F32")),
            ("203.0.113.0/33", None),
            ("203.0.113.7/../tokens", None),
            ("example.com", None),
            ("", None),
        ] {
            assert_eq!(named(given).ok().as_deref(), expected, "{given}");
        }
    }

    #[test]
    fn a_table_cannot_drive_a_terminal() {
        let block = BlockShown {
            network: "203.0.113.0/24".into(),
            kind: Kind::Operator,
            reason: "bad \u{1b}[2J people".into(),
            since: "2026-11-22T20:00:00.000Z".into(),
            until: None,
        };
        let expected = "NETWORK         KIND      SINCE                     UNTIL                     REASON\n\
                        203.0.113.0/24  operator  2026-11-22T20:00:00.000Z  lifted                    bad  [2J people\n";
        assert_eq!(table(&[block]), expected);
    }
}
