//! Who can reach what: the gateway's own access rules, tried with the identities that its listeners can give.

use forebay_broker::glob;
use forebay_topic::{Captures, Template, TopicFilter, Values};

use crate::config::{Config, Identity, Listener};

/// The number of the rule that decides for an identity.
pub(super) fn deciding(config: &Config, identity: &str) -> Option<usize> {
    config.access.iter().position(|rule| glob(&rule.who, identity))
}

/// A rule's filter for an identity.
pub(super) fn filled(config: &Config, template: &Template, identity: &str) -> Option<TopicFilter> {
    let captures = Captures::default();
    let values = Values {
        gateway: config.gateway.id.as_str(),
        device: identity,
        topic: "",
        captures: &captures,
    };
    TopicFilter::parse(&template.render(&values)).ok()
}

/// The fixed words that listeners give.
pub(super) fn words(config: &Config) -> Vec<&str> {
    fn word(listener: &Listener) -> Option<&str> {
        match &listener.identity {
            Identity::Fixed(word) => Some(word),
            _ => None,
        }
    }
    config.listeners.iter().filter_map(word).collect()
}

/// Whether some listener takes devices with names of their own.
pub(super) fn takes_devices(config: &Config) -> bool {
    config
        .listeners
        .iter()
        .any(|listener| !matches!(listener.identity, Identity::Fixed(_)))
}

/// Names that devices could have so that rule `rule` decides for them, `literals` first.
pub(super) fn devices_of(config: &Config, rule: usize, literals: &[&str]) -> Vec<String> {
    let Some(who) = config.access.get(rule).map(|rule| rule.who.as_str()) else {
        return Vec::new();
    };
    let generic = ["device", "board-1", "x7", ""]
        .into_iter()
        .map(|stem| who.replace('*', stem).replace('?', "x"));
    literals
        .iter()
        .map(|literal| (*literal).to_owned())
        .chain(generic)
        .filter(|name| !name.is_empty() && deciding(config, name) == Some(rule) && !words(config).contains(&name.as_str()))
        .collect()
}

/// The topics that match both filters, as a filter; none if there are none.
pub(super) fn intersection(a: &TopicFilter, b: &TopicFilter) -> Option<TopicFilter> {
    if !a.overlaps(b) {
        return None;
    }
    let (mut left, mut right) = (a.as_str().split('/'), b.as_str().split('/'));
    let mut levels = Vec::new();
    loop {
        match (left.next(), right.next()) {
            (Some("#"), Some(level)) => return rest(levels, level, right),
            (Some(level), Some("#")) => return rest(levels, level, left),
            (Some("+"), Some(level)) | (Some(level), Some(_)) => levels.push(level),
            // `#` matches its parent too.
            _ => return TopicFilter::parse(&levels.join("/")).ok(),
        }
    }
}

fn rest<'l>(mut levels: Vec<&'l str>, level: &'l str, others: std::str::Split<'l, char>) -> Option<TopicFilter> {
    levels.push(level);
    levels.extend(others);
    TopicFilter::parse(&levels.join("/")).ok()
}
