//! Running this program under callgrind, and reading what it has counted.
//!
//! Counting begins and ends with [`counted_by_callgrind`], and callgrind writes a file each time that function returns: one process
//! for all cases, because valgrind takes seconds to start.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::baseline::Counts;
use super::machine;
use crate::case::Case;

/// The argument of a run under callgrind.
pub(crate) const COUNTED: &str = "--counted";
/// Likewise, the cases in reverse order.
pub(crate) const COUNTED_REVERSED: &str = "--counted-reversed";

/// Calls that are counted; what happens in one of them only (a page of the allocator that is full) is then a small part.
const CALLS: u32 = 64;
/// Calls before: what is allocated and learned once is none of the cost.
const WARM_UP: u32 = 64;

/// How valgrind names the function. With wildcards, callgrind takes only one of the two options that name it.
const COUNTED_FUNCTION: &str = concat!(module_path!(), "::counted_by_callgrind");

/// Counting goes on in here.
#[inline(never)]
fn counted_by_callgrind(case: &mut Case) {
    for _ in 0..CALLS {
        std::hint::black_box(&mut *case).run();
    }
}

/// The part under callgrind: all cases whose names contain `filter`, their names on standard output in the order in which they ran.
pub(crate) fn run_counted(reversed: bool, filter: &str) {
    println!("cpu {}", machine::cpu());
    let mut cases = crate::cases();
    cases.retain(|case| case.name.contains(filter));
    if reversed {
        cases.reverse();
    }
    for case in &mut cases {
        (0..WARM_UP).for_each(|_| case.run());
        make_room();
        counted_by_callgrind(case);
        println!("case {}", case.name);
    }
}

/// Leaves free blocks of each size in the allocator's pages. Where a page has none but the one that a case takes and gives back, each
/// call goes the allocator's slow way, and which page that is hangs on what the cases before have allocated.
fn make_room() {
    const BLOCKS: usize = 64;
    for size in (16..1024).step_by(16).chain((1024..=16 << 10).step_by(128)) {
        let blocks: Vec<Vec<u8>> = (0..BLOCKS).map(|_| Vec::with_capacity(size)).collect();
        std::hint::black_box(&blocks);
    }
}

/// Runs all cases under callgrind. What the processor can do, and instructions a call by case.
pub(crate) fn count(reversed: bool) -> Result<(String, Counts), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = empty_folder(&program)?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--error-limit=no"])
        .arg(format!("--toggle-collect={COUNTED_FUNCTION}"))
        .arg(format!("--dump-after={COUNTED_FUNCTION}"))
        .arg(format!("--callgrind-out-file={}", folder.join("out").display()))
        .arg(&program)
        .arg(if reversed { COUNTED_REVERSED } else { COUNTED })
        // Nothing of the environment moves the stack or the settings. The allocator gives memory back by the clock: not here.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("MIMALLOC_PURGE_DELAY", "-1")
        .output()
        .map_err(|error| format!("valgrind cannot be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("under valgrind: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let cpu = said.lines().find_map(|line| line.strip_prefix("cpu ")).ok_or("the run says nothing of its processor")?;
    let names = said.lines().filter_map(|line| line.strip_prefix("case "));
    let mut counts = Counts::default();
    for (index, name) in names.enumerate() {
        let file = folder.join(format!("out.{}", index + 1));
        counts.push((name.to_owned(), total(&file)?));
    }
    if reversed {
        counts.reverse();
    }
    Ok((cpu.to_owned(), counts))
}

/// Beside the program: what is left there says where the instructions went, to `callgrind_annotate`.
fn empty_folder(program: &Path) -> Result<PathBuf, String> {
    let folder = program.parent().unwrap_or(Path::new(".")).join("callgrind");
    let told = |error: std::io::Error| format!("{}: {error}", folder.display());
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(told(error)),
        _ => std::fs::create_dir_all(&folder).map_err(told)?,
    }
    Ok(folder)
}

/// Instructions a call, in the file of one case.
fn total(file: &Path) -> Result<f64, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    let total: u32 = total.and_then(|number| number.trim().parse().ok()).ok_or("callgrind's file has no total")?;
    if total < CALLS {
        return Err(format!("{}: nothing was counted", file.display()));
    }
    Ok(f64::from(total) / f64::from(CALLS))
}
