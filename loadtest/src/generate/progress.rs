//! How far a run is: which call is next, when it is due, and what has been recorded.

use std::collections::VecDeque;
use std::io;
use std::iter::Peekable;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::super::cpu;
use super::schedule::{DueTimes, Schedule};
use super::{Load, Outcome, Seen, mix};

/// Calls of an open schedule that may wait for a free connection. With more, the target is overrun beyond what a latency could tell.
const MAX_WAITING: usize = 2_000_000;

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    /// From 0, over the whole run.
    pub(super) number: u64,
    /// When it began, or should have begun, nanoseconds since the start.
    pub(super) due_ns: u64,
}

pub(super) struct Progress {
    start: Instant,
    warm_up: u64,
    total: u64,
    begun: u64,
    answered: u64,
    due: Option<Peekable<DueTimes>>,
    /// Arrivals that were taken from `due`.
    arrived: u64,
    /// When calls were due that have no connection yet.
    waiting: VecDeque<u64>,
    waited: u64,
    late_ns: u64,
    /// Places on connections that have no call in flight, by the connection's number: the longest free first.
    pub(super) free: VecDeque<usize>,
    recorded_from_ns: u64,
    /// When the last answer came, or the first call after a time without any was begun.
    moved_ns: u64,
    /// Of the recorded calls.
    failed: u64,
    latency: Histogram<u64>,
    measured: Vec<u32>,
    /// CPU time of the measured processes and of this thread when the first recorded call began, ns.
    cpu_before: io::Result<(u64, u64)>,
}

impl Progress {
    pub(super) fn new(load: &Load) -> io::Result<Self> {
        let total = load.warm_up.saturating_add(load.calls);
        if load.calls == 0 || total > mix::MAX_CALLS {
            return Err(io::Error::other(format!("a run has 1 to {} calls", mix::MAX_CALLS)));
        }
        let due = match load.schedule {
            Schedule::Closed => None,
            Schedule::Open { calls_per_s, arrivals } => {
                let times = DueTimes::new(calls_per_s, arrivals);
                Some(times.ok_or_else(|| io::Error::other("the rate must be above 0"))?.peekable())
            }
        };
        Ok(Self {
            start: Instant::now(),
            warm_up: load.warm_up,
            total,
            begun: 0,
            answered: 0,
            due,
            arrived: 0,
            waiting: VecDeque::new(),
            waited: 0,
            late_ns: 0,
            free: VecDeque::new(),
            recorded_from_ns: 0,
            moved_ns: 0,
            failed: 0,
            latency: Histogram::new_with_max(600_000_000_000, 3).map_err(io::Error::other)?,
            measured: load.measured.clone(),
            cpu_before: Ok((0, 0)),
        })
    }

    /// The clock begins.
    pub(super) fn start(&mut self) {
        self.start = Instant::now();
    }

    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn is_done(&self) -> bool {
        self.answered == self.total
    }

    /// The call that begins now on a place that is free; `None` while none is due.
    pub(super) fn begin(&mut self, now_ns: u64) -> Option<InFlight> {
        let due_ns = if self.due.is_some() {
            self.waiting.pop_front()?
        } else if self.begun < self.total {
            now_ns
        } else {
            return None;
        };
        let number = self.begun;
        self.begun += 1;
        if number == self.answered {
            self.moved_ns = now_ns;
        }
        if number == self.warm_up {
            self.recorded_from_ns = due_ns;
            self.cpu_before = self.cpu_ns();
        }
        Some(InFlight { number, due_ns })
    }

    /// Takes the calls that have become due. They wait until `begin`.
    pub(super) fn arrive(&mut self, now_ns: u64) -> io::Result<()> {
        let Some(due) = &mut self.due else { return Ok(()) };
        while self.arrived < self.total
            && let Some(due_ns) = due.next_if(|due_ns| *due_ns <= now_ns)
        {
            if self.waiting.len() < self.free.len() {
                self.late_ns = self.late_ns.max(now_ns - due_ns);
            } else {
                self.waited += 1;
            }
            self.arrived += 1;
            self.waiting.push_back(due_ns);
        }
        if self.waiting.len() > MAX_WAITING {
            return Err(io::Error::other(format!(
                "the target does not keep up: {MAX_WAITING} calls wait for a connection"
            )));
        }
        Ok(())
    }

    /// When the last answer came, without a look at the clock.
    pub(super) fn moved_ns(&self) -> u64 {
        self.moved_ns
    }

    /// A call was answered as it should be: with what it asked for, or with the failure that it was to have.
    pub(super) fn answered(&mut self, call: InFlight, now_ns: u64, right: bool) {
        self.answered += 1;
        self.moved_ns = now_ns;
        match (call.number >= self.warm_up, right) {
            (true, true) => self.latency.saturating_record(now_ns.saturating_sub(call.due_ns)),
            (true, false) => self.failed += 1,
            (false, _) => {}
        }
    }

    /// CPU time that the measured processes and this thread have used so far, ns.
    fn cpu_ns(&self) -> io::Result<(u64, u64)> {
        let measured = self.measured.iter().map(|pid| cpu::process_used_ns(*pid)).sum::<io::Result<u64>>()?;
        Ok((measured, cpu::this_thread_used_ns()))
    }

    pub(super) fn seen(&self, now_ns: u64) -> Seen {
        Seen {
            elapsed: Duration::from_nanos(now_ns),
            answered: self.answered,
            errors: self.failed,
            total: self.total,
            waiting: self.waiting.len(),
        }
    }

    /// How long to wait for an event: until the next call is due, or until the run has stalled, which is an error.
    pub(super) fn patience(&mut self, now_ns: u64, stall: Duration) -> io::Result<Duration> {
        let stall_ns = u64::try_from(stall.as_nanos()).unwrap_or(u64::MAX);
        let mut until_ns = u64::MAX;
        if self.answered < self.begun {
            until_ns = self.moved_ns.saturating_add(stall_ns);
            if now_ns >= until_ns {
                let (begun, answered) = (self.begun, self.answered);
                return Err(io::Error::other(format!(
                    "stalled: {begun} calls begun, {answered} answered, none more within {stall:?}"
                )));
            }
        }
        if self.arrived < self.total
            && let Some(due_ns) = self.due.as_mut().and_then(|due| due.peek())
        {
            until_ns = until_ns.min(*due_ns);
        }
        Ok(Duration::from_nanos(until_ns.saturating_sub(now_ns)))
    }

    pub(super) fn outcome(self) -> io::Result<Outcome> {
        let after = self.cpu_ns()?;
        let before = self.cpu_before?;
        let cpu = Duration::from_nanos(after.0.saturating_sub(before.0));
        Ok(Outcome {
            calls: self.total - self.warm_up,
            errors: self.failed,
            took: Duration::from_nanos(self.moved_ns.saturating_sub(self.recorded_from_ns)),
            latency: self.latency,
            waited: self.waited,
            generator_late: Duration::from_nanos(self.late_ns),
            cpu: (!self.measured.is_empty()).then_some(cpu),
            generator_cpu: Duration::from_nanos(after.1.saturating_sub(before.1)),
        })
    }
}
