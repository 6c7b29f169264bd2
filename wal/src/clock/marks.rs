//! What was in the log at a trusted moment: the age of records whose own time proves none.

use std::sync::Arc;
use std::time::Duration;

use super::Timestamp;

/// Marks kept; the oldest goes, and what it stood for counts from the next.
const MARKS: usize = 8;
/// A mark that is so much later than a trusted time was wrong.
const WRONG_MS: u64 = 60_000;

/// Where the streams stood at the first trusted commit of a boot. What lies below was there by then, whatever time it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) at: Timestamp,
    /// Next offsets of streams, by id.
    pub(crate) next: Vec<(u8, u64)>,
}

/// Marks, oldest first. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks(Arc<Vec<Mark>>);

impl Marks {
    /// Whether the commit at `now` makes a mark: the first of its boot, or the first that shows an earlier one to be wrong.
    pub(crate) fn wants(&self, now: &Timestamp) -> bool {
        let is_wrong = |mark: &Mark| mark.at.wall_ms > now.wall_ms + WRONG_MS && mark.at.boot != now.boot;
        now.trusted && (self.0.last().is_none_or(|last| last.at.boot != now.boot) || self.0.iter().any(is_wrong))
    }

    /// Takes a mark; those that it shows to be wrong go.
    pub(crate) fn take(&mut self, mark: Mark) {
        let marks = Arc::make_mut(&mut self.0);
        marks.retain(|known| known.at.wall_ms <= mark.at.wall_ms + WRONG_MS && known.at.boot != mark.at.boot);
        if marks.len() >= MARKS {
            marks.remove(0);
        }
        marks.push(mark);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mark> {
        self.0.iter()
    }

    /// How old a record is, at least: by its own time, or since the first trusted moment at which it was there.
    pub(crate) fn age(&self, stream: u8, offset: u64, received: &Timestamp, now: &Timestamp) -> Option<Duration> {
        let lies_below = |mark: &&Mark| mark.next.iter().any(|(id, next)| *id == stream && offset < *next);
        let since = self.0.iter().find(lies_below).and_then(|mark| mark.at.age(now));
        received.age(now).max(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::BootId;

    const TRUTH: u64 = 1_796_083_200_000;
    const YEAR_2099: u64 = 4_070_908_800_000;

    fn at(boot: u128, wall_ms: u64, monotonic_ms: u64, trusted: bool) -> Timestamp {
        Timestamp {
            wall_ms,
            boot: BootId(boot),
            monotonic_ms,
            trusted,
        }
    }

    fn mark(boot: u128, wall_ms: u64, next: u64) -> Mark {
        Mark {
            at: at(boot, wall_ms, 10_000, true),
            next: vec![(0, next)],
        }
    }

    #[test]
    fn a_record_of_the_future_is_as_old_as_the_first_trusted_moment_that_saw_it() {
        let mut marks = Marks::default();
        let (future, unknown) = (at(1, YEAR_2099, 5_000, true), at(1, 5_000, 5_000, false));
        let later = at(2, TRUTH + 7_200_000, 7_210_000, true);
        assert_eq!(marks.age(0, 7, &future, &later), Some(Duration::ZERO));
        assert_eq!(marks.age(0, 7, &unknown, &later), None);
        assert!(marks.wants(&at(2, TRUTH, 10_000, true)) && !marks.wants(&at(2, TRUTH, 10_000, false)));
        marks.take(mark(2, TRUTH, 8));
        assert!(!marks.wants(&later), "one for each boot");
        for received in [future, unknown] {
            assert_eq!(marks.age(0, 7, &received, &later), Some(Duration::from_secs(7_200)));
            assert_eq!(marks.age(0, 8, &received, &later), received.age(&later), "it came after the mark");
            assert_eq!(marks.age(1, 7, &received, &later), received.age(&later), "another stream");
        }
        // A further boot does not begin anew.
        marks.take(mark(3, TRUTH + 7_200_000, 20));
        let third = at(3, TRUTH + 10_800_000, 3_610_000, true);
        assert_eq!(marks.age(0, 7, &unknown, &third), Some(Duration::from_secs(10_800)));
        // On an untrusted clock of another boot nothing is proved.
        assert_eq!(marks.age(0, 7, &unknown, &at(4, TRUTH, 1, false)), None);
        // What its own time proves to be older stays so.
        assert_eq!(
            marks.age(0, 7, &at(1, TRUTH - 1_000, 0, true), &later),
            Some(Duration::from_secs(7_201))
        );
    }

    #[test]
    fn a_mark_of_the_future_goes_and_there_are_never_more_than_eight() {
        let mut marks = Marks::default();
        marks.take(mark(1, YEAR_2099, 8));
        marks.take(mark(2, TRUTH, 9));
        assert_eq!(marks.iter().count(), 1);
        assert!(!marks.wants(&at(2, TRUTH, 20_000, true)));
        for boot in 3..40 {
            marks.take(mark(boot, TRUTH + boot as u64 * 1_000, 9 + boot as u64));
        }
        assert_eq!(marks.iter().count(), MARKS);
    }
}
