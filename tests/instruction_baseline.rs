//! The comparison that `benches/count` makes: what it lets pass and what not. The counting itself needs valgrind.
#![allow(clippy::expect_used, reason = "a test may")]
#![allow(dead_code, reason = "the parts that run other programs are not tested here")]

#[path = "../benches/primitives/count/baseline.rs"]
mod baseline;
#[path = "../benches/primitives/count/machine.rs"]
mod machine;

use baseline::{AGAIN_PERCENT, Baseline, Counts, check_stable};
use machine::Machine;

fn counts(all: &[(&str, f64)]) -> Counts {
    all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

fn recorded() -> Baseline {
    let machine =
        Machine { rustc: "1.95.0 (0 2026-01-01)".into(), libc: "glibc 2.36".into(), cpu: "x86_64 avx2".into() };
    Baseline { machine, counts: counts(&[("http1/head", 1000.0), ("rpc/id, spliced", 200.5)]) }
}

#[test]
fn what_is_written_is_read_again() {
    assert_eq!(Baseline::parse(&recorded().to_string()), Ok(recorded()));
}

#[test]
fn five_in_a_hundred_more_are_the_limit() {
    for (name, now, good, said) in [
        ("the same", [("http1/head", 1000.0), ("rpc/id, spliced", 200.5)], true, None),
        ("a little more", [("http1/head", 1050.0), ("rpc/id, spliced", 210.5)], true, None),
        ("one too much", [("http1/head", 1051.0), ("rpc/id, spliced", 200.5)], false, Some("DEARER")),
        ("the other too much", [("http1/head", 500.0), ("rpc/id, spliced", 211.0)], false, Some("DEARER")),
        ("a little less", [("http1/head", 951.0), ("rpc/id, spliced", 200.5)], true, None),
        ("much less", [("http1/head", 949.0), ("rpc/id, spliced", 200.5)], true, Some("cheaper")),
        ("another case", [("http1/head", 1000.0), ("rpc/id", 200.5)], false, Some("NOT RECORDED")),
    ] {
        let verdict = recorded().compare(&counts(&now));
        assert_eq!(verdict.is_good(), good, "{name}");
        let text = verdict.to_string();
        match said {
            Some(word) => assert!(text.contains(word) && text.contains("benches/count --record"), "{name}: {text}"),
            None => assert!(!text.contains("--record"), "{name}: {text}"),
        }
    }
}

#[test]
fn a_case_that_is_gone_is_a_failure() {
    let verdict = recorded().compare(&counts(&[("http1/head", 1000.0)]));
    assert!(!verdict.is_good());
    assert!(verdict.to_string().contains("GONE"));
}

#[test]
fn runs_that_differ_are_not_compared() {
    let one = counts(&[("a", 1000.0), ("b", 2000.0)]);
    assert_eq!(check_stable(&one, &counts(&[("a", 1000.9), ("b", 1998.1)]), AGAIN_PERCENT), Ok(()));
    for (name, other) in [
        ("one differs", counts(&[("a", 1001.1), ("b", 2000.0)])),
        ("one is missing", counts(&[("a", 1000.0)])),
        ("one is too many", counts(&[("a", 1000.0), ("b", 2000.0), ("c", 1.0)])),
    ] {
        assert!(check_stable(&one, &other, AGAIN_PERCENT).is_err(), "{name}");
    }
    assert!(check_stable(&Counts::new(), &Counts::new(), AGAIN_PERCENT).is_err(), "nothing was counted");
}

#[test]
fn a_broken_file_says_where() {
    for (name, text) in [
        ("no number", "# rustc\t1\na\tb\n"),
        ("no tab", "# rustc\t1\na 5\n"),
        ("twice", "a\t5\na\t5\n"),
        ("nothing", "# rustc\t1\na\t0\n"),
        ("not a number", "# rustc\t1\na\tNaN\n"),
    ] {
        assert!(Baseline::parse(text).is_err_and(|why| why.contains("line 2")), "{name}");
    }
}

#[test]
fn the_baseline_of_this_repository_can_be_read() {
    let baseline = Baseline::parse(include_str!("../benches/instructions.tsv")).expect("it is well formed");
    assert!(baseline.counts.len() > 40, "{} cases", baseline.counts.len());
    let Machine { rustc, libc, cpu } = baseline.machine;
    assert!(!rustc.is_empty() && !libc.is_empty() && cpu.contains("avx2"), "{rustc} {libc} {cpu}");
}
