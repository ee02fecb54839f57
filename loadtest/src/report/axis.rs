//! Axes: where a value stands between 0 and 1, and which round values get a tick.

use serde::Serialize;

use super::table::grouped;

/// How an axis counts, and what is written beside it.
#[derive(Clone, Serialize)]
pub(crate) struct Axis {
    /// With the unit: `CPU a call, µs`.
    pub(super) label: String,
    pub(super) unit: Unit,
    pub(super) scale: Scale,
}

/// How ticks are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// `1,000`.
    Plain,
    /// `1 KiB`; ticks at powers of two.
    Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scale {
    /// From 0.
    Linear,
    Log,
    /// From 0, or logarithmic where the values differ twentyfold.
    Fitting,
    /// Percentiles from 50 to 99.99: as far from one nine to the next as from that to the one after.
    Percentile,
}

/// Ratio of the largest to the smallest value from which a fitting axis is logarithmic.
const FITTING_RATIO: f64 = 20.0;

impl Axis {
    /// From 0.
    pub(crate) fn linear(label: &str) -> Self {
        Self { label: label.to_owned(), unit: Unit::Plain, scale: Scale::Linear }
    }

    /// Logarithmic; values that are not positive cannot be shown.
    pub(crate) fn log(label: &str) -> Self {
        Self { label: label.to_owned(), unit: Unit::Plain, scale: Scale::Log }
    }

    /// From 0, or logarithmic where the values differ much.
    pub(crate) fn fitting(label: &str) -> Self {
        Self { label: label.to_owned(), unit: Unit::Plain, scale: Scale::Fitting }
    }

    /// Percentiles of calls.
    pub(super) fn percentile() -> Self {
        Self { label: "percentile of calls".to_owned(), unit: Unit::Plain, scale: Scale::Percentile }
    }

    /// The same with bytes on it.
    #[must_use]
    pub(crate) fn of_bytes(self) -> Self {
        Self { unit: Unit::Bytes, ..self }
    }

    /// The axis for these values; they need not be in order.
    pub(super) fn range(&self, values: impl Iterator<Item = f64>) -> Range {
        let mut whole = true;
        let mut ends: Option<(f64, f64)> = None;
        let log_only = self.scale == Scale::Log;
        for value in values.filter(|value| value.is_finite() && *value >= 0.0 && !(log_only && *value == 0.0)) {
            whole &= value.fract() == 0.0;
            let (low, high) = ends.unwrap_or((value, value));
            ends = Some((low.min(value), high.max(value)));
        }
        let (low, high) = ends.unwrap_or((1.0, 1.0));
        let log = log_only || (self.scale == Scale::Fitting && low > 0.0 && high / low > FITTING_RATIO);
        match self.scale {
            Scale::Percentile => percentile_range(),
            _ if log => log_range(low, high, self.unit),
            _ => linear_range(high, whole, self.unit),
        }
    }
}

/// An axis with its ends and ticks.
#[derive(Debug)]
pub(super) struct Range {
    /// In the space in which the axis is even.
    from: f64,
    to: f64,
    space: Space,
    /// Values with what is written beside them, in ascending order.
    pub(super) ticks: Vec<(f64, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    Even,
    Log,
    Nines,
}

impl Space {
    fn of(self, value: f64) -> f64 {
        match self {
            Self::Even => value,
            Self::Log => value.log10(),
            Self::Nines => -(1.0 - value / 100.0).log10(),
        }
    }
}

impl Range {
    /// Where this value stands, 0 at the start and 1 at the end. `None` where it cannot be shown.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        let place = (self.space.of(value) - self.from) / (self.to - self.from);
        // What rounding puts beside the end is at the end.
        (-1e-6..=1.0 + 1e-6).contains(&place).then_some(place.clamp(0.0, 1.0))
    }

    pub(super) fn is_log(&self) -> bool {
        self.space == Space::Log
    }
}

/// About five ticks from 0, at 1, 2 or 5 of a power of ten (of two for bytes).
fn linear_range(high: f64, whole: bool, unit: Unit) -> Range {
    let high = if high > 0.0 { high } else { 1.0 };
    let mut step = match unit {
        Unit::Plain => {
            let power = 10f64.powf((high / 5.0).log10().floor());
            let steps = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
            steps.into_iter().find(|step| high / step <= 6.0).unwrap_or(10.0 * power)
        }
        Unit::Bytes => (high / 5.0).log2().ceil().exp2().max(1.0),
    };
    if whole {
        step = step.max(1.0);
    }
    let count = (high / step - 1e-9).ceil().max(1.0);
    let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
    let ticks = (0..=count as u32).map(|n| f64::from(n) * step);
    let ticks = ticks.map(|value| (value, written(value, unit, decimals))).collect();
    Range { from: 0.0, to: count * step, space: Space::Even, ticks }
}

/// From one tick to another, at powers of ten, with 2 and 5 between them where they are few. Bytes: at powers of two, four or sixteen.
fn log_range(low: f64, high: f64, unit: Unit) -> Range {
    let mut values: Vec<f64> = match unit {
        Unit::Plain => {
            let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
            let digits: &[f64] = if last - first <= 3 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            (first..=last)
                .flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)))
                .filter(|value| *value <= 10f64.powi(last) * 1.001)
                .collect()
        }
        Unit::Bytes => {
            let (first, last) = (low.log2().floor() as i32, high.log2().ceil() as i32);
            let step = if last - first <= 10 { 1 } else { 2 };
            (first..=last + step - 1).step_by(step as usize).map(|power| f64::from(power).exp2()).collect()
        }
    };
    // The ticks next to the ends are the ends.
    let start = values.iter().rposition(|value| *value <= low * 1.000_001).unwrap_or(0);
    let end = values.iter().position(|value| *value >= high * 0.999_999).unwrap_or(values.len() - 1);
    values.truncate(end + 1);
    values.drain(..start.min(end));
    if values.len() == 1 {
        values.push(values[0] * if unit == Unit::Bytes { 2.0 } else { 10.0 });
    }
    let ends = (values.first().copied().unwrap_or(1.0).log10(), values.last().copied().unwrap_or(10.0).log10());
    let ticks = values.into_iter().map(|value| {
        let decimals = (-value.log10().floor()).clamp(0.0, 12.0) as usize;
        (value, written(value, unit, decimals))
    });
    Range { from: ends.0, to: ends.1, space: Space::Log, ticks: ticks.collect() }
}

fn percentile_range() -> Range {
    let ticks = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99];
    let (from, to) = (Space::Nines.of(50.0), Space::Nines.of(99.99));
    let ticks = ticks.into_iter().map(|value| (value, format!("{value} %"))).collect();
    Range { from, to, space: Space::Nines, ticks }
}

/// A value as it is written beside its tick.
pub(super) fn written(value: f64, unit: Unit, decimals: usize) -> String {
    if unit == Unit::Plain {
        return grouped(value, decimals);
    }
    let units = [(1024.0 * 1024.0 * 1024.0, "GiB"), (1024.0 * 1024.0, "MiB"), (1024.0, "KiB")];
    match units.into_iter().find(|(size, _)| value >= *size) {
        Some((size, name)) => {
            let value = value / size;
            let decimals = if value.fract() == 0.0 { 0 } else { 1 };
            format!("{} {name}", grouped(value, decimals))
        }
        None => format!("{} B", grouped(value, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(range: &Range) -> Vec<&str> {
        range.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn ticks_are_round() {
        let linear = |values: &[f64]| {
            let range = Axis::linear("").range(values.iter().copied());
            texts(&range).join(" ")
        };
        assert_eq!(linear(&[31.7, 12.0]), "0 10 20 30 40");
        assert_eq!(linear(&[0.23]), "0.00 0.05 0.10 0.15 0.20 0.25");
        assert_eq!(linear(&[15_000.0, 0.0]), "0 5,000 10,000 15,000");
        assert_eq!(linear(&[1.0, 2.0]), "0 1 2", "no half worker");
        assert_eq!(linear(&[0.0]), "0 1");
        let log = |low: f64, high: f64| texts(&Axis::log("").range([high, low].into_iter())).join(" ");
        assert_eq!(log(1.0, 1e6), "1 10 100 1,000 10,000 100,000 1,000,000");
        assert_eq!(log(30.0, 700.0), "20 50 100 200 500 1,000");
        assert_eq!(log(0.04, 0.3), "0.02 0.05 0.1 0.2 0.5");
        assert_eq!(log(100.0, 100.0), "100 1,000");
        let bytes = Axis::log("").of_bytes().range([291.0, 65_536.0].into_iter());
        assert_eq!(texts(&bytes).join(" "), "256 B 512 B 1 KiB 2 KiB 4 KiB 8 KiB 16 KiB 32 KiB 64 KiB");
    }

    #[test]
    fn axes_are_monotone_and_hold_every_value() {
        let mut value = 1.0f64;
        // Ends of all sizes, in no round steps.
        for _ in 0..200 {
            value *= 1.37;
            let (low, high) = (value / 1e12, value / 1e12 * 777.7);
            for axis in [Axis::linear(""), Axis::log(""), Axis::fitting(""), Axis::log("").of_bytes()] {
                let range = axis.range([low, high, low * 3.0].into_iter());
                let places: Vec<f64> = range.ticks.iter().filter_map(|(value, _)| range.place(*value)).collect();
                assert_eq!(places.len(), range.ticks.len(), "{range:?}");
                assert!(places.is_sorted_by(|a, b| a < b), "{range:?}");
                assert_eq!((places.first(), places.last()), (Some(&0.0), Some(&1.0)), "{range:?}");
                assert!((2..=14).contains(&places.len()), "{range:?}");
                let inside = [low, low * 3.0, high].map(|value| range.place(value));
                assert!(inside.is_sorted() && inside[0].is_some(), "{range:?} {inside:?}");
            }
        }
    }

    #[test]
    fn percentiles_get_as_much_room_for_each_nine() {
        let range = Axis::percentile().range(std::iter::empty());
        assert_eq!(texts(&range).join(" "), "50 % 75 % 90 % 99 % 99.9 % 99.99 %");
        let places: Vec<f64> = [90.0, 99.0, 99.9, 99.99].into_iter().filter_map(|p| range.place(p)).collect();
        let steps: Vec<f64> = places.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.iter().all(|step| (step - steps[0]).abs() < 1e-9), "{steps:?}");
        assert_eq!((range.place(49.0), range.place(100.0)), (None, None));
    }

    #[test]
    fn what_cannot_be_shown_has_no_place_and_spoils_no_axis() {
        let range = Axis::log("").range([0.0, f64::NAN, -3.0, 10.0, 1000.0, f64::INFINITY].into_iter());
        assert_eq!((range.ticks[0].0, range.place(0.0), range.place(f64::NAN)), (10.0, None, None));
        assert!(Axis::linear("").range([f64::NAN].into_iter()).place(0.5).is_some());
        let fitting = |values: [f64; 2]| Axis::fitting("").range(values.into_iter()).is_log();
        assert!(!fitting([10.0, 100.0]) && fitting([10.0, 1000.0]) && !fitting([0.0, 1000.0]));
    }
}
