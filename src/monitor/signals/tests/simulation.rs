//! A month of a plant in a moment: day cycle, noise, gaps, nonsense; and what of it is found.
//!
//! `FOREBAY_SEED=7 cargo test --bin forebay simulated -- --nocapture` replays a month and prints its figures;
//! `FOREBAY_SIMULATION=full` has the plant of docs/signals.md: twenty devices that publish each minute, some minutes long.

use super::*;

/// A small generator (xorshift64*), so that a seed is a month.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// From 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a draw")]
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A normal draw (Box and Muller).
    fn normal(&mut self, sigma: f64) -> f64 {
        let (a, b) = (self.unit().max(1e-12), self.unit());
        sigma * (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

fn seed() -> u64 {
    std::env::var("FOREBAY_SEED").ok().map_or(1, |text| text.parse().unwrap())
}

const DAY: u64 = 86_400;
const MONTH: u64 = 30 * DAY;

fn is_full() -> bool {
    std::env::var_os("FOREBAY_SIMULATION").is_some_and(|what| what == "full")
}

/// Days of a story in which something happens on the tenth.
fn days() -> u64 {
    if is_full() { MONTH / DAY } else { 12 }
}

/// Devices, and the seconds between their messages.
fn plant() -> (usize, u64) {
    if is_full() { (20, 60) } else { (6, 300) }
}

/// What a device's thermometer does.
#[derive(Clone, Copy)]
enum Story {
    /// It follows the room.
    Well,
    /// From day 10 on it shows this much more.
    Step(f64),
    /// From day 10 on it climbs by this much, with a time constant of two hours.
    SelfHeating(f64),
}

impl Story {
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    fn offset(self, second: u64) -> f64 {
        let since = second.saturating_sub(10 * DAY) as f64;
        match self {
            Self::Well => 0.0,
            Self::Step(by) => {
                if since > 0.0 {
                    by
                } else {
                    0.0
                }
            }
            Self::SelfHeating(by) => by * (1.0 - (-since / 7200.0).exp()),
        }
    }
}

/// What was found of a story.
#[derive(Debug, Default)]
struct Found {
    /// Alarms while nothing was wrong.
    false_alarms: u64,
    /// Devices whose drift was found.
    found: usize,
    /// Seconds from the cause to the slowest alarm.
    slowest: u64,
}

/// A plant for so many days. Noise of 0.3, a day cycle of 8 degrees that reaches
/// each device up to half an hour later, an offset of up to 0.3 of its own, one value in a hundred nonsense, one message in
/// fifty lost, and two outages of some hours.
fn simulate(story: Story, days: u64, seed: u64) -> Found {
    let (devices, every) = plant();
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut watched = Watched::new(&ITEM.replace("60s", &format!("{every}s")));
    let own: Vec<(f64, u64)> = (0..devices).map(|_| (random.unit() * 0.6 - 0.3, random.next() % 1800)).collect();
    let outages = [(5 * DAY, 5 * DAY + 4 * 3600), (20 * DAY, 20 * DAY + 9 * 3600)];
    let (mut result, mut at_last, mut seq) = (Found::default(), vec![None; devices], 0);
    let start = watched.now;
    for turn in 0..days * DAY / every {
        let second = turn * every;
        watched.now = start + second;
        seq += 1;
        let is_away = outages.iter().any(|(from, to)| (*from..*to).contains(&second));
        if is_away {
            continue;
        }
        if random.unit() > 0.02 {
            let temp = room(second) + random.normal(0.3);
            watched.publish("ref", &message(seq, "r", temp));
        }
        for (device, (offset, lag)) in own.iter().enumerate() {
            if random.unit() < 0.02 {
                continue;
            }
            let mut temp = room(second.saturating_sub(*lag)) + offset + story.offset(second) + random.normal(0.3);
            if random.unit() < 0.01 {
                temp = random.unit() * 120.0 - 40.0;
            }
            watched.publish(&format!("d{device:02}"), &message(seq, "a", temp));
        }
        // Often enough for a drift.
        if second % 600 != 0 {
            continue;
        }
        let report = watched.report();
        for trouble in report.of(Signal::Drift) {
            let device: usize = trouble.device[1..].parse().unwrap();
            let is_wrong = story.offset(second).abs() > 1.0 - own[device].0.abs();
            if !is_wrong {
                result.false_alarms += 1;
            } else if at_last[device].is_none() {
                at_last[device] = Some(second - 10 * DAY);
            }
        }
    }
    result.found = at_last.iter().flatten().count();
    result.slowest = at_last.iter().flatten().copied().max().unwrap_or_default();
    result
}

#[expect(clippy::cast_precision_loss, reason = "seconds")]
fn room(second: u64) -> f64 {
    20.0 + 4.0 * (std::f64::consts::TAU * second as f64 / DAY as f64).sin()
}

#[test]
fn a_simulated_month_without_drift_raises_no_alarm() {
    let months = if is_full() { 3 } else { 1 };
    for seed in seed()..seed() + months {
        let found = simulate(Story::Well, MONTH / DAY, seed);
        println!("seed {seed}: {found:?}");
        assert_eq!(found.false_alarms, 0, "seed {seed}");
    }
}

#[test]
fn a_simulated_drift_of_twice_the_limit_is_found_in_every_device() {
    let all = if is_full() {
        &[1.0, 1.2, 1.4, 1.6, 1.8, 2.0][..]
    } else {
        &[2.0][..]
    };
    for step in all {
        let found = simulate(Story::Step(*step), days(), seed());
        println!("a step of {step}, limit 1.0, seed {}: {found:?}", seed());
        assert_eq!(found.false_alarms, 0, "seed {}", seed());
        if *step >= 2.0 {
            assert_eq!(found.found, plant().0, "seed {}", seed());
        }
    }
}

#[test]
fn a_simulated_board_that_heats_itself_by_6_to_8_degrees_is_found_within_hours() {
    let all = if is_full() { &[6.0, 7.0, 8.0][..] } else { &[6.0][..] };
    for by in all {
        let found = simulate(Story::SelfHeating(*by), days(), seed());
        println!("self-heating by {by}, seed {}: {found:?}", seed());
        assert_eq!((found.found, found.false_alarms), (plant().0, 0), "seed {}", seed());
        // The window is 31 messages long.
        assert!(found.slowest <= (40 * plant().1).max(7200), "{found:?}");
    }
}
