#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "the threads of a test are its own")]

use super::*;
use crate::state::rates::{Rule, Span};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

const NOW_MS: u64 = 1_795_000_000_000;
const CAPACITY: usize = 200;
const RULES: [Rule; 4] = [
    Rule { limit: 1_000_000, span: Span::Sliding(60_000) },
    Rule { limit: 1_000_000, span: Span::Sliding(3_600_000) },
    Rule { limit: 1_000_000, span: Span::Day },
    Rule { limit: 1_000_000, span: Span::Month },
];
const AGENTS: [&[u8]; 3] = [b"crm-bot", b"mailer", b"x"];

fn open(dir: &Path, now_ms: u64) -> Counters {
    Counters::open(dir, CAPACITY, now_ms).unwrap()
}

fn take(counters: &Counters, agent: &[u8], rule: Rule, now_ms: u64) {
    let table = counters.table();
    let _kept = table.take(table.key(1, agent), rule, 1, now_ms).unwrap();
}

fn used(counters: &Counters, agent: &[u8], rule: Rule, now_ms: u64) -> u64 {
    let table = counters.table();
    table.peek(table.key(1, agent), rule, now_ms).used
}

#[test]
fn counts_go_on_where_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), NOW_MS);
    for rule in RULES {
        for n in 0..100 {
            take(&first, AGENTS[0], rule, NOW_MS + n);
        }
    }
    first.sync().unwrap();
    drop(first);
    let path = dir.path().join(FILE);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.blocks() * 512 >= metadata.len(), "every block is set aside");
    let second = open(dir.path(), NOW_MS + 30_000);
    assert!(RULES.iter().all(|rule| used(&second, AGENTS[0], *rule, NOW_MS + 30_000) == 100));
    drop(second);
    // Up to a 64th of the limit shares one stamp, that of its last: they leave together.
    let third = open(dir.path(), NOW_MS + 60_050);
    let left = RULES.map(|rule| used(&third, AGENTS[0], rule, NOW_MS + 60_050));
    assert_eq!(left, [100, 100, 100, 100], "the last of the group is in the minute");
    drop(third);
    let fourth = open(dir.path(), NOW_MS + 60_100);
    let left = RULES.map(|rule| used(&fourth, AGENTS[0], rule, NOW_MS + 60_100));
    assert_eq!(left, [0, 100, 100, 100], "what has left the minute has left it");
}

#[test]
fn a_clock_that_was_set_back_meanwhile_keeps_nobody_out_for_longer_than_the_window() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), NOW_MS);
    RULES.iter().for_each(|rule| take(&first, AGENTS[0], *rule, NOW_MS));
    drop(first);
    let back_ms = NOW_MS - 5 * 86_400_000;
    let second = open(dir.path(), back_ms);
    assert_eq!(RULES.map(|rule| used(&second, AGENTS[0], rule, back_ms)), [1; 4]);
    assert_eq!(RULES.map(|rule| used(&second, AGENTS[0], rule, back_ms + 60_000)), [0, 1, 1, 1]);
    assert_eq!(RULES.map(|rule| used(&second, AGENTS[0], rule, back_ms + 86_400_000)), [0, 0, 0, 1]);
}

/// Each of these stands under the file's name, and is no reason to trust it, to fail, or to panic.
#[test]
fn what_is_damaged_or_foreign_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let whole = |dir: &Path| {
        let counters = open(dir, NOW_MS);
        take(&counters, AGENTS[0], RULES[2], NOW_MS);
        drop(counters);
        fs::read(dir.join(FILE)).unwrap()
    };
    let other = tempfile::tempdir().unwrap();
    let foreign = whole(other.path());
    let changed = |at: usize| {
        let mut bytes = whole(dir.path());
        bytes[at * 8] ^= 1;
        bytes
    };
    let longer = [whole(dir.path()), vec![0; 8]].concat();
    let shorter = whole(dir.path())[..4_096].to_vec();
    let cases = [
        ("empty", Vec::new()),
        ("shorter", shorter),
        ("longer", longer),
        ("of another machine", foreign),
        ("no file of ours", changed(MAGIC_AT)),
        ("of another version", changed(VERSION_AT)),
        ("of another size", changed(COUNT_AT)),
    ];
    for (name, bytes) in cases {
        fs::write(&path, bytes).unwrap();
        let counters = open(dir.path(), NOW_MS);
        assert_eq!(used(&counters, AGENTS[0], RULES[2], NOW_MS), 0, "{name}");
        take(&counters, AGENTS[0], RULES[2], NOW_MS);
        drop(counters);
        assert_eq!(used(&open(dir.path(), NOW_MS), AGENTS[0], RULES[2], NOW_MS), 1, "{name}: the new one is kept");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(used(&open(dir.path(), NOW_MS), AGENTS[0], RULES[2], NOW_MS), 0, "others may write it");
    let victim = dir.path().join("victim");
    fs::write(&victim, b"precious").unwrap();
    fs::remove_file(&path).unwrap();
    symlink(&victim, &path).unwrap();
    assert_eq!(used(&open(dir.path(), NOW_MS), AGENTS[0], RULES[2], NOW_MS), 0);
    assert_eq!(fs::read(&victim).unwrap(), b"precious", "a link is not followed");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "no draft is left: {left:?}");
}

const CHILD_DIR: &str = "RINGWALL_TEST_COUNTERS";

/// Not a test of its own: what the next one kills.
#[test]
fn a_child_that_counts() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let counters = open(Path::new(&dir), NOW_MS);
    std::thread::scope(|scope| {
        for thread in 0..2_u64 {
            let counters = &counters;
            scope.spawn(move || {
                for n in 0.. {
                    let (agent, rule) = (n as usize % AGENTS.len(), n as usize / 7 % RULES.len());
                    take(counters, AGENTS[agent], RULES[rule], NOW_MS + n / 100 + thread);
                    // In one write, so that what was said is whole.
                    io::stdout().lock().write_all(format!("\nadmitted {agent} {rule}\n").as_bytes()).unwrap();
                }
            });
        }
    });
}

/// A gateway that is killed has forgotten nothing that it let pass: the child says what was admitted, after it was; the two threads may each have one more
/// that they could not say any more.
#[test]
fn kill_9_loses_no_count() {
    for lines in [1, 1_000, 20_000] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "control::counters::tests::a_child_that_counts", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = [[0_u64; RULES.len()]; AGENTS.len()];
        let mut count = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let mut words = line.split(' ');
            if words.next() != Some("admitted") {
                continue;
            }
            // The last line may be torn.
            let mut number = || words.next().and_then(|word| word.parse::<usize>().ok());
            let (Some(agent), Some(rule)) = (number(), number()) else { continue };
            said[agent][rule] += 1;
            count += 1;
            if count == lines {
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success());
        assert!(count >= lines);
        let counters = open(dir.path(), NOW_MS + 1_000);
        let mut unsaid = 0;
        for (agent, said) in AGENTS.iter().zip(said) {
            for (rule, said) in RULES.iter().zip(said) {
                let found = used(&counters, agent, *rule, NOW_MS + 1_000);
                assert!(found >= said, "{found} of {said} admissions are known: {rule:?}");
                unsaid += found - said;
            }
        }
        assert!(unsaid <= 2, "{unsaid} more than were admitted");
    }
}
