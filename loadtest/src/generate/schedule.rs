//! When calls are due.

/// What decides when the next call begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Schedule {
    /// Each place in flight begins a call when it has the answer to the one before: the load follows the target.
    Closed,
    /// Calls are due at times that do not depend on the target. What a call waits for a free connection is part of its latency, which is counted from
    /// the time it was due: a target that stalls is not asked less meanwhile (no coordinated omission).
    Open { calls_per_s: f64, arrivals: Arrivals },
}

/// How the calls of an open schedule are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrivals {
    /// All gaps are the same.
    Constant,
    /// Gaps are distributed exponentially, as those of many clients who know nothing of each other. The same seed gives the same gaps.
    Poisson { seed: u64 },
}

/// The times at which the calls of an open schedule are due, nanoseconds since the start, without end.
pub(crate) struct DueTimes {
    gap_ns: f64,
    arrivals: Arrivals,
    random: Random,
    /// How many were given.
    given: u64,
    last_ns: f64,
}

impl DueTimes {
    /// `None` for a rate that is no rate.
    pub(crate) fn new(calls_per_s: f64, arrivals: Arrivals) -> Option<Self> {
        let seed = match arrivals {
            Arrivals::Constant => 0,
            Arrivals::Poisson { seed } => seed,
        };
        let gap_ns = 1e9 / calls_per_s;
        let usable = gap_ns.is_finite() && gap_ns > 0.0;
        usable.then(|| Self { gap_ns, arrivals, random: Random::new(seed), given: 0, last_ns: 0.0 })
    }
}

impl Iterator for DueTimes {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.given += 1;
        self.last_ns = match self.arrivals {
            // Not a sum, whose rounding would add up.
            Arrivals::Constant => self.gap_ns * (self.given - 1) as f64,
            Arrivals::Poisson { .. } => self.last_ns + self.gap_ns * self.random.exponential(),
        };
        Some(self.last_ns as u64)
    }
}

/// Numbers that look random and are the same for the same seed: splitmix64.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// From 0 inclusive to 1 exclusive.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Above 0, 1 in the mean, distributed exponentially.
    pub(crate) fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(calls_per_s: f64, arrivals: Arrivals, count: usize) -> Vec<u64> {
        DueTimes::new(calls_per_s, arrivals).into_iter().flatten().take(count).collect()
    }

    #[test]
    fn constant_arrivals_do_not_drift() {
        let times = due(30_000.0, Arrivals::Constant, 3_000_001);
        assert_eq!(times.first(), Some(&0));
        assert_eq!(times.last(), Some(&100_000_000_000));
        assert!(times.windows(2).all(|two| matches!(two[1] - two[0], 33_333 | 33_334)));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_and_are_repeatable() {
        let times = due(10_000.0, Arrivals::Poisson { seed: 7 }, 100_000);
        assert_eq!(times, due(10_000.0, Arrivals::Poisson { seed: 7 }, 100_000));
        assert_ne!(times, due(10_000.0, Arrivals::Poisson { seed: 8 }, 100_000));
        let gaps: Vec<f64> = times.windows(2).map(|two| (two[1] - two[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!((mean - 100_000.0).abs() < 1_000.0, "{mean}");
        assert!((deviation - 100_000.0).abs() < 2_000.0, "an exponential deviates by its mean: {deviation}");
    }

    #[test]
    fn no_rate_is_no_schedule() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(DueTimes::new(rate, Arrivals::Constant).is_none(), "{rate}");
        }
    }
}
