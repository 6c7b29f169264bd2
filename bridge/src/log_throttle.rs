//! Keeps a line that repeats itself from filling the journal: once, then every minute with a count.

use std::time::Duration;

use tokio::time::Instant;

const EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct LogThrottle {
    last: Option<(String, Instant)>,
    unsaid: u64,
    in_a_row: u64,
}

impl LogThrottle {
    /// Takes note of a line; returns how often it came since it was last said, if it should be said now.
    pub(crate) fn note(&mut self, text: &str, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        match &mut self.last {
            Some((last, said)) if last == text => {
                self.in_a_row += 1;
                if now.duration_since(*said) < EVERY {
                    return None;
                }
                *said = now;
            }
            _ => {
                (self.unsaid, self.in_a_row) = (1, 1);
                self.last = Some((text.to_owned(), now));
            }
        }
        Some(std::mem::take(&mut self.unsaid))
    }

    /// How often the last line came in a row.
    pub(crate) const fn in_a_row(&self) -> u64 {
        self.in_a_row
    }

    /// It is over: the next line is said at once.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_error_is_said_once_and_then_each_minute_with_a_count() {
        let start = Instant::now();
        let mut throttle = LogThrottle::default();
        let said: Vec<_> = (0..125)
            .filter_map(|second| throttle.note("down", start + Duration::from_secs(second)))
            .collect();
        assert_eq!(said, [1, 60, 60]);
        assert_eq!(throttle.in_a_row(), 125);
        assert_eq!(throttle.note("other", start), Some(1));
        assert_eq!(throttle.note("other", start), None);
    }
}
