//! Every configuration key, once: its type, limits, default and meaning. Unknown keys, nearest names, type and range
//! checks, defaults and `docs/configuration.md` all come from this table.

use super::kind::Kind::{
    self, Bandwidth, Bool, Bytes, Choice, Duration, File, Integer, List, Map, Number, Percent, Range, Rate, Socket, Text, TextList,
};

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyDoc {
    /// Its path; `[]` stands for any item of a list: `streams[].max_bytes`.
    pub(crate) path: &'static str,
    /// Its type and range.
    pub(crate) kind: Kind,
    /// What happens when it is left out.
    pub(crate) default: Default,
    /// Whether this version has it.
    pub(crate) built: Built,
    /// What it means and what depends on it.
    pub(crate) doc: &'static str,
}

/// What a key is when it is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Default {
    /// It cannot be left out.
    Required,
    /// This value.
    Value(&'static str),
    /// What these words say.
    Words(&'static str),
}

/// Whether this version has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Built {
    /// All of it.
    Yes,
    /// None of it: the key keeps its place and is refused with "not in this version".
    No,
    /// Only these values; the others are refused with "not in this version".
    Only(&'static [&'static str]),
}

impl KeyDoc {
    /// The last part of the path.
    #[must_use]
    pub(crate) fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path).trim_end_matches("[]")
    }

    /// The path of the map that holds the key; empty for the root.
    #[must_use]
    pub(crate) fn parent(&self) -> &'static str {
        let path = self.path.strip_suffix("[]").unwrap_or(self.path);
        path.rsplit_once('.').map_or("", |(parent, _)| parent)
    }

    const fn not_yet(mut self) -> Self {
        self.built = Built::No;
        self
    }

    const fn only(mut self, values: &'static [&'static str]) -> Self {
        self.built = Built::Only(values);
        self
    }
}

/// The table, in the order of the documentation.
#[must_use]
pub(crate) fn reference() -> &'static [KeyDoc] {
    KEYS
}

/// The entry of a generic path such as `streams[].name`.
pub(super) fn lookup(path: &str) -> Option<&'static KeyDoc> {
    KEYS.iter().find(|key| key.path == path)
}

/// The keys that a map at this generic path may have.
pub(super) fn children(path: &str) -> impl Iterator<Item = &'static KeyDoc> + '_ {
    KEYS.iter().filter(move |key| key.parent() == path)
}

const fn key(path: &'static str, kind: Kind, default: Default, doc: &'static str) -> KeyDoc {
    KeyDoc {
        path,
        kind,
        default,
        built: Built::Yes,
        doc,
    }
}

const fn required(path: &'static str, kind: Kind, doc: &'static str) -> KeyDoc {
    key(path, kind, Default::Required, doc)
}

const fn value(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> KeyDoc {
    key(path, kind, Default::Value(default), doc)
}

const fn words(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> KeyDoc {
    key(path, kind, Default::Words(default), doc)
}

const ANY_SIZE: Kind = Bytes { min: "1B", max: "64TiB" };
const ANY_TIME: Kind = Duration { min: "1ms", max: "3650d" };

#[rustfmt::skip]
const KEYS: &[KeyDoc] = &[
    required("gateway", Map, "The gateway itself: its name, its disk."),
    required("gateway.id", Text, "Unique per cloud account: it is part of topics, client ids and metrics. 1 to 64 of `A-Z a-z 0-9 _ - . :`. Two gateways with one id disconnect each other from the cloud without end."),
    words("gateway.data_dir", Text, "`$STATE_DIRECTORY`, else `./data`", "The directory of the log, the sessions and the retained messages, created when missing. A relative path starts at the folder of the configuration file. Keep it on a local disk that honours sync."),
    value("gateway.max_disk", Bytes { min: "32MiB", max: "64TiB" }, "4GiB", "Bound on the bytes that the log's directory takes on disk. Reached: each stream's `when_full` decides."),
    value("gateway.keep_free", Bytes { min: "0", max: "64TiB" }, "512MiB", "Bytes of the file system that stay free, whatever the streams allow. Reached: as if `max_disk` were reached."),
    value("gateway.commit_wait", Duration { min: "0", max: "10s" }, "0ms", "Collects publishes for up to this long and writes them in one commit. Each commit writes some 40KiB, however small it is: 500ms at 40/s writes 15 to 20 times less to a flash card. Every ack is that much later, except for a lone message on an idle log (up to 720 an hour)."),
    words("gateway.survive", Map, "the three values below", "The outage that the gateway must survive; `forebay check` compares the disk with it."),
    value("gateway.survive.outage", Duration { min: "1s", max: "3650d" }, "12h", "The longest time that the cloud may be away."),
    value("gateway.survive.rate", Rate, "40/s", "Publishes per second bound for the cloud, over all devices."),
    value("gateway.survive.size", Bytes { min: "1B", max: "256MiB" }, "256B", "Bytes of a typical payload."),

    required("listeners", List, "Where devices connect, at least one, at most 16. MQTT 3.1.1 and 5 on every port."),
    required("listeners[].bind", Socket, "Address and port. Port 0 takes a free one (for tests)."),
    words("listeners[].names", TextList, "none: the certificate's names are not checked", "The names that devices dial: host names and addresses. `forebay check` compares the certificate's SANs with them. Needs TLS."),
    words("listeners[].tls", Map, "plain on loopback and with `insecure: true`; else the files below by convention (port 1883 beyond loopback is refused)", "Mutual TLS 1.2 and 1.3."),
    value("listeners[].tls.certificate", File, "certs/server.pem", "The server's certificate chain, PEM, leaf first."),
    value("listeners[].tls.key", File, "certs/server.key", "Its private key, PEM; readable by the gateway alone."),
    value("listeners[].tls.client_ca", File, "certs/devices-ca.pem", "The CAs whose certificates devices must show, PEM."),
    words("listeners[].tls.crl", File, "`certs/devices.crl` if it exists", "Revoked device certificates, PEM. If the key is given, a missing file is a fault: a lost list must not let revoked devices in."),
    words("listeners[].identity", Text, "`{cn}` with TLS, `local` plain on loopback, `{client_id}` plain elsewhere", "The identity of a device: `{cn}`, `{san_uri}`, `{san_dns}`, `{client_id}` or a fixed word for all. One topic level: no `/ + #`, at most 128 bytes; other devices are refused. Any client can choose its `{client_id}`."),
    value("listeners[].insecure", Bool, "false", "Allows plain TCP beyond loopback: every host on the network can read and write."),
    words("listeners[].transport", Choice(&["tcp", "websocket"]), "`tcp`", "The transport of MQTT.").only(&["tcp"]),
    words("listeners[].passwords", File, "none", "User names and password hashes.").not_yet(),

    words("access", List, "`local` may do all; every other identity may publish on `devices/{device}/#`, without `factory/`, and subscribe to `devices/{device}/commands/#`", "What each identity may publish and subscribe. The first rule whose `who` matches decides. If none matches, or it does not allow the topic, the request is refused. At most 256 rules."),
    required("access[].who", Text, "A glob on the identity: `*` stands for any characters, `?` for one. Quote a bare `\"*\"`."),
    words("access[].publish", TextList, "none", "Topic filters for publishing; `{device}` is the identity, `{gateway}` the gateway's id. Quote a filter that begins with `#`."),
    words("access[].subscribe", TextList, "none", "Topic filters for subscribing: a subscription must lie within one of them."),
    words("access[].deny", TextList, "none", "Topic filters refused before both."),
    words("access[].max_rate", Rate, "none", "Publishes per second and identity.").not_yet(),
    words("access[].max_bandwidth", Bandwidth { min: "1B/s", max: "1TiB/s" }, "none", "Bytes per second and identity.").not_yet(),
    words("access[].max_connections", Integer { min: 1, max: 65_535 }, "none", "Connections per identity.").not_yet(),

    words("limits", Map, "the values below", "Bounds for each connection and for all. Fixed bounds: 100 subscriptions of a session, and 20,000 distinct filters, 4MiB and 60,000 levels of them, of all sessions together; one more is refused (SUBACK 0x97 on MQTT 5, 0x80 on 3.1.1), logged, and counted in `forebay_subscriptions_refused_total`."),
    value("limits.max_connections", Integer { min: 1, max: 1_000_000 }, "2000", "Connections at a time; further ones are closed at once and counted. Each costs a file descriptor and some 9KiB while it is idle, 20KiB over TLS, 13KiB more after bursts."),
    value("limits.max_packet", Bytes { min: "128B", max: "2MiB" }, "128KiB", "The largest MQTT packet accepted. AWS IoT Core accepts 128KiB of payload: larger ones would become dead letters."),
    value("limits.max_in_flight", Integer { min: 1, max: 65_535 }, "100", "Publishes per connection that are not acked yet (Receive Maximum)."),
    value("limits.max_keep_alive", Duration { min: "5s", max: "65535s" }, "20m", "The longest keep-alive; longer ones and 0 are lowered to it, on 3.1.1 without telling the client. It bounds how long a dead peer goes unnoticed."),
    value("limits.max_levels", Integer { min: 8, max: 1024 }, "32", "Levels of a topic or filter. A deeper filter is refused (SUBACK 0x8F on MQTT 5, 0x80 on 3.1.1), a deeper publish too (0x90; on 3.1.1 acked and dropped), and counted as `topic_bounds`. AWS IoT Core accepts 8."),
    value("limits.max_topic", Bytes { min: "128B", max: "65535B" }, "1KiB", "Bytes of a topic or filter; longer ones are refused in the same way. AWS IoT Core accepts 256."),
    value("limits.max_topics", Integer { min: 100, max: 10_000_000 }, "100000", "The largest number of retained messages. At the bound a message of a new topic is delivered but not retained, and counted. Once half are used, one identity has at most a quarter."),

    words("sessions", Map, "the values below", "Persistent sessions and retained messages."),
    value("sessions.max_bytes", Bytes { min: "1MiB", max: "64TiB" }, "256MiB", "Messages waiting for all absent sessions together; as much again for retained messages (topics, payloads, properties), which are in `state.redb` and take up to twice that on disk, outside `gateway.max_disk`. At the bound a message is delivered but not retained, and counted."),
    value("sessions.per_session", Bytes { min: "1KiB", max: "64TiB" }, "8MiB", "Messages waiting for one session; beyond, its oldest are dropped and counted."),
    value("sessions.max_expiry", Duration { min: "1s", max: "3650d" }, "7d", "The longest time that a session outlives its connection."),

    words("streams", List, "one `default`: 1GiB, drop_oldest", "Queues of the log in order of priority, at most 8: alarms, telemetry, never one per device."),
    required("streams[].name", Text, "Unique; 1 to 32 of `a-z 0-9 _ -`, beginning with a letter; `local` and `dead` are taken. A stream keeps its records by its name."),
    value("streams[].max_bytes", Bytes { min: "64KiB", max: "64TiB" }, "1GiB", "Bound on its waiting bytes."),
    words("streams[].max_age", ANY_TIME, "none: nothing expires", "Records older than this are dropped and counted as expired. Only age that can be proved counts."),
    value("streams[].when_full", Choice(&["refuse", "drop_oldest"]), "drop_oldest", "At the bound: `refuse` refuses publishes until there is room, `drop_oldest` drops the oldest records and counts them as evicted."),
    value("streams[].order", Choice(&["strict", "fresh_first"]), "strict", "`strict`: each device's records reach the cloud in their order. `fresh_first`: after an outage the newest get their share first.").only(&["strict"]),
    words("streams[].retire", Bool, "`false`", "Drains a stream that is no longer wanted.").not_yet(),

    words("routes", List, "`devices/#` to `{topic}`, if there is a cloud", "What is sent to the cloud; the first match decides. At most 256. QoS 0 publishes are stored and sent too, but not acked."),
    required("routes[].from", Text, "The topic filter; unique. Records carry it as the route's name."),
    words("routes[].to", Text, "`{topic}`", "The topic in the cloud: `{gateway}`, `{device}` (the publisher's identity), `{topic}`, `{1}` `{2}` for what each `+` matched, `{#}` for the tail. AWS: at most 256 bytes, 7 slashes, no leading `$`."),
    words("routes[].stream", Text, "the stream, when there is only one", "The stream that stores its records."),
    value("routes[].ack", Choice(&["memory", "disk", "cloud"]), "disk", "When a device's QoS 1 publish is acked. `disk`: when its record survives a power cut.").only(&["disk"]),
    value("routes[].retain", Choice(&["strip", "keep"]), "strip", "Whether the RETAIN flag is sent to the cloud. AWS bills and limits retained messages."),
    value("routes[].qos", Integer { min: 0, max: 1 }, "1", "The QoS towards the cloud. 0: a record counts as delivered when it is written to the connection, and can be lost."),
    value("routes[].local", Bool, "false", "The publishes stay local: not stored for the cloud, not reported as unrouted."),
    words("routes[].batch", Map, "none", "Several records in one message; the consumer must unpack.").not_yet(),
    required("routes[].batch.max_bytes", ANY_SIZE, "The largest batch.").not_yet(),
    required("routes[].batch.max_wait", ANY_TIME, "The longest time that a record waits for others.").not_yet(),

    words("commands", List, "none", "Messages from the cloud to devices.").not_yet(),
    required("commands[].from", Text, "The filter in the cloud.").not_yet(),
    required("commands[].to", Text, "The topic here.").not_yet(),
    words("commands[].expires", ANY_TIME, "never", "How long a command waits for its device.").not_yet(),

    words("watch", List, "none", "What is reported of the devices' publishes; no publish is altered or delayed. Every item whose filter matches checks a publish. At most 64 items."),
    required("watch[].topic", Text, "The filter of the publishes to watch. One series for each device and each topic up to the `#`."),
    words("watch[].every", Duration { min: "1s", max: "30d" }, "silence is not watched", "The interval at which each device publishes. A device that publishes nothing for 3.25 times as long is silent."),
    words("watch[].sequence", Map, "none", "The place of a device's counter: finds gaps, duplicates, reorder, restarts. It counts over all topics that the filter's `#` matches."),
    required("watch[].sequence.counter", Text, "JSON pointer of a whole number that rises by one with each message: `/seq`."),
    words("watch[].sequence.boot", Text, "none: a counter that falls far has restarted", "JSON pointer of a value that changes with each boot: `/boot`."),
    words("watch[].fields", List, "none", "Measured values, at most 16. Each is watched for being stuck."),
    required("watch[].fields[].at", Text, "JSON pointer of a number: `/temp`. A message without it is skipped."),
    words("watch[].fields[].range", Range, "any value", "The lowest and the highest sensible value."),
    words("watch[].fields[].drift", Map, "none", "A reference that it must not drift from. The newest 31 differences count, by their median."),
    required("watch[].fields[].drift.topic", Text, "The one topic of the reference."),
    required("watch[].fields[].drift.at", Text, "JSON pointer of its number."),
    required("watch[].fields[].drift.more_than", Number, "The largest difference that is no drift, in the field's unit. A difference that was there from the start counts."),

    words("cloud", Map, "a local broker without a cloud", "Where the log is replayed to."),
    value("cloud.profile", Choice(&["aws-iot", "mqtt"]), "aws-iot", "The limits and behaviour of the cloud: AWS IoT Core, or any MQTT broker."),
    required("cloud.endpoint", Text, "Host name or address, without scheme and port."),
    words("cloud.port", Integer { min: 1, max: 65_535 }, "8883 with TLS, 1883 plain", "With 443, ALPN is set."),
    value("cloud.protocol", Choice(&["5", "3.1.1"]), "5", "The MQTT version towards the cloud. With 5 the cloud says why a message was refused; with 3.1.1 it only closes the connection."),
    value("cloud.client_id", Text, "{gateway}", "The client id; `{gateway}` is the gateway's id. At most 120 bytes, no leading `$`, no `+ #`. The IoT policy must allow it."),
    words("cloud.tls", Map, "plain on loopback and with `insecure: true`; else, for `aws-iot`, the files below by convention", "TLS towards the cloud."),
    words("cloud.tls.certificate", File, "`certs/cloud.pem` for `aws-iot`, none for `mqtt`", "The gateway's certificate chain for the cloud, PEM."),
    words("cloud.tls.key", File, "`certs/cloud.key` for `aws-iot`, none for `mqtt`", "Its private key, PEM; readable by the gateway alone."),
    words("cloud.tls.ca", File, "Amazon's roots (`aws-iot`), the system's (`mqtt`)", "The CAs that may have signed the cloud's certificate, PEM."),
    value("cloud.insecure", Bool, "false", "Allows plain TCP to a cloud beyond loopback: every host on the path can read and write."),
    value("cloud.lanes", Integer { min: 1, max: 16 }, "1", "Connections side by side; a device is always on one. Further lanes add -2, -3 to the client id.").only(&["1"]),
    value("cloud.in_flight", Integer { min: 1, max: 1_000 }, "32", "Publishes per lane that the cloud has not acked, at most 100 for `aws-iot` and never above the cloud's Receive Maximum. After a cut at most this many are sent again."),
    words("cloud.max_bandwidth", Bandwidth { min: "1KiB/s", max: "1TiB/s" }, "the profile's: AWS's quota of 512KiB/s for `aws-iot`, none for `mqtt`", "For metered links. The bridge sends at nine tenths of it."),
    value("cloud.canary", Kind::OffOr(&Duration { min: "1s", max: "7d" }), "5m", "A small message of the gateway's own at this interval to `GATEWAY/canary`, through log and bridge, shows that the whole path works. On MQTT 3.1.1 it is also sent before a record counts as the cause of a close. Some 250 bytes each. `off`: never; then a quiet second after the connect takes its place."),

    words("admin", Map, "the values below", "`/`, `/metrics`, `/healthz`, `/readyz`, `/status`; `forebay status` connects there."),
    value("admin.bind", Socket, "127.0.0.1:9464", "Address and port. Beyond loopback only `/metrics`, `/healthz` and `/readyz` answer without the token, and `token_file` is required."),
    words("admin.token_file", File, "none: loopback only", "A file with the token that the other paths need as `Authorization: Bearer`; at least 16 characters, readable by the gateway alone."),
    words("admin.otlp", Map, "none", "Traces of some records, from publish to the cloud's ack, for an OpenTelemetry collector; docs/traces.md."),
    required("admin.otlp.endpoint", Text, "The collector's address, as in `http://127.0.0.1:4318`: OTLP over plain HTTP, at `/v1/traces` below it. Spans that it does not accept are dropped and counted."),
    value("admin.otlp.sample", Percent, "1%", "The share of records traced. A record's id decides, so that a restart changes nothing."),
];
