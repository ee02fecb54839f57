#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "a test writes files, and looks at the clock")]

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::control::audit::line::{ChainEnd, Formatter, Link};
use crate::control::audit::pseudonym::Pseudonyms;
use crate::control::keys::Key;
use crate::state::events::{Event, EventKind};

/// Files of a chain: of so many lines each.
fn trail(lines: &[u64]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut formatter = Formatter::new(&Key::new([7; 32]), ChainEnd::default(), pseudonyms());
    for (day, count) in lines.iter().enumerate() {
        let mut out = Vec::new();
        for n in 0..*count {
            let agent = if n % 3 == 0 { "third" } else { "other" };
            formatter.append(&mut out, &Event::new(EventKind::ToolCall, 1_795_331_198_123).with_agent(agent));
        }
        fs::write(dir.path().join(format!("security-2026-11-{:02}.log", day + 1)), out).unwrap();
    }
    dir
}

fn pseudonyms() -> Pseudonyms {
    Pseudonyms::new(&Key::new([8; 32]))
}

fn only(agent: &str) -> Filter {
    let mut filter = Filter::default();
    filter.field("agentId", &[agent], &pseudonyms());
    filter
}

fn search(filter: &Filter, from: Option<Position>, most: usize, until: Instant) -> Search<'_> {
    Search { filter, since: None, from, most, until, give_up: later() }
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

fn seqs(page: &Page) -> Vec<u64> {
    page.lines.iter().map(|line| Link::of(line).unwrap().seq).collect()
}

/// All pages together, and what happens between two of them.
fn all(dir: &Path, filter: &Filter, most: usize, until: Instant, mut between: impl FnMut(usize)) -> (Vec<u64>, usize) {
    let (mut found, mut from, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = page(dir, &search(filter, from, most, until)).unwrap();
        assert!(page.lines.len() <= most);
        found.extend(seqs(&page));
        pages += 1;
        let Some(next) = page.next else { return (found, pages) };
        assert_ne!(Some(next), from, "it makes headway");
        // As it goes through an answer and a request.
        from = Some(next.to_string().parse().unwrap());
        between(pages);
    }
}

fn compress(dir: &Path, name: &str) {
    let plain = fs::read(dir.join(name)).unwrap();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&plain).unwrap();
    fs::write(dir.join(format!("{name}.1.gz")), encoder.finish().unwrap()).unwrap();
    fs::remove_file(dir.join(name)).unwrap();
}

#[test]
fn pages_together_are_the_whole_and_each_line_is_on_one() {
    let dir = trail(&[10, 0, 25, 7]);
    let everything: Vec<u64> = (1..=42).collect();
    for most in [1, 2, 7, 41, 42, 43] {
        let (found, pages) = all(dir.path(), &Filter::default(), most, later(), |_| ());
        assert_eq!((found, pages), (everything.clone(), 42_usize.div_ceil(most)), "{most}");
    }
    let (thirds, _) = all(dir.path(), &only("third"), 4, later(), |_| ());
    let want: Vec<u64> =
        (0..10).step_by(3).map(|n| n + 1).chain((0..25).step_by(3).map(|n| n + 11)).chain([36, 39, 42]).collect();
    assert_eq!(thirds, want);
    assert_eq!(page(dir.path(), &search(&only("nobody"), None, 5, later())).unwrap(), Page::default());
}

#[test]
fn a_search_goes_on_though_its_file_was_renamed_compressed_or_given_away() {
    let dir = trail(&[50, 50, 50]);
    let everything: Vec<u64> = (1..=150).collect();
    let (found, _) = all(dir.path(), &Filter::default(), 20, later(), |page| match page {
        1 => fs::rename(dir.path().join("security-2026-11-01.log"), dir.path().join("security-2026-11-01.log.1"))
            .unwrap(),
        3 => compress(dir.path(), "security-2026-11-02.log"),
        _ => {}
    });
    assert_eq!(found, everything);
    let (found, _) = all(dir.path(), &Filter::default(), 20, later(), |page| {
        if page == 1 {
            fs::remove_file(dir.path().join("security-2026-11-01.log.1")).unwrap();
        }
    });
    assert_eq!(found, (1..=20).chain(51..=150).collect::<Vec<_>>());
}

#[test]
fn a_page_ends_when_its_time_is_over_and_the_next_goes_on() {
    let dir = trail(&[LOOK_EVERY * 3 + 5, 10]);
    let over = Instant::now();
    let first = page(dir.path(), &search(&only("nobody"), None, 5, over)).unwrap();
    assert!(first.lines.is_empty() && first.next.is_some());
    let (found, pages) = all(dir.path(), &Filter::default(), usize::MAX, over, |_| ());
    assert_eq!((found.len() as u64, pages), (LOOK_EVERY * 3 + 15, 5));
    // A place in a compressed file that takes too long to find is said to be that.
    compress(dir.path(), "security-2026-11-01.log");
    let filter = Filter::default();
    let far = Search { give_up: over, ..search(&filter, first.next, 5, over) };
    assert_eq!(page(dir.path(), &far).unwrap_err().1.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn a_line_that_is_being_written_is_on_no_page_until_it_is_whole() {
    let dir = trail(&[3]);
    let path = dir.path().join("security-2026-11-01.log");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let (found, _) = all(dir.path(), &Filter::default(), 10, later(), |_| ());
    assert_eq!(found, [1, 2]);
}

#[test]
fn files_that_were_last_written_before_are_passed_over() {
    let dir = trail(&[3, 3]);
    let old = fs::File::options().append(true).open(dir.path().join("security-2026-11-01.log")).unwrap();
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    old.set_modified(since - Duration::from_secs(1)).unwrap();
    let filter = Filter::default();
    let found = page(dir.path(), &Search { since: Some(since), ..search(&filter, None, 10, later()) }).unwrap();
    assert_eq!(seqs(&found), [4, 5, 6]);
}

#[test]
fn positions_are_read_strictly() {
    assert_eq!("1f-a0".parse(), Ok(Position { file: 0x1f, offset: 0xa0 }));
    for text in ["", "-", "1", "1-", "+1-2", "1-+2", "1-2-3", "1-g", "10000000000000000-0", "1F-0"] {
        assert_eq!(text.parse::<Position>(), Err(NotAPosition), "{text}");
    }
}
