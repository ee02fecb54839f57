#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

fn files(contents: &[(&str, &str)]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in contents {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let files = log_files(folder.path()).unwrap();
    (folder, files)
}

#[test]
fn the_newest_lines_over_several_files() {
    let (_folder, files) = files(&[
        ("security-2026-01-01.log", "a\nb\n"),
        ("security-2026-01-03.log", "d\n\ne\nbeing writ"),
        ("security-2026-01-02.log", "c\n"),
        ("security-2026-01-02.log.gz", "x\n"),
        (".lock", "x\n"),
    ]);
    for (wanted, expected) in [(1, "e"), (2, "de"), (3, "cde"), (4, "bcde"), (9, "abcde")] {
        assert_eq!(Vec::from(newest_lines(&files, wanted).unwrap()).concat(), expected);
    }
}

#[test]
fn long_files_are_read_from_their_end_alone() {
    let long = "x".repeat(BLOCK - 1);
    let text: String = (0..40).map(|n| format!("{n}{long}\n")).collect();
    let (_folder, files) = files(&[("security-2026-01-01.log", &text)]);
    let lines = newest_lines(&files, 2).unwrap();
    assert_eq!(lines.iter().map(|line| line.trim_end_matches('x')).collect::<Vec<_>>(), ["38", "39"]);
    let mut budget = MAX_BYTES;
    end_of(&files[0], 2, &mut budget).unwrap();
    assert!(MAX_BYTES - budget <= 4 * BLOCK);
    let mut budget = 3 * BLOCK;
    let end = end_of(&files[0], 40, &mut budget).unwrap();
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
}
