//! Who may do what.

use forebay_broker::AccessRules;
use forebay_topic::{Template, TopicFilter};

use super::Config;
use super::schema::{Reading, Section};

const MAX_RULES: usize = 256;
const MAX_FILTERS: usize = 256;
/// Connections of an identity, without a key.
const MAX_CONNECTIONS: u32 = 4;

/// One item of `access`; the first whose `who` matches decides.
///
/// Filters are valid topic filters in which `{device}` stands for the identity and `{gateway}` for the
/// gateway's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessRule {
    /// A glob on the identity: `*` any characters, `?` one.
    pub(crate) who: String,
    /// What may be published. Default none.
    pub(crate) publish: Vec<Template>,
    /// What may be subscribed. Default none.
    pub(crate) subscribe: Vec<Template>,
    /// What is refused before both. Default none.
    pub(crate) deny: Vec<Template>,
    /// Connections of each identity. Default 4.
    pub(crate) max_connections: u32,
    /// The largest PUBLISH to its clients of MQTT 3.1.1. Default any.
    pub(crate) max_packet_311: Option<u64>,
}

impl Config {
    /// The rules as the front uses them.
    pub(crate) fn access_rules(&self) -> AccessRules {
        let rule = |rule: &AccessRule| forebay_broker::AccessRule {
            who: rule.who.clone(),
            publish: rule.publish.clone(),
            subscribe: rule.subscribe.clone(),
            deny: rule.deny.clone(),
            max_connections: rule.max_connections,
            max_packet_311: rule.max_packet_311.and_then(|bytes| usize::try_from(bytes).ok()),
        };
        AccessRules(self.access.iter().map(rule).collect())
    }
}

pub(super) fn read(root: &Section<'_>, reading: &mut Reading<'_>) -> Vec<AccessRule> {
    if !root.has("access") {
        return by_default();
    }
    let sections = root.list("access").unwrap_or_default();
    if sections.len() > MAX_RULES {
        let reason = format!("at most {MAX_RULES} rules, not {}; use globs and {{device}}", sections.len());
        reading.faults.push(root.fault("access", reason));
    }
    sections.iter().map(|section| read_one(section, reading)).collect()
}

fn by_default() -> Vec<AccessRule> {
    let texts = |items: &[&str]| items.iter().filter_map(|item| Template::parse(item).ok()).collect::<Vec<_>>();
    vec![
        AccessRule {
            who: "local".to_owned(),
            publish: texts(&["#"]),
            // `#` does not match what begins with `$`.
            subscribe: texts(&["#", "$SYS/#"]),
            deny: Vec::new(),
            max_connections: MAX_CONNECTIONS,
            max_packet_311: None,
        },
        AccessRule {
            who: "*".to_owned(),
            publish: texts(&["devices/{device}/#"]),
            subscribe: texts(&["devices/{device}/commands/#"]),
            deny: texts(&["devices/{device}/factory/#"]),
            max_connections: MAX_CONNECTIONS,
            max_packet_311: None,
        },
    ]
}

fn read_one(section: &Section<'_>, reading: &mut Reading<'_>) -> AccessRule {
    let who = section.text("who").unwrap_or_default();
    if section.given("who").is_some() && (who.is_empty() || who.contains(['/', '+', '#', '\0'])) {
        let reason = "must be a glob for the identity, without / + #: `*` matches any characters, `?` matches one";
        reading.faults.push(section.fault("who", reason));
    }
    let rule = AccessRule {
        who,
        publish: filters(section, "publish", reading),
        subscribe: filters(section, "subscribe", reading),
        deny: filters(section, "deny", reading),
        max_connections: section
            .integer("max_connections")
            .and_then(|value| u32::try_from(value).ok())
            .unwrap_or(MAX_CONNECTIONS),
        max_packet_311: section.bytes("max_packet_311"),
    };
    // A rule that allows nothing is fine: it shuts out the identities it names.
    rule
}

fn filters(section: &Section<'_>, name: &str, reading: &mut Reading<'_>) -> Vec<Template> {
    let written = section.texts(name);
    if written.len() > MAX_FILTERS {
        let reason = format!("at most {MAX_FILTERS} filters, not {}", written.len());
        reading.faults.push(section.fault(name, reason));
    }
    for (index, filter) in written.iter().enumerate() {
        let problem = placeholders(filter).or_else(|| TopicFilter::parse(filter).err().map(|error| error.to_string()));
        if let Some(reason) = problem {
            reading.faults.push(section.item_fault(name, index, reason));
        }
    }
    written.iter().filter_map(|filter| Template::parse(filter).ok()).collect()
}

fn placeholders(filter: &str) -> Option<String> {
    let mut rest = filter;
    while let Some(open) = rest.find('{') {
        let Some(close) = rest[open..].find('}') else {
            return Some("`{` is never closed".to_owned());
        };
        let name = &rest[open..=open + close];
        if name != "{device}" && name != "{gateway}" {
            return Some(format!(
                "`{name}` is not a placeholder of access rules; known placeholders: {{device}} (the identity) and {{gateway}}"
            ));
        }
        rest = &rest[open + close + 1..];
    }
    None
}
