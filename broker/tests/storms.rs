//! Storms of one device: another is served all along, connections get in, the journal stays small, and what the storm took comes
//! back. `cargo run --release -p forebay-benches --bin storms` measures them; here is what holds on any machine.
#![allow(clippy::unwrap_used)]

mod support;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_broker::{Bound, Limits};
use forebay_storms::{Canary, Pace, Sink, Storm, Target, quantile};
use support::{Bench, Certificates, Setup, rule, within};

/// Publishes per second of the canary.
const RATE: f64 = 50.0;
/// Its acks in each storm, and in each control.
const ACKS: usize = 50;
/// How many times longer an ack may take in the middle than beside the same storm against a server that is not this one.
/// Generous: a debug build beside other tests.
const FACTOR: u32 = 20;
/// Bytes of the journal per second.
const LOGGED: f64 = 10_000.0;

/// Counts what is logged.
static BYTES: AtomicU64 = AtomicU64::new(0);

struct Counting;

impl io::Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BYTES.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn count_what_is_logged() {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_writer(|| Counting);
    subscriber.try_init().ok();
}

/// A plain listener, one with TLS, and the rules that are the default of a gateway.
async fn front(limits: Limits) -> (Bench, Target) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::start(Setup {
        limits,
        identities: vec!["{client_id}", "{cn}"],
        tls: Some(Certificates::made_in(folder.path()).server()),
        tls_from: 1,
        rules: vec![
            rule("probe", &["#"], &["#"], &[]),
            rule("*", &["devices/{device}/#"], &["devices/{device}/commands/#"], &[]),
        ],
        max_bytes: 1 << 30,
        max_disk: 4 << 30,
        ..Setup::default()
    })
    .await;
    let target = Target {
        plain: bench.addresses[0],
        tls: bench.addresses[1],
    };
    (bench, target)
}

/// What the canary sees while a storm goes on.
async fn beside(storm: Storm, target: Target, pace: &Pace, canary: &mut Canary) -> Vec<Duration> {
    let served = async { within("the canary is served", canary.sing(RATE, ACKS)).await.unwrap() };
    tokio::select! {
        () = storm.rage(target, "stormy", pace) => unreachable!("a storm does not end"),
        took = served => took,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a15_under_each_storm_a_device_is_served_the_journal_stays_small_and_all_is_given_back() {
    count_what_is_logged();
    let sink = Sink::start().unwrap();
    let away = Target {
        plain: sink.address(),
        tls: sink.address(),
    };
    for storm in Storm::ALL {
        let (bench, target) = front(Limits::default()).await;
        let mut canary = Canary::connect(target.plain, "canary").await.unwrap();
        let mut control = beside(storm, away, &Pace::new(storm.modest()), &mut canary).await;
        let (pace, began, before) = (Pace::new(storm.modest()), Instant::now(), BYTES.load(Ordering::Relaxed));
        let probed = async {
            tokio::select! {
                () = storm.rage(target, "stormy-too", &pace) => unreachable!("a storm does not end"),
                () = bench.assert_serves(storm.name()) => {}
            }
        };
        let (mut took, ()) = tokio::join!(beside(storm, target, &pace, &mut canary), probed);
        assert!(pace.done() > 0, "{storm:?} did nothing");
        let (middle, beside_control) = (quantile(&mut took, 0.5), quantile(&mut control, 0.5));
        assert!(
            middle <= FACTOR * beside_control,
            "{}: {middle:?}, and {beside_control:?} beside the control",
            storm.name()
        );
        let logged = (BYTES.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64().max(1.0);
        assert!(logged <= LOGGED, "{}: {logged:.0} bytes of journal per second", storm.name());
        bench
            .until(&format!("only the canary is there after {}", storm.name()), |view| {
                let taken = |status: &forebay_broker::BoundStatus| status.taken.map_or(0, |(taken, _)| taken);
                let all = view.budget().status();
                all.iter().all(|status| match status.bound {
                    Bound::Connections => taken(status) == 1,
                    // The canary's own, and sessions that last.
                    Bound::SessionBytes => true,
                    _ => taken(status) == 0,
                })
            })
            .await;
    }
}
