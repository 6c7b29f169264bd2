//! Where one message goes and why.

use forebay_bridge::Mapping;
use forebay_broker::{Routes, nearest};
use forebay_topic::validate_name;

use crate::config::{CloudRoute, Config, WhenFull, show_bytes};

use super::access::{deciding, filled};
use super::report::Report;
use super::routes::named;

const AREA: &str = "sample";

pub(super) fn check(config: &Config, mapping: Option<&Mapping>, topic: &str, identity: Option<&str>, report: &mut Report) {
    let Some(identity) = identity else {
        report.warn(
            AREA,
            format!("which identity publishes to `{topic}`?"),
            "name the publisher: --as IDENTITY",
        );
        return;
    };
    if let Err(error) = validate_name(topic) {
        report.warn(
            AREA,
            format!("`{topic}` is refused: {error}"),
            "publish to a topic without wildcards",
        );
        return;
    }
    if identity.is_empty() || identity.len() > 128 || identity.contains(['/', '+', '#', '\0']) {
        report.warn(
            AREA,
            format!("`{identity}` is refused at CONNECT: an identity is one topic level of 1 to 128 bytes without / + #"),
            "give the device another name",
        );
        return;
    }
    if permitted(config, topic, identity, report) {
        routed(config, mapping, topic, identity, report);
    }
}

fn permitted(config: &Config, topic: &str, identity: &str, report: &mut Report) -> bool {
    let Some(number) = deciding(config, identity) else {
        report.warn(
            AREA,
            format!("refused: no access rule matches `{identity}`"),
            "add a rule whose `who` matches",
        );
        return false;
    };
    let rule = &config.access[number];
    let by = format!("access[{number}] (who: {})", rule.who);
    let matching = |templates: &[forebay_topic::Template]| {
        templates
            .iter()
            .find(|template| filled(config, template, identity).is_some_and(|filter| filter.matches(topic)))
            .map(ToString::to_string)
    };
    if let Some(denied) = matching(&rule.deny) {
        report.warn(
            AREA,
            format!("refused: {by} denies `{denied}` to `{identity}`"),
            "publish elsewhere, or change `deny`",
        );
        return false;
    }
    match matching(&rule.publish) {
        Some(right) if config.access_rules().of(identity, config.gateway.id.as_str()).may_publish(topic) => {
            report.ok(AREA, format!("1. `{identity}` may publish to `{topic}`: {by} allows `{right}`"));
            true
        }
        _ => {
            let rights: Vec<_> = rule.publish.iter().map(|right| format!("`{right}`")).collect();
            let allowed = if rights.is_empty() {
                "nothing".to_owned()
            } else {
                rights.join(", ")
            };
            report.warn(
                AREA,
                format!("refused: {by} decides for `{identity}` and allows {allowed}"),
                "publish there, or add a `publish` filter to that rule",
            );
            false
        }
    }
}

fn routed(config: &Config, mapping: Option<&Mapping>, topic: &str, identity: &str, report: &mut Report) {
    let found = config.routes.iter().enumerate().find(|(_, route)| route.from.matches(topic));
    let Some((number, route)) = found else {
        let broker = |route: &crate::config::Route| forebay_broker::Route {
            name: route.name().to_owned(),
            from: route.from.clone(),
            stream: None,
        };
        let near = nearest(topic, &Routes::new(config.routes.iter().map(broker).collect()));
        let hint = near.map_or_else(
            || "add a route, or one with `local: true` if it must not go to the cloud".to_owned(),
            |(filter, letters)| {
                format!(
                    "the nearest route is `{filter}`, {letters} {} away",
                    if letters == 1 { "letter" } else { "letters" }
                )
            },
        );
        report.warn(
            AREA,
            "2. no route matches: it goes to local subscribers only and is counted as unrouted",
            hint,
        );
        return;
    };
    let name = named(number, route);
    let Some(cloud) = route.cloud() else {
        report.ok(AREA, format!("2. {name} is `local: true`: it goes to local subscribers only"));
        return;
    };
    report.ok(AREA, format!("2. {name} puts it into the stream {}", stream_text(config, cloud)));
    report.ok(
        AREA,
        "3. a QoS 1 or 2 publish is acked when its record survives a power cut; then local subscribers get it",
    );
    let Some(mapping) = mapping else {
        report.warn(AREA, "4. there is no `cloud`: it stays in the stream", "add `cloud`");
        return;
    };
    match mapping.map(route.name(), identity, topic, 0) {
        Ok(mapped) => {
            let retain = if mapped.keep_retain { ", with RETAIN if set" } else { "" };
            let most = show_bytes(mapping.limits().max_payload as u64);
            report.ok(
                AREA,
                format!(
                    "4. the cloud gets it as `{}` at QoS {}{retain}, if its payload has at most {most}",
                    mapped.topic, cloud.qos
                ),
            );
        }
        Err(problem) => report.warn(
            AREA,
            format!("4. it can never be delivered ({}): {}", problem.reason, problem.detail),
            "it is refused on MQTT 5 and becomes a dead letter on 3.1.1",
        ),
    }
}

fn stream_text(config: &Config, cloud: &CloudRoute) -> String {
    let Some(stream) = config.streams.get(cloud.stream) else {
        return String::new();
    };
    let full = match stream.when_full {
        WhenFull::Refuse => "refuses",
        WhenFull::DropOldest => "drops the oldest",
    };
    format!(
        "`{}` (priority {}, {}, {full} when full)",
        stream.name,
        cloud.stream + 1,
        show_bytes(stream.max_bytes)
    )
}
