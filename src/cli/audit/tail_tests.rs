#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::Write as _;

use super::*;

fn newest(files: &[PathBuf], wanted: usize) -> Vec<String> {
    let lines = newest_lines(files, wanted, None, |_| None).unwrap();
    lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
}

fn files(contents: &[(&str, &str)]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in contents {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let mut files = trail::files(folder.path()).unwrap();
    files.reverse();
    (folder, files)
}

#[test]
fn the_newest_lines_over_several_files() {
    let (_folder, files) = files(&[
        ("security-2026-01-01.log", "a\nb\n"),
        ("security-2026-01-03.log", "d\n\ne\nbeing writ"),
        ("security-2026-01-02.log", "c\n"),
        ("security-2026-01-02.log.gz", "it is being written\n"),
        (".lock", "x\n"),
    ]);
    for (wanted, expected) in [(1, "e"), (2, "de"), (3, "cde"), (4, "bcde"), (9, "abcde")] {
        assert_eq!(newest(&files, wanted).concat(), expected);
    }
}

#[test]
fn compressed_files_and_filters() {
    let line = |n: u32, tool: &str| {
        let time = format!("2026-01-01T00:00:{n:02}.000Z");
        format!(
            "[SECURITY] {{\"timestamp\":\"{time}\",\"seq\":{n},\"event\":\"tool_call\",\"tool\":\"{tool}\",\"prev\":\"0\"}}"
        )
    };
    let all: Vec<String> = (0..9).map(|n| line(n, if n % 2 == 0 { "even" } else { "odd" })).collect();
    let (folder, mut files) = files(&[("security-2026-01-02.log", &(all[5..].join("\n") + "\n"))]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all((all[..5].join("\n") + "\n").as_bytes()).unwrap();
    files.push(folder.path().join("security-2026-01-01.log.gz"));
    fs::write(&files[1], gz.finish().unwrap()).unwrap();
    assert_eq!(newest(&files, 6), all[3..]);
    let mut filter = Filter::default();
    let pseudonyms = crate::control::audit::pseudonym::Pseudonyms::new(&crate::control::keys::Key::new([0; 32]));
    filter.field("tool", &["odd"], &pseudonyms);
    let odd = newest_lines(&files, 3, Some(&filter), |_| None).unwrap();
    assert_eq!(odd, [3, 5, 7].map(|n: usize| all[n].clone().into_bytes()));
    // What is printed by another is not printed here.
    let until = all[5].len() as u64 + 1;
    let lines = newest_lines(&files, 2, None, |path| (path == files[0]).then_some(until)).unwrap();
    assert_eq!(lines, [4, 5].map(|n: usize| all[n].clone().into_bytes()));
}

#[test]
fn long_files_are_read_from_their_end_alone() {
    let long = "x".repeat(BLOCK - 1);
    let text: String = (0..40).map(|n| format!("{n}{long}\n")).collect();
    let (_folder, files) = files(&[("security-2026-01-01.log", &text)]);
    let lines = newest(&files, 2);
    assert_eq!(lines.iter().map(|line| line.trim_end_matches('x')).collect::<Vec<_>>(), ["38", "39"]);
    let mut budget = MAX_BYTES;
    end_of(&files[0], 2, u64::MAX, &mut budget).unwrap();
    assert!(MAX_BYTES - budget <= 4 * BLOCK);
    let mut budget = 3 * BLOCK;
    let end = end_of(&files[0], 40, u64::MAX, &mut budget).unwrap();
    assert!(budget == 0 && end.starts_with(b"38"), "a cut begins with a whole line");
}

#[test]
fn a_line_for_people() {
    let line = r#"{"timestamp":"2026-01-01T00:00:00.000Z","seq":7,"event":"tool_call","severity":"INFO","ip":"10.0.0.1",
        "clientId":"http-1","tool":"a\u001b[31m","outcome":"ok","status":200,"durationUs":15,"prev":"00","mac":"ff"}"#;
    let expected = "2026-01-01T00:00:00.000Z  INFO      tool_call  ip=10.0.0.1  clientId=http-1  tool=a [31m  outcome=ok  \
                    status=200  durationUs=15";
    assert_eq!(readable(line), expected);
    assert_eq!(readable("not\x07 ours"), "not  ours");
    // What would turn a line's direction, or end it for some.
    assert_eq!(readable(r#"{"details":"a\u202eb\u2028c\u200f"}"#).trim(), "details=a b c");
    assert_eq!(json_of(b"[SECURITY] {\"a\":\"\x1b[2J\"}"), "{\"a\":\" [2J\"}");
}
