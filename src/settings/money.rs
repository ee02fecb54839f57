//! Amounts of money as people read them. They are whole micro-dollars everywhere; nothing here is a float.

use std::fmt;

/// Micro-dollars, shown as dollars: `0.0079`, `10.00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usd(pub u64);

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dollars, micros) = (self.0 / 1_000_000, self.0 % 1_000_000);
        // As many decimals as it takes, and no fewer than cents have.
        let (mut fraction, mut width) = (micros, 6);
        while width > 2 && fraction % 10 == 0 {
            (fraction, width) = (fraction / 10, width - 1);
        }
        write!(f, "{dollars}.{fraction:0width$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::table::microusd;

    #[test]
    fn an_amount_reads_as_what_it_is() {
        for (micros, text) in [
            (0, "0.00"),
            (7_900, "0.0079"),
            (1, "0.000001"),
            (10_000_000, "10.00"),
            (9_984_200, "9.9842"),
            (500_000, "0.50"),
            (1_000_000_000_000_000, "1000000000.00"),
        ] {
            assert_eq!(Usd(micros).to_string(), text);
            assert_eq!(microusd(text), Ok(micros));
        }
    }
}
