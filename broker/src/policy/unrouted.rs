//! Publishes that were allowed but match no route. Nothing else reports this fault, so they are listed with their nearest route.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::routes::Routes;

/// Bytes of a topic that are compared with the routes: the work grows with the square of the length.
const MAX_COMPARED: usize = 128;
/// Distinct topics kept; a new one replaces the rarest.
const MAX_TOPICS: usize = 64;

/// The unrouted topics seen most.
#[derive(Debug, Default)]
pub(crate) struct Unrouted(Mutex<HashMap<String, u64>>);

/// One unrouted topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnroutedTopic {
    /// The topic.
    pub topic: String,
    /// Publishes counted on it.
    pub count: u64,
    /// The nearest route's filter and the number of letters that differ, if one is near.
    pub nearest: Option<(String, usize)>,
}

impl Unrouted {
    /// Counts one publish; true the first time that the topic is seen.
    pub(crate) fn count(&self, topic: &str) -> bool {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = topics.get_mut(topic) {
            *count += 1;
            return false;
        }
        if topics.len() >= MAX_TOPICS
            && let Some(rarest) = topics.iter().min_by_key(|(_, count)| **count).map(|(topic, _)| topic.clone())
        {
            topics.remove(&rarest);
        }
        topics.insert(topic.to_owned(), 1);
        true
    }

    /// The topics, most frequent first, each with its nearest route.
    #[must_use]
    pub(crate) fn top(&self, limit: usize, routes: &Routes) -> Vec<UnroutedTopic> {
        let mut topics: Vec<_> = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(t, c)| (t.clone(), *c))
            .collect();
        topics.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        topics.truncate(limit);
        topics
            .into_iter()
            .map(|(topic, count)| UnroutedTopic {
                nearest: nearest(&topic, routes),
                topic,
                count,
            })
            .collect()
    }
}

/// The route whose filter is nearest to the topic, and the number of letters that differ, if that is at most a third of the topic.
/// A topic of more than 128 bytes is not compared.
#[must_use]
pub fn nearest(topic: &str, routes: &Routes) -> Option<(String, usize)> {
    if topic.len() > MAX_COMPARED {
        return None;
    }
    routes
        .iter()
        .map(|route| (route.from.as_str().to_owned(), distance_to_filter(topic, route.from.as_str())))
        .min_by_key(|(_, distance)| *distance)
        .filter(|(_, distance)| *distance <= topic.len().div_ceil(3))
}

/// Edit distance between a topic and the nearest topic that the filter matches.
fn distance_to_filter(topic: &str, filter: &str) -> usize {
    let topic: Vec<&str> = topic.split('/').collect();
    let filter: Vec<&str> = filter.split('/').collect();
    let mut total = 0;
    for (index, level) in filter.iter().enumerate() {
        match (*level, topic.get(index)) {
            ("#", _) => return total,
            ("+", Some(_)) => {}
            (_, Some(here)) => total += strsim::levenshtein(level, here),
            (_, None) => total += level.chars().count() + 1,
        }
    }
    total
        + topic
            .iter()
            .skip(filter.len())
            .map(|level| level.chars().count() + 1)
            .sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::super::routes::Route;
    use super::*;
    use forebay_topic::TopicFilter;

    #[test]
    fn a_mistyped_topic_names_the_route_one_letter_away() {
        let route = |filter: &str| Route {
            name: filter.to_owned(),
            from: TopicFilter::parse(filter).unwrap(),
            stream: None,
        };
        let routes = Routes::new(vec![route("devices/+/alarm"), route("devices/+/telemetry/#")]);
        let unrouted = Unrouted::default();
        assert!(unrouted.count("devices/d1/telemetri/env"));
        assert!(!unrouted.count("devices/d1/telemetri/env"));
        let top = unrouted.top(10, &routes);
        assert_eq!(top[0].count, 2);
        assert_eq!(top[0].nearest, Some(("devices/+/telemetry/#".to_owned(), 1)));
        assert_eq!(nearest("x", &routes), None);
    }

    #[test]
    fn a14_long_topics_are_compared_with_no_route() {
        let route = |number: usize| Route {
            name: number.to_string(),
            from: TopicFilter::parse(&format!("devices/+/{}/{number}", "route".repeat(20))).unwrap(),
            stream: None,
        };
        let routes = Routes::new((0..20).map(route).collect());
        let look_at = |bytes: usize| {
            let unrouted = Unrouted::default();
            for number in 0..MAX_TOPICS {
                unrouted.count(&format!("devices/d1/{}{number:02}", "x".repeat(bytes - 13)));
            }
            let began = std::time::Instant::now();
            assert_eq!(unrouted.top(usize::MAX, &routes).len(), MAX_TOPICS);
            began.elapsed()
        };
        let (longest, too_long) = (look_at(MAX_COMPARED), look_at(60_000));
        assert!(
            too_long < longest,
            "{too_long:?} for topics of 60 KB, {longest:?} for those that are compared"
        );
    }

    #[test]
    fn the_list_stays_bounded() {
        let unrouted = Unrouted::default();
        for number in 0..1000 {
            unrouted.count(&format!("t/{number}"));
        }
        assert_eq!(unrouted.top(usize::MAX, &Routes::default()).len(), MAX_TOPICS);
    }
}
