//! Plants, storms and mixtures of both, in simulated time.

use std::net::{IpAddr, Ipv4Addr};

use super::*;

const TICK: Duration = Duration::from_millis(250);

/// One peer that connects again and again until it is through.
struct Peer {
    owner: Owner,
    /// When its bytes come; a device's last are its CONNECT.
    speaks: Vec<Duration>,
    is_device: bool,
    /// How long it waits until it tries again.
    pause: Duration,
    state: State,
    evictions: usize,
}

enum State {
    Away(Duration),
    Waiting(Waiting, Duration),
    /// With the times of its accept and of its place.
    Pending(PendingConnect, Charge, Duration, Duration),
    Through {
        _place: Charge,
    },
}

struct Plant {
    pending: Arc<PendingConnects>,
    start: Instant,
    deadline: Duration,
    peers: Vec<Peer>,
}

fn address(number: u32) -> Owner {
    Owner::at(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number)))
}

fn seconds(seconds: &[f64]) -> Vec<Duration> {
    seconds.iter().map(|seconds| Duration::from_secs_f64(*seconds)).collect()
}

impl Plant {
    fn new(max_connections: usize, max_pending: usize) -> Self {
        let limits = Limits {
            max_connections,
            max_pending,
            ..Limits::default()
        };
        Self {
            pending: PendingConnects::new(&limits, Arc::new(Budget::new(&limits))),
            start: Instant::now(),
            deadline: limits.connect_timeout,
            peers: Vec::new(),
        }
    }

    fn add(&mut self, is_device: bool, count: u32, owner: impl Fn(u32) -> Owner, speaks: &[f64], pause: f64) {
        self.peers.extend((0..count).map(|number| Peer {
            owner: owner(number),
            speaks: seconds(speaks),
            is_device,
            pause: Duration::from_secs_f64(pause),
            state: State::Away(Duration::ZERO),
            evictions: 0,
        }));
    }

    /// Runs until all that speak are through, and says how long that took.
    fn run(&mut self, most: Duration) -> Duration {
        let mut time = Duration::ZERO;
        // Another order each time, and the same in each run.
        let mut seed = 7_u64;
        while self.peers.iter().any(Peer::is_out) {
            let missing = self.peers.iter().filter(|peer| peer.is_out()).count();
            assert!(time <= most, "{missing} are not in after {most:?}");
            for at in (1..self.peers.len()).rev() {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                self.peers.swap(at, (seed >> 33) as usize % (at + 1));
            }
            self.step(time);
            time += TICK;
        }
        time
    }

    fn step(&mut self, time: Duration) {
        for peer in &mut self.peers {
            peer.step(&self.pending, self.start + time, time, self.deadline);
        }
    }
}

impl Peer {
    fn is_out(&self) -> bool {
        self.is_device && !matches!(self.state, State::Through { .. })
    }

    fn step(&mut self, pending: &Arc<PendingConnects>, now: Instant, time: Duration, deadline: Duration) {
        let state = std::mem::replace(&mut self.state, State::Away(time + self.pause));
        self.state = match state {
            State::Away(until) if until > time => State::Away(until),
            State::Away(_) => match pending.admit(&self.owner, now) {
                Ok((place, charge)) => State::Pending(place, charge, time, time),
                Err(_) => match pending.wait(&self.owner, now) {
                    Some(waiting) => State::Waiting(waiting, time),
                    None => State::Away(time + self.pause),
                },
            },
            State::Waiting(waiting, since) => match pending.admit_waiting(&self.owner, now) {
                Ok((place, charge)) => State::Pending(place, charge, since, time),
                Err(_) if time - since >= deadline => State::Away(time + self.pause),
                Err(_) => State::Waiting(waiting, since),
            },
            State::Pending(place, ..) if place.evicted.is_cancelled() => {
                self.evictions += 1;
                State::Away(time + self.pause)
            }
            State::Pending(_, _, since, _) if time - since >= deadline => State::Away(time + self.pause),
            State::Pending(place, charge, since, begun) => {
                let spoken = |at: &Duration| time - begun >= *at;
                if self.speaks.iter().any(|at| spoken(at) && time - begun < *at + TICK) {
                    place.heard.note(now);
                }
                match self.speaks.last() {
                    Some(last) if self.is_device && spoken(last) => State::Through { _place: charge },
                    _ => State::Pending(place, charge, since, begun),
                }
            }
            through @ State::Through { .. } => through,
        };
    }
}

/// A plant after a power cut: devices that need seconds from accept to CONNECT, silent in between, behind one address or many.
#[test]
fn a8_devices_that_take_seconds_are_all_in() {
    for (count, places, speaks, most) in [
        (300, 300, &[2.0][..], 5),
        (300, 64, &[2.0], 30),
        (300, 64, &[0.0, 4.0], 60),
        (500, 500, &[0.0, 4.0], 10),
        (2000, 2000, &[0.0, 5.0], 30),
        (2000, 2000, &[1.0, 9.0], 60),
        (2000, 700, &[0.0, 2.5, 5.0], 30),
        (2000, 700, &[0.0, 4.5, 9.0], 60),
    ] {
        for addresses in [1, count] {
            let mut plant = Plant::new(count as usize, places);
            plant.add(true, count, |number| address(number % addresses), speaks, 2.0);
            let took = plant.run(Duration::from_secs(most));
            let evictions: usize = plant.peers.iter().map(|peer| peer.evictions).sum();
            assert_eq!(evictions, 0, "{count} devices, {places} places, {addresses} addresses, {took:?}");
        }
    }
}

/// Peers of one address that say nothing, or begin and stop, more than there are places, and that come back at once. They
/// have all places before the devices of other addresses come.
#[test]
fn a8_a_storm_of_one_address_keeps_no_device_of_another_out() {
    for (places, storm, speaks, pause) in [
        (64, 200, &[][..], 0.0),
        (64, 600, &[], 1.0),
        (64, 200, &[0.0], 0.0),
        (200, 500, &[0.0], 0.5),
    ] {
        let mut plant = Plant::new(10_000, places);
        plant.add(false, storm, |_| address(0), speaks, pause);
        plant.step(Duration::ZERO);
        plant.add(true, 100, |number| address(1 + number), &[0.0, 2.0], 2.0);
        plant.run(Duration::from_secs(12));
    }
}

#[test]
fn a8_a_place_that_is_given_up_leaves_nothing_behind() {
    let mut plant = Plant::new(10, 10);
    plant.add(true, 30, address, &[0.0, 1.0], 0.5);
    plant.step(Duration::ZERO);
    assert_eq!(plant.pending.budget.connections.taken(), 10);
    plant.peers.clear();
    let room = plant.pending.lock();
    assert!(room.places.is_empty() && room.by_owner.is_empty() && room.waiting.is_empty());
    drop(room);
    assert_eq!(plant.pending.budget.connections.taken(), 0);
}
