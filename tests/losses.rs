//! The signed device in the emulator through the loss of its gateway and of its Wi-Fi module: it never restarts, no sample is missing, and
//! it dials as the rules of its backoff say.
//!
//! Needs the images and QEMU 10: `firmware/run images`. The board's clock runs six times faster than the world's, and the restarts follow
//! each other as soon as a connection counts as stable. `FOREBAY_HOUR=1` spreads them over a whole hour of the world's own clock.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use forebay_aws_standin::{Ledger, Standin};
use forebay_flash::sim::Random;
use forebay_virtual_device::module::Faults;
use support::board::{self, Board, CONFIRMED};
use support::gateway::Gateway;
use support::plant::Plant;
use support::telemetry::{self, Arrived, cloud, scene};

const RESTARTS: u32 = 20;
/// How many times faster the board's clock runs.
const SPEED: u8 = 6;
/// Milliseconds of the device after which a connection counts as stable: its next wait begins small again. With a sample's interval more.
const STABLE_MS: u64 = 33_000;
/// For what must happen: the longest wait is a minute of the device, and machines are shared.
const SOON: Duration = Duration::from_secs(240);
const HOUR: Duration = Duration::from_secs(3600);

/// A board that publishes through a gateway into a cloud.
struct Plot {
    _plant: Plant,
    _cloud: Standin,
    ledger: std::sync::Arc<Ledger>,
    gateway: Gateway,
    board: Board,
    speed: u8,
    /// How often the board had started when it was confirmed.
    starts: u32,
    /// The samples in the cloud when last looked, and the ledger's count then.
    arrived: Vec<Arrived>,
    looked_at: u64,
}

impl Plot {
    async fn new(speed: u8) -> Self {
        let plant = Plant::new(&[board::NAME]);
        let (cloud, ledger) = cloud().await;
        let mut gateway = scene(&plant, cloud.address()).gateway();
        gateway.start().await;
        let mut board = Board::new(&plant, gateway.listeners[0]).await;
        board.hasten(speed).unwrap();
        board.see(CONFIRMED);
        let starts = board.starts;
        Self {
            _plant: plant,
            _cloud: cloud,
            ledger,
            gateway,
            board,
            speed,
            starts,
            arrived: Vec::new(),
            looked_at: 0,
        }
    }

    fn look(&mut self) {
        self.board.hear();
        assert_eq!(
            self.board.starts,
            self.starts,
            "the device restarted:\n{}",
            self.board.lines.join("\n")
        );
        let count = self.ledger.count();
        if count > self.looked_at {
            self.arrived = telemetry::samples(&self.ledger, board::NAME);
            self.looked_at = count;
        }
    }

    /// Waits for a condition; says what the board said if it does not come true.
    async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        self.until_within(SOON, what, condition).await;
    }

    async fn until_within(&mut self, limit: Duration, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = Instant::now() + limit;
        self.look();
        while !condition(self) {
            self.look();
            assert!(Instant::now() < end, "{what} did not come true:\n{}", self.board.lines.join("\n"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The latest measurement in the cloud.
    fn newest(&self) -> Arrived {
        self.arrived.iter().copied().max().unwrap_or_default()
    }

    /// Waits until samples arrive that were measured now.
    async fn goes_on(&mut self, what: &str) {
        self.look();
        let before = self.newest().sequence;
        self.until(what, |plot| plot.newest().sequence >= before + 2).await;
    }

    /// What the device said of its waits before the tries that followed failures, from this line on: failures in a row, milliseconds.
    fn waits(&self, from: usize) -> Vec<(u32, u64)> {
        let number = |text: &str| text.split(' ').next().unwrap().parse::<u64>().unwrap();
        let lines = self.board.lines[from..].iter();
        lines
            .filter_map(|line| {
                let (_, rest) = line.split_once(", failure ")?;
                let (failures, wait) = rest.split_once(", next try in ")?;
                Some((u32::try_from(number(failures)).unwrap(), number(wait)))
            })
            .collect()
    }

    /// All from the first sample to the last, of one boot; how many came, and how many of them again.
    fn assert_nothing_is_missing(&self) -> (usize, usize) {
        let arrived = &self.arrived;
        let boots: BTreeSet<u64> = arrived.iter().map(|sample| sample.boot).collect();
        assert_eq!(boots.len(), 1, "the device counts one boot: {boots:?}");
        let sequences: BTreeSet<u64> = arrived.iter().map(|sample| sample.sequence).collect();
        let last = self.newest().sequence;
        let missing: Vec<u64> = (1..=last).filter(|sequence| !sequences.contains(sequence)).collect();
        assert!(missing.is_empty(), "missing of {last}: {missing:?}");
        (sequences.len(), arrived.len() - sequences.len())
    }

    async fn end(mut self) {
        self.board.hear();
        assert_eq!(self.board.starts, self.starts, "the device never restarted");
        for word in ["reboot", "panic", "watchdog", "fault", "evidence"] {
            let said = self.board.lines.iter().find(|line| line.contains(word));
            assert_eq!(said, None, "the device speaks of a {word}");
        }
        assert_eq!(self.gateway.stop().await, 0);
    }
}

/// The most that a wait may be, in milliseconds: a second, twice as much after each further failure, at most a minute.
fn ceiling(failures: u32) -> u64 {
    (1000_u64 << (failures - 1).min(10)).min(60_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_planned_restarts_cost_no_device_restart_and_no_sample() {
    let is_hour = std::env::var_os("FOREBAY_HOUR").is_some();
    let began = Instant::now();
    let mut plot = Plot::new(if is_hour { 1 } else { SPEED }).await;
    let seed = std::env::var("FOREBAY_SEED").map_or(5, |seed| seed.parse().unwrap());
    println!("FOREBAY_SEED={seed}");
    let mut random = Random(seed);
    let mut away = Duration::ZERO;
    for restart in 1..=RESTARTS {
        // Within an hour evenly; else as soon as the device has forgotten the restart before.
        let planned = if is_hour { HOUR * restart / (RESTARTS + 1) } else { Duration::ZERO };
        plot.until_within(HOUR, "the next restart's time", |_| began.elapsed() >= planned)
            .await;

        // Away until so many tries have failed; once for minutes, so that samples go to flash.
        let tries = match (restart, is_hour) {
            (10, true) => 9,
            (10, false) => 6,
            (_, true) => random.below(7),
            (_, false) => random.below(3),
        };
        let is_kill = random.below(2) == 0;
        plot.look();
        let (heard, before, dials) = (plot.board.lines.len(), plot.newest(), plot.board.module.seen().dials);
        let gone = Instant::now();
        if is_kill {
            plot.gateway.kill().await;
        } else {
            assert_eq!(plot.gateway.stop().await, 0);
        }
        plot.until("the device dials in vain", |plot| plot.board.module.seen().dials >= dials + tries)
            .await;
        // It has waited before each of these tries. The world's clock never runs slower than the device's, but may be caught up with.
        let waits = plot.waits(heard);
        let waited: u64 = waits.iter().take(tries as usize).map(|(_, wait)| wait).sum();
        assert!(
            2 * u128::from(plot.speed) * gone.elapsed().as_millis() >= u128::from(waited),
            "{tries} tries in {:?} after {waits:?}",
            gone.elapsed()
        );
        plot.gateway.start().await;
        away += gone.elapsed();
        let last = before.sequence;
        plot.until("samples arrive", |plot| plot.newest().sequence > last).await;
        println!(
            "restart {restart}: {} at {} s of the device, {tries} tries in vain, {} ms away, {} ms until it published, waits {:?}",
            if is_kill { "SIGKILL" } else { "SIGTERM" },
            before.uptime / 1000,
            away.as_millis(),
            gone.elapsed().as_millis(),
            plot.waits(heard)
        );
        let connected = before.uptime + u64::from(plot.speed) * u64::try_from(gone.elapsed().as_millis()).unwrap();
        let stable = connected + STABLE_MS;
        plot.until("the connection is stable", |plot| plot.newest().uptime >= stable).await;
    }
    let planned = if is_hour { HOUR } else { Duration::ZERO };
    plot.until_within(HOUR, "the hour is over", |_| began.elapsed() >= planned).await;

    let waits = plot.waits(0);
    assert!(waits.len() >= RESTARTS as usize, "every loss is followed by a wait: {waits:?}");
    for (failures, wait) in &waits {
        assert!(*wait <= ceiling(*failures), "{wait} ms after {failures} failures");
    }
    // Full jitter uses the whole range. The shortest ceiling proves nothing: a wait of less than half a second may go unsaid.
    let long = || waits.iter().filter(|(failures, _)| *failures >= 2);
    let is_upper = |(failures, wait): &(u32, u64)| *wait > ceiling(*failures) / 2;
    assert!(long().any(is_upper) && !long().all(is_upper), "waits of both halves: {waits:?}");
    let highest = waits.iter().map(|(failures, _)| *failures).max();
    assert!(highest >= Some(6), "failures count on through the longest absence: {waits:?}");

    let (samples, again) = plot.assert_nothing_is_missing();
    println!(
        "{samples} samples over {} s of the device and {RESTARTS} restarts, {again} of them twice; the gateway was away for {} s; {} waits, {} s in all",
        plot.newest().uptime / 1000,
        away.as_secs(),
        waits.len(),
        waits.iter().map(|(_, wait)| wait).sum::<u64>() / 1000
    );
    plot.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_fails_in_every_way_costs_no_device_restart_and_no_sample() {
    let mut plot = Plot::new(SPEED).await;
    let resets = plot.board.module.seen().resets;
    plot.board.module.set(|faults| faults.is_stuck = true);
    plot.goes_on("samples arrive after the module got stuck").await;
    assert!(plot.board.module.seen().resets > resets, "the device has reset its module");

    for (what, fault) in [
        ("it reset itself", (|faults| faults.resets_itself = true) as fn(&mut Faults)),
        ("it dropped its connection", |faults| faults.drops_connection = true),
        ("it cut an answer", |faults| faults.cut_answers = 1),
        ("it said nonsense", |faults| faults.noise = 1),
    ] {
        let connections = plot.board.module.seen().connections;
        plot.board.module.set(fault);
        plot.until(what, |plot| plot.board.module.seen().connections > connections).await;
        plot.goes_on(what).await;
    }

    // Dead, and the access point gone, until the device has tried in vain for a while.
    for (why, fault, mend) in [
        (
            "not connected: module",
            (|faults| faults.is_dead = true) as fn(&mut Faults),
            (|faults| faults.is_dead = false) as fn(&mut Faults),
        ),
        (
            "not connected: wifi",
            |faults| (faults.resets_itself, faults.refuses_join) = (true, true),
            |faults| faults.refuses_join = false,
        ),
    ] {
        // What came before must be forgotten, or its failures count on.
        let now = plot.newest().uptime;
        plot.until("the connection is stable", |plot| plot.newest().uptime >= now + STABLE_MS)
            .await;
        let heard = plot.board.lines.len();
        plot.board.module.set(fault);
        plot.until(why, |plot| {
            let is_so = plot.board.lines[heard..].iter().any(|line| line.contains(why));
            is_so && plot.waits(heard).iter().any(|(failures, _)| *failures >= 4)
        })
        .await;
        plot.board.module.set(mend);
        plot.goes_on(why).await;
    }

    let (samples, again) = plot.assert_nothing_is_missing();
    println!("{samples} samples, {again} of them twice; {:?}", plot.board.module.seen());
    plot.end().await;
}
