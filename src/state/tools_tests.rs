#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use std::collections::HashSet;

fn tools(names: &ToolNames) -> Vec<(usize, String)> {
    let mut tools = Vec::new();
    names.each(|_, labels| {
        if let (Some(upstream), false) = (labels.upstream, matches!(labels.tool, "" | OTHER)) {
            tools.push((upstream, labels.tool.to_owned()));
        }
    });
    tools
}

#[test]
fn a_tool_gets_a_row_when_it_is_listed_and_called_or_has_succeeded() {
    let names = ToolNames::new(2);
    assert_eq!(names.find(0, "made_up", false), None);
    names.list(0, ["echo", "add"].iter());
    assert_eq!(tools(&names), [], "a list alone takes no row");
    let echo = names.find(0, "echo", false).unwrap();
    assert_eq!(names.find(0, "echo", true), Some(echo));
    assert_eq!(names.find(1, "echo", false), None, "another upstream's is another tool");
    let other_echo = names.find(1, "echo", true).unwrap();
    assert_ne!(echo, other_echo);
    assert_eq!(names.find(1, "echo", false), Some(other_echo));
    assert_eq!(tools(&names), [(0, "echo".to_owned()), (1, "echo".to_owned())]);
    assert_eq!(names.find(7, "echo", true), None, "there is no such upstream");
}

#[test]
fn names_that_were_made_up_fill_nothing() {
    let names = ToolNames::new(1);
    (0..10_000).for_each(|n| assert_eq!(names.find(0, &format!("made_up_{n}"), false), None));
    assert_eq!(tools(&names), []);
    assert!(names.find(0, "real", true).is_some());
}

#[test]
fn rows_are_bounded_and_no_upstream_takes_those_of_another() {
    let names = ToolNames::new(2);
    let listed: Vec<String> = (0..2 * MAX_LISTED).map(|n| format!("tool-{n}")).collect();
    names.list(0, listed.iter());
    let rows: HashSet<_> = listed.iter().filter_map(|name| names.find(0, name, true)).map(Row::index).collect();
    assert_eq!(rows.len(), MAX_TOOLS / 2);
    assert!(names.is_full(0) && !names.is_full(1));
    assert!(rows.iter().all(|row| *row < ToolNames::rows(2)));
    assert!(names.names.load().known[0].len() <= MAX_LISTED / 2 + MAX_TOOLS);
    let more = (0..MAX_TOOLS).filter_map(|n| names.find(1, &format!("t{n}"), true)).count();
    assert_eq!(more, MAX_TOOLS / 2);
}

#[test]
fn rows_that_mean_different_things_are_different() {
    let names = ToolNames::new(3);
    names.find(1, "a", true).unwrap();
    names.find(2, "a", true).unwrap();
    let (mut rows, mut labels) = (HashSet::new(), HashSet::new());
    names.each(|row, meaning| {
        assert!(rows.insert(row.index()) && row.index() < ToolNames::rows(3));
        assert!(labels.insert((meaning.upstream, meaning.tool.to_owned())));
    });
    assert_eq!(rows.len(), 10);
    assert_eq!(names.other(Some(99)), names.other(None));
}

#[test]
fn what_would_make_a_bad_label_gets_no_row() {
    let names = ToolNames::new(1);
    let long = "x".repeat(MAX_NAME + 1);
    for name in ["", OTHER, "two\nlines", "\u{7f}", long.as_str()] {
        assert_eq!(names.find(0, name, true), None, "{name:?}");
    }
    names.list(0, [OTHER, &long, ""].iter());
    assert!(names.names.load().known[0].is_empty());
    for name in ["\"quoted\"", "back\\slash", "größe", &long[1..]] {
        assert!(names.find(0, name, true).is_some(), "{name:?}");
    }
}

#[test]
fn workers_agree_on_rows() {
    let names = ToolNames::new(1);
    let found: Vec<Vec<Option<Row>>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..100).map(|n| names.find(0, &format!("t{n}"), true)).collect())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(found.iter().all(|rows| *rows == found[0]));
    let rows: HashSet<_> = found[0].iter().map(|row| row.unwrap().index()).collect();
    assert_eq!(rows.len(), 100);
}
