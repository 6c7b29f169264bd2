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
    required("gateway.id", Text, "The gateway's name, unique in the cloud account. Topics, client ids and metrics contain it. 1 to 64 of `A-Z a-z 0-9 _ - . :`. Two gateways with the same id disconnect each other from the cloud again and again."),
    words("gateway.data_dir", Text, "`$STATE_DIRECTORY`, else `./data`", "The directory of the log, the sessions and the retained messages. It is created if it is missing. A relative path starts at the folder of the configuration file. Use a local disk that honours sync."),
    value("gateway.max_disk", Bytes { min: "32MiB", max: "64TiB" }, "4GiB", "At most this many bytes of disk for the log's directory. At the bound each stream does what its `when_full` says."),
    value("gateway.keep_free", Bytes { min: "0", max: "64TiB" }, "512MiB", "The file system keeps at least this much free, whatever the streams allow. Below it the log acts as at `max_disk`."),
    value("gateway.max_memory", Bytes { min: "32MiB", max: "1TiB" }, "128MiB", "Memory for what peers leave behind: connections, subscriptions, and what is on its way. The bounds below follow from it, from `limits.max_connections` and from `limits.max_topics`. `forebay check` says the most that peers can take; the gateway takes some 40MiB by itself."),
    value("gateway.commit_wait", Duration { min: "0", max: "10s" }, "0ms", "Collects publishes for up to this long and writes them in one commit. Each commit writes about 40KiB, however small it is: at 40/s, 500ms writes 15 to 20 times less to a flash card. Acks come later by that time, except for a lone message on an idle log (up to 720 an hour)."),
    words("gateway.survive", Map, "the three values below", "The outage that the gateway must survive. `forebay check` compares the disk with it."),
    value("gateway.survive.outage", Duration { min: "1s", max: "3650d" }, "12h", "The longest time without the cloud."),
    value("gateway.survive.rate", Rate, "40/s", "Publishes per second for the cloud, of all devices together."),
    value("gateway.survive.size", Bytes { min: "1B", max: "256MiB" }, "256B", "The size of a typical payload."),

    required("listeners", List, "Where devices connect: 1 to 16 listeners. Each accepts MQTT 3.1.1 and 5, and 3.1 (`MQIsdp`), which is served as 3.1.1."),
    required("listeners[].bind", Socket, "Address and port. Port 0 takes a free port (for tests)."),
    words("listeners[].names", TextList, "none: the certificate's names are not checked", "The host names and addresses that devices dial. `forebay check` checks that the certificate's SANs contain them. Requires TLS."),
    words("listeners[].tls", Map, "plain on loopback and with `insecure: true`; else the files below by convention (port 1883 beyond loopback is refused)", "Mutual TLS 1.2 and 1.3."),
    value("listeners[].tls.certificate", File, "certs/server.pem", "The server's certificate chain, PEM, leaf first."),
    value("listeners[].tls.key", File, "certs/server.key", "Its private key, PEM. Only the gateway may read it."),
    value("listeners[].tls.client_ca", File, "certs/devices-ca.pem", "The CAs that sign device certificates, PEM."),
    words("listeners[].tls.crl", File, "`certs/devices.crl` if it exists", "The list of revoked device certificates, PEM. If the key is set, the listener does not open without the file, so that a lost list does not admit revoked devices."),
    words("listeners[].identity", Text, "`{cn}` with TLS, `local` plain on loopback, `{client_id}` plain elsewhere", "Where a device's identity comes from: `{cn}`, `{san_uri}`, `{san_dns}`, `{client_id}`, or a fixed word for all. An identity is one topic level of at most 128 bytes without `/ + #`; a device with another one is refused. Any client can choose its `{client_id}` freely."),
    value("listeners[].insecure", Bool, "false", "Allows plain TCP beyond loopback. Any host on the network can then read and write."),
    words("listeners[].transport", Choice(&["tcp", "websocket"]), "`tcp`", "The transport below MQTT.").only(&["tcp"]),
    words("listeners[].passwords", File, "none", "User names and password hashes.").not_yet(),

    words("access", List, "`local` may do everything; every other identity may publish `devices/{device}/#` except `factory/`, and subscribe `devices/{device}/commands/#`", "Which identity may publish and subscribe what. The first rule whose `who` matches decides. If none matches, or it does not allow the topic, the request is refused. At most 256 rules."),
    required("access[].who", Text, "A glob for the identity: `*` matches any characters, `?` matches one. Quote a bare `\"*\"`."),
    words("access[].publish", TextList, "none", "Topic filters that may be published. `{device}` is the identity, `{gateway}` the gateway's id. Quote a filter that begins with `#`. `#` does not match what begins with `$`: a Mosquitto that connects as a bridge has a will on `$SYS/broker/connection/#`, unless `notifications false` is set there."),
    words("access[].subscribe", TextList, "none", "Topic filters that may be subscribed. A subscription must lie within one of them. `#` does not cover what begins with `$`: the gateway's own figures need `$SYS/#` ([broker-topics.md](broker-topics.md))."),
    words("access[].deny", TextList, "none", "Topic filters that are refused, whatever `publish` and `subscribe` allow."),
    words("access[].max_rate", Rate, "none", "Publishes per second and identity.").not_yet(),
    words("access[].max_bandwidth", Bandwidth { min: "1B/s", max: "1TiB/s" }, "none", "Bytes per second and identity.").not_yet(),
    value("access[].max_connections", Integer { min: 1, max: 65_535 }, "4", "At most this many connections of each identity at a time. A further one is refused (CONNACK 0x97; code 3 on 3.1.1), unless it takes over one of them by its client id. It does not bind an identity that is a listener's fixed word."),
    words("access[].max_packet_311", Bytes { min: "16B", max: "256MiB" }, "none", "The largest PUBLISH that clients of MQTT 3.1.1 with this identity are sent, header included. That version has no Maximum Packet Size, and small clients close or drop what their buffer does not hold. A larger message is dropped for that client and counted (`forebay_owed_dropped_total` with `too_large`; at QoS 0 `forebay_fanout_dropped_total`). On MQTT 5 the client says it itself."),

    words("limits", Map, "the values below", "Bounds of each connection and of all together. The others are in [the table below](#bounds-on-what-peers-leave-behind)."),
    value("limits.max_connections", Integer { min: 1, max: 1_000_000 }, "2000", "At most this many connections at a time. Further ones are closed and counted. A connection takes a file descriptor and about 9KiB while it is idle, 20KiB with TLS, and 13KiB more after a burst."),
    words("limits.max_pending", Integer { min: 8, max: 1_000_000 }, "as `limits.max_connections`", "At most this many connections that have not sent CONNECT, TLS handshakes among them. They count in `limits.max_connections` too. At the bound a silent peer gives way to a new one; a peer that goes on keeps its place."),
    value("limits.connect_timeout", Duration { min: "1s", max: "10m" }, "30s", "The longest time from the TCP connection to CONNECT, the TLS handshake included. A slower peer is closed and counted."),
    value("limits.max_packet", Bytes { min: "128B", max: "2MiB" }, "128KiB", "The largest MQTT packet that is accepted. AWS IoT Core accepts payloads of up to 128KiB; larger ones would become dead letters."),
    value("limits.max_in_flight", Integer { min: 1, max: 65_535 }, "100", "At most this many publishes of a connection that are not acked yet (Receive Maximum)."),
    value("limits.max_keep_alive", Duration { min: "5s", max: "65535s" }, "20m", "The longest keep-alive on MQTT 5: a longer one, and 0, become this. MQTT 3.1.1 has no way to tell a client, so its own holds, and 0 turns it off. On both the system asks a peer that has been silent for this long (TCP keep-alive), and closes the connection if it is gone, after 1.5 times this."),
    value("limits.max_levels", Integer { min: 8, max: 1024 }, "32", "At most this many levels of a topic or filter. A deeper filter is refused (SUBACK 0x8F on MQTT 5, 0x80 on 3.1.1), and so is a deeper publish (0x90; on 3.1.1 acked and dropped); both are counted as `topic_bounds`. AWS IoT Core accepts 8."),
    value("limits.max_topic", Bytes { min: "128B", max: "65535B" }, "1KiB", "At most this many bytes of a topic or filter. Longer ones are refused in the same way. AWS IoT Core accepts 256."),
    value("limits.max_subscriptions", Integer { min: 1, max: 20_000 }, "1000", "At most this many subscriptions of one session. A further one is refused (SUBACK 0x97 on MQTT 5, 0x80 on 3.1.1). All sessions together have at most 20,000 distinct filters, and their tree 60,000 nodes; what one identity may have of their memory follows from `gateway.max_memory` (`session_bytes`)."),
    value("limits.max_topics", Integer { min: 100, max: 10_000_000 }, "100000", "At most this many retained messages. One more, on a new topic, is delivered but not retained, and counted. When half of them are used, one identity has at most a quarter."),

    words("sessions", Map, "the values below", "Persistent sessions and retained messages."),
    value("sessions.max_bytes", Bytes { min: "1MiB", max: "64TiB" }, "256MiB", "At most this many bytes of retained messages (topics, payloads, properties). They are in `state.redb`, which takes up to twice that on disk and counts in `gateway.max_disk`; retained messages have at most an eighth of that. A message beyond the bound is delivered but not retained, and counted."),
    value("sessions.per_session", Bytes { min: "1KiB", max: "64TiB" }, "8MiB", "At most this many bytes of what is kept for one session: its subscriptions and QoS 2 packet ids, and 160 bytes for each subscription. A subscription beyond it is refused. Also of the messages that wait for one session at QoS 1 and 2; beyond it the oldest is dropped."),
    value("sessions.max_expiry", Duration { min: "1s", max: "3650d" }, "7d", "The longest time that a session outlives its connection."),
    value("sessions.ack_timeout", Duration { min: "1s", max: "1h" }, "60s", "How long a subscriber may take to acknowledge a message of QoS 1 or 2. Then it is named in the gateway's own log, and its connection is closed: a message is sent again only on a new connection."),

    words("streams", List, "one `default`: 1GiB, drop_oldest", "The log's queues in order of priority, at most 8. Make one for alarms and one for telemetry, never one per device."),
    required("streams[].name", Text, "Unique. 1 to 32 of `a-z 0-9 _ -`, beginning with a letter; not `local` or `dead`. The records of a stream belong to its name: renaming it leaves them behind."),
    value("streams[].max_bytes", Bytes { min: "64KiB", max: "64TiB" }, "1GiB", "At most this many bytes wait in it."),
    words("streams[].max_age", ANY_TIME, "none: nothing expires", "Records older than this expire: they are dropped and counted. An age counts only if it can be proved."),
    value("streams[].when_full", Choice(&["refuse", "drop_oldest"]), "drop_oldest", "At the bound: `refuse` refuses publishes, `drop_oldest` drops the oldest records and counts them as evicted."),
    value("streams[].order", Choice(&["strict", "fresh_first"]), "strict", "`strict`: each device's records reach the cloud in their order. `fresh_first`: after an outage the newest records get a share of the rate at once.").only(&["strict"]),
    words("streams[].retire", Bool, "`false`", "Drains a stream that is no longer used.").not_yet(),

    words("routes", List, "`devices/#` to `{topic}`, if there is a cloud", "Which publishes go to the cloud. The first route that matches decides. At most 256. QoS 0 publishes are stored and sent too; they are only not acked."),
    required("routes[].from", Text, "The topic filter, unique. It is the route's name in records, metrics and logs."),
    words("routes[].to", Text, "`{topic}`", "The topic in the cloud. `{gateway}`, `{device}` (the publisher's identity), `{topic}`, `{1}` `{2}` (what each `+` matched) and `{#}` (what `#` matched) are replaced. AWS: at most 256 bytes, 7 slashes, no leading `$`."),
    words("routes[].stream", Text, "the stream, when there is only one", "The stream that stores the records."),
    value("routes[].ack", Choice(&["memory", "disk", "cloud"]), "disk", "When a QoS 1 publish is acked. `disk`: when its record survives a power cut.").only(&["disk"]),
    value("routes[].retain", Choice(&["strip", "keep"]), "strip", "Whether the RETAIN flag is sent to the cloud. AWS charges for retained messages and limits them."),
    value("routes[].qos", Integer { min: 0, max: 1 }, "1", "The QoS towards the cloud. With 0 a record counts as delivered when it is written to the connection; it can be lost."),
    value("routes[].local", Bool, "false", "`true`: the publishes go to local subscribers only. They are not stored for the cloud and not counted as unrouted."),
    words("routes[].batch", Map, "none", "Several records in one message. The consumer must unpack them.").not_yet(),
    required("routes[].batch.max_bytes", ANY_SIZE, "The largest batch.").not_yet(),
    required("routes[].batch.max_wait", ANY_TIME, "The longest time that a batch is collected.").not_yet(),

    words("commands", List, "none", "Commands from the cloud to devices.").not_yet(),
    required("commands[].from", Text, "The filter in the cloud.").not_yet(),
    required("commands[].to", Text, "The topic here.").not_yet(),
    words("commands[].expires", ANY_TIME, "never", "How long a command waits for its device.").not_yet(),

    words("watch", List, "none", "Checks the devices' publishes for signals of trouble, without changing or delaying them. Every item whose filter matches reads the publish. At most 64 items."),
    required("watch[].topic", Text, "The filter of the publishes to watch. Each device and each topic up to the `#` is a series."),
    words("watch[].every", Duration { min: "1s", max: "30d" }, "silence is not watched", "The interval at which each device publishes. A device that publishes nothing for 3.25 times as long is silent."),
    words("watch[].sequence", Map, "none", "The device's message counter. It finds gaps, duplicates, reordered messages and restarts. The counter runs over all topics that the filter's `#` matches."),
    required("watch[].sequence.counter", Text, "JSON pointer to a whole number that rises by one with each message: `/seq`."),
    words("watch[].sequence.boot", Text, "none: a counter that falls far means a restart", "JSON pointer to a value that changes with each boot: `/boot`."),
    words("watch[].fields", List, "none", "Measured values, at most 16. Each is checked for a value that no longer changes."),
    required("watch[].fields[].at", Text, "JSON pointer to a number: `/temp`. A message without it is skipped."),
    words("watch[].fields[].range", Range, "any value", "The lowest and the highest plausible value."),
    words("watch[].fields[].drift", Map, "none", "A reference that the value must not drift from. The median of the newest 31 differences is compared with `more_than`."),
    required("watch[].fields[].drift.topic", Text, "The topic of the reference, without wildcards."),
    required("watch[].fields[].drift.at", Text, "JSON pointer to its number."),
    required("watch[].fields[].drift.more_than", Number, "The largest difference, in the field's unit. A difference from the beginning counts too."),

    words("cloud", Map, "a local broker without a cloud", "The cloud that the records go to."),
    value("cloud.profile", Choice(&["aws-iot", "mqtt"]), "aws-iot", "The limits of the other side: AWS IoT Core, or any MQTT broker."),
    required("cloud.endpoint", Text, "The host name or address, without scheme and port."),
    words("cloud.port", Integer { min: 1, max: 65_535 }, "8883 with TLS, 1883 plain", "The port. 443 sets ALPN."),
    value("cloud.protocol", Choice(&["5", "3.1.1"]), "5", "The MQTT version towards the cloud. On 5 the cloud says why it refused a message; on 3.1.1 it only closes the connection."),
    value("cloud.client_id", Text, "{gateway}", "The client id. `{gateway}` is the gateway's id. At most 120 bytes, no leading `$`, no `+ #`. The IoT policy must allow it."),
    words("cloud.tls", Map, "plain on loopback and with `insecure: true`; else, for `aws-iot`, the files below by convention", "TLS towards the cloud."),
    words("cloud.tls.certificate", File, "`certs/cloud.pem` for `aws-iot`, none for `mqtt`", "The gateway's certificate chain for the cloud, PEM."),
    words("cloud.tls.key", File, "`certs/cloud.key` for `aws-iot`, none for `mqtt`", "Its private key, PEM. Only the gateway may read it."),
    words("cloud.tls.ca", File, "Amazon's roots (`aws-iot`), the system's (`mqtt`)", "The CAs that sign the cloud's certificate, PEM."),
    value("cloud.insecure", Bool, "false", "Allows plain TCP to a cloud beyond loopback. Any host on the way can then read and write."),
    value("cloud.lanes", Integer { min: 1, max: 16 }, "1", "Parallel connections. Each device uses one of them. Further lanes add -2, -3 to the client id.").only(&["1"]),
    value("cloud.in_flight", Integer { min: 1, max: 1_000 }, "32", "At most this many publishes of a lane that the cloud has not acked: at most 100 for `aws-iot`, and never above the cloud's Receive Maximum. After a lost connection at most this many are sent again."),
    words("cloud.max_bandwidth", Bandwidth { min: "1KiB/s", max: "1TiB/s" }, "the profile's: AWS's quota of 512KiB/s for `aws-iot`, none for `mqtt`", "At most this much traffic to the cloud, for metered links. The bridge uses nine tenths of it."),
    value("cloud.canary", Kind::OffOr(&Duration { min: "1s", max: "7d" }), "5m", "The interval of the canary: a message of the gateway's own to `GATEWAY/canary`, through log and bridge, of about 250 bytes. It shows that the whole way works. One is also sent before a record is counted against as a poison message. `off`: no canary; a second without a close after the connect takes its place."),

    words("admin", Map, "the values below", "The admin API: `/`, `/metrics`, `/healthz`, `/readyz`, `/status`. `forebay status` uses it."),
    value("admin.bind", Socket, "127.0.0.1:9464", "Address and port. Beyond loopback `token_file` is required, and only `/metrics`, `/healthz` and `/readyz` answer without the token."),
    words("admin.names", TextList, "none: addresses and `localhost` only", "The host names under which the admin API is asked, for example by Prometheus. A request for another name is refused with 421, so that no web page can read the gateway under a name of its own (DNS rebinding). Addresses, `localhost` and requests with the token need no entry."),
    words("admin.token_file", File, "none: loopback only", "A file with the token that the other paths require as `Authorization: Bearer`. At least 16 characters. Only the gateway may read it."),
    words("admin.otlp", Map, "none", "Traces of a share of the records, from publish to the cloud's ack, for an OpenTelemetry collector. See docs/traces.md."),
    required("admin.otlp.endpoint", Text, "The collector's address, for example `http://127.0.0.1:4318`: OTLP over plain HTTP, at `/v1/traces` below it. Spans that it does not accept are dropped and counted."),
    value("admin.otlp.sample", Percent, "1%", "The share of records that is traced. The record ids decide which, so a restart changes nothing."),
];
