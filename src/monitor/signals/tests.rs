//! What the watch promises: signals, counters that rise only by what they name, bounds, and its state across restarts.

mod restart;
mod simulation;

use std::sync::Arc;
use std::time::Duration;

use forebay_broker::{Accepted, Disconnection, Observer, Publishes};
use forebay_wal::{BootId, Timestamp};

use super::engine::Engine;
use super::field;
use super::lock;
use super::report::{Counters, Report, Signal, value};
use super::witness::Witness;

const ITEM: &str = "{topic: \"devices/+/telemetry/#\", every: 60s, sequence: {counter: /seq, boot: /boot}, fields: [{at: /temp, range: [-40, 85], \
                    drift: {topic: devices/ref/telemetry/env, at: /temp, more_than: 1.0}}]}";

fn config(items: &str) -> crate::config::Config {
    let text = format!("gateway: {{id: g}}\nlisteners: [{{bind: \"127.0.0.1:0\"}}]\nwatch: [{items}]\n");
    let overrides = crate::config::Overrides::default();
    crate::config::parse(&text, std::path::Path::new("/nowhere"), &overrides).unwrap_or_else(|error| panic!("{error}"))
}

fn at(second: u64) -> Timestamp {
    Timestamp {
        wall_ms: 1_800_000_000_000 + second * 1000,
        boot: BootId(7),
        monotonic_ms: second * 1000,
        trusted: true,
    }
}

/// An engine, and what it is told.
struct Watched {
    engine: Engine,
    counters: Arc<Counters>,
    now: u64,
}

impl Watched {
    fn new(items: &str) -> Self {
        let config = config(items);
        let counters = Arc::new(Counters::new(&config.watch));
        Self {
            engine: Engine::new(&config.watch, Arc::clone(&counters)),
            counters,
            now: 1_000_000,
        }
    }

    fn publish_on(&mut self, device: &str, topic: &str, payload: &str) {
        let mut trail = self.engine.trail(device, topic);
        self.engine.take(&mut trail, device, payload.as_bytes(), &at(self.now));
    }

    fn publish(&mut self, device: &str, payload: &str) {
        self.publish_on(device, &format!("devices/{device}/telemetry/env"), payload);
    }

    fn report(&mut self) -> Report {
        self.engine.tick((self.now * 1000).cast_signed())
    }

    fn texts(&mut self, signal: Signal) -> Vec<String> {
        let report = self.report();
        report
            .of(signal)
            .map(|trouble| format!("{} {}", trouble.device, trouble.text))
            .collect()
    }

    /// All counters of events, by name; only those that are not zero.
    fn counted(&self) -> Vec<(&'static str, u64)> {
        let counters = &self.counters;
        let all = [
            ("silences", &counters.silences),
            ("gaps", &counters.gaps),
            ("missing", &counters.missing),
            ("duplicates", &counters.duplicates),
            ("reordered", &counters.reordered),
            ("restarts", &counters.restarts),
            ("out_of_range", &counters.out_of_range),
            ("stuck", &counters.stuck),
            ("drifts", &counters.drifts),
            ("unfollowed", &counters.unfollowed),
            ("forgotten", &counters.forgotten),
            ("checkpoint_failures", &counters.checkpoint_failures),
        ];
        let counted = all.into_iter().map(|(name, counter)| (name, value(counter)));
        counted.chain(counters.unreadable()).filter(|(_, count)| *count > 0).collect()
    }
}

fn message(seq: u64, boot: &str, temp: f64) -> String {
    format!("{{\"seq\":{seq},\"boot\":\"{boot}\",\"temp\":{temp}}}")
}

#[test]
fn a_device_that_publishes_as_it_should_is_in_no_trouble() {
    let mut watched = Watched::new(ITEM);
    for seq in 0..500_u32 {
        let temp = 20.0 + f64::from(seq % 10) * 0.1;
        watched.publish("ref", &message(seq.into(), "r", temp));
        watched.publish("d1", &message(seq.into(), "a", temp));
        watched.now += 60;
        assert_eq!(watched.report().troubles, []);
    }
    assert_eq!(watched.counted(), []);
    let values = value(&watched.counters.fields[0][0].1);
    assert_eq!(
        (watched.report().series, value(&watched.counters.seen[0].1), values),
        (2, 1000, 1000)
    );
}

#[test]
fn silence_is_told_after_three_misses_and_ends_with_the_next_message() {
    let mut watched = Watched::new(ITEM);
    watched.publish("d1", &message(1, "a", 20.0));
    watched.now += 3 * 60 + 15;
    assert_eq!(watched.texts(Signal::Silent), Vec::<String>::new());
    watched.now += 1;
    let text = "d1 has sent nothing on `devices/d1/telemetry` for 3 min; it should send every 1m";
    assert_eq!(watched.texts(Signal::Silent), [text]);
    watched.now += 3600;
    let report = watched.report();
    assert_eq!(report.of(Signal::Silent).next().unwrap().value, 3796.0);
    assert_eq!(watched.counted(), [("silences", 1)]);
    watched.publish("d1", "not even JSON");
    assert_eq!(watched.report().in_trouble(Signal::Silent), 0);
}

#[test]
fn each_counter_rises_only_by_what_it_names() {
    type Act = fn(&mut Watched);
    type Rises<'a> = &'a [(&'a str, u64)];
    let acts: [(&str, Act, Rises<'_>); 9] = [
        (
            "a gap of 17",
            |w| w.publish("d1", &message(28, "a", 20.1)),
            &[("gaps", 1), ("missing", 17)],
        ),
        ("a duplicate", |w| w.publish("d1", &message(10, "a", 20.1)), &[("duplicates", 1)]),
        ("a restart", |w| w.publish("d1", &message(0, "b", 20.1)), &[("restarts", 1)]),
        (
            "a value out of range",
            |w| w.publish("d1", &message(11, "a", 85.5)),
            &[("out_of_range", 1)],
        ),
        ("no JSON", |w| w.publish("d1", "{\"seq\":"), &[("not_json", 1)]),
        ("no counter", |w| w.publish("d1", "{\"boot\":\"a\"}"), &[("counter", 1)]),
        ("no boot id", |w| w.publish("d1", "{\"seq\":11}"), &[("boot", 1)]),
        (
            "a field that is no number",
            |w| w.publish("d1", "{\"seq\":11,\"boot\":\"a\",\"temp\":\"warm\"}"),
            &[("field", 1)],
        ),
        ("another topic", |w| w.publish_on("d1", "devices/d1/other", "x"), &[]),
    ];
    for (what, act, expected) in acts {
        let mut watched = Watched::new(ITEM);
        watched.publish("ref", &message(1, "r", 20.0));
        for seq in 1..=10_u32 {
            watched.publish("d1", &message(seq.into(), "a", 20.0 + f64::from(seq) * 0.01));
        }
        act(&mut watched);
        assert_eq!(watched.counted(), expected, "{what}");
    }
}

#[test]
fn e28_a_machine_that_was_suspended_raises_no_silence() {
    let mut watched = Watched::new(ITEM);
    for device in ["d1", "d2", "d3", "d4", "d5"] {
        watched.publish(device, &message(1, "a", 20.0));
    }
    watched.now += 6 * 3600;
    watched.engine.slept(6 * 3600 * 1000, (watched.now * 1000).cast_signed());
    assert_eq!(watched.report().troubles, []);
    // One came before the sleep was noticed.
    watched.publish("d1", &message(2, "a", 20.0));
    watched.engine.slept(6 * 3600 * 1000, (watched.now * 1000).cast_signed());
    assert_eq!(watched.report().troubles, []);
    // What is silent from now on is silent.
    watched.now += 600;
    assert_eq!(watched.texts(Signal::Silent).len(), 5);
}

#[test]
fn a_gap_is_listed_with_its_range_for_five_minutes() {
    let mut watched = Watched::new(ITEM);
    watched.publish("d1", &message(100, "a", 20.0));
    watched.publish("d1", &message(118, "a", 20.0));
    let report = watched.report();
    let gap = report.of(Signal::Gap).next().unwrap();
    assert_eq!(
        (gap.value, gap.detail.as_str(), gap.topic.as_str()),
        (17.0, "101-117", "devices/d1/telemetry")
    );
    watched.publish("d1", &message(110, "a", 20.0));
    let report = watched.report();
    assert_eq!(report.of(Signal::Gap).next().unwrap().value, 16.0, "one came late");
    assert_eq!(report.in_trouble(Signal::Reorder), 1);
    watched.now += 301;
    watched.publish("ref", &message(1, "r", 20.0));
    watched.publish("d1", &message(119, "a", 20.0));
    assert_eq!(watched.report().troubles, []);
}

#[test]
fn a_publisher_of_many_devices_has_a_series_for_each() {
    let mut watched = Watched::new("{topic: \"zigbee/+\", every: 60s}");
    for name in ["kitchen", "cellar"] {
        watched.publish_on("local", &format!("zigbee/{name}"), "1");
    }
    watched.now += 200;
    watched.publish_on("local", "zigbee/cellar", "1");
    let report = watched.report();
    let silent: Vec<_> = report.of(Signal::Silent).map(|trouble| trouble.topic.as_str()).collect();
    assert_eq!(silent, ["zigbee/kitchen"]);
}

#[test]
fn a_reference_that_does_not_come_makes_the_field_blind_and_not_drift() {
    let mut watched = Watched::new(ITEM);
    for seq in 0..10 {
        watched.publish("d1", &message(seq, "a", 90.0));
        watched.now += 60;
    }
    let report = watched.report();
    assert_eq!((report.in_trouble(Signal::Blind), report.in_trouble(Signal::Drift)), (1, 0));
    watched.publish("ref", &message(1, "r", 20.0));
    watched.publish("d1", &message(10, "a", 90.0));
    assert_eq!(watched.report().in_trouble(Signal::Blind), 0);
}

#[test]
fn series_are_bounded_and_the_next_one_is_counted() {
    let mut watched = Watched::new(ITEM);
    watched.engine = watched.engine.with_max_series(100);
    for number in 0..150 {
        watched.publish(&format!("d{number}"), &message(1, "a", 20.0));
    }
    assert_eq!((watched.report().series, watched.counted()), (100, vec![("unfollowed", 50)]));
    watched.publish("d1", &message(2, "a", 20.0));
    assert_eq!(watched.counted(), [("unfollowed", 50)], "a known one is followed on");
}

#[test]
fn one_device_that_makes_topics_up_takes_no_room_from_the_others() {
    let mut watched = Watched::new("{topic: \"devices/+/+/env\", every: 60s}");
    for number in 0..1_500 {
        watched.publish_on("bad", &format!("devices/bad/{number}/env"), "1");
    }
    watched.publish_on("bad", &format!("devices/{}/t/env", "x".repeat(300)), "1");
    assert_eq!((watched.report().series, watched.counted()), (1_000, vec![("unfollowed", 501)]));
    watched.publish_on("good", "devices/good/t/env", "1");
    assert_eq!(watched.report().series, 1_001);
    watched.now += 8 * 86_400;
    assert_eq!(watched.report().series, 0);
    watched.publish_on("bad", "devices/bad/1/env", "1");
    assert_eq!(watched.report().series, 1, "what is forgotten gives its room back");
}

#[test]
fn a_hundred_of_each_signal_are_listed_the_worst_first_and_the_gone_are_forgotten() {
    let mut watched = Watched::new(ITEM);
    for number in 0..150 {
        watched.publish(&format!("d{number:03}"), &message(1, "a", 20.0));
        watched.now += 1;
    }
    watched.now += 600;
    let report = watched.report();
    assert_eq!((report.in_trouble(Signal::Silent), report.of(Signal::Silent).count()), (150, 100));
    assert_eq!(report.troubles[0].device, "d000", "silent for the longest time");
    watched.now += 7 * 86_400;
    assert_eq!((watched.report().series, value(&watched.counters.forgotten)), (0, 150));
}

struct Nobody;

impl Observer for Nobody {
    fn acked(&self, _oldest: Duration, _count: u64) {}
}

/// A connection to a watch of these items, as the front has it.
struct Connection {
    engine: Arc<Engine>,
    publishes: Box<dyn Publishes>,
}

impl Connection {
    fn new(watched: Watched, identity: &str) -> Self {
        let engine = Arc::new(watched.engine);
        let witness = Witness {
            inner: Arc::new(Nobody),
            engine: Arc::clone(&engine),
        };
        let publishes = witness.publishes(&identity.into()).unwrap();
        Self { engine, publishes }
    }

    fn publish(&mut self, topic: &str, payload: &[u8], second: u64) {
        self.publishes.accepted(&Accepted {
            topic,
            payload,
            received: at(second),
        });
    }
}

#[test]
fn every_number_is_seen_however_many_topics_a_connection_has_and_however_fast_they_come() {
    let watched = Watched::new("{topic: \"devices/#\", every: 60s}, {topic: \"devices/+/+\", sequence: {counter: /seq}}");
    let counters = Arc::clone(&watched.counters);
    let mut device = Connection::new(watched, "d1");
    for seq in 0..2_000_u64 {
        // Twenty topics, more than a connection keeps at hand, and one that comes each time.
        let topic = format!("devices/d1/{}", seq % 20);
        device.publish(&topic, format!("{{\"seq\":{}}}", seq / 20).as_bytes(), 1);
        device.publish("devices/d1/often", format!("{{\"seq\":{seq}}}").as_bytes(), 1);
        device.publish("elsewhere", b"x", 1);
    }
    let told = |counter| value(counter);
    assert_eq!(
        (told(&counters.gaps), told(&counters.duplicates), told(&counters.restarts)),
        (0, 0, 0)
    );
    device.publishes.handled();
    assert_eq!((value(&counters.seen[0].1), value(&counters.seen[1].1)), (4_000, 4_000));
    device.publish("devices/d1/3", b"{\"seq\":99}", 1);
    device.publish("devices/d1/often", b"{\"seq\":2005}", 1);
    assert_eq!((told(&counters.duplicates), told(&counters.missing)), (1, 5));
}

#[test]
fn a_series_that_is_forgotten_while_its_connection_stands_is_found_anew() {
    let watched = Watched::new(ITEM);
    let mut device = Connection::new(watched, "d1");
    let topic = "devices/d1/telemetry/env";
    device.publish(topic, message(1, "a", 20.0).as_bytes(), 0);
    let week: u64 = 7 * 86_400 + 1;
    assert_eq!(device.engine.tick((week * 1000).cast_signed()).series, 0);
    device.publish(topic, message(2, "a", 20.0).as_bytes(), week + 1);
    assert_eq!(device.engine.tick(((week + 1) * 1000).cast_signed()).series, 1);
    device.publish(topic, message(2, "a", 20.0).as_bytes(), week + 2);
    let report = device.engine.tick(((week + 2) * 1000).cast_signed());
    assert_eq!(report.in_trouble(Signal::Duplicate), 1, "it is looked at where it is reported from");
}

#[test]
fn what_is_gathered_is_counted_once_when_it_is_handled_and_when_the_connection_ends() {
    let watched = Watched::new(ITEM);
    let counters = Arc::clone(&watched.counters);
    let counted = || (value(&counters.seen[0].1), value(&counters.fields[0][0].1));
    let mut device = Connection::new(watched, "d1");
    for seq in 1..=3 {
        device.publish(
            "devices/d1/telemetry/env",
            format!(r#"{{"seq":{seq},"boot":"a","temp":21.5}}"#).as_bytes(),
            seq,
        );
    }
    for _ in 0..2 {
        device.publishes.handled();
        assert_eq!(counted(), (3, 3));
    }
    device.publish("devices/d1/telemetry/env", br#"{"seq":4,"boot":"a"}"#, 4);
    device.publish("devices/d1/telemetry/other", br#"{"seq":5,"boot":"a","temp":21.5}"#, 5);
    drop(device);
    assert_eq!(counted(), (5, 4));
}

#[test]
fn a_payload_that_is_too_large_is_seen_and_not_read() {
    let watched = Watched::new(ITEM);
    let counters = Arc::clone(&watched.counters);
    let mut device = Connection::new(watched, "d1");
    let large = format!("{{\"seq\":1,\"boot\":\"a\",\"fill\":\"{}\"}}", " ".repeat(64 << 10));
    device.publish("devices/d1/telemetry/env", large.as_bytes(), 1);
    device.publishes.handled();
    let told: Vec<_> = counters.unreadable().filter(|(_, count)| *count > 0).collect();
    assert_eq!((value(&counters.seen[0].1), told), (1, vec![("too_large", 1)]));
}

#[test]
fn one_publish_that_two_items_cannot_read_is_counted_once() {
    let mut watched = Watched::new("{topic: \"a/#\", fields: [{at: /x}]}, {topic: \"a/b\", fields: [{at: /y}]}");
    watched.publish_on("d1", "a/b", "{");
    assert_eq!(watched.counted(), [("not_json", 1)]);
}

#[test]
fn who_watches_nothing_costs_nothing() {
    let engine = Watched::new("").engine;
    let witness = Witness {
        inner: Arc::new(Nobody),
        engine: Arc::new(engine),
    };
    assert!(witness.publishes(&"d1".into()).is_none());
}
