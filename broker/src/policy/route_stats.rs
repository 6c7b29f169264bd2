//! How often each route has matched, and when last. A route that never matches is probably misspelt.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_wal::Timestamp;

use super::routes::{Route, Routes};

/// A count for each route, in their order.
#[derive(Debug)]
pub(crate) struct RouteStats(Box<[Matches]>);

#[derive(Debug, Default)]
struct Matches {
    count: AtomicU64,
    /// Milliseconds since boot.
    last: AtomicU64,
}

/// One route at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteStatus {
    /// Its name.
    pub name: String,
    /// Whether it leads to the cloud; if not, its publishes stay on the gateway on purpose.
    pub is_cloud: bool,
    /// Publishes accepted on it since start.
    pub matched: u64,
    /// How long ago the last one was; `None` if there was none.
    pub last: Option<Duration>,
}

impl RouteStats {
    pub(crate) fn new(routes: &Routes) -> Self {
        Self(routes.iter().map(|_| Matches::default()).collect())
    }

    /// Counts an accepted publish of the route with this index.
    pub(crate) fn note(&self, index: usize, now: &Timestamp) {
        if let Some(route) = self.0.get(index) {
            route.last.store(now.monotonic_ms, Ordering::Relaxed);
            route.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn status(&self, routes: &Routes, now: &Timestamp) -> Vec<RouteStatus> {
        let status = |(route, found): (&Route, &Matches)| {
            let matched = found.count.load(Ordering::Relaxed);
            let since = now.monotonic_ms.saturating_sub(found.last.load(Ordering::Relaxed));
            RouteStatus {
                name: route.name.clone(),
                is_cloud: route.stream.is_some(),
                matched,
                last: (matched > 0).then(|| Duration::from_millis(since)),
            }
        };
        routes.iter().zip(&self.0).map(status).collect()
    }
}

#[cfg(test)]
mod tests {
    use forebay_topic::TopicFilter;
    use forebay_wal::BootId;

    use super::*;

    #[test]
    fn only_the_route_that_matched_has_a_last_match() {
        let route = |from: &str| Route {
            name: from.to_owned(),
            from: TopicFilter::parse(from).unwrap(),
            stream: None,
        };
        let routes = Routes::new(vec![route("a"), route("b")]);
        let at = |monotonic_ms| Timestamp {
            wall_ms: 0,
            boot: BootId(1),
            monotonic_ms,
            trusted: false,
        };
        let stats = RouteStats::new(&routes);
        stats.note(1, &at(1000));
        stats.note(1, &at(3000));
        let status = stats.status(&routes, &at(7500));
        assert_eq!((status[0].matched, status[0].last), (0, None));
        assert_eq!((status[1].matched, status[1].last), (2, Some(Duration::from_millis(4500))));
    }
}
