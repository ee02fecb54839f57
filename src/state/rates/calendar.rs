//! Counts that end with the day or the month, UTC: exact, in one word.
//!
//! The word holds the number of the period and what was counted in it. The first use in a later period begins at 0; a clock that goes back stands
//! still, so a day that has begun is never counted anew.

/// Bit 15 is always set and those below never, so that no word of a calendar is a window's blank head.
const MARK: u64 = 1 << 15;
const COUNT_SHIFT: u32 = 16;
const PERIOD_SHIFT: u32 = 48;

const DAY_MS: u64 = 86_400_000;
/// The last month that a word can hold is in the year 7431.
const LAST_PERIOD: u64 = u16::MAX as u64;

/// What ends with the period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calendar {
    Day,
    Month,
}

impl Calendar {
    /// The number of the period that `now_ms` is in.
    pub(super) fn period(self, now_ms: u64) -> u64 {
        let period = match self {
            Self::Day => now_ms / DAY_MS,
            Self::Month => month_of(now_ms),
        };
        period.min(LAST_PERIOD)
    }

    /// The first moment after the period.
    pub(super) fn end_ms(self, period: u64) -> u64 {
        match self {
            Self::Day => (period + 1) * DAY_MS,
            Self::Month => start_of_month(period + 1),
        }
    }
}

/// A word that says that `count` were counted in the period.
pub(super) fn word(period: u64, count: u64) -> u64 {
    period.min(LAST_PERIOD) << PERIOD_SHIFT | (count & u64::from(u32::MAX)) << COUNT_SHIFT | MARK
}

/// What was counted in the word's period, and which that is. Of any other word: nothing.
pub(super) fn read(word: u64) -> (u64, u64) {
    let is_one = word & (2 * MARK - 1) == MARK;
    if is_one { (word >> PERIOD_SHIFT, (word >> COUNT_SHIFT) & u64::from(u32::MAX)) } else { (0, 0) }
}

/// What counts in the period, or in a later one that has begun already: that, and the count.
pub(super) fn current(found: u64, period: u64) -> (u64, u64) {
    let (of, count) = read(found);
    if of >= period { (of, count) } else { (period, 0) }
}

/// Months since January 1970 of a moment (Gregorian, UTC).
fn month_of(at_ms: u64) -> u64 {
    // A month has 30.436875 days on average: at most one off, either way.
    let near = (at_ms / DAY_MS).saturating_mul(1_000_000) / 30_436_875;
    (near.saturating_sub(1)..=near + 1).rev().find(|month| start_of_month(*month) <= at_ms).unwrap_or(0)
}

/// The first moment of the month that is `month` months after January 1970.
fn start_of_month(month: u64) -> u64 {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let (year, month) = (1970 + month / 12, month % 12);
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    // The leap day of this year is over from March on.
    let leaps = leap_days(if month > 1 { year } else { year - 1 }) - leap_days(1969);
    let of_year = usize::try_from(month).ok().and_then(|month| BEFORE.get(month)).copied().unwrap_or(0);
    ((year - 1970) * 365 + leaps + of_year) * DAY_MS
}

#[cfg(test)]
mod tests {
    use super::super::super::window;
    use super::*;

    #[test]
    fn days_and_months_end_at_midnight_utc() {
        // (a moment, the end of its day, the end of its month), in seconds; from date(1).
        for (now_s, day_s, month_s) in [
            (0, 86_400, 2_678_400),
            (1_704_067_199, 1_704_067_200, 1_704_067_200),
            (1_704_067_200, 1_704_153_600, 1_706_745_600),
            (1_709_164_800, 1_709_251_200, 1_709_251_200),
            (1_795_000_000, 1_795_046_400, 1_796_083_200),
            (4_107_542_399, 4_107_542_400, 4_107_542_400),
        ] {
            for (calendar, end_s) in [(Calendar::Day, day_s), (Calendar::Month, month_s)] {
                assert_eq!(calendar.end_ms(calendar.period(now_s * 1_000)), end_s * 1_000, "{now_s} {calendar:?}");
            }
        }
    }

    #[test]
    fn every_month_of_four_centuries_begins_where_the_last_one_ends() {
        let mut start = 0;
        for month in 0..4_800 {
            let end = Calendar::Month.end_ms(month);
            assert!((28..=31).contains(&((end - start) / DAY_MS)), "{month}");
            assert_eq!((Calendar::Month.period(start), Calendar::Month.period(end - 1)), (month, month));
            start = end;
        }
        assert_eq!(start, 146_097 * DAY_MS, "400 years");
    }

    #[test]
    fn a_word_is_no_blank_head_whatever_it_counts() {
        for shift in 0..32 {
            let word = word(20_000, (1 << shift) | 4);
            assert_eq!(window::blank_of(word), None);
            assert_eq!(read(word), (20_000, (1 << shift) | 4));
        }
        assert_eq!(read(window::blank(7)), (0, 0));
        assert_eq!(read(0), (0, 0));
    }
}
