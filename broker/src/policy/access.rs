//! Access rules. The first rule whose `who` matches the identity decides. If none matches, everything is refused.

use forebay_topic::{Template, TopicFilter, Values};

/// One rule: a glob on the identity and what it allows.
#[derive(Clone, Debug)]
pub struct AccessRule {
    /// Glob on the identity: `*` matches any characters, `?` matches one.
    pub who: String,
    /// Filters the identity may publish to, with `{device}` for itself.
    pub publish: Vec<Template>,
    /// Filters the identity may subscribe to, with `{device}` for itself.
    pub subscribe: Vec<Template>,
    /// Filters that are refused for both; checked first.
    pub deny: Vec<Template>,
    /// Connections of each identity at a time.
    pub max_connections: u32,
    /// Bytes of the largest PUBLISH that a client of MQTT 3.1.1 is sent: that version has no Maximum Packet Size. `None` for any.
    pub max_packet_311: Option<usize>,
}

/// All rules in order.
#[derive(Clone, Debug, Default)]
pub struct AccessRules(pub Vec<AccessRule>);

/// What one identity may do; made once for each connection.
#[derive(Clone, Debug, Default)]
pub struct Access {
    publish: Vec<TopicFilter>,
    subscribe: Vec<TopicFilter>,
    deny: Vec<TopicFilter>,
    /// `None` without a rule.
    max_connections: Option<u32>,
    max_packet_311: Option<usize>,
}

/// Connections of an identity without a rule.
const WITHOUT_RULE: u32 = 4;

impl AccessRules {
    /// The rights of `identity`: those of the first rule whose `who` matches. Without a matching rule there are none.
    #[must_use]
    pub fn of(&self, identity: &str, gateway: &str) -> Access {
        let Some(rule) = self.0.iter().find(|rule| glob(&rule.who, identity)) else {
            return Access::default();
        };
        let fill = |templates: &[Template]| {
            let captures = forebay_topic::Captures::default();
            let values = Values {
                gateway,
                device: identity,
                topic: "",
                captures: &captures,
            };
            templates
                .iter()
                .filter_map(|template| TopicFilter::parse(&template.render(&values)).ok())
                .collect()
        };
        Access {
            publish: fill(&rule.publish),
            subscribe: fill(&rule.subscribe),
            deny: fill(&rule.deny),
            max_connections: Some(rule.max_connections),
            max_packet_311: rule.max_packet_311,
        }
    }
}

impl Access {
    /// Connections of this identity at a time.
    pub(crate) fn max_connections(&self) -> u64 {
        u64::from(self.max_connections.unwrap_or(WITHOUT_RULE))
    }

    /// Bytes of the largest PUBLISH that this identity is sent over MQTT 3.1.1.
    pub(crate) fn max_packet_311(&self) -> Option<usize> {
        self.max_packet_311
    }

    /// Whether a publish to `topic` is allowed.
    #[must_use]
    pub fn may_publish(&self, topic: &str) -> bool {
        !self.deny.iter().any(|filter| filter.matches(topic)) && self.publish.iter().any(|filter| filter.matches(topic))
    }

    /// Whether a subscription to `filter` is allowed: a right covers all of it, and no denied filter does.
    /// A filter that overlaps a denied one is allowed; [`Access::may_receive`] keeps the denied topics out.
    #[must_use]
    pub fn may_subscribe(&self, filter: &TopicFilter) -> bool {
        !self.deny.iter().any(|denied| denied.covers(filter)) && self.subscribe.iter().any(|right| right.covers(filter))
    }

    /// Whether a message on `topic` may be delivered.
    #[must_use]
    pub fn may_receive(&self, topic: &str) -> bool {
        !self.deny.iter().any(|filter| filter.matches(topic))
    }
}

/// Whether `text` matches `pattern`, where `*` matches any characters and `?` matches one.
#[must_use]
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after_star, from)) => {
                    p = after_star;
                    t = from + 1;
                    retry = Some((after_star, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(who: &str, publish: &[&str], subscribe: &[&str], deny: &[&str]) -> AccessRule {
        let parse = |list: &[&str]| list.iter().map(|text| Template::parse(text).unwrap()).collect();
        AccessRule {
            who: who.to_owned(),
            publish: parse(publish),
            subscribe: parse(subscribe),
            deny: parse(deny),
            max_connections: 4,
            max_packet_311: None,
        }
    }

    #[test]
    fn the_first_matching_rule_decides_alone() {
        let rules = AccessRules(vec![
            rule("local", &["#"], &["#"], &[]),
            rule("*", &["devices/{device}/#"], &[], &[]),
        ]);
        assert!(rules.of("local", "g").may_publish("anything/at/all"));
        let device = rules.of("d1", "g");
        assert!(device.may_publish("devices/d1/x"));
        assert!(!device.may_publish("devices/d2/x"));
        assert!(!device.may_publish("$SYS/x"));
    }

    #[test]
    fn an_identity_without_a_rule_has_no_rights() {
        let access = AccessRules(vec![rule("a*", &["#"], &["#"], &[])]).of("b", "g");
        assert!(!access.may_publish("x"));
        assert!(!access.may_subscribe(&TopicFilter::parse("x").unwrap()));
    }

    #[test]
    fn deny_goes_before_both_and_covers_deliveries() {
        let access = AccessRules(vec![rule(
            "*",
            &["devices/{device}/#"],
            &["devices/{device}/#"],
            &["devices/{device}/factory/#"],
        )])
        .of("d1", "g");
        assert!(!access.may_publish("devices/d1/factory/reset"));
        assert!(!access.may_subscribe(&TopicFilter::parse("devices/d1/factory/reset").unwrap()));
        assert!(access.may_subscribe(&TopicFilter::parse("devices/d1/#").unwrap()));
        assert!(!access.may_receive("devices/d1/factory/reset"));
        assert!(!access.may_subscribe(&TopicFilter::parse("devices/+/x").unwrap()));
    }

    #[test]
    fn globs_match_whole_identities() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("plant-*", "plant-7", true),
            ("plant-?", "plant-77", false),
            ("*-7", "plant-7", true),
            ("a*b*c", "aXbYc", true),
            ("a", "b", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
