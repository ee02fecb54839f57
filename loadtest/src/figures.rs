//! The figures of several rounds: their median and their spread.

/// What the rounds have shown of one quantity.
#[derive(Clone, Default)]
pub(crate) struct Figures(Vec<f64>);

impl FromIterator<f64> for Figures {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

impl Figures {
    /// The middle one; of an even number the mean of the middle two. Not a number where there is none.
    pub(crate) fn median(&self) -> f64 {
        let at = |index: usize| self.0.get(index).copied().unwrap_or(f64::NAN);
        let half = self.0.len() / 2;
        if self.0.len() % 2 == 1 { at(half) } else { f64::midpoint(at(half.wrapping_sub(1)), at(half)) }
    }

    /// The lowest. Not a number where there is none.
    pub(crate) fn low(&self) -> f64 {
        self.0.first().copied().unwrap_or(f64::NAN)
    }

    /// The highest. Not a number where there is none.
    pub(crate) fn high(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }

    /// All of them, in ascending order.
    pub(crate) fn values(&self) -> &[f64] {
        &self.0
    }

    /// `median (min–max)`, with so many decimals.
    pub(crate) fn with_spread(&self, decimals: usize) -> String {
        format!("{:.decimals$} ({:.decimals$}–{:.decimals$})", self.median(), self.low(), self.high())
    }
}

#[cfg(test)]
mod tests {
    use super::Figures;

    #[test]
    fn the_median_is_the_middle_and_the_spread_the_ends() {
        let odd: Figures = [3.0, 1.0, 2.0].into_iter().collect();
        assert_eq!(odd.with_spread(1), "2.0 (1.0–3.0)");
        let even: Figures = [4.0, 1.0, 3.0, 2.0].into_iter().collect();
        assert_eq!(even.with_spread(2), "2.50 (1.00–4.00)");
        assert!(Figures::default().median().is_nan());
    }
}
