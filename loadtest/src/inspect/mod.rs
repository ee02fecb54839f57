//! `loadtest inspect`: what the gateway's guards find in payloads that others have collected, and what they take for an attack that is none, beside
//! the OWASP core rules; and the content filter beside another one.
//!
//! Everybody gets the same messages: a payload is an argument of a `tools/call`, sent over HTTP to the gateway and to nginx with ModSecurity, one
//! after the other on the same core. What counts is what a client is told: a refusal, or the upstream's answer. CPU time is that of the whole
//! peer, divided by its calls; beside it stands what the same peer without inspection uses for the same calls.
//!
//! The content filter is a function, and so is what it is compared with; both are called here, on the same texts. What a third of them says
//! that nobody has looked at while the lists were written stands by itself.

mod calls;
mod content;
mod sets;
mod verdict;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use super::cpu;
use super::machine;
use super::peer::{Group, Kind, Peer, Place, Program, free_ports};
use super::process::Scratch;
use super::report::{Cell, Column, Outputs, Report, Section, Table};
use calls::Caller;
use sets::Row;
use verdict::Verdict;

/// Arguments of `loadtest inspect`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The ringwall program
    #[arg(long, default_value = "target/release/ringwall")]
    ringwall: PathBuf,
    /// Directory with attacks.jsonl, benign.jsonl and content.jsonl
    #[arg(long, env = "RINGWALL_DATA")]
    data: PathBuf,
    /// Every how manieth row is sent; 1: all
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// The content filter alone
    #[arg(long)]
    content_only: bool,
    /// The payloads alone
    #[arg(long, conflicts_with = "content_only")]
    payloads_only: bool,
    /// Writes what ringwall let pass of the attacks and refused of the rest, a JSON line each
    #[arg(long)]
    misses: Option<PathBuf>,
    /// Core of the measured processes; this one and the upstream use core 0
    #[arg(long, default_value_t = 1)]
    core: usize,
    #[command(flatten)]
    outputs: Outputs,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    args.outputs.check()?;
    let mut report = Report::new("What is found, and what is taken for it", machine::describe());
    if !args.content_only {
        payloads(args, &mut report)?;
    }
    if !args.payloads_only {
        content::run(&args.data, &mut report)?;
    }
    args.outputs.write(&report)
}

/// One that takes part: who it is, and what it said to every row.
struct Judged {
    title: &'static str,
    verdicts: Vec<Verdict>,
    /// CPU time a call, nanoseconds, of the attacks and of the rest.
    cpu_ns: [f64; 2],
    /// Whether it inspects; the others are there for their CPU time.
    inspects: bool,
}

fn payloads(args: &Args, report: &mut Report) -> io::Result<()> {
    let rows = sets::read(&args.data, args.every)?;
    let scratch = Scratch::new()?;
    let cores = cpu::usable()?;
    let core = if cores.contains(&args.core) { args.core } else { cores.first().copied().unwrap_or(0) };
    let upstream = start_upstream(&scratch)?;
    cpu::pin(0, cores.first().copied().unwrap_or(0))?;
    // A path without blanks: it goes into files of settings.
    let place = |number: usize| {
        let dir = scratch.path().join(number.to_string());
        Place { ringwall: args.ringwall.clone(), installed: PathBuf::new(), dir, upstream: upstream.1, core }
    };
    let mut judged = Vec::new();
    for (number, (title, kind, change, inspects)) in PARTICIPANTS.into_iter().enumerate() {
        let Some(peer) = Peer::start_changed(kind, &place(number), change)? else {
            eprintln!("{title} is not installed: left out");
            continue;
        };
        report.version(title, peer.version.clone());
        judged.push(judge(title, &peer, &rows, inspects)?);
    }
    describe(&rows, &judged, report);
    if let Some(file) = &args.misses {
        std::fs::write(file, misses(&rows, &judged))?;
    }
    Ok(())
}

type Change = fn(&str, &mut String);

/// Whose turn it is, in this order. A change is made to each of a peer's files, by name, before it starts.
const PARTICIPANTS: [(&str, Kind, Change, bool); 6] = [
    ("ringwall", Kind::Ringwall, |_, _| {}, true),
    ("ringwall, kinds declared", Kind::Ringwall, declare_kinds, true),
    ("core rules, PL1", Kind::Modsecurity, |_, _| {}, true),
    ("core rules, PL2", Kind::Modsecurity, second_level, true),
    ("ringwall, guards off", Kind::RingwallOff, |_, _| {}, false),
    ("nginx alone", Kind::Nginx, |_, _| {}, false),
];

/// What the policy would say of the tools whose arguments are command lines and files.
fn declare_kinds(file: &str, text: &mut String) {
    if file == "ringwall.toml" {
        text.push_str(
            "\n[tool.run_command]\narguments = { command = \"code\" }\n\
             [tool.write_file]\narguments = { path = \"path\", content = \"code\" }\n",
        );
    }
}

/// Both names that the setting has had.
fn second_level(file: &str, text: &mut String) {
    if file == "modsecurity.conf" {
        let level = "SecAction \"id:900000,phase:1,pass,t:none,nolog,setvar:tx.paranoia_level=2,\
                     setvar:tx.blocking_paranoia_level=2\"\nInclude /etc/modsecurity/crs";
        *text = text.replace("Include /etc/modsecurity/crs", level);
    }
}

fn start_upstream(scratch: &Scratch) -> io::Result<(Group, u16)> {
    let home = scratch.path().join("upstream");
    std::fs::create_dir_all(&home)?;
    let [port] = free_ports()?;
    let program = Program::new(std::env::current_exe()?, ["upstream", "--port", &port.to_string()]);
    let mut upstream = Group::start("upstream", &program, &home, Some(0))?;
    upstream.listening(([127, 0, 0, 1], port).into(), program.patience)?;
    Ok((upstream, port))
}

/// Sends every row to one of them.
fn judge(title: &'static str, peer: &Peer, rows: &[Row], inspects: bool) -> io::Result<Judged> {
    let explain = |error| peer.group.explain(&error);
    let mut caller = Caller::new(&peer.target);
    let warm_up = rows.iter().filter(|row| !row.is_attack()).take(200);
    for row in warm_up {
        caller.call(row).map_err(explain)?;
    }
    let mut verdicts = Vec::with_capacity(rows.len());
    let mut cpu_ns = [0.0; 2];
    for (place, attacks) in [true, false].into_iter().enumerate() {
        let part: Vec<&Row> = rows.iter().filter(|row| row.is_attack() == attacks).collect();
        let before = peer.group.used_ns()?;
        for row in &part {
            verdicts.push(caller.call(row).map_err(explain)?);
        }
        let used = peer.group.used_ns()?.saturating_sub(before);
        if let Some(cpu_ns) = cpu_ns.get_mut(place) {
            *cpu_ns = used as f64 / part.len().max(1) as f64;
        }
    }
    eprintln!("{title}: {} calls", verdicts.len());
    Ok(Judged { title, verdicts, cpu_ns, inspects })
}

/// The rows in the order in which they were sent: attacks first.
fn in_order(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter().filter(|row| row.is_attack()).chain(rows.iter().filter(|row| !row.is_attack()))
}

fn describe(rows: &[Row], judged: &[Judged], report: &mut Report) {
    let inspecting: Vec<&Judged> = judged.iter().filter(|one| one.inspects).collect();
    let columns = || {
        let refused = inspecting.iter().map(|one| Column::new(one.title, "%", 2));
        std::iter::once(Column::new("payloads", "", 0)).chain(refused).collect::<Vec<_>>()
    };
    type Group = fn(&Row) -> Option<String>;
    let tables: [(&str, &str, Group); 4] = [
        ("Verified attacks refused, by class", "class", |row| row.is_verified().then(|| row.class.clone())),
        ("Verified attacks refused, by source and class", "source", |row| {
            row.is_verified().then(|| format!("{}: {}", row.short_source(), row.class))
        }),
        ("Unverified attack strings refused (fuzz lists: a trend, not a rate)", "source", |row| {
            (row.is_attack() && !row.is_verified()).then(|| format!("{}: {}", row.short_source(), row.class))
        }),
        ("Benign calls refused", "class", |row| (!row.is_attack()).then(|| row.class.clone())),
    ];
    for (title, rows_are, group) in tables {
        let mut table = Table::new(rows_are, columns());
        let mut groups = BTreeMap::<String, Vec<usize>>::new();
        for (place, row) in in_order(rows).enumerate() {
            if let Some(name) = group(row) {
                groups.entry(name).or_default().push(place);
            }
        }
        let all: Vec<usize> = groups.values().flatten().copied().collect();
        let share = |places: &[usize], one: &Judged| {
            let refused =
                places.iter().filter(|&&place| one.verdicts.get(place).is_some_and(Verdict::is_refusal)).count();
            Cell::from(100.0 * refused as f64 / places.len().max(1) as f64)
        };
        let mut row = |name: &str, places: &[usize]| {
            let shares = inspecting.iter().map(|one| share(places, one));
            table.row(name, std::iter::once(Cell::from(places.len() as f64)).chain(shares).collect());
        };
        for (name, places) in &groups {
            row(name, places);
        }
        if groups.len() > 1 {
            row("all", &all);
        }
        report.section(Section::new(title).table(table));
    }
    let columns = vec![Column::new("an attack", "µs", 1), Column::new("a benign call", "µs", 1)];
    let mut table = Table::new("CPU time of", columns);
    for one in judged {
        table.row(one.title, one.cpu_ns.iter().map(|ns| Cell::from(ns / 1000.0)).collect());
    }
    report.section(Section::new("CPU time").table(table));
    report.note(
        "A payload is the `text` of a call of `add_note`; benign calls are sent with their own tool and arguments. Refused: the gateway answers \
         with a refusal, the core rules with 403 (or 400, for what ModSecurity cannot parse).",
    );
}

/// What ringwall got wrong, for whoever writes the rules.
fn misses(rows: &[Row], judged: &[Judged]) -> String {
    let Some(ours) = judged.first() else { return String::new() };
    let mut lines = String::new();
    for (row, verdict) in in_order(rows).zip(&ours.verdicts) {
        if verdict.is_refusal() != row.is_attack() {
            lines.push_str(&row.as_line(verdict));
            lines.push('\n');
        }
    }
    lines
}
