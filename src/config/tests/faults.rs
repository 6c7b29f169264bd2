//! Every kind of fault names its key, line, value and reason.

use super::super::*;
use super::{MINIMAL, minimal_and, read, the_fault};

#[test]
fn all_faults_are_listed_at_once_in_the_order_of_the_file() {
    let error = read("gateway: {id: \"a b\", max_disc: 4GiB}\nlisteners:\n  - bind: 8883\n    identity: \"{cnn}\"\nstreams:\n  - {name: a, max_bytes: 5}\n  - {name: a}\nroutes:\n  - {from: \"x/#\", stream: b}\ncloud: {profile: aws, endpoint: c.example}\n").unwrap_err();
    let shown: Vec<_> = error.faults.iter().map(|fault| (fault.path.as_str(), fault.line)).collect();
    assert_eq!(
        shown,
        [
            ("gateway.max_disc", Some(1)),
            ("gateway.id", Some(1)),
            ("listeners[0].bind", Some(3)),
            ("streams[0].max_bytes", Some(6)),
            ("streams[1].name", Some(7)),
            ("routes[0].stream", Some(9)),
            ("cloud.profile", Some(10)),
        ],
        "{error}"
    );
    assert!(
        error
            .to_string()
            .starts_with("the configuration: 7 faults in the configuration\n\n  gateway.max_disc (line 1)\n      value:  4GiB\n"),
        "{error}"
    );
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    let shown = the_fault(&minimal_and("limits:\n  max_packets: 128KiB\n"));
    assert_eq!(
        shown,
        "limits.max_packets (line 5)\n    value:  128KiB\n    reason: unknown key; known keys: max_connections, max_pending, connect_timeout, max_packet, max_in_flight, max_keep_alive, max_levels, max_topic, max_subscriptions, max_topics\n    did you mean `max_packet`?"
    );
    assert!(the_fault(&minimal_and("listner: []\n")).ends_with("did you mean `listeners`?"));
}

#[test]
fn a_key_in_the_wrong_place_is_told_its_place() {
    assert!(the_fault(&minimal_and("max_disk: 4GiB\n")).contains("unknown key at the top; there is `gateway.max_disk`"));
}

#[test]
fn a_misspelt_required_key_is_reported_once() {
    let shown = the_fault(&MINIMAL.replace("{id: plant-7}", "{idd: plant-7}"));
    assert!(
        shown.contains("gateway.idd (line 1)") && shown.ends_with("did you mean `id`?"),
        "{shown}"
    );
}

#[test]
fn a_key_that_stands_twice_is_refused_with_both_lines() {
    let shown = the_fault(&minimal_and("limits:\n  max_packet: 1KiB\n  max_packet: 2KiB\n"));
    assert!(
        shown.contains("limits.max_packet (line 6)") && shown.contains("the key is given twice, first in line 5"),
        "{shown}"
    );
    assert!(the_fault(&minimal_and("gateway: {id: other}\n")).contains("gateway (line 4)"));
}

#[test]
fn required_keys_are_named_with_their_meaning() {
    let error = read("").unwrap_err();
    let paths: Vec<_> = error.faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["gateway", "listeners"]);
    assert!(
        the_fault(&MINIMAL.replace("{endpoint: cloud.example}", "{port: 1}"))
            .contains("cloud.endpoint (line 3)\n    reason: required and missing: The host name")
    );
}

#[test]
fn wrong_types_say_what_is_wanted_and_what_stands_there() {
    for (more, expected) in [
        (
            "limits: [1]\n",
            "limits (line 4)\n    value:  a list of 1\n    reason: must be a map of keys, not a list",
        ),
        (
            "limits: {max_connections: many}\n",
            "limits.max_connections (line 4)\n    value:  many\n    reason: must be a whole number from 1 to 1000000",
        ),
        (
            "limits: {max_connections: 0}\n",
            "value:  0\n    reason: must be a whole number from 1 to 1000000",
        ),
        ("limits: {max_connections: [1]}\n", "must be whole number, 1 to 1000000, not a list"),
        (
            "limits: {max_keep_alive: 20}\n",
            "value:  20\n    reason: the unit is missing: write a duration such as 500ms, 30s, 20m, 12h or 7d",
        ),
        ("limits: {max_keep_alive: 1s}\n", "must be from 5s to 65535s"),
        ("limits: {max_packet: 1GiB}\n", "must be from 128B to 2MiB"),
        (
            "routes: [{from: a, local: \"true\"}]\n",
            "must be true or false, without quotes, not text",
        ),
        (
            "routes: [{from: a, qos: 2}]\n",
            "routes[0].qos (line 4)\n    value:  2\n    reason: must be a whole number from 0 to 1",
        ),
        ("routes: [{from: a, retain: maybe}]\n", "must be one of strip, keep"),
        ("access: {}\n", "must be a list, as in [a, b], not a map"),
        ("access: [{who: 7}]\n", "must be text, not a number; quote it"),
        (
            "access:\n  - who: \"*\"\n    publish: [7]\n",
            "access[0].publish[0] (line 6)\n    value:  7\n    reason: must be text, not a number; quote it",
        ),
        ("streams:\n", "must be a list, as in [a, b], not nothing"),
        (
            "admin: {bind: 9464}\n",
            "must be a numeric address with a port, such as 0.0.0.0:8883",
        ),
    ] {
        let shown = the_fault(&minimal_and(more));
        assert!(shown.contains(expected), "{more}\n{shown}");
    }
    assert!(the_fault("- a\n").contains("must be a map of keys, beginning with `gateway:`"));
    for (survive, expected) in [
        ("{rate: 40}", "`40` is not a rate such as 50/s or 30/m"),
        ("{outage: 12 hours}", "`hours` is not a unit; known units: ms, s, m, h, d"),
        ("{size: 256b}", "`b` is not a unit; known units: B, KiB"),
    ] {
        let shown = the_fault(&MINIMAL.replace("id: plant-7", &format!("id: plant-7, survive: {survive}")));
        assert!(shown.contains(expected), "{shown}");
    }
    assert!(the_fault(&MINIMAL.replace("id: plant-7", "id: plant-7, commit_wait: 11s")).contains("must be from 0 to 10s"));
}

#[test]
fn text_that_is_not_yaml_is_refused_with_its_line_and_advice() {
    for (text, line, expected) in [
        ("access:\n  - who: *\n", 2, "A bare `*` names an alias: quote it, as in \"*\""),
        (
            "access:\n  - {who: local, publish: [#]}\n",
            2,
            "A bare `#` begins a comment and hides what follows: quote it",
        ),
        ("gateway:\n\tid: x\n", 2, "There is a tab in the line: indent with spaces"),
        ("gateway: {id: x\nlisteners: []\n", 2, "not YAML:"),
    ] {
        let error = read(text).unwrap_err();
        let fault = &error.faults[0];
        assert!(fault.reason.contains(expected), "{error}");
        assert!(fault.line.is_some_and(|found| found >= line), "{error}");
    }
}

#[test]
fn an_unquoted_hash_in_a_list_is_told_to_be_quoted() {
    let shown = the_fault(&minimal_and("access:\n  - who: local\n    publish:\n      - #\n      - a\n"));
    assert!(
        shown.contains("access[0].publish[0] (line 7)") || shown.contains("access[0].publish[0] (line 8)"),
        "{shown}"
    );
    assert!(shown.contains("a bare `#` begins a comment; quote it, as in \"#\""), "{shown}");
}

#[test]
fn keys_of_later_versions_keep_their_place() {
    for more in [
        "commands: [{from: a, to: b, expires: 1h}]\n",
        "routes: [{from: a, ack: cloud}]\n",
        "routes: [{from: a, ack: memory}]\n",
        "routes: [{from: a, batch: {max_bytes: 5000B, max_wait: 500ms}}]\n",
        "streams: [{name: a, order: fresh_first}]\n",
        "streams: [{name: a, retire: true}]\n",
        "access: [{who: \"*\", max_rate: 50/s}]\n",
        "access: [{who: \"*\", max_bandwidth: 1KiB/s}]\n",
    ] {
        let shown = the_fault(&minimal_and(more));
        assert!(
            shown.contains("(line 4)") && shown.contains("reason: not in this version"),
            "{more}\n{shown}"
        );
    }
    for (from, to) in [
        ("endpoint:", "lanes: 2, endpoint:"),
        ("bind:", "transport: websocket, bind:"),
        ("bind:", "passwords: users, bind:"),
    ] {
        let shown = the_fault(&MINIMAL.replace(from, to));
        assert!(shown.contains("reason: not in this version"), "{to}\n{shown}");
    }
}

#[test]
fn what_this_version_has_of_such_keys_is_accepted() {
    let text = MINIMAL
        .replace("endpoint:", "lanes: 1, canary: off, endpoint:")
        .replace("bind:", "transport: tcp, bind:");
    read(&text).unwrap();
    read(&minimal_and(
        "routes: [{from: a, ack: disk}]\nstreams: [{name: a, order: strict}]\n",
    ))
    .unwrap();
}

#[test]
fn missing_files_are_named_where_they_would_be_with_what_makes_them() {
    let folder = tempfile::tempdir().unwrap();
    let text = "gateway: {id: g}\nlisteners:\n  - bind: 0.0.0.0:8883\n    tls:\n      key: other.key\ncloud: {endpoint: c.example}\nadmin: {token_file: token}\n";
    let error = parse(text, folder.path(), &Overrides::default()).unwrap_err();
    let shown = error.to_string();
    let paths: Vec<_> = error.faults.iter().map(|fault| (fault.path.as_str(), fault.line)).collect();
    assert_eq!(
        paths,
        [
            ("listeners[0].tls.certificate", Some(5)),
            ("listeners[0].tls.key", Some(5)),
            ("listeners[0].tls.client_ca", Some(5)),
            ("cloud.tls.certificate", Some(6)),
            ("cloud.tls.key", Some(6)),
            ("admin.token_file", Some(7)),
        ],
        "{shown}"
    );
    let expected = format!(
        "value:  other.key\n      reason: cannot read {}: No such file or directory (os error 2). `forebay certs server --name NAME` makes it",
        folder.path().join("other.key").display()
    );
    assert!(shown.contains(&expected), "{shown}");
    assert!(shown.contains("certs/server.pem (the default): No such file"), "{shown}");
}

#[test]
fn a_directory_is_no_file_and_a_file_no_directory() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data"), "").unwrap();
    let text = "gateway: {id: g, data_dir: data}\nlisteners: [{bind: \"127.0.0.1:1883\"}]\nadmin: {token_file: .}\n";
    let shown = parse(text, folder.path(), &Overrides::default()).unwrap_err().to_string();
    assert!(
        shown.contains("exists and is not a directory") && shown.contains("it is not a file"),
        "{shown}"
    );
}

#[test]
fn e14_a_cloud_that_is_a_listener_of_our_own_is_a_fault() {
    let with = |bind: &str, endpoint: &str, port: u16| {
        let listener = format!("{{bind: \"{bind}:1883\", insecure: true}}");
        read(&format!(
            "gateway: {{id: g}}\nlisteners: [{listener}]\ncloud: {{profile: mqtt, endpoint: \"{endpoint}\", port: {port}, insecure: true}}\n"
        ))
    };
    for (bind, endpoint) in [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "localhost"),
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "127.1.2.3"),
        ("0.0.0.0", "localhost"),
        ("192.0.2.7", "192.0.2.7"),
        ("[::]", "::1"),
    ] {
        let shown = with(bind, endpoint, 1883).unwrap_err().to_string();
        assert!(
            shown.contains("cloud.endpoint") && shown.contains("this gateway's own listener"),
            "{bind} {endpoint}: {shown}"
        );
        with(bind, endpoint, 1884).unwrap();
    }
    with("127.0.0.1", "192.0.2.7", 1883).unwrap();
    let by_name = "gateway: {id: g}\nlisteners: [{bind: \"0.0.0.0:8883\", names: [plant-7.local], tls: {}}]\n\
                   cloud: {profile: mqtt, endpoint: plant-7.local, tls: {}}\n";
    assert!(the_fault(by_name).contains("this gateway's own listener"));
}

#[test]
fn a_missing_configuration_file_is_a_fault_too() {
    let error = load(Path::new("/nowhere/forebay.yaml"), &Overrides::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("/nowhere/forebay.yaml: 1 fault in the configuration\n\n  the file\n      reason: cannot be read: No such file"),
        "{error}"
    );
}

#[test]
fn a_weak_token_is_refused_and_a_good_one_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let text = "gateway: {id: g}\nlisteners: [{bind: \"127.0.0.1:1883\"}]\nadmin: {bind: 0.0.0.0:9464, token_file: token}\n";
    std::fs::write(folder.path().join("token"), "short\n").unwrap();
    assert!(
        parse(text, folder.path(), &Overrides::default())
            .unwrap_err()
            .to_string()
            .contains("must hold one token of at least 16")
    );
    std::fs::write(folder.path().join("token"), "0123456789abcdef\n").unwrap();
    let config = parse(text, folder.path(), &Overrides::default()).unwrap();
    assert_eq!(config.admin.token.as_ref().map(Secret::expose), Some("0123456789abcdef"));
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
}

#[test]
fn traces_go_over_plain_http() {
    for endpoint in ["127.0.0.1:4318", "https://collector:4318", "http://", "collector"] {
        let shown = the_fault(&minimal_and(&format!("admin: {{otlp: {{endpoint: \"{endpoint}\"}}}}\n")));
        assert!(
            shown.contains("admin.otlp.endpoint") && shown.contains("must be like http://127.0.0.1:4318"),
            "{endpoint}\n{shown}"
        );
    }
    let config = read(&minimal_and("admin: {otlp: {endpoint: \"http://127.0.0.1:4318/\"}}\n")).unwrap();
    let otlp = config.admin.otlp.unwrap();
    assert_eq!((otlp.endpoint.as_str(), otlp.sample), ("http://127.0.0.1:4318", 0.01));
}

#[test]
fn what_cannot_be_watched_is_told() {
    for (item, path, reason) in [
        ("{topic: \"a/#/b\", every: 60s}", "watch[0].topic", "#"),
        ("{topic: a}", "watch[0].topic", "the item checks nothing"),
        ("{topic: a, every: 10ms}", "watch[0].every", "must be from 1s to 30d"),
        ("{topic: a, sequence: {counter: seq}}", "watch[0].sequence.counter", "JSON pointer"),
        ("{topic: a, sequence: {boot: /b}}", "watch[0].sequence.counter", "required"),
        (
            "{topic: a, fields: [{at: /a, range: [5, 1]}]}",
            "watch[0].fields[0].range",
            "the lower one first",
        ),
        (
            "{topic: a, fields: [{at: /a, range: [5, 6, 7]}]}",
            "watch[0].fields[0].range",
            "two numbers",
        ),
        (
            "{topic: a, fields: [{at: /a, drift: {topic: a/+, at: /t, more_than: 1}}]}",
            "watch[0].fields[0].drift.topic",
            "without wildcards",
        ),
        (
            "{topic: a, fields: [{at: /a, drift: {topic: r, at: /t, more_than: much}}]}",
            "watch[0].fields[0].drift.more_than",
            "must be a number",
        ),
        (
            "{topic: a, fields: [{at: /a, drift: {topic: r, at: /t, more_than: 0}}]}",
            "watch[0].fields[0].drift.more_than",
            "more than 0",
        ),
        ("{topic: a, every: 5s}, {topic: a, every: 6s}", "watch[1].topic", "the same filter"),
    ] {
        let shown = the_fault(&minimal_and(&format!("watch: [{item}]\n")));
        assert!(shown.contains(path) && shown.contains(reason), "{item}\n{shown}");
    }
}

#[test]
fn e8_files_that_are_missing_keep_no_gateway_from_starting_and_a_fault_of_the_text_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forebay.yaml");
    let missing = "gateway: {id: g}\nlisteners: [{bind: 0.0.0.0:8883}]\ncloud: {endpoint: c.example}\n";
    std::fs::write(&path, missing).unwrap();
    let none = Overrides::default();
    assert!(load(&path, &none).unwrap_err().passes());
    let (config, later) = load_to_run(&path, &none).unwrap();
    let keys: Vec<_> = later.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(keys.len(), 5, "{keys:?}");
    assert!(config.listeners[0].tls.is_some() && config.cloud.is_some_and(|cloud| cloud.tls.is_some()));
    for wrong in ["gateway: {id: g, max_dsk: 1GiB}", "gateway: {}"] {
        std::fs::write(&path, missing.replace("gateway: {id: g}", wrong)).unwrap();
        load_to_run(&path, &none).unwrap_err();
    }
}

#[test]
fn e20_a_path_of_a_home_is_no_folder_named_tilde() {
    for path in ["~/data", "~", "~root/x"] {
        let shown = the_fault(&MINIMAL.replace("id: plant-7", &format!("id: plant-7, data_dir: \"{path}\"")));
        assert!(
            shown.contains("gateway.data_dir") && shown.contains("write the whole path"),
            "{shown}"
        );
    }
    let tls = "listeners: [{bind: 0.0.0.0:8883, tls: {certificate: \"~/server.pem\"}}]";
    let shown = the_fault(&format!("gateway: {{id: g}}\n{tls}\n"));
    assert!(
        shown.contains("tls.certificate") && shown.contains("write the whole path"),
        "{shown}"
    );
}

#[test]
fn e20_a_byte_order_mark_is_no_second_document() {
    assert_eq!(read(&format!("\u{feff}{MINIMAL}")).unwrap(), read(MINIMAL).unwrap());
}
