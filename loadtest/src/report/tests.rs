//! The structure of what is given out, with texts that try to leave their place.

#![allow(clippy::panic)]

use super::super::figures::Figures;
use super::*;

const HOSTILE: &str = "</title><script>alert(1)</script> & \"a\" 'b' | c\r\n# d";

fn figures(values: &[f64]) -> Figures {
    values.iter().copied().collect()
}

fn report() -> Report {
    let mut table = Table::new(
        "gateway",
        vec![Column::new("CPU a call", "µs", 2), Column::new("calls/s", "", 0), Column::new("note", "", 0)],
    );
    table.row("ringwall", vec![figures(&[14.0, 12.5, 13.25]).into(), 51_234.4.into(), HOSTILE.into()]);
    table.row(HOSTILE, vec![Cell::Nothing, 7.0.into()]);
    let chart = Chart::new(HOSTILE, Axis::log("keys"), Axis::linear("CPU a call, µs"))
        .series(Series::new(HOSTILE, vec![Point::of(1.0, &figures(&[10.0, 12.0])), Point::at(1e6, 11.0)]))
        .series(Series::new("one point, no number", vec![Point::at(10.0, f64::NAN)]))
        .mark(11.5, HOSTILE);
    let mut report = Report::new(HOSTILE, "a machine".to_owned());
    report.version(HOSTILE, HOSTILE.to_owned());
    report.note(HOSTILE);
    report.section(
        Section::new(HOSTILE)
            .note(HOSTILE)
            .table(table)
            .chart(chart)
            .goal(Goal::at_most(HOSTILE, 1.05, 2, &figures(&[1.04])))
            .goal(Goal::at_least("faster", 1.15, 2, &figures(&[1.0, 1.1, 1.2])))
            .goal(Goal::at_most("nothing", 1.0, 2, &Figures::default())),
    );
    report
}

/// The page's elements in order; an element that is not closed, or that no report has, is a fault.
fn elements(page: &str) -> Vec<&str> {
    let (mut open, mut seen) = (Vec::new(), Vec::new());
    for tag in page.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap_or_else(|| panic!("a tag that does not end: {tag}"));
        let name = tag.trim_start_matches('/').split([' ', '\n']).next().unwrap_or_default();
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') && !["!DOCTYPE", "meta"].contains(&name) {
            open.push(name);
        }
        seen.push(name);
    }
    assert_eq!(open, Vec::<&str>::new());
    seen
}

#[test]
fn no_text_leaves_its_place_on_the_page() {
    let page = html::page(&report());
    let seen = elements(&page);
    let known = "!DOCTYPE html head meta title style body h1 dl dt dd code p section h2 div table thead tbody tr th td small figure \
                 figcaption svg line text polygon polyline circle";
    assert!(seen.iter().all(|name| known.split(' ').any(|known| known == *name)), "{seen:?}");
    assert_eq!(
        page.matches("&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;a&quot; &#39;b&#39; | c").count(),
        16
    );
    assert!(!page.contains("src=") && !page.contains("url(") && !page.contains("http"), "nothing is loaded");
}

#[test]
fn a_page_has_all_that_is_needed_to_run_it_again() {
    let report = report();
    let (page, markdown) = (html::page(&report), report.markdown());
    for needed in [report.date.as_str(), "a machine", "loadtest"] {
        assert!(page.contains(needed) && markdown.contains(needed), "{needed}");
    }
    assert!(report.date.starts_with("20") && report.date.ends_with(" UTC"), "{}", report.date);
}

#[test]
fn markdown_tables_are_aligned() {
    let markdown = report().markdown();
    let lines: Vec<&str> = markdown.lines().skip_while(|line| !line.starts_with("| gateway")).take(4).collect();
    let width = lines[0].chars().count();
    assert!(lines.iter().all(|line| line.chars().count() == width && line.ends_with('|')), "{lines:#?}");
    assert!(lines[0].contains("|      CPU a call, µs | calls/s | note  "), "{}", lines[0]);
    assert!(lines[2].contains("| 13.25 (12.50–14.00) |  51,234 | </title>"), "{}", lines[2]);
    assert!(lines[2].contains(" 'b' \\| c  # d |"), "{}", lines[2]);
    assert!(lines[3].contains("|                   – |       7 | –"), "{}", lines[3]);
    assert!(!markdown.lines().any(|line| line == "# d"), "{markdown}");
    assert!(lines[1].contains("-:|"), "numbers are on the right: {}", lines[1]);
}

#[test]
fn goals_hold_or_are_missed_or_were_not_measured() {
    let markdown = report().markdown();
    let line = |start: &str| {
        let line = markdown.lines().find(|line| line.starts_with(start)).unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let hostile_goal = markdown.lines().find(|line| line.contains("at most 1.05")).unwrap_or_default();
    let hostile_goal = hostile_goal.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(hostile_goal.ends_with("| at most 1.05 | 1.04 | holds |"), "{hostile_goal}");
    assert!(line("| faster").ends_with("| at least 1.15 | 1.10 (1.00–1.20) | missed |"), "{}", line("| faster"));
    assert!(line("| nothing").ends_with("| at most 1.00 | – | not measured |"), "{}", line("| nothing"));
    assert_eq!(markdown.matches("| holds ").count(), 1);
}

#[test]
fn json_has_every_round_and_no_number_where_none_was_measured() -> io::Result<()> {
    let text = report().json()?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(io::Error::other)?;
    assert_eq!(json["title"], HOSTILE);
    let section = &json["sections"][0];
    assert_eq!(section["tables"][0]["rows"][0][1][0]["rounds"]["values"], serde_json::json!([12.5, 13.25, 14.0]));
    assert_eq!(section["tables"][0]["rows"][1][1][2], "nothing");
    assert_eq!(section["charts"][0]["series"][0]["points"][0]["y"], 11.0);
    assert_eq!(section["charts"][0]["series"][1]["points"][0]["y"], serde_json::Value::Null);
    assert_eq!(section["goals"][0]["holds"], true);
    assert_eq!(section["goals"][2]["holds"], serde_json::Value::Null);
    Ok(())
}

#[test]
fn a_chart_without_points_says_so() {
    for series in [vec![], vec![Point::at(f64::NAN, 1.0)]] {
        let chart = Chart::latency("empty").series(Series::new("a", series));
        let drawing = svg::draw(&chart);
        elements(&drawing);
        assert!(drawing.contains(">nothing was measured<") && drawing.contains(">99.99 %<"));
        assert!(!drawing.contains("NaN") && !drawing.contains("inf"), "{drawing}");
    }
    assert!(!html::page(&report()).contains("NaN"));
}

#[test]
fn every_point_is_on_the_drawing_and_higher_is_more() {
    let points = (1..=20u32).map(|n| Point::of(f64::from(n * n), &figures(&[f64::from(n), f64::from(n + 3)])));
    let chart = Chart::new("t", Axis::linear("x"), Axis::linear("y")).series(Series::new("a", points.collect()));
    let drawing = svg::draw(&chart);
    let line = drawing.split("<polyline class=\"line c0\" points=\"").nth(1).and_then(|rest| rest.split('"').next());
    let places: Vec<(f64, f64)> = line
        .unwrap_or_default()
        .split(' ')
        .filter_map(|pair| pair.split_once(','))
        .filter_map(|(x, y)| Some((x.parse().ok()?, y.parse().ok()?)))
        .collect();
    assert_eq!(places.len(), 20);
    assert!(places.is_sorted_by(|a, b| a.0 < b.0 && a.1 > b.1), "{places:?}");
    assert_eq!(drawing.matches("<circle").count(), 21, "a marker a point, and one beside the name");
    assert_eq!(drawing.matches("class=\"band c0\"").count(), 1);
}

#[test]
fn the_command_can_be_typed_again() {
    let typed = |arguments: &[&str]| command_line(arguments.iter().map(|argument| (*argument).to_owned()));
    assert_eq!(typed(&["/a/b/loadtest", "scale", "--only", "sizes"]), "loadtest scale --only sizes");
    assert_eq!(typed(&["x", "--set", "A=it's $B", ""]), r"loadtest --set 'A=it'\''s $B' ''");
}

#[test]
fn numbers_are_grouped() {
    use super::table::grouped;
    let cases = [
        (0.0, 0, "0"),
        (999.0, 0, "999"),
        (1000.0, 0, "1,000"),
        (1_234_567.891, 1, "1,234,567.9"),
        (-0.001, 2, "0.00"),
    ];
    for (value, decimals, expected) in cases {
        assert_eq!(grouped(value, decimals), expected);
    }
    assert_eq!((grouped(-1234.5, 1), grouped(f64::NAN, 2)), ("-1,234.5".to_owned(), "–".to_owned()));
}

#[test]
fn files_are_tried_before_the_run() {
    let missing = Some(PathBuf::from("/nowhere/at/all.json"));
    assert!(Outputs { json: missing, html: None }.check().is_err());
    assert!(Outputs::default().check().is_ok());
}
