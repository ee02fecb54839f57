//! `ringwall connections`: the open connections of a running gateway, and `ringwall connections close ID`.
//!
//! Asks the admin listener page by page, so that a list of any length takes bounded answers. Exit status 1 with a sentence on standard error
//! when there is no list to show, or nothing to close.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use super::ask::{AdminApi, plain, print};
use super::pages;
use crate::control::admin::connections::{Listed, ListedPage, MAX_LIMIT};

/// What the command line says.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Close one instead
    #[command(subcommand)]
    act: Option<Act>,
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
    /// Those of one door only
    #[arg(long, value_parser = ["ws", "tcp", "http"])]
    door: Option<String>,
    /// Those of one agent only
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Print again every two seconds, until it is interrupted
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// Close a connection
    Close {
        /// As the list shows it
        id: String,
    },
}

/// Time between two lists of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Pages that are asked for: as many connections as the table can hold.
const MAX_PAGES: usize = (1 << 24) / MAX_LIMIT;

/// Lists, or closes.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let done = AdminApi::configured().and_then(|api| match &args.act {
        Some(Act::Close { id }) => close(&api, id),
        None => show(&api, args),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => print(&mut io::stderr(), format_args!("ringwall connections: {text}"), ExitCode::FAILURE),
    }
}

fn close(api: &AdminApi, id: &str) -> Result<(), String> {
    // Audit lines have the door's name before it.
    let id = id.rsplit('-').next().unwrap_or(id);
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("an ID is what the list shows in its first column, such as 1000001".into());
    }
    api.ask("DELETE", &format!("/admin/connections/{id}"))?;
    print(&mut io::stdout(), format_args!("{id} is being closed"), ExitCode::SUCCESS);
    Ok(())
}

fn show(api: &AdminApi, args: &Args) -> Result<(), String> {
    loop {
        let (rows, unread) = list(api, args)?;
        let text = if args.json { json(&rows, unread)? } else { table(&rows, unread) };
        let mut out = io::stdout().lock();
        if args.watch && !args.json && out.is_terminal() {
            // Home, and clear what is below.
            let _ = out.write_all(b"\x1b[H\x1b[J");
        }
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if !args.watch {
            // Whoever closes the pipe has seen enough.
            return Ok(());
        }
        if written.is_err() {
            return Ok(());
        }
        drop(out);
        pause();
    }
}

#[allow(clippy::disallowed_methods, reason = "a command in a process of its own, not a worker")]
fn pause() {
    std::thread::sleep(WATCH_EVERY);
}

/// All that is wanted, and how many could not be read.
fn list(api: &AdminApi, args: &Args) -> Result<(Vec<Listed>, usize), String> {
    let filters = [("door", args.door.as_deref()), ("agent", args.agent.as_deref())];
    let filter = pages::filtered(format!("/admin/connections?limit={MAX_LIMIT}"), &filters);
    let (mut rows, mut unread) = (Vec::new(), 0);
    pages::each(api, &filter, MAX_PAGES, |page: ListedPage| {
        rows.extend(page.connections);
        unread += page.unread;
        page.next
    })?;
    Ok((rows, unread))
}

fn json(rows: &[Listed], unread: usize) -> Result<String, String> {
    let rows = serde_json::to_value(rows).map_err(|error| error.to_string())?;
    Ok(format!("{}\n", serde_json::json!({ "connections": rows, "unread": unread })))
}

fn table(rows: &[Listed], unread: usize) -> String {
    const TITLES: [&str; 9] = ["ID", "DOOR", "CLIENT", "WHO", "SINCE", "IDLE", "MSG IN/OUT", "BYTES IN/OUT", ""];
    let mut cells: Vec<[String; 9]> = vec![TITLES.map(str::to_owned)];
    cells.extend(rows.iter().map(|row| {
        [
            plain(&row.id),
            plain(&row.door),
            client(row),
            plain(row.agent.as_deref().unwrap_or(match row.principal.as_str() {
                "unknown" => "-",
                other => other,
            })),
            duration(row.age_ms),
            duration(row.idle_ms),
            format!("{}/{}", row.messages_in, row.messages_out),
            format!("{}/{}", bytes(row.bytes_in), bytes(row.bytes_out)),
            row.closing.as_ref().map_or_else(String::new, |reason| format!("closing: {}", plain(reason))),
        ]
    }));
    let mut widths = [0; 9];
    for line in &cells {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for line in &cells {
        let mut text = String::new();
        for (width, cell) in widths.iter().zip(line) {
            let _ = write!(text, "{cell:width$}  ");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    let _ = writeln!(out, "{} open", rows.len());
    if unread > 0 {
        let _ = writeln!(out, "{unread} more could not be read: they changed whenever they were looked at");
    }
    out
}

/// The client, and through whom it comes where that is somebody else.
fn client(row: &Listed) -> String {
    let direct = row.peer.parse::<std::net::SocketAddr>().is_ok_and(|peer| peer.ip().to_string() == row.client);
    plain(&if direct { row.peer.clone() } else { format!("{} via {}", row.client, row.peer) })
}

/// The two largest units: `3d 4h`, `4m 5s`, `0.3s`.
fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..10 => format!("{seconds}.{}s", ms / 100 % 10),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// `999`, `1.2K`, `34.5M`, in powers of 1024.
fn bytes(n: u64) -> String {
    let mut tenths = u128::from(n) * 10;
    if n < 1000 {
        return n.to_string();
    }
    let mut units = "KMGTPE".chars();
    let mut unit = 'K';
    while tenths >= 10_000 {
        let Some(next) = units.next() else { break };
        unit = next;
        tenths /= 1024;
    }
    format!("{}.{}{unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
