//! Figures as people read them.

use std::fmt;

/// The median of some runs, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The lowest.
    pub low: f64,
    /// Half are lower.
    pub median: f64,
    /// The highest.
    pub high: f64,
}

impl Spread {
    /// Of these values; not a number where there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (Some(&low), Some(&high)) = (values.first(), values.last()) else {
            return Spread {
                low: f64::NAN,
                median: f64::NAN,
                high: f64::NAN,
            };
        };
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        Spread { low, median, high }
    }
}

/// `0.62 (0.60-0.65)`; a single run has no spread.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.median.is_nan() {
            return f.write_str("-");
        }
        write!(f, "{:.2}", self.median)?;
        if self.low < self.high {
            write!(f, " ({:.2}-{:.2})", self.low, self.high)?;
        }
        Ok(())
    }
}

/// What came of a goal.
pub fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}

/// `53 k` or `812`.
pub fn thousands(rate: f64) -> String {
    if rate >= 10_000.0 {
        format!("{:.0} k", rate / 1000.0)
    } else {
        format!("{rate:.0}")
    }
}

/// Microseconds as `812 us` or `1.4 ms`.
pub fn micros(value: f64) -> String {
    if value >= 1000.0 {
        format!("{:.1} ms", value / 1000.0)
    } else {
        format!("{value:.0} us")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).to_string(), "2.00 (1.00-3.00)");
        assert_eq!(Spread::of([1.0, 2.0]).median, 1.5);
        assert_eq!(Spread::of([0.5]).to_string(), "0.50");
        assert_eq!(Spread::of([]).to_string(), "-");
    }
}
