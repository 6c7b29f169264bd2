//! Subscriptions in the tree, and what a topic finds there.

use std::sync::Mutex;

use bytes::Bytes;

use super::*;
use crate::fanout::{Message, Origin};

/// Remembers the subscription ids that it was served under.
#[derive(Default)]
struct Served(Mutex<Vec<u32>>);

impl Recipient for Served {
    fn owe(&self, message: &Arc<Message>, subscriptions: &[SubscriptionOptions]) {
        self.deliver(message, subscriptions);
    }

    fn deliver(&self, _: &Message, subscriptions: &[SubscriptionOptions]) {
        let ids = subscriptions.iter().filter_map(|options| options.subscription_id);
        self.0.lock().unwrap().extend(ids);
    }
}

fn options(id: u32) -> SubscriptionOptions {
    SubscriptionOptions {
        qos: 0,
        no_local: false,
        retain_as_published: false,
        subscription_id: Some(id),
    }
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).unwrap()
}

fn message() -> Message {
    Message {
        topic: Bytes::new(),
        origin: Origin::UNKNOWN,
        qos: 0,
        retain: false,
        expiry: None,
        properties: Bytes::new(),
        payload: Bytes::new(),
    }
}

fn is_wanted(table: &Table, topic: &str) -> bool {
    table.matching(topic).len() > 0
}

const FILTERS: [&str; 16] = [
    "#", "+", "+/+", "/+", "a", "a/#", "a/b", "a/+", "a/b/#", "+/b", "a/+/c", "/", "$SYS/#", "$SYS/+", "a//c", "a/b/c",
];
const TOPICS: [&str; 13] = [
    "a", "a/b", "a/b/c", "b", "b/b", "/", "/a", "a/", "a//c", "$SYS", "$SYS/x", "$SYS/x/y", "a/b/c/d",
];

#[test]
fn a_topic_of_any_depth_is_matched_without_recursion() {
    let mut table = Table::default();
    let recipient: Arc<dyn Recipient> = Arc::new(Served::default());
    let deep = "a/".repeat(MAX_STEPS - 2);
    table.insert(&filter(&format!("{deep}#")), &recipient, options(1)).unwrap();
    assert!(is_wanted(&table, &deep));
}

#[test]
fn a3_levels_are_bounded_and_their_memory_is_given_back() {
    let mut table = Table::default();
    let recipient: Arc<dyn Recipient> = Arc::new(Served::default());
    let stays = table.insert(&filter("stays/#"), &recipient, options(0)).unwrap().unwrap();
    let mut places = Vec::new();
    for number in 0.. {
        let text = format!("{number}/{}", "a/".repeat(30));
        match table.insert(&filter(&text), &recipient, options(1)) {
            Ok(place) => places.extend(place),
            Err(TooManyFilters) => break,
        }
    }
    assert!(table.nodes.len() <= MAX_NODES && table.nodes.len() > MAX_NODES - 40);
    for place in places {
        assert!(table.remove(place, &recipient));
    }
    assert!(table.nodes.capacity() < MIN_FREE * 4, "{} nodes are kept", table.nodes.capacity());
    assert!(is_wanted(&table, "stays/here"));
    assert!(table.remove(stays, &recipient));
    assert!(!is_wanted(&table, "stays/here"));
}

#[test]
fn a_topic_finds_the_filters_that_match_it_one_by_one() {
    let served = Arc::new(Served::default());
    let recipient: Arc<dyn Recipient> = Arc::clone(&served) as _;
    let mut table = Table::default();
    for (id, text) in (1..).zip(FILTERS) {
        assert!(table.insert(&filter(text), &recipient, options(id)).unwrap().is_some());
    }
    for topic in TOPICS {
        let mut expected: Vec<u32> = (1..)
            .zip(FILTERS)
            .filter(|(_, text)| filter(text).matches(topic))
            .map(|(id, _)| id)
            .collect();
        table.matching(topic).deliver(&message());
        let mut found = std::mem::take(&mut *served.0.lock().unwrap());
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{topic}");
        assert_eq!(is_wanted(&table, topic), !expected.is_empty(), "{topic}");
    }
}

#[test]
fn what_is_unsubscribed_leaves_nothing_behind_and_takes_nothing_of_others() {
    let (one, other): (Arc<dyn Recipient>, Arc<dyn Recipient>) = (Arc::new(Served::default()), Arc::new(Served::default()));
    let mut table = Table::default();
    let mut places = Vec::new();
    for text in FILTERS {
        places.push(table.insert(&filter(text), &one, options(1)).unwrap().unwrap());
    }
    table.insert(&filter("a/b"), &other, options(2)).unwrap();
    for (place, text) in places.into_iter().zip(FILTERS) {
        assert_eq!(table.place(text), Some(place), "{text}");
        assert!(table.remove(place, &one), "{text}");
        assert!(!table.remove(place, &one), "{text}");
    }
    assert!(is_wanted(&table, "a/b") && !is_wanted(&table, "a/b/c") && !is_wanted(&table, "a"));
    let place = table.place("a/b").unwrap();
    assert!(table.remove(place, &other));
    assert_eq!(
        (table.edges.len(), table.levels.len(), table.filters, table.level_bytes),
        (0, 0, 0, 0)
    );
    assert_eq!(table.free.len() + 1, table.nodes.len());
    // And the nodes are used again.
    let nodes = table.nodes.len();
    for text in FILTERS {
        table.insert(&filter(text), &one, options(1)).unwrap();
    }
    assert_eq!(table.nodes.len(), nodes);
}

#[test]
fn the_nodes_of_the_tree_are_bounded_and_not_the_text_that_its_filters_share() {
    let recipient: Arc<dyn Recipient> = Arc::new(Served::default());
    let mut table = Table::default();
    let shared = "a-name-of-a-level-that-is-long/".repeat(25);
    // 16 MiB of text in all, and little of it different.
    for number in 0..MAX_FILTERS {
        table.insert(&filter(&format!("{shared}{number}")), &recipient, options(1)).unwrap();
    }
    assert!(table.level_bytes < 200_000 && table.nodes.len() < MAX_FILTERS + 30);
    assert_eq!(table.insert(&filter("one more"), &recipient, options(1)), Err(TooManyFilters));
}

#[test]
fn a_subscription_repeated_changes_its_options() {
    let served = Arc::new(Served::default());
    let recipient: Arc<dyn Recipient> = Arc::clone(&served) as _;
    let mut table = Table::default();
    assert!(table.insert(&filter("a"), &recipient, options(1)).unwrap().is_some());
    assert_eq!(table.insert(&filter("a"), &recipient, options(2)), Ok(None));
    table.matching("a").deliver(&message());
    assert_eq!(*served.0.lock().unwrap(), [2]);
}

#[test]
fn filters_are_bounded_in_number_and_bytes_and_places_come_back() {
    let recipient: Arc<dyn Recipient> = Arc::new(Served::default());
    let mut table = Table::default();
    let long = |number: usize| filter(&format!("same/{number}{}", "x".repeat(60_000)));
    let fits = (0..)
        .find(|number| table.insert(&long(*number), &recipient, options(1)).is_err())
        .unwrap();
    // The names of levels count once.
    assert!(
        (MAX_LEVEL_BYTES - 60_000..=MAX_LEVEL_BYTES).contains(&table.level_bytes),
        "{fits}: {}",
        table.level_bytes
    );
    for number in 0..fits {
        let place = table.place(long(number).as_str()).unwrap();
        assert!(table.remove(place, &recipient));
    }
    for number in 0..MAX_FILTERS {
        table.insert(&filter(&number.to_string()), &recipient, options(1)).unwrap();
    }
    assert_eq!(table.insert(&filter("one more"), &recipient, options(1)), Err(TooManyFilters));
    // One that is there already costs nothing.
    let other: Arc<dyn Recipient> = Arc::new(Served::default());
    assert!(table.insert(&filter("7"), &other, options(1)).unwrap().is_some());
    let place = table.place("8").unwrap();
    assert!(table.remove(place, &recipient));
    assert!(table.insert(&filter("one more"), &recipient, options(1)).unwrap().is_some());
}

/// Every mixture of `+` and `a` in so many levels, with this last level.
fn mixtures(levels: u32, last: &str) -> impl Iterator<Item = String> {
    (0..1_u32 << levels).map(move |bits| {
        let level = |at: u32| if bits >> at & 1 == 1 { "+/" } else { "a/" };
        (0..levels).map(level).collect::<String>() + last
    })
}

#[test]
fn a2_a_search_ends_after_its_steps_and_says_so_whatever_the_filters() {
    for levels in 1..=13 {
        for (last, ends) in [("b", "b"), ("#", "b"), ("+", "b"), ("b", "c")] {
            let mut table = Table::default();
            let recipient: Arc<dyn Recipient> = Arc::new(Served::default());
            let filters = mixtures(levels, last).take_while(|text| table.insert(&filter(text), &recipient, options(1)).is_ok());
            let count = filters.count();
            let topic = "a/".repeat(levels as usize) + ends;
            let mut visited = 0;
            let is_cut = table.walk(&topic, &mut |_| visited += 1);
            // A step visits two nodes at most: itself, and `#` below it.
            assert!(visited <= 2 * MAX_STEPS);
            if levels <= 10 {
                assert!(!is_cut, "{count} filters of {levels} levels");
            }
            assert_eq!(is_cut, table.matching(&topic).is_cut());
            if levels == 13 {
                assert!(is_cut);
            }
        }
    }
}

#[test]
fn a2_a_subscriber_is_found_once_with_all_of_its_subscriptions() {
    let served: [Arc<Served>; 3] = std::array::from_fn(|_| Arc::default());
    let mut table = Table::default();
    for (number, subscriber) in (1..).zip(&served) {
        let recipient: Arc<dyn Recipient> = Arc::clone(subscriber) as _;
        for (id, text) in (1..).zip(mixtures(number, "b")) {
            table.insert(&filter(&text), &recipient, options(id)).unwrap();
        }
        table.insert(&filter("#"), &recipient, options(100)).unwrap();
    }
    let matches = table.matching("a/a/b");
    assert_eq!(matches.len(), 3);
    matches.deliver(&message());
    let ids: Vec<_> = served
        .iter()
        .map(|subscriber| {
            let mut ids = subscriber.0.lock().unwrap().clone();
            ids.sort_unstable();
            ids
        })
        .collect();
    assert_eq!(ids, [vec![100], vec![1, 2, 3, 4, 100], vec![100]]);
}
