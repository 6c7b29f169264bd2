//! The subscriptions: a tree of filter levels, so that a topic finds its subscribers in as many steps as it has levels.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use forebay_topic::TopicFilter;

use super::matches::{Matches, Recipient};
use crate::limits::MAX_FILTERS;
use crate::session::SubscriptionOptions;

/// Bytes of the texts of their levels, each once.
const MAX_LEVEL_BYTES: usize = 4 << 20;
/// Nodes of the tree: what a filter takes of memory, and a topic of time, grows with its levels.
const MAX_NODES: usize = 60_000;
/// Nodes that the search for one topic looks at. Most topics look at some ten; filters with `+` in each of twelve levels and all
/// mixtures of them make more. What was found until then counts.
pub(super) const MAX_STEPS: usize = 4096;
/// Free nodes at the end of the tree at which their memory is given back.
const MIN_FREE: usize = 256;

/// A filter's node in the tree, valid while the filter has a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(u32);

/// The bound of distinct filters is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{MAX_FILTERS} distinct filters, {MAX_NODES} nodes of their tree or {MAX_LEVEL_BYTES} bytes of its levels' names are subscribed already; look for a client that invents filters"
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
    level_bytes: usize,
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
            level_bytes: 0,
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
        let is_known = self
            .find(filter.as_str())
            .is_some_and(|node| !self.node(node).subscriptions.is_empty());
        if !is_known && !self.has_room(filter) {
            return Err(TooManyFilters);
        }
        let place = filter.as_str().split('/').fold(ROOT, |node, level| self.below_or_new(node, level));
        self.filters += usize::from(!is_known);
        let node = self.node_mut(place);
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

    /// Whether there is a filter with this first level.
    pub(super) fn has_first_level(&self, level: &str) -> bool {
        self.below(ROOT, level).is_some()
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
            self.prune(place);
        }
        true
    }

    /// Those who subscribed to this topic, each once, with all of their subscriptions that match.
    pub(super) fn matching(&self, topic: &str) -> Matches {
        let mut found = Vec::new();
        let is_cut = self.walk(topic, &mut |node| {
            found.extend(node.subscriptions.iter().map(|known| (&known.recipient, known.options)));
        });
        Matches::new(found, is_cut)
    }

    /// Visits the nodes whose filters match; true if there were more than [`MAX_STEPS`] to look at. Each node of the tree is looked
    /// at once at most. It does not recurse: how deep a topic is, its publisher decides.
    fn walk<'a>(&'a self, topic: &str, visit: &mut dyn FnMut(&'a Node)) -> bool {
        let number = |level: &str| self.levels.get(level).map(|level| level.number);
        let below = |node: u32, level: Option<u32>| level.and_then(|level| self.edges.get(&(node, level)).copied());
        let (tail, any) = (number("#"), number("+"));
        let levels: Vec<_> = topic.split('/').map(number).collect();
        // Wildcards in the first level do not match what begins with `$` (MQTT-4.7.2-1).
        let mut is_hidden = topic.starts_with('$');
        let mut open = vec![(ROOT, 0)];
        let mut steps = 0;
        while let Some((node, depth)) = open.pop() {
            steps += 1;
            if steps > MAX_STEPS {
                return true;
            }
            // `#` matches the level above it, too (MQTT-4.7.1-2).
            if !is_hidden && let Some(tail) = below(node, tail) {
                visit(self.node(tail));
            }
            let Some(level) = levels.get(depth) else {
                visit(self.node(node));
                continue;
            };
            if !is_hidden && let Some(any) = below(node, any) {
                open.push((any, depth + 1));
            }
            if let Some(same) = below(node, *level) {
                open.push((same, depth + 1));
            }
            is_hidden = false;
        }
        false
    }

    /// Whether there is room for a filter: for the nodes that it adds, and for the names of their levels.
    fn has_room(&self, filter: &TopicFilter) -> bool {
        let (mut nodes, mut bytes) = (0, 0);
        let mut above = Some(ROOT);
        for level in filter.as_str().split('/') {
            above = above.and_then(|node| self.below(node, level));
            if above.is_none() {
                nodes += 1;
                bytes += if self.levels.contains_key(level) { 0 } else { level.len() };
            }
        }
        let taken = self.nodes.len() - self.free.len();
        self.filters < MAX_FILTERS && taken + nodes <= MAX_NODES && self.level_bytes + bytes <= MAX_LEVEL_BYTES
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
                self.level_bytes += text.len();
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
                    self.level_bytes -= text.len();
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
mod tests;
