//! Charts as SVG. Colours are classes of the page's style sheet, so that one drawing fits a light and a dark page.
//!
//! Written here and not taken from a crate: plotters and poloto write their colours and fonts into each element, or bring a theme of
//! their own, and neither has the axis of latency percentiles.

use std::fmt::Write;

use super::axis::{Range, written};
use super::chart::{Chart, Point, Series};
use super::html::escape;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 216.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 58.0;

/// What the ends of the x axis keep free of data, so that markers do not stand on the frame.
const INSET: f64 = 10.0;

/// Series that look different: so many colours, and after them the same ones dashed.
const COLOURS: usize = 8;

/// Lines with more points than this have no markers.
const MAX_MARKERS: usize = 24;

/// Between two names at the right.
const NAME_LINE: f64 = 17.0;

/// Longer names are cut at the right; the whole one is shown when it is pointed at.
const MAX_NAME_CHARS: usize = 26;

/// The plane between the axes.
struct Plane {
    x: Range,
    y: Range,
}

impl Plane {
    fn x(&self, value: f64) -> Option<f64> {
        Some(LEFT + INSET + self.x.place(value)? * (WIDTH - LEFT - RIGHT - 2.0 * INSET))
    }

    fn y(&self, value: f64) -> Option<f64> {
        Some(HEIGHT - BOTTOM - self.y.place(value)? * (HEIGHT - TOP - BOTTOM))
    }

    fn point(&self, point: &Point) -> Option<(f64, f64)> {
        Some((self.x(point.x)?, self.y(point.y)?))
    }
}

/// The chart as one `svg` element.
pub(super) fn draw(chart: &Chart) -> String {
    let points = || chart.series.iter().flat_map(|series| &series.points).filter(|point| point.is_finite());
    let ys = points().flat_map(|point| [point.low, point.y, point.high]);
    let plane = Plane {
        x: chart.x.range(points().map(|point| point.x)),
        y: chart.y.range(ys.chain(chart.marks.iter().map(|mark| mark.y))),
    };
    let mut out =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escape(&chart.title));
    axes(&mut out, chart, &plane);
    for mark in &chart.marks {
        if let Some(y) = plane.y(mark.y) {
            line(&mut out, "mark", (LEFT, y), (WIDTH - RIGHT, y));
        }
    }
    // All bands lie under all lines.
    for (index, series) in chart.series.iter().enumerate() {
        band(&mut out, index, series, &plane);
    }
    for (index, series) in chart.series.iter().enumerate() {
        curve(&mut out, chart, index, series, &plane);
    }
    for mark in &chart.marks {
        if let Some(y) = plane.y(mark.y) {
            text(&mut out, "mark-name", WIDTH - RIGHT - 6.0, y - 5.0, &mark.label);
        }
    }
    names(&mut out, chart, &plane);
    if points().next().is_none() {
        text(&mut out, "nothing", (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT / 2.0, "nothing was measured");
    }
    out.push_str("</svg>\n");
    out
}

fn axes(out: &mut String, chart: &Chart, plane: &Plane) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for (value, written) in &plane.y.ticks {
        if let Some(y) = plane.y(*value) {
            line(out, "grid", (LEFT, y), (right, y));
            text(out, "tick y", LEFT - 8.0, y + 4.0, written);
        }
    }
    for (value, written) in &plane.x.ticks {
        if let Some(x) = plane.x(*value) {
            line(out, "grid", (x, TOP), (x, bottom));
            text(out, "tick x", x, bottom + 18.0, written);
        }
    }
    line(out, "axis", (LEFT, bottom), (right, bottom));
    line(out, "axis", (LEFT, TOP), (LEFT, bottom));
    let log = |range: &Range| if range.is_log() { " (log scale)" } else { "" };
    let below = format!("{}{}", chart.x.label, log(&plane.x));
    text(out, "label x", (LEFT + right) / 2.0, HEIGHT - 14.0, &below);
    let beside = escape(&format!("{}{}", chart.y.label, log(&plane.y)));
    let middle = (TOP + bottom) / 2.0;
    put(
        out,
        format_args!("<text class=\"label x\" transform=\"translate(16 {middle:.1}) rotate(-90)\">{beside}</text>"),
    );
}

/// From the lowest to the highest of the rounds.
fn band(out: &mut String, index: usize, series: &Series, plane: &Plane) {
    let points: Vec<&Point> = series.points.iter().filter(|point| point.is_finite()).collect();
    if points.iter().all(|point| point.low >= point.high) {
        return;
    }
    let edge = |point: &&Point, y: f64| Some((plane.x(point.x)?, plane.y(y)?));
    let upper = points.iter().filter_map(|point| edge(point, point.high));
    let lower = points.iter().rev().filter_map(|point| edge(point, point.low));
    let corners: Vec<String> = upper.chain(lower).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    put(out, format_args!("<polygon class=\"band c{}\" points=\"{}\"/>", index % COLOURS, corners.join(" ")));
    for point in points {
        if let (Some((x, high)), Some((_, low))) = (edge(&point, point.high), edge(&point, point.low)) {
            line(out, &format!("whisker c{}", index % COLOURS), (x, high), (x, low));
        }
    }
}

fn curve(out: &mut String, chart: &Chart, index: usize, series: &Series, plane: &Plane) {
    let placed: Vec<(&Point, (f64, f64))> =
        series.points.iter().filter_map(|point| Some((point, plane.point(point)?))).collect();
    let corners: Vec<String> = placed.iter().map(|(_, (x, y))| format!("{x:.1},{y:.1}")).collect();
    put(out, format_args!("<polyline class=\"line {}\" points=\"{}\"/>", look(index), corners.join(" ")));
    if placed.len() > MAX_MARKERS {
        return;
    }
    for (point, place) in placed {
        let spread = if point.low < point.high {
            format!(" ({}–{})", shown(chart, point.low), shown(chart, point.high))
        } else {
            String::new()
        };
        let tip = format!(
            "{}, {} {}: {}{spread}",
            series.name,
            chart.x.label,
            written(point.x, chart.x.unit, 0),
            shown(chart, point.y)
        );
        marker(out, index, place, &tip);
    }
}

/// A value of the y axis with three figures or more.
fn shown(chart: &Chart, value: f64) -> String {
    let decimals = if value >= 100.0 { 0 } else { 2 };
    written(value, chart.y.unit, decimals)
}

/// Each series by its name, beside its last point, pushed apart where they would lie on each other.
fn names(out: &mut String, chart: &Chart, plane: &Plane) {
    let mut ends: Vec<(usize, &str, (f64, f64))> = Vec::new();
    for (index, series) in chart.series.iter().enumerate() {
        if let Some(end) = series.points.iter().rev().find_map(|point| plane.point(point)) {
            ends.push((index, &series.name, end));
        }
    }
    ends.sort_by(|a, b| a.2.1.total_cmp(&b.2.1));
    let wanted: Vec<f64> = ends.iter().map(|end| end.2.1).collect();
    for ((index, name, (x, y)), at) in ends.into_iter().zip(pushed_apart(&wanted)) {
        let left = WIDTH - RIGHT + 12.0;
        line(out, "leader", (x + 6.0, y), (left - 4.0, at));
        line(out, &format!("line {}", look(index)), (left, at), (left + 20.0, at));
        marker(out, index, (left + 10.0, at), name);
        let cut: String = if name.chars().count() > MAX_NAME_CHARS {
            name.chars().take(MAX_NAME_CHARS - 1).chain(['…']).collect()
        } else {
            name.to_owned()
        };
        text(out, "name", left + 26.0, at + 4.0, &cut);
    }
}

/// Heights at least one line from each other, in the same order, near those that are wanted and, while there is room, on the drawing.
fn pushed_apart(wanted: &[f64]) -> Vec<f64> {
    let mut at: Vec<f64> = wanted.to_vec();
    let mut lowest = TOP + 4.0;
    for y in &mut at {
        *y = y.max(lowest);
        lowest = *y + NAME_LINE;
    }
    let mut highest = HEIGHT - 8.0;
    for y in at.iter_mut().rev() {
        *y = y.min(highest);
        highest = *y - NAME_LINE;
    }
    at
}

/// The classes of a series: its colour, and dashed once the colours are used up.
fn look(index: usize) -> String {
    let dashed = if index >= COLOURS { " dashed" } else { "" };
    format!("c{}{dashed}", index % COLOURS)
}

/// A marker whose shape tells the series as its colour does.
fn marker(out: &mut String, index: usize, (x, y): (f64, f64), tip: &str) {
    let class = format!("marker c{}", index % COLOURS);
    let corners = |corners: &[(f64, f64)]| -> String {
        let corners = corners.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy));
        corners.collect::<Vec<_>>().join(" ")
    };
    let title = format!("<title>{}</title>", escape(tip));
    let shape = match index % 4 {
        0 => {
            put(out, format_args!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\">{title}</circle>"));
            return;
        }
        1 => corners(&[(-3.8, -3.8), (3.8, -3.8), (3.8, 3.8), (-3.8, 3.8)]),
        2 => corners(&[(0.0, -5.0), (4.8, 3.8), (-4.8, 3.8)]),
        _ => corners(&[(0.0, -5.2), (5.2, 0.0), (0.0, 5.2), (-5.2, 0.0)]),
    };
    put(out, format_args!("<polygon class=\"{class}\" points=\"{shape}\">{title}</polygon>"));
}

fn line(out: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    put(out, format_args!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"));
}

fn text(out: &mut String, class: &str, x: f64, y: f64, text: &str) {
    put(out, format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(text)));
}

fn put(out: &mut String, element: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{element}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_pushed_apart_and_stay_on_the_drawing() {
        for wanted in [vec![], vec![50.0], vec![10.0; 12], vec![395.0; 12], vec![20.0, 21.0, 200.0, 390.0, 391.0]] {
            let at = pushed_apart(&wanted);
            assert_eq!(at.len(), wanted.len());
            assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= NAME_LINE - 1e-9), "{at:?}");
            assert!(at.iter().all(|y| (TOP..=HEIGHT).contains(y)), "{at:?}");
        }
        assert_eq!(pushed_apart(&[50.0, 200.0]), [50.0, 200.0], "who is alone stays where he is");
    }
}
