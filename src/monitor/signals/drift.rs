//! Drift of a value against a reference, by robust statistics: half of the differences may be nonsense.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Differences kept.
pub(super) const WINDOW: usize = 31;
/// Fewer say nothing.
const LEAST: usize = 15;
/// Standard errors that the median must lie beyond the limit.
const CERTAINTY: f64 = 3.0;
/// A normal distribution's standard deviation, from its median absolute deviation.
const SIGMA: f64 = 1.4826;
/// The median's standard error is this much larger than the mean's, sqrt(pi / 2).
const MEDIAN: f64 = 1.2533;

/// The newest differences between a value and its reference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Drift {
    differences: VecDeque<f64>,
    drifted: bool,
}

/// What the differences say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Estimate {
    /// Their median.
    pub(super) median: f64,
    /// Its standard error.
    pub(super) error: f64,
}

impl Drift {
    /// Takes the next difference; whether a drift of more than `limit` began with it.
    pub(super) fn take(&mut self, difference: f64, limit: f64) -> bool {
        if self.differences.len() == WINDOW {
            self.differences.pop_front();
        }
        self.differences.push_back(difference);
        let Some(estimate) = self.estimate() else { return false };
        let before = self.drifted;
        self.drifted = if before {
            estimate.median.abs() > limit
        } else {
            estimate.median.abs() - CERTAINTY * estimate.error > limit
        };
        self.drifted && !before
    }

    /// The median difference while it is too much.
    pub(super) fn drifted(&self) -> Option<f64> {
        self.drifted.then(|| self.estimate().map(|estimate| estimate.median)).flatten()
    }

    /// `None` if there are too few differences.
    pub(super) fn estimate(&self) -> Option<Estimate> {
        let mut sorted: Vec<f64> = self.differences.iter().copied().collect();
        if sorted.len() < LEAST {
            return None;
        }
        let median = middle(&mut sorted);
        let mut off: Vec<f64> = sorted.iter().map(|difference| (difference - median).abs()).collect();
        #[expect(clippy::cast_precision_loss, reason = "at most 31")]
        let error = MEDIAN * SIGMA * middle(&mut off) / (sorted.len() as f64).sqrt();
        Some(Estimate { median, error })
    }
}

/// Sorts, and gives the middle one.
fn middle(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 {
        values[half]
    } else {
        f64::midpoint(values[half - 1], values[half])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_nonsense_hides_nothing_and_makes_nothing() {
        let mut well = Drift::default();
        let mut drifted = Drift::default();
        for number in 0..100 {
            let noise = f64::from(number % 7) * 0.1 - 0.3;
            let nonsense = number % 3 == 0;
            assert!(!well.take(if nonsense { 500.0 } else { noise }, 1.0), "after {number}");
            drifted.take(if nonsense { -500.0 } else { 2.0 + noise }, 1.0);
        }
        assert_eq!(well.drifted(), None);
        let found = drifted.drifted().unwrap();
        assert!((1.6..=2.4).contains(&found), "{found}");
    }

    #[test]
    fn it_begins_once_and_ends_when_the_median_is_within() {
        let mut drift = Drift::default();
        let begun = (0..100).filter(|_| drift.take(1.5, 1.0)).count();
        assert_eq!(begun, 1);
        for _ in 0..WINDOW {
            assert!(!drift.take(0.2, 1.0));
        }
        assert_eq!(drift.drifted(), None);
    }

    #[test]
    fn few_differences_say_nothing() {
        let mut drift = Drift::default();
        for _ in 1..LEAST {
            assert!(!drift.take(100.0, 1.0));
        }
        assert!(drift.take(100.0, 1.0));
    }
}
