//! The recorded numbers: their file, and what is said of new ones beside them. Tested in `tests/instruction_baseline.rs`.

use std::fmt;

use super::machine::Machine;

/// Instructions a call, by case, in the order of the cases.
pub(crate) type Counts = Vec<(String, f64)>;

/// More than this over the baseline is a failure, so much under it a reason to renew it. In hundredths.
const ALLOWED_PERCENT: f64 = 5.0;
/// Two runs of the same program differ by no more than this, in hundredths.
pub(crate) const AGAIN_PERCENT: f64 = 0.1;
/// Likewise with the cases in another order: memory then has other addresses, and what copies or scans it begins with another step.
pub(crate) const REVERSED_PERCENT: f64 = 5.0;

/// What was recorded, and where.
#[derive(Debug, PartialEq)]
pub(crate) struct Baseline {
    pub(crate) machine: Machine,
    pub(crate) counts: Counts,
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { rustc, libc, cpu } = &self.machine;
        writeln!(
            f,
            "# Instructions a call, counted under callgrind. Written by `benches/count --record`; see benches/README.md."
        )?;
        writeln!(f, "# rustc\t{rustc}\n# libc\t{libc}\n# cpu\t{cpu}")?;
        self.counts.iter().try_for_each(|(name, count)| writeln!(f, "{name}\t{count:.1}"))
    }
}

impl Baseline {
    /// Reads the file.
    ///
    /// # Errors
    /// Which line is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut read = Self { machine: Machine::default(), counts: Counts::new() };
        for (index, line) in text.lines().enumerate() {
            let wrong = || format!("benches/instructions.tsv, line {}: not NAME, tab, NUMBER", index + 1);
            match line.strip_prefix("# ").map(|fact| fact.split_once('\t')) {
                Some(Some(("rustc", value))) => value.clone_into(&mut read.machine.rustc),
                Some(Some(("libc", value))) => value.clone_into(&mut read.machine.libc),
                Some(Some(("cpu", value))) => value.clone_into(&mut read.machine.cpu),
                Some(_) => {}
                None => {
                    let (name, number) = line.split_once('\t').ok_or_else(wrong)?;
                    let number: f64 = number.parse().map_err(|_| wrong())?;
                    if number.is_nan() || number < 1.0 || read.counts.iter().any(|(other, _)| other == name) {
                        return Err(wrong());
                    }
                    read.counts.push((name.to_owned(), number));
                }
            }
        }
        Ok(read)
    }

    /// Compares new counts with these.
    pub(crate) fn compare(&self, counts: &Counts) -> Verdict {
        let mut rows: Vec<Row> = counts
            .iter()
            .map(|(name, new)| Row { name: name.clone(), old: find(&self.counts, name), new: Some(*new) })
            .collect();
        let gone = self.counts.iter().filter(|(name, _)| find(counts, name).is_none());
        rows.extend(gone.map(|(name, old)| Row { name: name.clone(), old: Some(*old), new: None }));
        Verdict { rows }
    }
}

fn find(counts: &Counts, name: &str) -> Option<f64> {
    counts.iter().find(|(other, _)| other == name).map(|(_, count)| *count)
}

fn percent(old: f64, new: f64) -> f64 {
    (new - old) / old * 100.0
}

/// Whether two runs of one program agree within so many hundredths.
///
/// # Errors
/// The cases that differ.
pub(crate) fn check_stable(one: &Counts, other: &Counts, allowed_percent: f64) -> Result<(), String> {
    let differs = |(name, count): &(String, f64)| match find(other, name) {
        Some(again) if percent(*count, again).abs() <= allowed_percent => None,
        again => {
            Some(format!("{name}: {count:.1}, then {}\n", again.map_or("nothing".to_owned(), |n| format!("{n:.1}"))))
        }
    };
    let unstable: String = one.iter().filter_map(differs).collect();
    if one.is_empty() || one.len() != other.len() || !unstable.is_empty() {
        return Err(format!(
            "two runs of the same program differ: a case depends on chance or on its neighbours\n{unstable}"
        ));
    }
    Ok(())
}

/// One case, then and now.
struct Row {
    name: String,
    old: Option<f64>,
    new: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finding {
    Same,
    Dearer,
    Cheaper,
    New,
    Gone,
}

impl Row {
    fn finding(&self) -> Finding {
        match (self.old, self.new) {
            (Some(old), Some(new)) if percent(old, new) > ALLOWED_PERCENT => Finding::Dearer,
            (Some(old), Some(new)) if percent(old, new) < -ALLOWED_PERCENT => Finding::Cheaper,
            (Some(_), Some(_)) => Finding::Same,
            (None, _) => Finding::New,
            (_, None) => Finding::Gone,
        }
    }
}

/// What new counts are beside recorded ones. Its text is a table and, last, what is to be done.
pub(crate) struct Verdict {
    rows: Vec<Row>,
}

impl Verdict {
    /// Whether nothing became dearer than allowed, and every case is recorded.
    pub(crate) fn is_good(&self) -> bool {
        self.rows.iter().all(|row| matches!(row.finding(), Finding::Same | Finding::Cheaper))
    }

    fn any(&self, finding: Finding) -> bool {
        self.rows.iter().any(|row| row.finding() == finding)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |count: Option<f64>| count.map_or("-".to_owned(), |count| format!("{count:.1}"));
        writeln!(f, "{:48} {:>10} {:>10} {:>8}", "instructions a call", "baseline", "now", "")?;
        for row in &self.rows {
            let change =
                row.old.zip(row.new).map_or(String::new(), |(old, new)| format!("{:+.1} %", percent(old, new)));
            let said = match row.finding() {
                Finding::Same => "",
                Finding::Dearer => "  DEARER",
                Finding::Cheaper => "  cheaper",
                Finding::New => "  NOT RECORDED",
                Finding::Gone => "  GONE",
            };
            writeln!(f, "{:48} {:>10} {:>10} {change:>8}{said}", row.name, number(row.old), number(row.new))?;
        }
        if self.any(Finding::Dearer) {
            writeln!(
                f,
                "FAILED: over the baseline by more than {ALLOWED_PERCENT} %. Where that is the price of something: benches/count --record"
            )?;
        }
        if self.any(Finding::New) || self.any(Finding::Gone) {
            writeln!(f, "FAILED: the cases are not those of the baseline: benches/count --record")?;
        }
        if self.any(Finding::Cheaper) {
            writeln!(f, "Cheaper by more than {ALLOWED_PERCENT} %. So that it stays so: benches/count --record")?;
        }
        Ok(())
    }
}
