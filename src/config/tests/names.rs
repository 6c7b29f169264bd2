//! What the parts of a configuration say about each other.

use super::super::*;
use super::{MINIMAL, good, minimal_and, read, the_fault};

fn with_listeners(listeners: &str) -> String {
    format!("gateway: {{id: g}}\nlisteners: [{listeners}]\n")
}

#[test]
fn a_route_names_an_existing_stream() {
    let text = minimal_and("streams: [{name: alarms}, {name: telemetry}]\nroutes:\n  - from: a\n    stream: telemetri\n");
    assert_eq!(
        the_fault(&text),
        "routes[0].stream (line 7)\n    value:  telemetri\n    reason: no such stream; known streams: alarms, telemetry\n    did you mean `telemetry`?"
    );
    assert!(
        the_fault(&minimal_and("streams: [{name: a}, {name: b}]\nroutes: [{from: x}]\n"))
            .contains("missing, but there are several streams: name one of a, b")
    );
    assert!(the_fault(&minimal_and("streams: [{name: a}, {name: b}]\n")).contains("`routes` must say which stream each filter goes to"));
}

#[test]
fn stream_names_are_unique_well_formed_and_few() {
    for (more, expected) in [
        (
            "streams: [{name: a}, {name: a}]\nroutes: []\n",
            "streams[1].name (line 4)\n    value:  a\n    reason: another stream has this name",
        ),
        (
            "streams: [{name: Alarms}]\n",
            "must be 1 to 32 of a-z 0-9 _ -, beginning with a letter",
        ),
        ("streams: [{name: dead}]\n", "`dead` is a stream of the log's own"),
        ("streams: []\n", "must be 1 to 8 streams, not 0"),
        (
            "streams: [{name: a}, {name: b}, {name: c}, {name: d}, {name: e}, {name: f}, {name: g}, {name: h}, {name: i}]\nroutes: []\n",
            "must be 1 to 8 streams, not 9",
        ),
    ] {
        let shown = the_fault(&minimal_and(more));
        assert!(shown.contains(expected), "{shown}");
    }
}

#[test]
fn routes_have_filters_and_templates_that_fit_them() {
    for (route, expected) in [
        ("{from: \"a/#/b\"}", "routes[0].from"),
        ("{from: a/+, to: \"x/{2}\"}", "`{2}` needs 2 `+` in the filter, which has 1"),
        ("{from: a/+, to: \"x/{#}\"}", "`{#}` needs a `#` in the filter, which has none"),
        ("{from: a, to: \"x/{devise}\"}", "did you mean `{device}`?"),
        ("{from: a, to: \"x/{device\"}", "`{` is never closed"),
        ("{from: a, to: x/+}", "a topic has no wildcards"),
        ("{from: a, to: \"\"}", "is empty; leave it out for {topic}"),
        (
            "{from: a, local: true, to: b}",
            "routes[0].to (line 4)\n    value:  b\n    reason: a route with `local: true` does not go to the cloud",
        ),
        (
            "{from: a}, {from: a}",
            "routes[1].from (line 4)\n    value:  a\n    reason: the same filter as route 0 (counted from 0)",
        ),
    ] {
        let shown = the_fault(&minimal_and(&format!("routes: [{route}]\n")));
        assert!(shown.contains(expected), "{route}\n{shown}");
    }
}

#[test]
fn access_rules_have_globs_and_filters() {
    for (rule, expected) in [
        ("{who: a/b}", "a glob for the identity, without / + #"),
        (
            "{who: a, publish: [\"a/{cn}\"]}",
            "access[0].publish[0] (line 4)\n    value:  a/{cn}\n    reason: `{cn}` is not a placeholder of access rules",
        ),
        ("{who: a, deny: [\"a#\"]}", "access[0].deny[0] (line 4)"),
        ("{who: a, subscribe: [\"\"]}", "access[0].subscribe[0] (line 4)"),
    ] {
        let shown = the_fault(&minimal_and(&format!("access: [{rule}]\n")));
        assert!(shown.contains(expected), "{rule}\n{shown}");
    }
}

#[test]
fn plain_tcp_beyond_loopback_must_be_asked_for() {
    assert!(the_fault(&with_listeners("{bind: 0.0.0.0:1883}")).contains("listeners[0].bind (line 2)\n    value:  0.0.0.0:1883\n    reason: plain TCP beyond loopback: bind 127.0.0.1:1883, or add `tls`, or set `insecure: true`"));
    let config = read(&with_listeners("{bind: 0.0.0.0:1883, insecure: true}")).unwrap();
    assert_eq!(
        (&config.listeners[0].tls, &config.listeners[0].identity),
        (&None, &Identity::ClientId)
    );
    assert!(the_fault(&with_listeners("{bind: 0.0.0.0:8883, insecure: true, tls: {}}")).contains("given together with `tls`"));
    assert!(
        the_fault("gateway: {id: g}\nlisteners: [{bind: 127.0.0.1:0}]\ncloud: {profile: mqtt, endpoint: b.example}\n")
            .contains("cloud.tls (line 3)\n    reason: left out, and the cloud is beyond loopback")
    );
}

#[test]
fn two_listeners_cannot_share_a_port() {
    assert!(
        the_fault(&with_listeners("{bind: 127.0.0.1:1883}, {bind: 127.0.0.1:1883}"))
            .contains("another listener has 127.0.0.1:1883 already")
    );
    assert!(
        the_fault(&with_listeners("{bind: 0.0.0.0:8883}, {bind: 127.0.0.1:8883}")).contains("another listener has 0.0.0.0:8883 already")
    );
    assert!(the_fault(&with_listeners("{bind: 127.0.0.1:9464}")).contains("admin.bind\n    reason: a listener has 127.0.0.1:9464 already"));
    read(&with_listeners(
        "{bind: 127.0.0.1:0}, {bind: 127.0.0.1:0}, {bind: \"[::1]:1883\"}, {bind: 127.0.0.1:1883}",
    ))
    .unwrap();
    assert!(the_fault("gateway: {id: g}\nlisteners: []\n").contains("must be 1 to 16 listeners, not 0"));
}

#[test]
fn identities_come_from_where_the_listener_can_know_them() {
    assert!(
        the_fault(&with_listeners("{bind: 127.0.0.1:0, identity: \"{cn}\"}"))
            .contains("is read from the device's certificate, and this listener is plain")
    );
    let shown = the_fault(&with_listeners("{bind: 127.0.0.1:0, identity: \"{clientid}\"}"));
    assert!(
        shown.contains("unknown template; known templates: {cn}") && shown.ends_with("did you mean `{client_id}`?"),
        "{shown}"
    );
    assert!(the_fault(&with_listeners("{bind: 127.0.0.1:0, identity: {cn}}")).contains("must be text, not a map; quote what has braces"));
    assert!(the_fault(&with_listeners("{bind: 127.0.0.1:0, identity: a/b}")).contains("an identity is one topic level"));
}

#[test]
fn a_local_word_is_not_lent_to_the_network() {
    let shown = the_fault(&with_listeners("{bind: 127.0.0.1:0}, {bind: 0.0.0.0:8883, identity: local}"));
    assert!(
        shown.contains("listeners[1].identity (line 2)") && shown.contains("the word `local` is the identity on 127.0.0.1:0 too"),
        "{shown}"
    );
}

#[test]
fn names_belong_to_tls_and_are_names() {
    assert!(
        the_fault(&with_listeners("{bind: 127.0.0.1:0, names: [a.local]}")).contains("`names` requires TLS, and this listener is plain")
    );
    assert!(
        the_fault(&with_listeners("{bind: 0.0.0.0:8883, names: [\"mqtts://a\"]}"))
            .contains("listeners[0].names[0] (line 2)\n    value:  mqtts://a\n    reason: must be a host name or an address")
    );
    assert!(the_fault(&with_listeners("{bind: 0.0.0.0:8883, names: [a.local, A.local]}")).contains("is given twice"));
}

#[test]
fn b9_names_of_admin_are_host_names() {
    let shown = the_fault(&format!("{MINIMAL}admin: {{names: [plant-7.example, \"http://a:9464\"]}}\n"));
    assert!(
        shown.contains("admin.names[1]") && shown.contains("must be a host name such as"),
        "{shown}"
    );
    the_fault(&format!("{MINIMAL}admin: {{names: [\"*.example\"]}}\n"));
    let config = good(&format!("{MINIMAL}admin: {{names: [Plant-7, gw.example.]}}\n"));
    assert_eq!(config.admin.names, ["Plant-7", "gw.example."]);
}

#[test]
fn the_cloud_is_a_host_with_limits_of_its_own() {
    for (cloud, expected) in [
        (
            "endpoint: \"https://c.example\"",
            "must be a host name or an address, without scheme, path and port",
        ),
        ("endpoint: \"c.example:8883\"", "must be a host name or an address"),
        (
            "endpoint: c.example, in_flight: 101",
            "AWS IoT Core accepts at most 100 unacked publishes",
        ),
        ("endpoint: c.example, port: 0", "must be a whole number from 1 to 65535"),
        ("endpoint: c.example, client_id: \"$x\"", "must not begin with $"),
        (
            "endpoint: c.example, client_id: \"{device}\"",
            "the only placeholder of a client id is {gateway}",
        ),
        ("endpoint: c.example, client_id: \"\"", "must be 1 to 120 bytes, not 0"),
    ] {
        let shown = the_fault(&MINIMAL.replace("endpoint: cloud.example", cloud));
        assert!(shown.contains(expected), "{cloud}\n{shown}");
    }
    let mqtt = |tls: &str| {
        MINIMAL.replace(
            "endpoint: cloud.example",
            &format!("profile: mqtt, endpoint: c.example, in_flight: 1000, tls: {tls}"),
        )
    };
    read(&mqtt("{certificate: a, key: b}")).unwrap();
    assert!(the_fault(&mqtt("{certificate: a}")).contains("cloud.tls.key (line 3)\n    reason: missing, and `certificate` needs it"));
    assert!(the_fault(&mqtt("{key: a}")).contains("cloud.tls.certificate (line 3)\n    reason: missing, and `key` needs it"));
}

#[test]
fn admin_beyond_loopback_wants_a_token() {
    assert!(
        the_fault(&minimal_and("admin: {bind: 0.0.0.0:9464}\n"))
            .contains("admin.token_file (line 4)\n    reason: required, because the network can reach 0.0.0.0:9464")
    );
}

#[test]
fn a_session_has_no_more_than_all_of_them() {
    assert!(
        the_fault(&minimal_and("sessions: {per_session: 512MiB}\n"))
            .contains("one session must not have more than all sessions together (sessions.max_bytes, 256MiB)")
    );
}

#[test]
fn a_gateway_id_fits_topics_and_client_ids() {
    for id in ["\"a/b\"", "\"\"", "\"plant 7\"", "\"plänt\""] {
        assert!(the_fault(&MINIMAL.replace("plant-7", id)).contains("must be 1 to 64 of A-Z a-z 0-9"));
    }
}
