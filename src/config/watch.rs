//! What is watched of the devices' publishes.

use std::time::Duration;

use forebay_topic::{TopicFilter, validate_name};

use super::schema::{Reading, Section};
use super::yaml::Node;

const MAX_ITEMS: usize = 64;
const MAX_FIELDS: usize = 16;

/// One item of `watch`. Every item whose filter matches looks at a publish.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Watch {
    /// The publishes it looks at.
    pub(crate) topic: TopicFilter,
    /// The interval at which a device publishes; `None` if silence is not watched.
    pub(crate) every: Option<Duration>,
    /// Where a device's counter stands.
    pub(crate) sequence: Option<Sequence>,
    /// Measured values.
    pub(crate) fields: Vec<Field>,
}

/// Where a device's counter stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sequence {
    /// JSON pointer (RFC 6901) of a whole number that rises by one with each message.
    pub(crate) counter: String,
    /// JSON pointer of what changes with each boot.
    pub(crate) boot: Option<String>,
}

/// A measured value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    /// JSON pointer of a number.
    pub(crate) at: String,
    /// The lowest and the highest sensible value.
    pub(crate) range: Option<(f64, f64)>,
    /// What it must not drift from.
    pub(crate) drift: Option<Drift>,
}

/// A reference.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Drift {
    /// The one topic on which the reference comes.
    pub(crate) topic: String,
    /// JSON pointer of its number.
    pub(crate) at: String,
    /// The difference that is too much, in the field's unit.
    pub(crate) more_than: f64,
}

pub(super) fn read(root: &Section<'_>, reading: &mut Reading<'_>) -> Vec<Watch> {
    let sections = root.list("watch").unwrap_or_default();
    if sections.len() > MAX_ITEMS {
        let reason = format!("at most {MAX_ITEMS} items, not {}", sections.len());
        reading.faults.push(root.fault("watch", reason));
    }
    let mut items: Vec<Watch> = Vec::new();
    for section in sections {
        let Some(item) = read_one(&section, reading) else { continue };
        if items.iter().any(|other| other.topic == item.topic) {
            let reason = "the same filter as another item; put the keys of both into one";
            reading.faults.push(section.fault("topic", reason));
        }
        items.push(item);
    }
    items
}

fn read_one(section: &Section<'_>, reading: &mut Reading<'_>) -> Option<Watch> {
    let topic = match TopicFilter::parse(&section.text("topic")?) {
        Ok(filter) => Some(filter),
        Err(error) => {
            reading.faults.push(section.fault("topic", error.to_string()));
            None
        }
    };
    if !["every", "sequence", "fields"].iter().any(|name| section.has(name)) {
        let reason = "the item checks nothing: add `every`, `sequence` or `fields`";
        reading.faults.push(section.fault("topic", reason));
    }
    let sequence = section.has("sequence").then(|| {
        let sequence = section.section("sequence");
        Sequence {
            counter: pointer(&sequence, "counter", reading).unwrap_or_default(),
            boot: pointer(&sequence, "boot", reading),
        }
    });
    let sections = section.list("fields").unwrap_or_default();
    if sections.len() > MAX_FIELDS {
        let reason = format!("at most {MAX_FIELDS} fields, not {}", sections.len());
        reading.faults.push(section.fault("fields", reason));
    }
    let fields = sections.iter().filter_map(|field| read_field(field, reading)).collect();
    Some(Watch {
        topic: topic?,
        every: section.duration("every"),
        sequence,
        fields,
    })
}

fn read_field(section: &Section<'_>, reading: &mut Reading<'_>) -> Option<Field> {
    let range = section.given("range").and_then(|node| {
        let bounds: Vec<f64> = node.items().iter().filter_map(number).collect();
        bounds.first().copied().zip(bounds.get(1).copied())
    });
    let drift = section.has("drift").then(|| read_drift(&section.section("drift"), reading));
    Some(Field {
        at: pointer(section, "at", reading)?,
        range,
        drift: drift.flatten(),
    })
}

fn read_drift(section: &Section<'_>, reading: &mut Reading<'_>) -> Option<Drift> {
    let topic = section.text("topic")?;
    if validate_name(&topic).is_err() {
        let reason = "must be one topic without wildcards: a reference is one series";
        reading.faults.push(section.fault("topic", reason));
    }
    let more_than = section.given("more_than").and_then(number)?;
    if more_than <= 0.0 {
        reading.faults.push(section.fault("more_than", "must be more than 0"));
    }
    Some(Drift {
        topic,
        at: pointer(section, "at", reading)?,
        more_than,
    })
}

fn number(node: &Node) -> Option<f64> {
    node.scalar()?.parse().ok()
}

/// A JSON pointer as RFC 6901 has it.
fn pointer(section: &Section<'_>, name: &str, reading: &mut Reading<'_>) -> Option<String> {
    let text = section.text(name)?;
    let escapes = |text: &str| text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if (text.is_empty() || text.starts_with('/')) && escapes(&text) {
        return Some(text);
    }
    let reason = "must be a JSON pointer (RFC 6901): `/temp`, or `/env/temp` for a field within `env`; `~1` stands for / and `~0` for ~";
    reading.faults.push(section.fault(name, reason));
    None
}
