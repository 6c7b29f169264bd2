//! Mapped topics and packet sizes against what the cloud takes.

use forebay_bridge::{CloudLimits, Mapping, Qos, Route as BridgeRoute};

use crate::config::{Config, Profile, Route, show_bytes};

use super::report::Report;
use super::routes::named;

const AREA: &str = "topics";
const MAX_IDENTITY: usize = 128;
const MANY_LEVELS: usize = 32;
/// Seconds for which one message may keep the line for itself: as long as the bridge waits for an ack.
const LONG_MESSAGE: u64 = 20;

/// The mapping as the bridge uses it; none without a cloud.
pub(super) fn mapping(config: &Config) -> Option<Mapping> {
    let limits = match config.cloud.as_ref()?.profile {
        Profile::AwsIot => CloudLimits::aws_iot(),
        Profile::Mqtt => CloudLimits::mqtt(),
    };
    let route = |route: &Route| {
        let cloud = route.cloud()?;
        Some(BridgeRoute {
            name: route.name().to_owned(),
            from: route.from.clone(),
            to: cloud.topic.clone(),
            qos: if cloud.qos == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce },
            keep_retain: cloud.retain,
        })
    };
    Mapping::new(config.gateway.id.as_str(), config.routes.iter().filter_map(route).collect(), limits).ok()
}

pub(super) fn check(config: &Config, mapping: Option<&Mapping>, report: &mut Report) {
    let Some(mapping) = mapping else {
        report.ok(AREA, "no cloud: the gateway is a local broker");
        return;
    };
    for (number, route) in config.routes.iter().enumerate() {
        if route.cloud().is_some() {
            check_route(mapping, &named(number, route), route, report);
        }
    }
    payload(config, mapping, report);
    pace(config, report);
}

/// How long the largest message would take at the bandwidth that is allowed; others wait meanwhile.
fn pace(config: &Config, report: &mut Report) {
    let Some(bandwidth) = config.cloud.as_ref().and_then(|cloud| cloud.max_bandwidth) else {
        return;
    };
    // The bridge uses nine tenths of it.
    let seconds = u64::from(config.limits.max_packet) * 10 / bandwidth.saturating_mul(9).max(1);
    if seconds > LONG_MESSAGE {
        report.warn(
            AREA,
            format!(
                "one message of limits.max_packet ({}) takes {seconds} s at cloud.max_bandwidth ({}/s), and all others wait meanwhile",
                show_bytes(config.limits.max_packet.into()),
                show_bytes(bandwidth)
            ),
            "lower limits.max_packet to what the devices send, or raise cloud.max_bandwidth",
        );
    }
}

fn check_route(mapping: &Mapping, name: &str, route: &Route, report: &mut Report) {
    let fits = |identity: &str, levels: usize| {
        let topic = topic_of(route, identity, levels);
        mapping.map(route.name(), identity, &topic, 0)
    };
    let mapped = match fits("d", 1) {
        Ok(mapped) => mapped.topic,
        Err(problem) => {
            report.error(
                AREA,
                format!("{name} can never be delivered: even the shortest topic is {}", problem.detail),
                "change `to`",
            );
            return;
        }
    };
    if mapping.limits().reserved_dollar && mapped.starts_with('$') && route.cloud().is_some_and(|cloud| cloud.retain) {
        report.warn(
            AREA,
            format!("{name}: RETAIN is not sent to `$aws/rules/...`"),
            "remove `retain: keep`",
        );
    }
    let longest = (1..=MAX_IDENTITY)
        .rev()
        .find(|length| fits(&"d".repeat(*length), 1).is_ok())
        .unwrap_or_default();
    if longest < MAX_IDENTITY {
        let text =
            format!("{name}: identities longer than {longest} bytes make a topic that the cloud refuses (they may have {MAX_IDENTITY})");
        report.warn(AREA, text, "shorten `to`, or give devices short names");
    }
    let deepest = (1..=MANY_LEVELS)
        .rev()
        .find(|levels| fits("d", *levels).is_ok())
        .unwrap_or_default();
    let room = match (route.from.has_tail(), mapping.limits().max_slashes) {
        (true, Some(_)) if deepest < MANY_LEVELS => format!(", with at most {deepest} levels in place of the `#`"),
        _ => String::new(),
    };
    report.ok(AREA, format!("{name} goes to `{mapped}`{room}"));
}

/// A short topic of the route; every + is the device, as in most plants.
fn topic_of(route: &Route, identity: &str, levels: usize) -> String {
    let tail = vec!["x"; levels].join("/");
    let level = |level: &str| match level {
        "+" => identity.to_owned(),
        "#" => tail.clone(),
        other => other.to_owned(),
    };
    route.from.as_str().split('/').map(level).collect::<Vec<_>>().join("/")
}

fn payload(config: &Config, mapping: &Mapping, report: &mut Report) {
    let (packet, payload) = (u64::from(config.limits.max_packet), mapping.limits().max_payload as u64);
    if packet > payload {
        let text = format!(
            "limits.max_packet is {}, and the cloud accepts payloads of up to {}: larger ones are refused, or become dead letters",
            show_bytes(packet),
            show_bytes(payload)
        );
        report.warn(AREA, text, format!("set limits.max_packet to {} or less", show_bytes(payload)));
    } else {
        report.ok(
            AREA,
            format!(
                "limits.max_packet ({}) is within the cloud's bound ({})",
                show_bytes(packet),
                show_bytes(payload)
            ),
        );
    }
}
