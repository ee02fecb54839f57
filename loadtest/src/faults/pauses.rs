//! How long this program and the threads of the gateway had something to do and no core to do it on: what a busy machine does to a run.
//!
//! A call has a time, and on a machine that others use as well it can run out though everybody has done right. Of an answer that came too late
//! this says whose fault it was.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::gateway::CALL_TIMEOUT_MS;

/// Without a core for this long, a call may miss its time.
pub(crate) const PAUSE: Duration = Duration::from_millis(CALL_TIMEOUT_MS / 2);

/// What is longer ago was in no call that is still open.
const KEPT: Duration = Duration::from_secs(60);

/// When time was lost, and how much.
#[derive(Debug, Default)]
pub(crate) struct Pauses(VecDeque<(Instant, Duration)>);

impl Pauses {
    pub(crate) fn note(&mut self, at: Instant, lost: Duration) {
        while self.0.front().is_some_and(|(before, _)| at.duration_since(*before) > KEPT) {
            self.0.pop_front();
        }
        if !lost.is_zero() {
            self.0.push_back((at, lost));
        }
    }

    /// How much was lost in a call that began then.
    pub(crate) fn since(&self, began: Instant) -> Duration {
        self.0.iter().rev().take_while(|(at, _)| *at >= began).map(|(_, lost)| *lost).sum()
    }
}

/// How long the threads of a process have waited for a core (`schedstat`, its second number, nanoseconds).
#[derive(Debug)]
pub(crate) struct Waiting {
    tasks: PathBuf,
    before: HashMap<String, u64>,
}

impl Waiting {
    pub(crate) fn new(pid: u32) -> Self {
        Self { tasks: PathBuf::from(format!("/proc/{pid}/task")), before: HashMap::new() }
    }

    /// The most that one of them has waited since the last look. Nothing where the kernel does not say.
    pub(crate) fn more(&mut self) -> Duration {
        let mut most = 0;
        for task in std::fs::read_dir(&self.tasks).into_iter().flatten().flatten() {
            let Some(waited) = std::fs::read_to_string(task.path().join("schedstat")).ok().as_deref().and_then(waited)
            else {
                continue;
            };
            let before = self.before.insert(task.file_name().to_string_lossy().into_owned(), waited);
            most = most.max(waited.saturating_sub(before.unwrap_or(waited)));
        }
        Duration::from_nanos(most)
    }
}

/// The second of three numbers.
fn waited(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_before_a_call_is_not_its_own() {
        let (start, mut pauses) = (Instant::now(), Pauses::default());
        let at = |ms| start + Duration::from_millis(ms);
        for ms in [100, 200, 300] {
            pauses.note(at(ms), Duration::from_millis(50));
        }
        assert_eq!(pauses.since(at(0)), Duration::from_millis(150));
        assert_eq!(pauses.since(at(150)), Duration::from_millis(100));
        assert_eq!(pauses.since(at(301)), Duration::ZERO);
        // What is long ago is forgotten.
        pauses.note(at(70_000), Duration::ZERO);
        assert_eq!(pauses.since(at(0)), Duration::ZERO);
    }

    #[test]
    fn a_thread_that_waits_for_a_core_is_seen_to() {
        assert_eq!((waited("12 34 5\n"), waited("12"), waited("")), (Some(34), None, None));
        let mut waiting = Waiting::new(std::process::id());
        assert_eq!(waiting.more(), Duration::ZERO, "what was before the first look does not count");
        assert!(!waiting.before.is_empty());
    }
}
