//! When a process or connection may be started: exponential back-off after crashes, and a bucket that bounds how often clients can
//! have one started.

use std::time::{Duration, Instant};

use super::seam::SpawnFault;

/// Delay after the first crash.
const FIRST: Duration = Duration::from_millis(100);
/// Longest delay.
const LONGEST: Duration = Duration::from_secs(30);
/// An instance that lived this long has not crashed at its start: its end counts as a first crash.
const STABLE: Duration = Duration::from_secs(10);

/// The starts of one upstream.
#[derive(Debug)]
pub(super) struct Starts {
    failures: u32,
    not_before: Option<Instant>,
    fault: Option<SpawnFault>,
    burst: u32,
    tokens: u32,
    refill: Duration,
    refilled: Instant,
}

/// Why a process may not be started now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// It crashed, or could not be started.
    BackOff(Duration, Option<SpawnFault>),
    /// Too many starts of late.
    Paced,
}

impl Starts {
    /// Starts of at most `max_instances` at a time, one each `refill` on average.
    pub(super) fn new(max_instances: usize, refill: Duration, now: Instant) -> Self {
        let burst = u32::try_from(max_instances).unwrap_or(u32::MAX).clamp(1, 256) * 4;
        Self { failures: 0, not_before: None, fault: None, burst, tokens: burst, refill, refilled: now }
    }

    /// Whether a process may be started; takes a token if so.
    pub(super) fn ask(&mut self, now: Instant) -> Result<(), Wait> {
        if let Some(wait) = self.backing_off(now) {
            return Err(Wait::BackOff(wait, self.fault));
        }
        while self.tokens < self.burst && now.duration_since(self.refilled) >= self.refill {
            self.tokens += 1;
            self.refilled += self.refill;
        }
        if self.tokens == self.burst {
            self.refilled = now;
        }
        self.tokens = self.tokens.checked_sub(1).ok_or(Wait::Paced)?;
        Ok(())
    }

    /// Time until the next start, if one has to wait.
    pub(super) fn backing_off(&self, now: Instant) -> Option<Duration> {
        self.not_before.map(|at| at.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// The last start failed for this reason.
    pub(super) fn fault(&self) -> Option<SpawnFault> {
        self.fault
    }

    /// A process was started.
    pub(super) fn started(&mut self) {
        self.fault = None;
    }

    /// A process that lived for `age` ended, or (with `fault`) could not be started. `random` decides the jitter: half to the whole delay.
    pub(super) fn failed(&mut self, now: Instant, age: Duration, fault: Option<SpawnFault>, random: u32) -> Duration {
        if age >= STABLE {
            self.failures = 0;
        }
        let whole = FIRST.saturating_mul(1_u32 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let half = whole / 2;
        let wait = half + half.mul_f64(f64::from(random) / f64::from(u32::MAX));
        self.not_before = Some(now + wait);
        self.fault = fault;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFILL: Duration = Duration::from_secs(1);

    #[test]
    fn delays_double_up_to_the_longest_and_start_over_after_a_stable_run() {
        let now = Instant::now();
        let mut starts = Starts::new(4, REFILL, now);
        let mut last = Duration::ZERO;
        for _ in 0..12 {
            let wait = starts.failed(now, Duration::ZERO, None, u32::MAX);
            assert!(wait >= last && wait <= LONGEST);
            last = wait;
        }
        assert_eq!(last, LONGEST);
        assert_eq!(starts.failed(now, STABLE, None, 0), FIRST / 2);
        assert_eq!(starts.ask(now), Err(Wait::BackOff(FIRST / 2, None)));
        assert_eq!(starts.ask(now + FIRST), Ok(()));
    }

    #[test]
    fn starts_are_paced() {
        let now = Instant::now();
        let mut starts = Starts::new(1, REFILL, now);
        for _ in 0..4 {
            assert_eq!(starts.ask(now), Ok(()));
        }
        assert_eq!(starts.ask(now), Err(Wait::Paced));
        assert_eq!(starts.ask(now + REFILL), Ok(()));
        assert_eq!(starts.ask(now + REFILL), Err(Wait::Paced));
    }
}
