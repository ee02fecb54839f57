//! Charts: series of points with their spread over two axes.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::super::figures::Figures;
use super::axis::Axis;

/// A chart.
#[derive(Serialize)]
pub(crate) struct Chart {
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
    pub(super) marks: Vec<Mark>,
}

/// A line across the chart: a goal, a limit.
#[derive(Serialize)]
pub(super) struct Mark {
    pub(super) y: f64,
    pub(super) label: String,
}

/// One line of a chart.
#[derive(Serialize)]
pub(crate) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<Point>,
}

/// The median of some rounds, and the lowest and highest of them.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Point {
    /// What several rounds have shown at `x`.
    pub(crate) fn of(x: f64, figures: &Figures) -> Self {
        Self { x, y: figures.median(), low: figures.low(), high: figures.high() }
    }

    pub(crate) fn at(x: f64, y: f64) -> Self {
        Self { x, y, low: y, high: y }
    }

    pub(super) fn is_finite(&self) -> bool {
        [self.x, self.y, self.low, self.high].iter().all(|value| value.is_finite())
    }
}

/// Points of a latency curve: fine enough that it looks like one.
const STEPS_A_NINE: u32 = 16;

/// A percentile is drawn where at least so many calls took longer: beyond, a curve would show single calls.
const CALLS_ABOVE: f64 = 10.0;

impl Series {
    /// Points in ascending order of x.
    pub(crate) fn new(name: impl Into<String>, points: Vec<Point>) -> Self {
        Self { name: name.into(), points }
    }

    /// The percentiles of a histogram of nanoseconds, in microseconds, from 50 % as far as ten calls took longer, at most to 99.99 %.
    pub(crate) fn latency(name: impl Into<String>, latency_ns: &Histogram<u64>) -> Self {
        let calls = latency_ns.len() as f64;
        let nines = |percentile: f64| -(1.0 - percentile / 100.0).log10();
        let (from, to) = (nines(50.0), nines(99.99));
        let count = ((to - from) * f64::from(STEPS_A_NINE)).ceil() as u32;
        let points = (0..=count).filter_map(|step| {
            let share_above = 10f64.powf(-(from + (to - from) * f64::from(step) / f64::from(count)));
            // A little room: 100,000 calls have ten above 99.99 %.
            let enough = calls * share_above >= CALLS_ABOVE * 0.999_999;
            let us = latency_ns.value_at_quantile(1.0 - share_above) as f64 / 1000.0;
            enough.then(|| Point::at(100.0 * (1.0 - share_above), us))
        });
        Self::new(name, points.collect())
    }
}

impl Chart {
    pub(crate) fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self { title: title.into(), x, y, series: Vec::new(), marks: Vec::new() }
    }

    /// For [`Series::latency`]: each nine of the percentile as wide as the next.
    pub(crate) fn latency(title: impl Into<String>) -> Self {
        Self::new(title, Axis::percentile(), Axis::fitting("latency, µs"))
    }

    #[must_use]
    pub(crate) fn series(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// A line across, such as a goal.
    #[must_use]
    pub(crate) fn mark(mut self, y: f64, label: impl Into<String>) -> Self {
        self.marks.push(Mark { y, label: label.into() });
        self
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_curve_rises_and_ends_where_calls_are_few() -> Result<(), hdrhistogram::CreationError> {
        let mut histogram = Histogram::new_with_max(60_000_000_000, 3)?;
        for call in 1..=10_000u64 {
            histogram.saturating_record(call * 1000);
        }
        let series = Series::latency("s", &histogram);
        let (Some(first), Some(last)) = (series.points.first(), series.points.last()) else { panic!("no points") };
        assert!((first.x - 50.0).abs() < 1e-9 && (first.y - 5000.0).abs() < 10.0, "{} {}", first.x, first.y);
        assert!((99.8..=99.9001).contains(&last.x) && (last.y - 9985.0).abs() < 20.0, "{} {}", last.x, last.y);
        assert!(series.points.is_sorted_by(|a, b| a.x < b.x && a.y <= b.y));
        for call in 10_001..=100_000u64 {
            histogram.saturating_record(call * 1000);
        }
        let last = Series::latency("s", &histogram).points.last().map(|point| point.x);
        assert!(last.is_some_and(|x| (x - 99.99).abs() < 1e-6), "{last:?}");
        histogram.clear();
        assert!(Series::latency("s", &histogram).points.is_empty());
        Ok(())
    }
}
