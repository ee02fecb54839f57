//! Tables: numbers with the unit and the decimals of their column, and goals with what was reached.

use serde::Serialize;

use super::super::figures::Figures;

/// A table. Its first column names the rows.
#[derive(Serialize)]
pub(crate) struct Table {
    /// Over the first column.
    rows_are: String,
    columns: Vec<Column>,
    rows: Vec<(String, Vec<Cell>)>,
}

/// A column: all its numbers have one unit and so many decimals.
#[derive(Serialize)]
pub(crate) struct Column {
    name: String,
    unit: String,
    decimals: usize,
}

impl Column {
    /// `unit` may be empty.
    pub(crate) fn new(name: &str, unit: &str, decimals: usize) -> Self {
        Self { name: name.to_owned(), unit: unit.to_owned(), decimals }
    }

    pub(super) fn heading(&self) -> String {
        if self.unit.is_empty() { self.name.clone() } else { format!("{}, {}", self.name, self.unit) }
    }
}

/// What stands in one place of a table.
#[derive(Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cell {
    /// Not measured, or there is no such thing.
    Nothing,
    Text(String),
    Number(f64),
    /// Median and ends of several rounds.
    Rounds {
        median: f64,
        low: f64,
        high: f64,
        /// In ascending order.
        values: Vec<f64>,
    },
}

impl From<&Figures> for Cell {
    /// One round alone has no spread.
    fn from(figures: &Figures) -> Self {
        match figures.values() {
            [] => Self::Nothing,
            [only] => Self::Number(*only),
            values => Self::Rounds {
                median: figures.median(),
                low: figures.low(),
                high: figures.high(),
                values: values.to_vec(),
            },
        }
    }
}

impl From<Figures> for Cell {
    fn from(figures: Figures) -> Self {
        Self::from(&figures)
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A cell as it is shown: what stands first, and the spread behind it.
pub(super) struct Shown {
    pub(super) value: String,
    pub(super) spread: String,
    pub(super) is_number: bool,
}

impl Cell {
    pub(super) fn show(&self, decimals: usize) -> Shown {
        let (value, spread, is_number) = match self {
            Self::Nothing => ("–".to_owned(), String::new(), true),
            Self::Text(text) => (text.clone(), String::new(), false),
            Self::Number(value) => (grouped(*value, decimals), String::new(), true),
            Self::Rounds { median, low, high, .. } => {
                let spread = format!("({}–{})", grouped(*low, decimals), grouped(*high, decimals));
                (grouped(*median, decimals), spread, true)
            }
        };
        Shown { value, spread, is_number }
    }
}

impl Table {
    pub(crate) fn new(rows_are: &str, columns: Vec<Column>) -> Self {
        Self { rows_are: rows_are.to_owned(), columns, rows: Vec::new() }
    }

    /// Adds a row. Cells that are missing are shown as not measured; there are never more than columns.
    pub(crate) fn row(&mut self, name: impl Into<String>, mut cells: Vec<Cell>) {
        cells.resize(self.columns.len(), Cell::Nothing);
        self.rows.push((name.into(), cells));
    }

    pub(super) fn rows_are(&self) -> &str {
        &self.rows_are
    }

    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The rows as they are shown.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&str, Vec<Shown>)> {
        self.rows.iter().map(|(name, cells)| {
            let shown = cells.iter().zip(&self.columns).map(|(cell, column)| cell.show(column.decimals));
            (name.as_str(), shown.collect())
        })
    }

    /// As markdown, its columns padded to the same width and numbers on the right, so that it can be read as it stands.
    pub(super) fn markdown(&self) -> String {
        let mut lines = vec![vec![cell_text(&self.rows_are)]];
        lines[0].extend(self.columns.iter().map(|column| cell_text(&column.heading())));
        let mut right = vec![true; self.columns.len() + 1];
        right[0] = false;
        for (name, cells) in self.shown() {
            let mut line = vec![cell_text(name)];
            for (index, cell) in cells.into_iter().enumerate() {
                right[index + 1] &= cell.is_number;
                let space = if cell.spread.is_empty() { "" } else { " " };
                line.push(cell_text(&format!("{}{space}{}", cell.value, cell.spread)));
            }
            lines.push(line);
        }
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0).max(2);
        let widths: Vec<usize> = (0..right.len()).map(width).collect();
        let mut out = String::new();
        for (number, line) in lines.iter().enumerate() {
            for ((text, width), right) in line.iter().zip(&widths).zip(&right) {
                out.push_str(&if *right { format!("| {text:>width$} ") } else { format!("| {text:<width$} ") });
            }
            out.push_str("|\n");
            if number == 0 {
                for (width, right) in widths.iter().zip(&right) {
                    let end = if *right { ':' } else { '-' };
                    out.push_str(&format!("|{}{end}", "-".repeat(width + 1)));
                }
                out.push_str("|\n");
            }
        }
        out
    }
}

/// A text that stays in its cell.
fn cell_text(text: &str) -> String {
    super::one_line(text).replace('|', "\\|")
}

/// A number with so many decimals and its thousands set apart: `12,345.6`.
pub(crate) fn grouped(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    // What rounds to nothing has no sign.
    let negative = value < 0.0 && text.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    let mut out = String::from(if negative { "-" } else { "" });
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}

/// A bound that a figure is held against.
#[derive(Serialize)]
pub(crate) struct Goal {
    what: String,
    bound: Bound,
    decimals: usize,
    reached: Cell,
    /// Whether the median is within the bound; `None` where nothing was measured.
    holds: Option<bool>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    pub(crate) fn at_most(what: &str, bound: f64, decimals: usize, reached: &Figures) -> Self {
        Self::new(what, Bound::AtMost(bound), decimals, reached)
    }

    pub(crate) fn at_least(what: &str, bound: f64, decimals: usize, reached: &Figures) -> Self {
        Self::new(what, Bound::AtLeast(bound), decimals, reached)
    }

    fn new(what: &str, bound: Bound, decimals: usize, reached: &Figures) -> Self {
        let median = reached.median();
        let holds = median.is_finite().then_some(match bound {
            Bound::AtMost(most) => median <= most,
            Bound::AtLeast(least) => median >= least,
        });
        Self { what: what.to_owned(), bound, decimals, reached: Cell::from(reached), holds }
    }
}

/// Goals as a table.
pub(super) fn goals(goals: &[Goal]) -> Table {
    let columns = vec![Column::new("bound", "", 0), Column::new("reached", "", 0), Column::new("", "", 0)];
    let mut table = Table::new("goal", columns);
    for goal in goals {
        let bound = match goal.bound {
            Bound::AtMost(most) => format!("at most {}", grouped(most, goal.decimals)),
            Bound::AtLeast(least) => format!("at least {}", grouped(least, goal.decimals)),
        };
        let shown = goal.reached.show(goal.decimals);
        let reached = format!("{} {}", shown.value, shown.spread);
        let holds = match goal.holds {
            Some(true) => "holds",
            Some(false) => "missed",
            None => "not measured",
        };
        table.row(goal.what.clone(), vec![bound.as_str().into(), reached.trim_end().into(), holds.into()]);
    }
    table
}
