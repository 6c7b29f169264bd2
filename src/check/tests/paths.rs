//! Access, routes, mapped topics, and samples that follow them.

use super::{Severity, check, config, found, nothing_wrong, read, sample};

#[test]
fn a_route_that_no_publish_reaches_is_an_error_with_the_nearest_right() {
    let config = config(
        "access: [{who: \"*\", publish: [\"devices/{device}/#\", \"shared/+\"]}]\nroutes: [{from: device/+/alarm}, {from: devices/+/alarm}]\n",
    );
    let report = check(&config);
    let hint = found(
        &report,
        Severity::Error,
        "routes[0] (device/+/alarm): no access rule allows a publish there",
    );
    assert!(hint.contains("the nearest filter is `devices/{device}/#` of access[0]"), "{hint}");
    found(
        &report,
        Severity::Ok,
        "routes[1] (devices/+/alarm): a device such as `device` may publish there by access[0]",
    );
}

#[test]
fn a_route_to_the_cloud_that_only_a_local_word_reaches_is_looked_at() {
    let report = check(&config("routes: [{from: line/+/alarm}, {from: \"debug/#\", local: true}]\n"));
    found(
        &report,
        Severity::Warn,
        "routes[0] (line/+/alarm): no device may publish there, only `local`",
    );
    found(&report, Severity::Ok, "routes[1] (debug/#): `local` may publish there");
}

#[test]
fn a_route_to_one_device_is_reached_by_that_device() {
    let report = check(&config("routes: [{from: devices/board-1/x}]\n"));
    found(&report, Severity::Ok, "a device such as `board-1` may publish there by access[1]");
}

#[test]
fn a_denied_route_is_not_reached() {
    let report = check(&config(
        "access: [{who: \"*\", publish: [\"devices/{device}/#\"], deny: [\"devices/{device}/factory/#\"]}]\nroutes: [{from: \"devices/+/factory/#\"}]\n",
    ));
    found(&report, Severity::Error, "no access rule allows a publish there");
}

#[test]
fn a_rule_behind_one_for_everybody_never_decides() {
    let report = check(&config(
        "access: [{who: \"*\", publish: [\"devices/{device}/#\"]}, {who: \"plant-*\", publish: [\"#\"]}]\n",
    ));
    let hint = found(
        &report,
        Severity::Warn,
        "access[1] (who: plant-*) never decides: access[0] (who: *) comes first",
    );
    assert_eq!(hint, "put the narrower filter first");
}

#[test]
fn a_route_behind_a_wider_one_never_matches() {
    let report = check(&config("routes: [{from: \"devices/#\"}, {from: devices/+/alarm}]\n"));
    found(
        &report,
        Severity::Error,
        "routes[1] (devices/+/alarm) never matches: routes[0] (devices/#) comes first",
    );
}

#[test]
fn a_stream_without_a_route_is_told() {
    let report = check(&config(
        "streams: [{name: a}, {name: b}]\nroutes: [{from: \"devices/#\", stream: a}]\n",
    ));
    found(&report, Severity::Warn, "no route uses the stream `b`");
}

#[test]
fn routes_without_a_cloud_are_told() {
    let report = check(&read("gateway: {id: g}\nlisteners: [{bind: 127.0.0.1:0}]\nroutes: [{from: a}]\n"));
    found(&report, Severity::Warn, "there are routes to the cloud but no `cloud`");
}

#[test]
fn topics_that_the_cloud_refuses_are_errors_before_any_message_is_lost() {
    let long = "x".repeat(300);
    for (route, expected) in [
        (
            "{from: devices/+/a, to: \"$aws/things/{device}/shadow/update\"}".to_owned(),
            "reserves topics that begin with `$`",
        ),
        (
            "{from: devices/+/a, to: 1/2/3/4/5/6/7/8/9}".to_owned(),
            "with 8 separators; the cloud takes 7",
        ),
        (
            format!("{{from: devices/+/a, to: {long}}}"),
            "a topic of 300 bytes; the cloud takes 256",
        ),
    ] {
        let report = check(&config(&format!("routes: [{route}]\n")));
        found(&report, Severity::Error, expected);
        assert!(report.failed());
    }
    nothing_wrong(&check(&config(
        "routes: [{from: devices/+/a, to: \"$aws/rules/ingest/{device}\"}]\n",
    )));
}

#[test]
fn the_room_for_deep_topics_and_long_names_is_told() {
    let report = check(&config(
        "routes: [{from: \"devices/+/telemetry/#\", to: \"dt/{gateway}/{device}/{#}\"}]\n",
    ));
    found(
        &report,
        Severity::Ok,
        "goes to `dt/plant-7/d/x`, with at most 5 levels in place of the `#`",
    );
    let report = check(&config(&format!(
        "routes: [{{from: devices/+/a, to: \"{}/{{device}}\"}}]\n",
        "p".repeat(200)
    )));
    found(
        &report,
        Severity::Warn,
        "identities longer than 55 bytes make a topic that the cloud refuses",
    );
}

#[test]
fn packets_larger_than_the_cloud_takes_are_told() {
    let report = check(&config("limits: {max_packet: 1MiB}\n"));
    assert_eq!(
        found(
            &report,
            Severity::Warn,
            "limits.max_packet is 1MiB, and the cloud accepts payloads of up to 128KiB"
        ),
        "set limits.max_packet to 128KiB or less"
    );
}

#[test]
fn a_sample_shows_every_step_and_why() {
    let config = config(
        "streams: [{name: alarms, max_bytes: 64MiB, when_full: refuse}, {name: telemetry}]\nroutes: [{from: devices/+/alarm, stream: alarms}, {from: \"devices/+/telemetry/#\", to: \"dt/{gateway}/{device}/{#}\", stream: telemetry, qos: 0, retain: keep}, {from: \"devices/+/debug\", local: true}]\n",
    );
    let report = sample(&config, "devices/b1/telemetry/env/a", "b1");
    found(
        &report,
        Severity::Ok,
        "1. `b1` may publish to `devices/b1/telemetry/env/a`: access[1] (who: *) allows `devices/{device}/#`",
    );
    found(
        &report,
        Severity::Ok,
        "2. routes[1] (devices/+/telemetry/#) puts it into the stream `telemetry` (priority 2, 1GiB, drops the oldest when full)",
    );
    found(
        &report,
        Severity::Ok,
        "3. a QoS 1 or 2 publish is acked when its record survives a power cut",
    );
    found(
        &report,
        Severity::Ok,
        "4. the cloud gets it as `dt/plant-7/b1/env/a` at QoS 0, with RETAIN if set, if its payload has at most 128KiB",
    );
    found(
        &sample(&config, "devices/b1/debug", "b1"),
        Severity::Ok,
        "routes[2] (devices/+/debug) is `local: true`",
    );
    found(
        &sample(&config, "devices/b1/alarm", "local"),
        Severity::Ok,
        "access[0] (who: local) allows `#`",
    );
}

#[test]
fn a_sample_that_is_refused_names_the_reason() {
    let config = config(
        "access: [{who: \"b*\", publish: [\"devices/{device}/#\"], deny: [\"devices/{device}/factory/#\"]}]\nroutes: [{from: \"devices/+/telemetry/#\"}]\n",
    );
    for (topic, identity, expected) in [
        (
            "devices/b2/x",
            "b1",
            "refused: access[0] (who: b*) decides for `b1` and allows `devices/{device}/#`",
        ),
        (
            "devices/b1/factory/reset",
            "b1",
            "refused: access[0] (who: b*) denies `devices/{device}/factory/#` to `b1`",
        ),
        ("devices/c1/x", "c1", "refused: no access rule matches `c1`"),
        ("devices/+/x", "b1", "`devices/+/x` is refused"),
        ("devices/b1/x", "b/1", "`b/1` is refused at CONNECT"),
    ] {
        found(&sample(&config, topic, identity), Severity::Warn, expected);
    }
    let report = sample(&config, "devices/b1/telemtry/x", "b1");
    assert_eq!(
        found(&report, Severity::Warn, "2. no route matches"),
        "the nearest route is `devices/+/telemetry/#`, 1 letter away"
    );
    let deep = sample(&config, "devices/b1/telemetry/1/2/3/4/5/6/7", "b1");
    found(&deep, Severity::Warn, "4. it can never be delivered (topic-too-deep)");
}

#[test]
fn a_sample_needs_to_know_who() {
    let config = config("");
    let options = super::CheckOptions {
        taken: 0,
        sample: Some("a".to_owned()),
        identity: None,
    };
    let report = super::run_with(&config, &options, forebay_wal::wall_clock(), Ok(&super::ROOM));
    assert_eq!(
        found(&report, Severity::Warn, "which identity publishes to `a`?"),
        "name the publisher: --as IDENTITY"
    );
}

#[test]
fn e7_a_largest_message_that_fills_the_allowed_bandwidth_for_long_is_told() {
    for (packet, bandwidth, seconds) in [
        ("128KiB", "1KiB/s", Some(142)),
        ("128KiB", "4KiB/s", Some(35)),
        ("1MiB", "32KiB/s", Some(35)),
        ("64KiB", "8KiB/s", None),
        ("128KiB", "64KiB/s", None),
    ] {
        let report = check(&read(&format!(
            "gateway: {{id: g}}\nlisteners: [{{bind: 127.0.0.1:1883}}]\nlimits: {{max_packet: {packet}}}\n\
             cloud: {{endpoint: broker.example, profile: mqtt, tls: {{}}, max_bandwidth: {bandwidth}}}\n"
        )));
        match seconds {
            Some(seconds) => {
                let hint = found(&report, Severity::Warn, &format!("takes {seconds} s at cloud.max_bandwidth"));
                assert!(hint.starts_with("lower limits.max_packet"), "{hint}");
            }
            None => assert!(!report.to_string().contains("cloud.max_bandwidth"), "{report}"),
        }
    }
}
