//! What goes to the cloud.

use forebay_topic::{Template, TopicFilter};

use super::Fault;
use super::fault::nearest;
use super::schema::{Reading, Section};
use super::stream::Stream;

const MAX_ROUTES: usize = 256;

/// One item of `routes`; the first whose filter matches decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Which topics it takes; unique, and so the route's name in records.
    pub(crate) from: TopicFilter,
    /// Where they go.
    pub(crate) to: Destination,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// Stays here on purpose (`local: true`).
    Local,
    /// Is stored, acked once it would survive a power cut, and replayed to the cloud.
    Cloud(CloudRoute),
}

/// How a route leads to the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CloudRoute {
    /// The topic there. Default `{topic}`.
    pub(crate) topic: Template,
    /// The stream's place in `streams`.
    pub(crate) stream: usize,
    /// Whether RETAIN goes along. Default false.
    pub(crate) retain: bool,
    /// QoS towards the cloud, 0 or 1. Default 1.
    pub(crate) qos: u8,
}

impl Route {
    /// The route's name, as records carry it: its filter.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        self.from.as_str()
    }

    /// How it leads to the cloud; none for a local one.
    #[must_use]
    pub(crate) fn cloud(&self) -> Option<&CloudRoute> {
        match &self.to {
            Destination::Cloud(cloud) => Some(cloud),
            Destination::Local => None,
        }
    }
}

pub(super) fn read(root: &Section<'_>, streams: &[Stream], cloud: bool, reading: &mut Reading<'_>) -> Vec<Route> {
    if !root.has("routes") {
        return by_default(root, streams, cloud, reading);
    }
    let sections = root.list("routes").unwrap_or_default();
    if sections.len() > MAX_ROUTES {
        let reason = format!("at most {MAX_ROUTES} routes, not {}", sections.len());
        reading.faults.push(root.fault("routes", reason));
    }
    let mut routes: Vec<Route> = Vec::new();
    for section in sections {
        let Some(route) = read_one(&section, streams, reading) else {
            continue;
        };
        if let Some(first) = routes.iter().position(|other| other.from == route.from) {
            let reason = format!("the same filter as route {first} (counted from 0), which always matches first");
            reading.faults.push(section.fault("from", reason));
        }
        routes.push(route);
    }
    routes
}

fn by_default(root: &Section<'_>, streams: &[Stream], cloud: bool, reading: &mut Reading<'_>) -> Vec<Route> {
    if !cloud {
        return Vec::new();
    }
    if streams.len() > 1 {
        let reason = "missing, but there are several streams: `routes` must say which stream each filter goes to";
        reading.faults.push(root.fault("routes", reason));
    }
    let (Ok(from), Ok(topic)) = (TopicFilter::parse("devices/#"), Template::parse("{topic}")) else {
        return Vec::new();
    };
    vec![Route {
        from,
        to: Destination::Cloud(CloudRoute {
            topic,
            stream: 0,
            retain: false,
            qos: 1,
        }),
    }]
}

fn read_one(section: &Section<'_>, streams: &[Stream], reading: &mut Reading<'_>) -> Option<Route> {
    let from = match TopicFilter::parse(&section.text("from")?) {
        Ok(filter) => Some(filter),
        Err(error) => {
            reading.faults.push(section.fault("from", error.to_string()));
            None
        }
    };
    if section.flag("local") {
        for name in ["to", "stream", "ack", "retain", "qos"] {
            if section.has(name) {
                reading
                    .faults
                    .push(section.fault(name, "a route with `local: true` does not go to the cloud; leave this out"));
            }
        }
        return Some(Route {
            from: from?,
            to: Destination::Local,
        });
    }
    let topic = read_topic(section, from.as_ref(), reading);
    let stream = read_stream(section, streams, reading);
    let cloud = CloudRoute {
        topic: topic?,
        stream: stream?,
        retain: section.text("retain").as_deref() == Some("keep"),
        qos: u8::from(section.integer("qos") != Some(0)),
    };
    Some(Route {
        from: from?,
        to: Destination::Cloud(cloud),
    })
}

fn read_topic(section: &Section<'_>, from: Option<&TopicFilter>, reading: &mut Reading<'_>) -> Option<Template> {
    let written = section.text("to").unwrap_or_else(|| "{topic}".to_owned());
    let parsed = Template::parse(&written).and_then(|template| match from {
        Some(filter) => template.check(filter).map(|()| template),
        None => Ok(template),
    });
    let problem = match &parsed {
        Ok(_) if written.is_empty() => Some("is empty; leave it out for {topic}".to_owned()),
        Ok(_) => literal_problem(&written),
        Err(error) => Some(error.to_string()),
    };
    if let Some(reason) = problem {
        let nearest = unknown_placeholder(&written);
        reading.faults.push(Fault {
            nearest,
            ..section.fault("to", reason)
        });
        return None;
    }
    parsed.ok()
}

/// Wildcards outside placeholders would make a topic that nobody may publish to.
fn literal_problem(template: &str) -> Option<String> {
    let outside = template.split('{').enumerate().map(|(index, part)| {
        if index == 0 {
            part
        } else {
            part.split_once('}').map_or("", |(_, rest)| rest)
        }
    });
    let wrong = outside.into_iter().any(|part| part.contains(['+', '#', '\0']));
    wrong.then(|| "a topic has no wildcards; `{1}` is what the first + matched, `{#}` what # matched".to_owned())
}

fn unknown_placeholder(template: &str) -> Option<String> {
    let known = ["{gateway}", "{device}", "{topic}"];
    let named = template
        .split_inclusive('}')
        .filter_map(|part| part.find('{').map(|at| &part[at..]));
    let wrong = named
        .into_iter()
        .find(|name| name.chars().nth(1).is_some_and(char::is_alphabetic) && !known.contains(name))?;
    nearest(wrong, known).map(str::to_owned)
}

fn read_stream(section: &Section<'_>, streams: &[Stream], reading: &mut Reading<'_>) -> Option<usize> {
    let names = || streams.iter().map(|stream| stream.name.as_str());
    let Some(written) = section.text("stream") else {
        if streams.len() > 1 && !section.has("stream") {
            let reason = format!(
                "missing, but there are several streams: name one of {}",
                names().collect::<Vec<_>>().join(", ")
            );
            reading.faults.push(section.fault("stream", reason));
        }
        return (streams.len() == 1).then_some(0);
    };
    let found = streams.iter().position(|stream| stream.name == written);
    if found.is_none() {
        let reason = format!("no such stream; known streams: {}", names().collect::<Vec<_>>().join(", "));
        let nearest = nearest(&written, names()).map(str::to_owned);
        reading.faults.push(Fault {
            nearest,
            ..section.fault("stream", reason)
        });
    }
    found
}
