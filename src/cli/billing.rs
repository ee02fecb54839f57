//! `ringwall billing`: what was spent, through the admin API of the running gateway.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use super::ask::{AdminApi, plain, print};
use super::pages;
use crate::control::admin::billing::{BillingPage, SpentShown, csv};

/// What the command line says.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What has rows of its own: day or month, agent, tool
    #[arg(long, value_name = "WHAT", value_delimiter = ',', default_value = "agent")]
    by: Vec<String>,
    /// The first day, UTC, such as 2026-11-01; without it that of this month
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// The last day; without it today
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
    /// Of one agent only
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Of the tools of one name only
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// Print CSV instead of a table
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
}

/// Rows that are asked for at once.
const PAGE: usize = 500;
/// Pages that are asked for at most.
const MAX_PAGES: usize = 10_000;

/// Shows what is asked for.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    match AdminApi::configured().and_then(|api| show(&api, args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => print(&mut io::stderr(), format_args!("ringwall billing: {text}"), ExitCode::FAILURE),
    }
}

fn show(api: &AdminApi, args: &Args) -> Result<(), String> {
    let filter = pages::filtered(
        format!("/admin/billing?limit={PAGE}"),
        &[
            ("by", Some(args.by.join(",").as_str())),
            ("from", args.from.as_deref()),
            ("to", args.to.as_deref()),
            ("agent", args.agent.as_deref()),
            ("tool", args.tool.as_deref()),
        ],
    );
    let (mut rows, mut days) = (Vec::new(), None);
    pages::each(api, &filter, MAX_PAGES, |page: BillingPage| {
        rows.extend(page.rows);
        days.get_or_insert((page.from, page.to));
        page.next
    })?;
    let (from, to) = days.unwrap_or_default();
    let text = if args.csv {
        csv(&rows)
    } else if args.json {
        pages::document(&serde_json::json!({ "from": from, "to": to, "rows": rows }))?
    } else {
        table(&rows, &from, &to)
    };
    pages::show(&text);
    Ok(())
}

fn table(rows: &[SpentShown], from: &str, to: &str) -> String {
    const TITLES: [&str; 9] = ["DAY", "MONTH", "AGENT", "UPSTREAM", "TOOL", "CALLS", "USD", "UNSETTLED", "RESERVED"];
    let mut cells: Vec<[String; 9]> = vec![TITLES.map(str::to_owned)];
    cells.extend(rows.iter().map(|row| {
        let name = |name: &Option<String>| plain(name.as_deref().unwrap_or_default());
        [
            name(&row.day),
            name(&row.month),
            name(&row.agent),
            name(&row.upstream),
            name(&row.tool),
            row.calls.to_string(),
            plain(&row.spent_usd),
            plain(&row.unsettled_usd),
            plain(&row.reserved_usd),
        ]
    }));
    let mut widths = [0; 9];
    for (line, row) in cells.iter().enumerate() {
        for (width, cell) in widths.iter_mut().zip(row) {
            // A column without a value is left out, with its title.
            *width = if line == 0 || cell.is_empty() { *width } else { cell.chars().count().max(*width) };
        }
    }
    for (width, title) in widths.iter_mut().zip(TITLES) {
        *width = if *width == 0 { 0 } else { title.len().max(*width) };
    }
    let mut out = format!("{} to {}, UTC\n", plain(from), plain(to));
    if rows.is_empty() {
        return out + "nothing was spent\n";
    }
    for row in &cells {
        let mut text = String::new();
        for (at, (width, cell)) in widths.iter().zip(row).enumerate().filter(|(_, (width, _))| **width > 0) {
            // Numbers stand to the right.
            let _ = if at < 5 { write!(text, "{cell:width$}  ") } else { write!(text, "{cell:>width$}  ") };
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_columns_that_were_asked_for() {
        let row = |agent: &str, calls, usd: &str| SpentShown {
            day: None,
            month: None,
            agent: Some(agent.to_owned()),
            upstream: None,
            tool: None,
            calls,
            spent_usd: usd.to_owned(),
            unsettled_calls: 0,
            unsettled_usd: "0.00".to_owned(),
            reserved_calls: 0,
            reserved_usd: "0.00".to_owned(),
        };
        let expected = "2026-11-01 to 2026-11-22, UTC\n\
                        AGENT   CALLS      USD  UNSETTLED  RESERVED\n\
                        (door)      1     0.50       0.00      0.00\n\
                        b ot       12  12.0079       0.00      0.00\n";
        let rows = [row("(door)", 1, "0.50"), row("b\u{1b}ot", 12, "12.0079")];
        assert_eq!(table(&rows, "2026-11-01", "2026-11-22"), expected);
        assert_eq!(table(&[], "2026-11-01", "2026-11-22"), "2026-11-01 to 2026-11-22, UTC\nnothing was spent\n");
    }
}
