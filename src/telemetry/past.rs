//! The counters of a day ago: what happened since then is worth a sentence, what happened before was told for a day.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::figures::{Figures, Front, Log};

/// How far back it looks.
const DAY: Duration = Duration::from_secs(86_400);
/// How often counters are kept.
const APART: Duration = Duration::from_secs(900);

/// Counters at one moment; zero before the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    /// The device side's.
    pub(crate) front: Front,
    /// The log's.
    pub(crate) log: Log,
}

/// The counters of the last day.
#[derive(Debug, Default)]
pub(super) struct Past(VecDeque<(Instant, Arc<Counted>)>);

impl Past {
    /// Keeps the counters now and then; gives those of a day ago.
    pub(super) fn look(&mut self, now: Instant, figures: &Figures) -> Arc<Counted> {
        if self.0.back().is_none_or(|(last, _)| now.duration_since(*last) >= APART) {
            let counted = Counted {
                front: Front {
                    routes: vec![],
                    ..figures.front.clone()
                },
                log: Log {
                    streams: vec![],
                    unavailable: None,
                    ..figures.log.clone()
                },
            };
            self.0.push_back((now, Arc::new(counted)));
        }
        while self.0.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= DAY) {
            self.0.pop_front();
        }
        let oldest = self.0.front().filter(|(at, _)| now.duration_since(*at) >= DAY);
        oldest.map_or_else(Arc::default, |(_, counted)| Arc::clone(counted))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::figures;
    use super::*;

    #[test]
    fn what_was_counted_more_than_a_day_ago_is_past_and_little_is_kept() {
        let (start, mut past, mut figures) = (Instant::now(), Past::default(), figures());
        let mut at = |hour: u64, unrouted: u64| {
            figures.front.unrouted = unrouted;
            past.look(start + Duration::from_secs(hour * 3600), &figures).front.unrouted
        };
        assert_eq!(at(0, 7), 0, "since the start all counts");
        assert_eq!(at(23, 9), 0);
        assert_eq!(at(25, 9), 7);
        assert_eq!(at(48, 9), 9);
        for minute in 0..10_000 {
            past.look(start + Duration::from_secs(50 * 3600 + minute * 60), &figures);
        }
        assert!(past.0.len() <= 98, "{}", past.0.len());
    }
}
