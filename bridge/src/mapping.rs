//! From a device's topic to the cloud's, by the routes as they are now.

use std::collections::HashMap;

use forebay_topic::{PeerText, Template, TemplateError, TopicFilter, Values, validate_name};

/// A route to the cloud.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name, unique; records remember it.
    pub name: String,
    /// The topics that it takes.
    pub from: TopicFilter,
    /// The cloud's topic.
    pub to: Template,
    /// QoS towards the cloud.
    pub qos: Qos,
    /// Whether the RETAIN flag is passed on.
    pub keep_retain: bool,
}

/// QoS towards the cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Qos {
    /// Settled when written to the socket: may be lost with the connection.
    AtMostOnce,
    /// Settled by the cloud's PUBACK.
    #[default]
    AtLeastOnce,
}

/// What the cloud takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloudLimits {
    /// Bytes of payload.
    pub max_payload: usize,
    /// Bytes of topic.
    pub max_topic_bytes: usize,
    /// Separators in a topic; `None` if any number is allowed.
    pub max_slashes: Option<usize>,
    /// Whether topics that begin with `$` are refused, `$aws/rules/<rule>/...` excepted.
    pub reserved_dollar: bool,
}

impl CloudLimits {
    /// AWS IoT Core: 131,072 bytes of payload, 256 bytes and 7 separators in a topic, `$` reserved.
    #[must_use]
    pub const fn aws_iot() -> Self {
        Self {
            max_payload: 131_072,
            max_topic_bytes: 256,
            max_slashes: Some(7),
            reserved_dollar: true,
        }
    }

    /// Any broker: what MQTT itself allows.
    #[must_use]
    pub const fn mqtt() -> Self {
        Self {
            max_payload: 268_435_455 - 65_540,
            max_topic_bytes: 65_535,
            max_slashes: None,
            reserved_dollar: false,
        }
    }
}

/// Where a message goes in the cloud, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The cloud's topic.
    pub topic: String,
    /// QoS towards the cloud.
    pub qos: Qos,
    /// Whether a RETAIN flag is passed on.
    pub keep_retain: bool,
}

/// Why a message can never be delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Unmappable {
    /// One of `no-route`, `topic-invalid`, `topic-too-long`, `topic-too-deep`, `topic-reserved`, `payload-too-large`.
    pub reason: &'static str,
    /// What was wrong, the value, the limit, and what to do.
    pub detail: String,
}

/// Why routes cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MappingError {
    /// Records find their route by name.
    #[error("two routes are named `{name}`; give each its own name")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// The template asks for what the filter does not capture.
    #[error("route `{name}` cannot fill its `to`; change `to` or `from`")]
    Template {
        /// The route.
        name: String,
        /// The placeholder.
        source: TemplateError,
    },
}

/// All routes to the cloud in their order.
#[derive(Clone, Debug)]
pub struct Mapping {
    gateway: String,
    routes: Vec<Route>,
    by_name: HashMap<String, usize>,
    limits: CloudLimits,
}

impl Mapping {
    /// Checks and takes routes, first match first. Routes with `local: true` do not belong here.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub fn new(gateway: &str, routes: Vec<Route>, limits: CloudLimits) -> Result<Self, MappingError> {
        let mut by_name = HashMap::with_capacity(routes.len());
        for (index, route) in routes.iter().enumerate() {
            route.to.check(&route.from).map_err(|source| MappingError::Template {
                name: route.name.clone(),
                source,
            })?;
            if by_name.insert(route.name.clone(), index).is_some() {
                return Err(MappingError::DuplicateName { name: route.name.clone() });
            }
        }
        Ok(Self {
            gateway: gateway.to_owned(),
            routes,
            by_name,
            limits,
        })
    }

    /// What the cloud takes.
    #[must_use]
    pub const fn limits(&self) -> &CloudLimits {
        &self.limits
    }

    /// Maps a message by the route named `route` if it still exists and still takes the topic, otherwise by the first
    /// that takes it. The device side asks before its ack ([`Self::admit`]), the lane before sending.
    ///
    /// # Errors
    /// The message can never be delivered.
    pub fn map(&self, route: &str, identity: &str, topic: &str, payload_len: usize) -> Result<Mapped, Unmappable> {
        let named = self.by_name.get(route).map(|index| &self.routes[*index]);
        let found = named
            .into_iter()
            .chain(&self.routes)
            .find_map(|route| Some((route, route.from.captures(topic)?)));
        let Some((route, captures)) = found else {
            return Err(Unmappable {
                reason: "no-route",
                detail: format!(
                    "no route takes the topic `{}` any more; add one under `routes`, then requeue this dead letter",
                    PeerText::new(topic)
                ),
            });
        };
        let topic = route.to.render(&Values {
            gateway: &self.gateway,
            device: identity,
            topic,
            captures: &captures,
        });
        self.check(&topic, payload_len)?;
        // AWS takes no RETAIN on reserved topics.
        let keep_retain = route.keep_retain && !topic.starts_with('$');
        Ok(Mapped {
            topic,
            qos: route.qos,
            keep_retain,
        })
    }

    /// The same question asked by the device side, before the ack and before anything is stored.
    ///
    /// # Errors
    /// The message could never be delivered: refuse it, or make it a dead letter at once.
    pub fn admit(&self, route: &str, identity: &str, topic: &str, payload_len: usize) -> Result<Mapped, Unmappable> {
        self.map(route, identity, topic, payload_len)
    }

    fn check(&self, topic: &str, payload_len: usize) -> Result<(), Unmappable> {
        let limits = &self.limits;
        if let Err(error) = validate_name(topic) {
            return refuse(
                "topic-invalid",
                format!("mapped to `{}`: {error}; change the route's `to`", PeerText::new(topic)),
            );
        }
        if limits.reserved_dollar && topic.starts_with('$') && basic_ingest(topic).is_none() {
            return refuse(
                "topic-reserved",
                format!(
                    "mapped to `{}`: the cloud reserves topics that begin with `$`, except `$aws/rules/<rule>/...`; change the route's `to`",
                    PeerText::new(topic)
                ),
            );
        }
        // AWS does not count the Basic Ingest prefix.
        let counted = if limits.reserved_dollar {
            basic_ingest(topic).unwrap_or(topic)
        } else {
            topic
        };
        if counted.len() > limits.max_topic_bytes {
            return refuse(
                "topic-too-long",
                format!(
                    "mapped to a topic of {} bytes; the cloud takes {}; shorten the route's `to` or the device's topic",
                    counted.len(),
                    limits.max_topic_bytes
                ),
            );
        }
        let slashes = counted.bytes().filter(|byte| *byte == b'/').count();
        if let Some(limit) = limits.max_slashes.filter(|limit| slashes > *limit) {
            return refuse(
                "topic-too-deep",
                format!(
                    "mapped to `{}` with {slashes} separators; the cloud takes {limit}; flatten the route's `to` or the device's topic",
                    PeerText::new(topic)
                ),
            );
        }
        if payload_len > limits.max_payload {
            return refuse(
                "payload-too-large",
                format!(
                    "a payload of {payload_len} bytes; the cloud takes {}; let the device send smaller messages",
                    limits.max_payload
                ),
            );
        }
        Ok(())
    }
}

fn refuse(reason: &'static str, detail: String) -> Result<(), Unmappable> {
    Err(Unmappable { reason, detail })
}

/// What follows `$aws/rules/<rule>/`.
fn basic_ingest(topic: &str) -> Option<&str> {
    let (rule, rest) = topic.strip_prefix("$aws/rules/")?.split_once('/')?;
    (!rule.is_empty() && !rest.is_empty()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(name: &str, from: &str, to: &str) -> Route {
        let (from, to) = (TopicFilter::parse(from).unwrap(), Template::parse(to).unwrap());
        Route {
            name: name.to_owned(),
            from,
            to,
            qos: Qos::AtLeastOnce,
            keep_retain: true,
        }
    }

    fn mapping() -> Mapping {
        let routes = vec![
            route("alarms", "devices/+/alarm", "{gateway}/{topic}"),
            route("telemetry", "devices/+/telemetry/#", "dt/{gateway}/{device}/{#}"),
            route("ingest", "rule/#", "$aws/rules/store/{#}"),
            route("shadow", "shadow/#", "$aws/things/{#}"),
            route("rest", "devices/#", "rest/{#}"),
        ];
        Mapping::new("plant-7", routes, CloudLimits::aws_iot()).unwrap()
    }

    #[test]
    fn messages_are_mapped_by_the_name_of_their_route_as_it_is_now() {
        for (name, topic, expected) in [
            ("alarms", "devices/d1/alarm", "plant-7/devices/d1/alarm"),
            ("telemetry", "devices/d1/telemetry/env/t", "dt/plant-7/me/env/t"),
            ("rest", "devices/d1/alarm", "rest/d1/alarm"),
            ("gone", "devices/d1/alarm", "plant-7/devices/d1/alarm"),
            ("alarms", "devices/d1/moved", "rest/d1/moved"),
            ("ingest", "rule/a/b/c/d/e/f/g/h", "$aws/rules/store/a/b/c/d/e/f/g/h"),
        ] {
            assert_eq!(mapping().map(name, "me", topic, 1).unwrap().topic, expected, "{name} {topic}");
        }
    }

    #[test]
    fn what_the_cloud_never_takes_is_named_before_it_is_sent() {
        let long = format!("devices/{}", "x".repeat(252));
        let fits = format!("devices/{}", "x".repeat(251));
        for (topic, payload, expected) in [
            ("elsewhere", 1, Err("no-route")),
            ("devices/1/2/3/4/5/6/7", 1, Ok(())),
            ("devices/1/2/3/4/5/6/7/8", 1, Err("topic-too-deep")),
            (long.as_str(), 1, Err("topic-too-long")),
            (fits.as_str(), 1, Ok(())),
            ("shadow/thing/shadow/update", 1, Err("topic-reserved")),
            ("devices/a", 131_072, Ok(())),
            ("devices/a", 131_073, Err("payload-too-large")),
            ("rule/a/b/c/d/e/f/g/h/i", 1, Err("topic-too-deep")),
        ] {
            let found = mapping()
                .admit("none", "me", topic, payload)
                .map(|_| ())
                .map_err(|refused| refused.reason);
            assert_eq!(found, expected, "{topic} {payload}");
        }
    }

    #[test]
    fn retain_is_not_asked_for_on_reserved_topics() {
        assert!(mapping().map("rest", "me", "devices/a", 1).unwrap().keep_retain);
        assert!(!mapping().map("ingest", "me", "rule/a", 1).unwrap().keep_retain);
    }

    #[test]
    fn routes_that_cannot_work_are_refused() {
        let twice = vec![route("a", "x", "y"), route("a", "z", "y")];
        assert_eq!(
            Mapping::new("g", twice, CloudLimits::mqtt()).unwrap_err(),
            MappingError::DuplicateName { name: "a".to_owned() }
        );
        let unfilled = vec![route("a", "x", "{1}")];
        assert!(matches!(
            Mapping::new("g", unfilled, CloudLimits::mqtt()),
            Err(MappingError::Template { .. })
        ));
    }
}
