//! What a run has shown: written down once, given out as a markdown table, as JSON, and as one HTML page with charts.
//!
//! A command fills a [`Report`] with sections of tables, charts and goals, and hands it to [`Outputs`]. Nothing here measures. The page needs no
//! network and no script; texts that came from a command line or a program are escaped in every form.

mod axis;
mod chart;
mod html;
mod svg;
mod table;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

pub(crate) use axis::Axis;
pub(crate) use chart::{Chart, Point, Series};
pub(crate) use table::{Cell, Column, Goal, Table, grouped};

/// What one run has shown, and what is needed to run it again.
#[derive(Serialize)]
pub(crate) struct Report {
    title: String,
    /// As it was typed, without the program's directory.
    command: String,
    /// UTC.
    date: String,
    machine: String,
    /// Programs that took part and what they say of their version.
    versions: Vec<(String, String)>,
    notes: Vec<String>,
    sections: Vec<Section>,
}

impl Report {
    /// A report of the running command, begun now. Ask `machine::describe()` before the load starts.
    pub(crate) fn new(title: &str, machine: String) -> Self {
        Self {
            title: title.to_owned(),
            command: command_line(std::env::args()),
            date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            machine,
            versions: Vec::new(),
            notes: Vec::new(),
            sections: Vec::new(),
        }
    }

    pub(crate) fn version(&mut self, program: &str, version: String) {
        self.versions.push((program.to_owned(), version));
    }

    /// The report as one page that loads nothing.
    pub(crate) fn html(&self) -> String {
        html::page(self)
    }

    /// A sentence that holds for the whole run.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub(crate) fn section(&mut self, section: Section) {
        self.sections.push(section);
    }

    /// All but the charts, as the terminal and `records/` want it.
    pub(crate) fn markdown(&self) -> String {
        let mut run = format!("`{}`, {}, {}", self.command, self.date, self.machine);
        for (program, version) in &self.versions {
            run.push_str(&format!("; {program} {version}"));
        }
        let mut out = format!("# {}\n\n{}.\n", one_line(&self.title), one_line(&run));
        paragraphs(&mut out, &self.notes);
        for section in &self.sections {
            out.push_str(&format!("\n## {}\n", one_line(&section.title)));
            paragraphs(&mut out, &section.notes);
            for table in &section.tables {
                out.push('\n');
                out.push_str(&table.markdown());
            }
            if !section.goals.is_empty() {
                out.push('\n');
                out.push_str(&table::goals(&section.goals).markdown());
            }
        }
        out
    }

    fn json(&self) -> io::Result<String> {
        serde_json::to_string_pretty(self).map_err(io::Error::other)
    }
}

fn paragraphs(out: &mut String, notes: &[String]) {
    for note in notes {
        out.push_str(&format!("\n{}\n", one_line(note)));
    }
}

/// A text that cannot begin a line of its own.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What belongs together: tables, charts of the same figures, and goals that they are held against.
#[derive(Default, Serialize)]
pub(crate) struct Section {
    title: String,
    notes: Vec<String>,
    tables: Vec<Table>,
    charts: Vec<Chart>,
    goals: Vec<Goal>,
}

impl Section {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    #[must_use]
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    #[must_use]
    pub(crate) fn table(mut self, table: Table) -> Self {
        self.tables.push(table);
        self
    }

    #[must_use]
    pub(crate) fn chart(mut self, chart: Chart) -> Self {
        self.charts.push(chart);
        self
    }

    #[must_use]
    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }
}

/// Where a report goes, beside the terminal.
#[derive(clap::Args, Default)]
pub(crate) struct Outputs {
    /// Write the results as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report with its charts as one HTML page to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Outputs {
    /// That the files can be written, before a long run and not after it.
    pub(crate) fn check(&self) -> io::Result<()> {
        for path in [&self.json, &self.html].into_iter().flatten() {
            std::fs::File::options().append(true).create(true).open(path).map_err(|error| at(path, error))?;
        }
        Ok(())
    }

    /// Prints the tables, and writes the files that were asked for.
    pub(crate) fn write(&self, report: &Report) -> io::Result<()> {
        let mut terminal = io::stdout().lock();
        terminal.write_all(b"\n")?;
        terminal.write_all(report.markdown().as_bytes())?;
        if let Some(path) = &self.json {
            std::fs::write(path, report.json()?).map_err(|error| at(path, error))?;
        }
        if let Some(path) = &self.html {
            std::fs::write(path, report.html()).map_err(|error| at(path, error))?;
        }
        Ok(())
    }
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The command line as one would type it again: `loadtest` and its arguments, quoted where a shell needs it.
fn command_line(arguments: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    let quoted = arguments.skip(1).map(|argument| {
        if !argument.is_empty() && argument.chars().all(plain) {
            argument
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    });
    std::iter::once("loadtest".to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
