//! The subscriptions: a tree of filter levels, so that a topic finds its subscribers in as many steps as it has levels.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use forebay_topic::TopicFilter;

use super::Message;
use crate::limits::MAX_FILTERS;
use crate::session::SubscriptionOptions;

/// Bytes of their texts.
const MAX_FILTER_BYTES: usize = 4 << 20;
/// Nodes of the tree: what a filter takes of memory, and a topic of time, grows with its levels.
const MAX_NODES: usize = 60_000;
/// Free nodes at the end of the tree at which their memory is given back.
const MIN_FREE: usize = 256;

/// Receives messages. It never blocks: it drops and counts what it cannot take.
pub(crate) trait Recipient: Send + Sync {
    /// Takes a message that one of its subscriptions, with these options, matched.
    fn deliver(&self, message: &Message, options: &SubscriptionOptions);
}

/// A filter's node in the tree, valid while the filter has a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(u32);

/// The bound of distinct filters is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{MAX_FILTERS} distinct filters, {MAX_FILTER_BYTES} bytes or {MAX_NODES} levels of them are subscribed already; look for a client that invents filters"
)]
pub(crate) struct TooManyFilters;

/// All subscriptions of all sessions that are connected.
pub(super) struct Table {
    /// The first is the root.
    nodes: Vec<Node>,
    /// Indices of removed nodes.
    free: Vec<u32>,
    /// A node and a level's number to the node below.
    edges: HashMap<(u32, u32), u32>,
    /// Each level's text once: `devices` is in every filter.
    levels: HashMap<Arc<str>, Level>,
    free_levels: Vec<u32>,
    filters: usize,
    filter_bytes: usize,
}

struct Level {
    number: u32,
    edges: u32,
}

#[derive(Default)]
struct Node {
    /// The edge to this node, to be removed with it.
    above: u32,
    level: Option<Arc<str>>,
    below: u32,
    subscriptions: Vec<Subscription>,
    filter_bytes: usize,
}

struct Subscription {
    recipient: Arc<dyn Recipient>,
    options: SubscriptionOptions,
}

const ROOT: u32 = 0;

impl Default for Table {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            free: Vec::new(),
            edges: HashMap::new(),
            levels: HashMap::new(),
            free_levels: Vec::new(),
            filters: 0,
            filter_bytes: 0,
        }
    }
}

impl Table {
    /// Subscribes, or changes the options of a subscription that exists (MQTT-3.8.4-3): then there is no new node.
    ///
    /// # Errors
    /// There are too many filters; nothing is changed.
    pub(super) fn insert(
        &mut self,
        filter: &TopicFilter,
        recipient: &Arc<dyn Recipient>,
        options: SubscriptionOptions,
    ) -> Result<Option<NodeId>, TooManyFilters> {
        let bytes = filter.as_str().len();
        let is_known = self
            .find(filter.as_str())
            .is_some_and(|node| !self.node(node).subscriptions.is_empty());
        let levels = filter.as_str().split('/').count();
        let nodes = self.nodes.len() - self.free.len();
        let has_room = self.filters < MAX_FILTERS && self.filter_bytes + bytes <= MAX_FILTER_BYTES && nodes + levels <= MAX_NODES;
        if !is_known && !has_room {
            return Err(TooManyFilters);
        }
        let place = filter.as_str().split('/').fold(ROOT, |node, level| self.below_or_new(node, level));
        if !is_known {
            self.filters += 1;
            self.filter_bytes += bytes;
        }
        let node = self.node_mut(place);
        node.filter_bytes = bytes;
        match node.subscriptions.iter_mut().find(|known| Arc::ptr_eq(&known.recipient, recipient)) {
            Some(known) => {
                known.options = options;
                Ok(None)
            }
            None => {
                // Most filters have one subscriber.
                node.subscriptions.reserve_exact(1);
                node.subscriptions.push(Subscription {
                    recipient: Arc::clone(recipient),
                    options,
                });
                Ok(Some(NodeId(place)))
            }
        }
    }

    /// The node of this filter, if it has a subscription.
    pub(super) fn place(&self, filter: &str) -> Option<NodeId> {
        self.find(filter).map(NodeId)
    }

    /// Ends the recipient's subscription at this node; false if there is none.
    pub(super) fn remove(&mut self, NodeId(place): NodeId, recipient: &Arc<dyn Recipient>) -> bool {
        let Some(node) = self.nodes.get_mut(place as usize) else {
            return false;
        };
        let Some(at) = node.subscriptions.iter().position(|known| Arc::ptr_eq(&known.recipient, recipient)) else {
            return false;
        };
        node.subscriptions.swap_remove(at);
        if node.subscriptions.is_empty() {
            node.subscriptions = Vec::new();
            self.filters -= 1;
            self.filter_bytes -= node.filter_bytes;
            self.prune(place);
        }
        true
    }

    /// Whether a subscription matches this topic.
    pub(super) fn is_wanted(&self, topic: &str) -> bool {
        let mut is_wanted = false;
        self.walk(topic, &mut |_| {
            is_wanted = true;
            false
        });
        is_wanted
    }

    /// Delivers the message to every recipient with a matching subscription, once for each of their subscriptions that match (MQTT-3.3.4-2 allows it).
    pub(super) fn deliver(&self, topic: &str, message: &Message) {
        self.walk(topic, &mut |node| {
            for subscription in &node.subscriptions {
                subscription.recipient.deliver(message, &subscription.options);
            }
            true
        });
    }

    /// Visits the nodes whose filters match and have subscribers, until `visit` returns false. Each node of the tree is looked
    /// at once at most. It does not recurse: how deep a topic is, its publisher decides.
    fn walk(&self, topic: &str, visit: &mut dyn FnMut(&Node) -> bool) {
        let mut shown = |place: u32| {
            let node = self.node(place);
            node.subscriptions.is_empty() || visit(node)
        };
        // Wildcards in the first level do not match what begins with `$` (MQTT-4.7.2-1).
        let mut is_hidden = topic.starts_with('$');
        let mut open = vec![(ROOT, Some(topic))];
        while let Some((node, rest)) = open.pop() {
            // `#` matches the level above it, too (MQTT-4.7.1-2).
            if !is_hidden
                && let Some(tail) = self.below(node, "#")
                && !shown(tail)
            {
                return;
            }
            let Some(rest) = rest else {
                if shown(node) {
                    continue;
                }
                return;
            };
            let (level, rest) = match rest.split_once('/') {
                Some((level, rest)) => (level, Some(rest)),
                None => (rest, None),
            };
            if !is_hidden && let Some(plus) = self.below(node, "+") {
                open.push((plus, rest));
            }
            if let Some(same) = self.below(node, level) {
                open.push((same, rest));
            }
            is_hidden = false;
        }
    }

    fn find(&self, filter: &str) -> Option<u32> {
        filter.split('/').try_fold(ROOT, |node, level| self.below(node, level))
    }

    fn below(&self, node: u32, level: &str) -> Option<u32> {
        let level = self.levels.get(level)?.number;
        self.edges.get(&(node, level)).copied()
    }

    fn below_or_new(&mut self, node: u32, level: &str) -> u32 {
        let new_number = self.free_levels.last().copied().unwrap_or(self.levels.len() as u32);
        let text = self
            .levels
            .get_key_value(level)
            .map_or_else(|| Arc::from(level), |(text, _)| Arc::clone(text));
        let known = match self.levels.entry(Arc::clone(&text)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                self.free_levels.pop();
                place.insert(Level {
                    number: new_number,
                    edges: 0,
                })
            }
        };
        match self.edges.entry((node, known.number)) {
            Entry::Occupied(below) => *below.get(),
            Entry::Vacant(place) => {
                known.edges += 1;
                let new = Node {
                    above: node,
                    level: Some(text),
                    ..Node::default()
                };
                let number = match self.free.pop() {
                    Some(number) => {
                        self.nodes[number as usize] = new;
                        number
                    }
                    None => {
                        self.nodes.push(new);
                        self.nodes.len() as u32 - 1
                    }
                };
                place.insert(number);
                self.nodes[node as usize].below += 1;
                number
            }
        }
    }

    /// Removes the node, and those above it that have neither subscriptions nor other nodes.
    fn prune(&mut self, mut place: u32) {
        while place != ROOT {
            let node = self.node_mut(place);
            if !node.subscriptions.is_empty() || node.below > 0 {
                return;
            }
            let node = std::mem::take(node);
            self.free.push(place);
            if let Some(text) = node.level
                && let Some(level) = self.levels.get_mut(&text)
            {
                self.edges.remove(&(node.above, level.number));
                level.edges -= 1;
                if level.edges == 0 {
                    self.free_levels.push(level.number);
                    self.levels.remove(&text);
                }
            }
            place = node.above;
            self.node_mut(place).below -= 1;
        }
        let at_end = self.nodes.iter().rev().take(MIN_FREE).take_while(|node| node.level.is_none());
        if at_end.count() == MIN_FREE {
            self.give_back();
        }
    }

    /// Gives back the memory of free nodes at the end. Those between are used again.
    fn give_back(&mut self) {
        let used = self.nodes.iter().rposition(|node| node.level.is_some()).map_or(1, |last| last + 1);
        self.nodes.truncate(used);
        self.free.retain(|place| (*place as usize) < used);
        self.nodes.shrink_to_fit();
        self.free.shrink_to_fit();
        self.edges.shrink_to_fit();
        self.levels.shrink_to_fit();
        self.free_levels.shrink_to_fit();
    }

    fn node(&self, place: u32) -> &Node {
        &self.nodes[place as usize]
    }

    fn node_mut(&mut self, place: u32) -> &mut Node {
        &mut self.nodes[place as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;

    use super::*;

    /// Remembers the subscription ids that it was served under.
    #[derive(Default)]
    struct Served(Mutex<Vec<u32>>);

    impl Recipient for Served {
        fn deliver(&self, _: &Message, options: &SubscriptionOptions) {
            self.0.lock().unwrap().extend(options.subscription_id);
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
            publisher: Bytes::new(),
            qos: 0,
            retain: false,
            expiry: None,
            properties: Bytes::new(),
            payload: Bytes::new(),
        }
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
        let deep = "a/".repeat(30_000);
        table.insert(&filter(&format!("{deep}#")), &recipient, options(1)).unwrap();
        assert!(table.is_wanted(&deep));
    }

    #[test]
    fn levels_are_bounded_and_their_memory_is_given_back() {
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
        assert!(table.is_wanted("stays/here"));
        assert!(table.remove(stays, &recipient));
        assert!(!table.is_wanted("stays/here"));
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
            table.deliver(topic, &message());
            let mut found = std::mem::take(&mut *served.0.lock().unwrap());
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{topic}");
            assert_eq!(table.is_wanted(topic), !expected.is_empty(), "{topic}");
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
        assert!(table.is_wanted("a/b") && !table.is_wanted("a/b/c") && !table.is_wanted("a"));
        let place = table.place("a/b").unwrap();
        assert!(table.remove(place, &other));
        assert_eq!(
            (table.edges.len(), table.levels.len(), table.filters, table.filter_bytes),
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
    fn a_subscription_repeated_changes_its_options() {
        let served = Arc::new(Served::default());
        let recipient: Arc<dyn Recipient> = Arc::clone(&served) as _;
        let mut table = Table::default();
        assert!(table.insert(&filter("a"), &recipient, options(1)).unwrap().is_some());
        assert_eq!(table.insert(&filter("a"), &recipient, options(2)), Ok(None));
        table.deliver("a", &message());
        assert_eq!(*served.0.lock().unwrap(), [2]);
    }

    #[test]
    fn filters_are_bounded_in_number_and_bytes_and_places_come_back() {
        let recipient: Arc<dyn Recipient> = Arc::new(Served::default());
        let mut table = Table::default();
        let long = |number: usize| filter(&format!("{number}/{}", "x".repeat(60_000)));
        let fits = (0..)
            .find(|number| table.insert(&long(*number), &recipient, options(1)).is_err())
            .unwrap();
        assert_eq!(fits, MAX_FILTER_BYTES / 60_002);
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
}
