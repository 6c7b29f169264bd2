//! A lane without a cloud: the tests say what was written and what was answered, in orders that no real peer can be made to
//! produce on demand.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_topic::{Template, TopicFilter};
use forebay_wal::testing::{ManualClock, Unobserved};
use forebay_wal::{Batch, Clock, CommitError, CommitListener, Log, NewRecord, Options, StreamOptions, WhenFull};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::lane::Lane;
use crate::lane::connection_state::{ConnectionState, End};
use crate::link::{self, Client, Event, Link, Terms};
use crate::{CloudLimits, Config, Handle, Mapping, Observer, Qos, Route, Stats};

const TERMS: Terms = Terms {
    receive_maximum: u16::MAX,
    max_packet: usize::MAX,
    retain: true,
    qos_1: true,
};

#[derive(Default)]
struct Committed(AtomicU64);

impl CommitListener for Committed {
    fn committed(&self, batch: Batch) {
        self.0.store(batch.0, Ordering::SeqCst);
    }

    fn failed(&self, batch: Batch, error: &CommitError) {
        panic!("batch {batch:?}: {error}");
    }
}

struct Ages;

impl Observer for Ages {
    fn delivered(&self, _age: Duration, _late: bool) {}
}

struct Bench {
    lane: Lane,
    connection: ConnectionState,
    client: Client,
    _link: Link,
    next_id: u16,
    _directory: tempfile::TempDir,
}

impl Bench {
    /// A connected lane over a log in which each (device, route) has left a record.
    fn new(records: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let manual = Arc::new(ManualClock::trusted());
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&manual);
        let options = Options {
            directory: directory.path().join("log"),
            max_disk: 1 << 30,
            keep_free: 0,
            commit_wait: Duration::ZERO,
            max_devices: 100,
            streams: vec![StreamOptions {
                name: "telemetry".to_owned(),
                max_bytes: 256 << 20,
                max_age: None,
                when_full: WhenFull::Refuse,
            }],
        };
        let log = Log::open(options, Arc::clone(&clock), Arc::new(Unobserved), None).unwrap().log;
        let committed = Arc::new(Committed::default());
        let mut producer = log.producer(Arc::<Committed>::clone(&committed) as Arc<dyn CommitListener>);
        let stream = log.stream("telemetry").unwrap();
        let mut last = 0;
        for (identity, route) in records {
            let topic = format!("devices/{identity}/{route}");
            let record = NewRecord {
                stream,
                received: clock.now(),
                identity,
                route,
                topic: &topic,
                payload: b"x",
                qos: 1,
                retain: false,
                expiry: None,
                properties: &[],
            };
            last = producer.append(&[record]).unwrap().batch.0;
        }
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while committed.0.load(Ordering::SeqCst) < last {
            assert!(std::time::Instant::now() < deadline, "not committed");
            std::thread::yield_now();
        }
        let route = |name: &str, qos| Route {
            name: name.to_owned(),
            from: TopicFilter::parse(&format!("devices/+/{name}")).unwrap(),
            to: Template::parse(&format!("{name}/{{device}}")).unwrap(),
            qos,
            keep_retain: false,
        };
        let routes = vec![
            route("a", Qos::AtLeastOnce),
            route("b", Qos::AtLeastOnce),
            route("unacked", Qos::AtMostOnce),
        ];
        let mapping = Mapping::new("plant-7", routes, CloudLimits::mqtt()).unwrap();
        let config = Config::mqtt("plant-7", "localhost");
        let (client, link) = unplugged(&Arc::new(config.clone()));
        manual.advance(Duration::from_secs(1));
        let mut lane = Lane::new(config, log, Arc::new(mapping), Handle::new(), Arc::new(Ages), clock);
        let connection = lane.begin(TERMS);
        Self {
            lane,
            connection,
            client,
            _link: link,
            next_id: 1,
            _directory: directory,
        }
    }

    /// Reads ahead as a lane does.
    async fn read(&mut self) {
        let mut reads = JoinSet::new();
        self.lane.streams[0].read_ahead(0, &mut reads, Instant::now());
        while let Some(done) = reads.join_next().await {
            self.lane.streams[0].read_done(done.unwrap(), Instant::now()).unwrap();
        }
    }

    /// Sends what may be sent at `now` and says that it was written, under packet ids from 1 on.
    fn send(&mut self, now: Instant) {
        assert!(self.lane.fill(&self.client, &mut self.connection, now).is_ok());
        while self.connection.in_flight.queued() > 0 {
            self.lane.on_event(Event::Written(self.next_id), &mut self.connection).unwrap();
            self.next_id += 1;
        }
    }

    fn reconnect(&mut self) {
        let connection = self.lane.begin(TERMS);
        self.lane.close(std::mem::replace(&mut self.connection, connection), None);
        (self.client, self._link) = unplugged(&self.lane.config);
        self.next_id = 1;
    }

    fn answer(&mut self, id: u16, code: u8) {
        self.lane.on_event(Event::Acked(id, code, None), &mut self.connection).unwrap();
    }
}

/// A connection whose other end is gone.
fn unplugged(config: &Arc<Config>) -> (Client, Link) {
    link::open(config, Box::new(tokio::io::duplex(64).0)).unwrap()
}

#[tokio::test]
async fn a_suspended_pair_does_not_hold_the_devices_other_routes() {
    let mut bench = Bench::new(&[("d1", "a"), ("d1", "a")]);
    bench.read().await;
    bench.send(Instant::now());
    let device = (0, "d1".to_owned());
    let first = bench.connection.in_flight.iter().map(|item| item.record.offset).min().unwrap();
    bench.lane.waiting.silent(device.clone(), first, Instant::now());
    bench.answer(2, 0x87);
    assert_eq!(bench.lane.suspensions.pairs().count(), 1);
    bench.answer(1, 0x97);
    assert!(!bench.lane.waiting.contains(&device), "nobody would ever release it");
}

#[tokio::test]
async fn what_waiting_devices_keep_counts_as_read_ahead_and_what_was_sent_does_not() {
    let mut bench = Bench::new(&[("d1", "a"), ("d1", "a"), ("d1", "b")]);
    bench.lane.config = Arc::new(Config {
        in_flight: 2,
        ..Config::clone(&bench.lane.config)
    });
    bench.connection = bench.lane.begin(TERMS);
    bench.read().await;
    let whole = bench.lane.streams[0].buffered();
    bench.send(Instant::now());
    assert_eq!(bench.lane.streams[0].buffered(), whole / 3);
    bench.answer(1, 0x97);
    bench.send(Instant::now());
    assert_eq!(
        bench.lane.streams[0].buffered(),
        whole / 3 * 2,
        "the refused one and the parked one"
    );
    bench.answer(2, 0x87);
    bench.send(Instant::now() + Duration::from_secs(1));
    bench.answer(3, 0x00);
    assert_eq!(bench.lane.handle.stats().delivered.load(Ordering::Relaxed), 1);
    assert_eq!(bench.lane.streams[0].buffered(), 0);
}

#[tokio::test]
async fn what_broke_off_on_its_way_to_the_socket_is_not_settled_as_written() {
    let mut bench = Bench::new(&[("d1", "unacked")]);
    bench.read().await;
    assert!(bench.lane.fill(&bench.client, &mut bench.connection, Instant::now()).is_ok());
    assert_eq!(bench.connection.in_flight.queued(), 1);
    bench.lane.take_leftovers(vec![Event::Written(0)], &mut bench.connection);
    assert_eq!(bench.lane.handle.stats().delivered.load(Ordering::Relaxed), 0);
    assert_eq!(bench.connection.in_flight.queued(), 1);
}

#[tokio::test]
async fn counters_rise_by_what_their_names_say() {
    let mut bench = Bench::new(&[("d1", "a"), ("d1", "a"), ("d2", "a")]);
    let count = |bench: &Bench, which: fn(&Stats) -> &AtomicU64| which(bench.lane.handle.stats()).load(Ordering::Relaxed);
    bench.read().await;
    bench.send(Instant::now());
    assert_eq!(count(&bench, |stats| &stats.replayed), 0);
    assert_eq!(
        count(&bench, |stats| &stats.replayed_perhaps),
        3,
        "they are from before the lane's start"
    );
    bench.answer(1, 0x97);
    bench.answer(2, 0x97);
    bench.send(Instant::now() + Duration::from_secs(1));
    bench.answer(4, 0x00);
    bench.send(Instant::now() + Duration::from_secs(2));
    assert_eq!(count(&bench, |stats| &stats.retried), 2, "the one behind the first was refused too");
    assert_eq!(count(&bench, |stats| &stats.replayed), 0);
    bench.reconnect();
    bench.read().await;
    // The refusals have slowed the lane down.
    for seconds in [10, 20] {
        bench.send(Instant::now() + Duration::from_secs(seconds));
    }
    assert_eq!(count(&bench, |stats| &stats.retried), 2);
    assert_eq!(count(&bench, |stats| &stats.replayed), 2, "two were unacked");
    assert_eq!(count(&bench, |stats| &stats.replayed_perhaps), 3);
    assert_eq!(count(&bench, |stats| &stats.sent), 7);
    assert_eq!(count(&bench, |stats| &stats.delivered), 1);
}

#[tokio::test]
async fn the_status_shows_the_pace_as_it_recovers() {
    let mut bench = Bench::new(&[("d1", "a")]);
    bench.read().await;
    bench.send(Instant::now());
    bench.answer(1, 0x97);
    let now = Instant::now();
    bench.lane.report(&mut bench.connection, now);
    assert!(bench.lane.handle.status().messages_per_second.is_some_and(|rate| rate < 2.0));
    bench.lane.report(&mut bench.connection, now + Duration::from_secs(10));
    assert!(bench.lane.handle.status().messages_per_second.is_some_and(|rate| rate > 5.0));
    bench.lane.report(&mut bench.connection, now + Duration::from_secs(60));
    assert_eq!(bench.lane.handle.status().messages_per_second, None);
}

#[tokio::test]
async fn silence_that_goes_on_is_one_error_that_repeats_itself() {
    let mut bench = Bench::new(&[("d1", "a")]);
    for round in 1..=3 {
        bench.read().await;
        let late = Instant::now() + Duration::from_secs(3 * round);
        bench.send(late);
        let client = unplugged(&bench.lane.config).0;
        let Err(End::Failed(failure)) = bench
            .lane
            .advance(&client, &mut bench.connection, late + Duration::from_secs(20 + round))
        else {
            panic!("the ack timer did not end the connection");
        };
        bench.lane.ended(&failure, None);
        assert_eq!(bench.lane.handle.status().last_error.unwrap().times, round, "{}", failure.text);
        bench.reconnect();
    }
}
