//! One measured value of one series: out of its range, stuck, adrift.

use serde::{Deserialize, Serialize};

use super::Ms;
use super::drift::Drift;

/// The same value this often in a row is stuck, unless longer runs were seen before.
const STUCK: u32 = 120;
/// How much longer than any earlier run one must be.
const LONGER: u32 = 4;

/// What a field has shown so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Field {
    last: Option<f64>,
    /// How often the last value came in a row.
    run: u32,
    /// The longest run of an earlier value.
    longest: u32,
    /// Since when the last value is the same.
    pub(super) since: Ms,
    /// Whether the last value is out of its range.
    is_out: bool,
    pub(super) drift: Drift,
    /// When a difference to the reference was last taken; `None` if never.
    pub(super) paired: Option<Ms>,
    /// When the first value came without a reference since then; `None` if the reference comes.
    pub(super) blind_since: Option<Ms>,
}

/// What one value says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// It is out of its range.
    pub(super) out_of_range: bool,
    /// With it the value became stuck.
    pub(super) stuck: bool,
}

impl Field {
    /// Takes the next value.
    pub(super) fn take(&mut self, value: f64, range: Option<(f64, f64)>, now: Ms) -> Said {
        let limit = self.limit();
        // A stuck sensor repeats the very same number.
        let same = self.last == Some(value);
        if same {
            self.run = self.run.saturating_add(1);
        } else {
            // A run that was told as stuck is learnt up to where it was told.
            self.longest = self.longest.max(self.run.min(limit));
            (self.run, self.since) = (1, now);
        }
        self.last = Some(value);
        self.is_out = range.is_some_and(|(lowest, highest)| value < lowest || value > highest);
        Said {
            out_of_range: self.is_out,
            stuck: same && self.run == self.limit(),
        }
    }

    /// The value, if it is out of its range.
    pub(super) fn out_of_range(&self) -> Option<f64> {
        self.last.filter(|_| self.is_out)
    }

    /// The value, if it is stuck.
    pub(super) fn stuck(&self) -> Option<f64> {
        self.last.filter(|_| self.run >= self.limit())
    }

    fn limit(&self) -> u32 {
        STUCK.max(self.longest.saturating_mul(LONGER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(field: &mut Field, value: f64, times: u32) -> usize {
        (0..times).filter(|_| field.take(value, None, 0).stuck).count()
    }

    #[test]
    fn a_value_that_never_changes_is_stuck_once() {
        let mut field = Field::default();
        assert_eq!(feed(&mut field, 21.5, STUCK - 1), 0);
        assert_eq!(field.stuck(), None);
        assert_eq!(feed(&mut field, 21.5, 5000), 1);
        assert_eq!(field.stuck(), Some(21.5));
        feed(&mut field, 21.6, 1);
        assert_eq!(field.stuck(), None);
    }

    #[test]
    fn a_coarse_sensor_is_learnt() {
        let mut field = Field::default();
        for _ in 0..20 {
            assert_eq!(feed(&mut field, 20.0, 100) + feed(&mut field, 20.5, 100), 0);
        }
        assert_eq!(feed(&mut field, 20.0, 399), 0);
        assert_eq!(feed(&mut field, 20.0, 1), 1);
    }

    #[test]
    fn the_bounds_themselves_are_within() {
        let mut field = Field::default();
        let range = Some((-40.0, 85.0));
        for (value, out) in [(-40.0, false), (85.0, false), (85.1, true), (-40.1, true), (0.0, false)] {
            assert_eq!(field.take(value, range, 0).out_of_range, out, "{value}");
            assert_eq!(field.out_of_range(), out.then_some(value));
        }
    }
}
