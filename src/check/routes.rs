//! Routes and rules that can never do anything.

use crate::config::{Config, Route};

use super::access::{deciding, devices_of, filled, intersection, takes_devices, words};
use super::report::Report;

const AREA: &str = "routes";

pub(super) fn check(config: &Config, report: &mut Report) {
    idle_rules(config, report);
    if config.cloud.is_none() && config.routes.iter().any(|route| route.cloud().is_some()) {
        let text = "there are routes to the cloud but no `cloud`: their records are stored and never sent";
        report.warn(AREA, text, "add `cloud`, or mark the routes `local: true`");
    }
    for (number, route) in config.routes.iter().enumerate() {
        if let Some(first) = config.routes[..number].iter().position(|earlier| earlier.from.covers(&route.from)) {
            let text = format!(
                "{} never matches: {} comes first and matches all its topics",
                named(number, route),
                named(first, &config.routes[first])
            );
            report.error(AREA, text, "put the narrower filter first");
            continue;
        }
        reach(config, number, route, report);
    }
    for (place, stream) in config.streams.iter().enumerate() {
        let used = config
            .routes
            .iter()
            .any(|route| route.cloud().is_some_and(|cloud| cloud.stream == place));
        if !used && config.cloud.is_some() {
            report.warn(
                AREA,
                format!("no route uses the stream `{}`", stream.name),
                "remove the stream, or name it in a route",
            );
        }
    }
}

/// `routes[1] (devices/+/alarm)`: the number as in faults, from 0.
pub(super) fn named(number: usize, route: &Route) -> String {
    format!("routes[{number}] ({})", route.name())
}

fn idle_rules(config: &Config, report: &mut Report) {
    for (number, rule) in config.access.iter().enumerate() {
        let by_word = words(config).iter().any(|word| deciding(config, word) == Some(number));
        if by_word || (takes_devices(config) && !devices_of(config, number, &[]).is_empty()) {
            continue;
        }
        let earlier = config.access[..number]
            .iter()
            .position(|other| other.who == "*" || other.who == rule.who);
        if let Some(first) = earlier {
            let text = format!(
                "access[{number}] (who: {}) never decides: access[{first}] (who: {}) comes first and matches the same identities",
                rule.who, config.access[first].who
            );
            report.warn("access", text, "put the narrower filter first");
        }
    }
}

fn reach(config: &Config, number: usize, route: &Route, report: &mut Report) {
    let name = named(number, route);
    if let Some((device, rule)) = device_that_reaches(config, route) {
        report.ok(
            AREA,
            format!("{name}: a device such as `{device}` may publish there by access[{rule}]"),
        );
        return;
    }
    let near = nearest_right(config, route);
    let hint = near.map_or_else(
        || "add a `publish` filter under `access`, or remove the route".to_owned(),
        |(rule, right)| {
            format!("the nearest filter is `{right}` of access[{rule}]: write the route's `from` like it, or add a `publish` filter")
        },
    );
    let word = words(config).into_iter().find(|word| may_reach(config, route, word).is_some());
    match word {
        Some(word) if takes_devices(config) && route.cloud().is_some() => {
            report.warn(AREA, format!("{name}: no device may publish there, only `{word}`"), hint)
        }
        Some(word) => report.ok(AREA, format!("{name}: `{word}` may publish there")),
        None => report.error(AREA, format!("{name}: no access rule allows a publish there"), hint),
    }
}

fn device_that_reaches(config: &Config, route: &Route) -> Option<(String, usize)> {
    if !takes_devices(config) {
        return None;
    }
    let literals: Vec<_> = route
        .from
        .as_str()
        .split('/')
        .filter(|level| !level.is_empty() && *level != "+" && *level != "#")
        .collect();
    let names = (0..config.access.len()).flat_map(|rule| devices_of(config, rule, &literals));
    // A generic name says more than a literal that happens to stand in the route.
    let (special, generic): (Vec<_>, Vec<_>) = names.partition(|name| literals.contains(&name.as_str()));
    generic
        .into_iter()
        .chain(special)
        .find_map(|name| may_reach(config, route, &name).map(|rule| (name, rule)))
}

/// The rule by which `identity` may publish to some topic of the route.
fn may_reach(config: &Config, route: &Route, identity: &str) -> Option<usize> {
    let number = deciding(config, identity)?;
    let rule = &config.access[number];
    let denied: Vec<_> = rule.deny.iter().filter_map(|template| filled(config, template, identity)).collect();
    let rights = rule.publish.iter().filter_map(|template| filled(config, template, identity));
    let mut common = rights.into_iter().filter_map(|right| intersection(&route.from, &right));
    common
        .any(|topics| !denied.iter().any(|denied| denied.covers(&topics)))
        .then_some(number)
}

/// The right that lies nearest to the route by its letters.
fn nearest_right(config: &Config, route: &Route) -> Option<(usize, String)> {
    let rights = config
        .access
        .iter()
        .enumerate()
        .flat_map(|(number, rule)| rule.publish.iter().map(move |right| (number, right.to_string())));
    rights
        .filter(|(_, right)| right != "#")
        .min_by_key(|(_, right)| distance(route.from.as_str(), &right.replace("{gateway}", config.gateway.id.as_str())))
}

fn distance(route: &str, right: &str) -> usize {
    let mut right = right.split('/');
    let mut total = 0;
    for level in route.split('/') {
        match right.next() {
            Some("#") => return total,
            Some("+") => {}
            Some(placeholder) if placeholder.contains("{device}") => {}
            Some(other) => total += strsim::damerau_levenshtein(level, other),
            None => total += level.len() + 1,
        }
    }
    total + right.map(|level| level.len() + 1).sum::<usize>()
}
