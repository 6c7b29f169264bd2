//! What flows: rates over the last seconds, from samples of the counters.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How far back a rate of messages looks.
const FLOW: Duration = Duration::from_secs(10);
/// How far back the rate of bytes looks that autonomy is reckoned with.
const FILL: Duration = Duration::from_secs(60);
/// The least time between two samples.
const APART: Duration = Duration::from_millis(900);

/// The counters that rates are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Publishes accepted.
    pub(crate) accepted: u64,
    /// Records delivered.
    pub(crate) delivered: u64,
    /// Bytes committed.
    pub(crate) bytes: u64,
    /// Bytes that wait, a level.
    pub(crate) waiting: u64,
}

/// What flows at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Flow {
    /// Publishes accepted per second, over the last 10 s.
    pub(crate) accepted: f64,
    /// Records delivered per second, over the last 10 s.
    pub(crate) delivered: f64,
    /// Bytes committed per second, over the last minute.
    pub(crate) bytes: f64,
    /// What waits grows by these bytes per second, over the last minute; never negative.
    pub(crate) growth: f64,
}

/// The samples of the last minute.
#[derive(Debug, Default)]
pub(crate) struct Rates(VecDeque<(Instant, Totals)>);

impl Rates {
    /// Takes a sample, unless the last one is less than a second old.
    pub(crate) fn note(&mut self, now: Instant, totals: Totals) {
        if self.0.back().is_some_and(|(last, _)| now.duration_since(*last) < APART) {
            return;
        }
        self.0.push_back((now, totals));
        // One sample beyond the window stays, so that the window is covered whole.
        while self.0.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= FILL) {
            self.0.pop_front();
        }
    }

    /// The rates up to now; zero before there are two samples.
    #[must_use]
    pub(crate) fn flow(&self, now: Instant, totals: Totals) -> Flow {
        Flow {
            accepted: self.rate(now, FLOW, totals.accepted, |then| then.accepted),
            delivered: self.rate(now, FLOW, totals.delivered, |then| then.delivered),
            bytes: self.rate(now, FILL, totals.bytes, |then| then.bytes),
            growth: self.rate(now, FILL, totals.waiting, |then| then.waiting),
        }
    }

    fn rate(&self, now: Instant, window: Duration, value: u64, of: impl Fn(&Totals) -> u64) -> f64 {
        // The youngest sample that is as old as the window, else the oldest there is.
        let since = self
            .0
            .iter()
            .rev()
            .find(|(at, _)| now.duration_since(*at) >= window)
            .or_else(|| self.0.front());
        let Some((at, then)) = since else { return 0.0 };
        let seconds = now.duration_since(*at).as_secs_f64();
        if seconds < APART.as_secs_f64() {
            0.0
        } else {
            value.saturating_sub(of(then)) as f64 / seconds
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(n: u64) -> Totals {
        Totals {
            accepted: n,
            delivered: 2 * n,
            bytes: 100 * n,
            waiting: 7 * n,
        }
    }

    #[test]
    fn a_steady_flow_is_told_as_it_is() {
        let (start, mut rates) = (Instant::now(), Rates::default());
        for second in 0..300 {
            rates.note(start + Duration::from_secs(second), totals(40 * second));
        }
        let flow = rates.flow(start + Duration::from_secs(300), totals(40 * 300));
        assert_eq!(
            flow,
            Flow {
                accepted: 40.0,
                delivered: 80.0,
                bytes: 4000.0,
                growth: 280.0
            }
        );
        assert!(rates.0.len() <= 62, "{} samples", rates.0.len());
    }

    #[test]
    fn what_stopped_ten_seconds_ago_does_not_flow() {
        let (start, mut rates) = (Instant::now(), Rates::default());
        for second in 0..=30 {
            rates.note(start + Duration::from_secs(second), totals(second.min(20)));
        }
        assert_eq!(rates.flow(start + Duration::from_secs(30), totals(20)).accepted, 0.0);
    }

    #[test]
    fn one_sample_makes_no_rate() {
        let (start, mut rates) = (Instant::now(), Rates::default());
        rates.note(start, totals(5));
        assert_eq!(rates.flow(start, totals(500)), Flow::default());
    }
}
