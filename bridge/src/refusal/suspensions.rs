//! Pairs of route and device that the cloud denies. Their records stay in the log; each pair is tried with its oldest
//! record once per interval. When eight devices of a route are denied within a minute, the whole route is suspended and
//! one of its pairs is tried for all. Time is passed in.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use forebay_wal::{StreamId, SuspensionKey};
use tokio::time::Instant;

const ROUTE_DEVICES: usize = 8;
const ROUTE_WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Suspensions {
    interval: Duration,
    pairs: HashMap<SuspensionKey, Pair>,
    denied: HashMap<RouteKey, VecDeque<(Instant, String)>>,
    routes: HashSet<RouteKey>,
    next: Option<Instant>,
}

type RouteKey = (StreamId, String);

#[derive(Debug)]
struct Pair {
    due: Instant,
    accepted: bool,
}

impl Suspensions {
    pub(crate) fn new(interval: Duration) -> Self {
        Self {
            interval,
            pairs: HashMap::new(),
            denied: HashMap::new(),
            routes: HashSet::new(),
            next: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    pub(crate) fn contains(&self, key: &SuspensionKey) -> bool {
        !self.pairs.is_empty() && self.pairs.contains_key(key)
    }

    pub(crate) fn route_is_suspended(&self, stream: StreamId, route: &str) -> bool {
        !self.routes.is_empty() && self.routes.contains(&(stream, route.to_owned()))
    }

    /// Takes over a pair that the log held before this start; it is tried at once, for restarts often follow a repair.
    pub(crate) fn restore(&mut self, key: SuspensionKey, now: Instant) {
        self.pairs.insert(key, Pair { due: now, accepted: false });
        self.reschedule();
    }

    /// The cloud denied the pair. Returns true if this suspended its whole route.
    pub(crate) fn deny(&mut self, key: &SuspensionKey, now: Instant) -> bool {
        self.add(key, now);
        let route = (key.stream, key.route.clone());
        let denied = self.denied.entry(route.clone()).or_default();
        denied.retain(|(at, identity)| now.duration_since(*at) < ROUTE_WINDOW && *identity != key.identity);
        denied.push_back((now, key.identity.clone()));
        if denied.len() > ROUTE_DEVICES {
            denied.pop_front();
        }
        let suspended = denied.len() >= ROUTE_DEVICES && self.routes.insert(route.clone());
        if suspended {
            self.probe_one_for_all(&route, now);
        }
        self.reschedule();
        suspended
    }

    /// Suspends a pair because its route is.
    pub(crate) fn add(&mut self, key: &SuspensionKey, now: Instant) {
        let due = now + self.interval;
        self.pairs
            .entry(key.clone())
            .and_modify(|pair| *pair = Pair { due, accepted: false })
            .or_insert(Pair { due, accepted: false });
        self.reschedule();
    }

    /// When the next pair is due.
    pub(crate) const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// The pair that is due the longest, and whether its last probe was accepted. It is due again after the interval.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(SuspensionKey, bool)> {
        if self.next.is_none_or(|next| next > now) {
            return None;
        }
        let (key, pair) = self.pairs.iter().min_by_key(|(_, pair)| pair.due)?;
        let (key, accepted) = (key.clone(), pair.accepted);
        self.postpone(&key, now + self.interval);
        let route = (key.stream, key.route.clone());
        if self.routes.contains(&route) {
            self.probe_one_for_all(&route, now);
        }
        self.reschedule();
        Some((key, accepted))
    }

    /// The pair is due at `at`.
    pub(crate) fn postpone(&mut self, key: &SuspensionKey, at: Instant) {
        if let Some(pair) = self.pairs.get_mut(key) {
            pair.due = at;
        }
        self.reschedule();
    }

    /// No pair is due before `at`: on 3.1.1 a probe may cost a connection.
    pub(crate) fn postpone_all(&mut self, at: Instant) {
        for pair in self.pairs.values_mut() {
            pair.due = pair.due.max(at);
        }
        self.reschedule();
    }

    /// The cloud took a record of the pair: the rest of it may follow, and its route is no longer suspended.
    pub(crate) fn accepted(&mut self, key: &SuspensionKey, now: Instant) {
        if let Some(pair) = self.pairs.get_mut(key) {
            pair.accepted = true;
        }
        let route = (key.stream, key.route.clone());
        self.denied.remove(&route);
        if self.routes.remove(&route) {
            for (_, pair) in self
                .pairs
                .iter_mut()
                .filter(|(other, _)| other.stream == key.stream && other.route == key.route)
            {
                pair.due = now;
            }
        }
        self.reschedule();
    }

    pub(crate) fn remove(&mut self, key: &SuspensionKey) {
        self.pairs.remove(key);
        self.reschedule();
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = &SuspensionKey> {
        self.pairs.keys()
    }

    pub(crate) fn routes(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().map(|(_, route)| route.as_str())
    }

    fn probe_one_for_all(&mut self, route: &RouteKey, now: Instant) {
        let due = now + self.interval;
        for (key, pair) in &mut self.pairs {
            if key.stream == route.0 && key.route == route.1 {
                pair.due = due;
            }
        }
    }

    fn reschedule(&mut self) {
        self.next = self.pairs.values().map(|pair| pair.due).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn key(identity: usize) -> SuspensionKey {
        SuspensionKey {
            stream: StreamId(0),
            route: "telemetry".to_owned(),
            identity: format!("d{identity}"),
        }
    }

    #[test]
    fn a_denied_pair_is_due_once_per_interval() {
        let start = Instant::now();
        let mut suspensions = Suspensions::new(MINUTE);
        assert!(!suspensions.deny(&key(1), start));
        assert!(suspensions.contains(&key(1)));
        assert_eq!(suspensions.take_due(start + MINUTE / 2), None);
        assert_eq!(suspensions.take_due(start + MINUTE), Some((key(1), false)));
        assert_eq!(suspensions.take_due(start + MINUTE), None);
        assert_eq!(suspensions.next(), Some(start + MINUTE * 2));
    }

    #[test]
    fn eight_devices_within_a_minute_suspend_the_route_and_one_probe_speaks_for_all() {
        let start = Instant::now();
        let mut suspensions = Suspensions::new(MINUTE);
        for device in 0..8 {
            let at = start + Duration::from_secs(device as u64);
            assert_eq!(suspensions.deny(&key(device), at), device == 7);
            assert!(!suspensions.deny(&key(device), at), "the same device counts once");
        }
        assert!(suspensions.route_is_suspended(StreamId(0), "telemetry"));
        let due = start + Duration::from_secs(7) + MINUTE;
        let (probed, _) = suspensions.take_due(due).unwrap();
        assert_eq!(suspensions.take_due(due), None, "one for all");
        suspensions.accepted(&probed, due);
        assert!(!suspensions.route_is_suspended(StreamId(0), "telemetry"));
        assert!(suspensions.take_due(due).is_some(), "now each for itself, at once");
    }

    #[test]
    fn eight_devices_over_a_longer_time_do_not() {
        let start = Instant::now();
        let mut suspensions = Suspensions::new(MINUTE);
        for device in 0..20 {
            assert!(!suspensions.deny(&key(device), start + Duration::from_secs(10) * device as u32));
        }
    }
}
