//! The content filter beside `rustrict`, on texts that people have labelled.
//!
//! The two do not sort texts in the same way, so they are compared by what is flagged at all: by set, and by category, where a category's positives
//! are the rows that their collectors have labelled with it, and its negatives the benign ones. A row that says something else that is bad is
//! neither.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::Instant;

use ringwall::guard::content::{Category, ContentFilter, Scratch, Thresholds};
use rustrict::{Censor, Type};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::super::cpu;
use super::super::report::{Cell, Column, Report, Section, Table};

#[derive(Deserialize)]
struct Row {
    source: String,
    id: String,
    class: String,
    label: String,
    payload: String,
}

/// What both say of a row.
struct Said {
    row: Row,
    /// One of the third that was not looked at while the lists were written.
    is_held_out: bool,
    ours: [bool; 3],
    theirs: bool,
}

impl Said {
    fn ours(&self) -> bool {
        self.ours.contains(&true)
    }
}

/// By a hash of what names the row, so that the split is the same everywhere.
fn is_held_out(row: &Row) -> bool {
    let hash = Sha256::digest(format!("{}|{}", row.source, row.id));
    hash.first().is_some_and(|byte| byte % 3 == 2)
}

pub(super) fn run(data: &Path, report: &mut Report) -> io::Result<()> {
    let rows = read(data)?;
    let filter = ContentFilter::shipped(Thresholds::default())
        .map_err(|(name, fault)| io::Error::other(format!("{name}: {fault:?}")))?;
    let mut scratch = Scratch::default();
    let texts: Vec<&str> = rows.iter().map(|row| row.payload.as_str()).collect();
    let ours_mb_s = speed(&texts, |text| filter.worst(&mut scratch, text).is_some());
    let theirs_mb_s = speed(&texts, |text| Censor::from_str(text).analyze().is(Type::INAPPROPRIATE));
    let said: Vec<Said> = rows.into_iter().map(|row| say(row, &filter, &mut scratch)).collect();
    report.version("rustrict", "0.7.39".into());
    for (title, held_out) in [("seen while the lists were written", false), ("not seen", true)] {
        let part: Vec<&Said> = said.iter().filter(|said| said.is_held_out == held_out).collect();
        report.section(Section::new(format!("Content filter, by category: rows {title}")).table(by_category(&part)));
        report.section(Section::new(format!("Content filter, by set: rows {title}")).table(by_set(&part)));
    }
    let mut table = Table::new("filter", vec![Column::new("speed", "MB/s of CPU time", 2)]);
    table.row("ringwall", vec![ours_mb_s.into()]);
    table.row("rustrict", vec![theirs_mb_s.into()]);
    report.section(Section::new("Content filter, speed over all texts").table(table));
    Ok(())
}

fn read(data: &Path) -> io::Result<Vec<Row>> {
    let file = std::fs::File::open(data.join("content.jsonl"))?;
    BufReader::new(file).lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

fn say(row: Row, filter: &ContentFilter, scratch: &mut Scratch) -> Said {
    let mut ours = [false; 3];
    filter.each(scratch, &row.payload, |finding| {
        if let Some(found) = Category::ALL.iter().position(|&category| category == finding.category)
            && let Some(place) = ours.get_mut(found)
        {
            *place = true;
        }
    });
    let theirs = Censor::from_str(&row.payload).analyze().is(Type::INAPPROPRIATE);
    Said { is_held_out: is_held_out(&row), ours, theirs, row }
}

/// Megabytes a second of this thread's CPU time, over a second of rounds or three rounds.
fn speed(texts: &[&str], mut look: impl FnMut(&str) -> bool) -> f64 {
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    let began = Instant::now();
    let before = cpu::this_thread_used_ns();
    let mut rounds = 0u32;
    let mut found = 0usize;
    while rounds < 3 || began.elapsed().as_millis() < 1000 {
        found += texts.iter().filter(|text| look(text)).count();
        rounds += 1;
    }
    assert!(found > 0, "a filter that finds nothing is not measured");
    let used = cpu::this_thread_used_ns().saturating_sub(before);
    bytes as f64 * f64::from(rounds) * 1000.0 / used.max(1) as f64
}

/// Precision, recall and F1.
fn rates(positive: &[&&Said], negative: &[&&Said], flagged: impl Fn(&Said) -> bool) -> Vec<Cell> {
    let hits = positive.iter().filter(|said| flagged(said)).count() as f64;
    let false_hits = negative.iter().filter(|said| flagged(said)).count() as f64;
    let precision = hits / (hits + false_hits).max(1.0);
    let recall = hits / (positive.len() as f64).max(1.0);
    let f1 = 2.0 * precision * recall / (precision + recall).max(f64::MIN_POSITIVE);
    [precision, recall, f1].into_iter().map(Cell::from).collect()
}

fn columns() -> Vec<Column> {
    let mut columns = vec![Column::new("positive", "", 0), Column::new("negative", "", 0)];
    for who in ["ringwall", "rustrict"] {
        columns.extend(["precision", "recall", "F1"].map(|what| Column::new(&format!("{who} {what}"), "", 3)));
    }
    columns
}

fn row(table: &mut Table, name: &str, positive: &[&&Said], negative: &[&&Said], ours: impl Fn(&Said) -> bool) {
    let mut cells = vec![Cell::from(positive.len() as f64), Cell::from(negative.len() as f64)];
    cells.extend(rates(positive, negative, ours));
    cells.extend(rates(positive, negative, |said| said.theirs));
    table.row(name, cells);
}

/// Threats against single people and groups that HateCheck calls not hateful are threats all the same.
const THREATS_TO_OTHERS: [&str; 2] = ["hate:target_indiv_nh", "hate:target_group_nh"];

fn by_category(said: &[&Said]) -> Table {
    let mut table = Table::new("category", columns());
    let of = |keep: &dyn Fn(&Row) -> bool| said.iter().filter(|said| keep(&said.row)).collect::<Vec<_>>();
    let is_profane =
        |row: &Row| matches!(row.label.as_str(), "profane" | "offensive") || row.class.starts_with("hate:profanity");
    let is_benign = |row: &Row| row.label == "benign" && !is_profane(row);
    let profane = of(&|row| is_profane(row));
    let clean = of(&|row| is_benign(row) && !row.source.contains("hatecheck"));
    row(&mut table, "profanity", &profane, &clean, Said::ours);
    // `rustrict` is developed against the words of its own test file: on those it is at home.
    let is_its_own = |row: &Row| row.source == "finnbear/rustrict";
    let elsewhere = of(&|row| is_profane(row) && !is_its_own(row));
    let clean_elsewhere = of(&|row| is_benign(row) && !row.source.contains("hatecheck") && !is_its_own(row));
    row(&mut table, "profanity, without rustrict's own words", &elsewhere, &clean_elsewhere, Said::ours);
    let hateful = of(&|row| row.label == "hateful");
    let civil =
        of(&|row| is_benign(row) && (row.source.contains("hate")) && !THREATS_TO_OTHERS.contains(&row.class.as_str()));
    row(&mut table, "hate speech", &hateful, &civil, Said::ours);
    let threats = of(&|row| row.class.starts_with("hate:threat_"));
    let peaceful = of(&|row| is_benign(row) && !THREATS_TO_OTHERS.contains(&row.class.as_str()));
    row(&mut table, "threats", &threats, &peaceful, |said| said.ours.last() == Some(&true));
    let bad = of(&|row| row.label != "benign" || is_profane(row));
    let good = of(&|row| is_benign(row));
    row(&mut table, "anything", &bad, &good, Said::ours);
    table
}

fn by_set(said: &[&Said]) -> Table {
    let mut table = Table::new("set", columns());
    let mut sources: Vec<&str> = said.iter().map(|said| said.row.source.as_str()).collect();
    sources.sort_unstable();
    sources.dedup();
    for source in sources {
        let of_source = |said: &&&Said| said.row.source == source;
        let bad = |said: &&&Said| said.row.label != "benign" || said.row.class == "hate:profanity_nh";
        let positive: Vec<_> = said.iter().filter(of_source).filter(bad).collect();
        let negative: Vec<_> = said.iter().filter(of_source).filter(|said| !bad(said)).collect();
        row(&mut table, source, &positive, &negative, Said::ours);
    }
    table
}
