//! Power cuts at every operation of an update, and in long random lives.

mod support;

use forebay_flash::sim::{Random, Sim, SimError};
use forebay_flash::{ErrorType, NorFlash, PAGE, ReadNorFlash, map};
use forebay_image::{EvidenceKind, Refusal, Slot, State, StateLog, Status, TRIES, Trial, UpdateError};
use support::{Device, Release, STRANGER};

/// Torn words differ by seed; each cut point is tried with several.
const SEEDS_PER_CUT: u64 = 4;
const STATE_BYTES: u32 = map::STATE.end - map::STATE.start;

/// One life of a device on which `update` is delivered to version 1, and confirms itself or not. Gives the starts on trial.
fn live(device: &Device, update: &Release, confirms: bool, name: &str) -> u8 {
    let mut trials = 0;
    let mut confirmed = false;
    for _ in 0..12 {
        device.power_on_after_cut();
        let start = match device.boot() {
            Ok(start) => start,
            Err(halt) => {
                assert!(device.is_dark(), "{name}: halted with the power on: {halt:?}");
                continue;
            }
        };
        if device.is_dark() {
            continue;
        }
        let updated = start.header.version == update.version();
        assert!(!confirmed || updated, "{name}: went back behind a confirmed image");
        trials += u8::from(start.on_trial);
        let Some(mut control) = device.control(start.slot) else {
            assert!(device.is_dark(), "{name}: no control with the power on");
            continue;
        };
        if updated && confirms {
            if control.confirm().is_ok() {
                confirmed = true;
            }
            if control.status() == Status::Confirmed && !start.on_trial {
                return trials;
            }
        } else if !updated {
            let given_up = control
                .state()
                .evidence
                .is_some_and(|evidence| evidence.kind == EvidenceKind::GivenUp);
            if given_up {
                assert_eq!(control.status(), Status::Confirmed, "{name}");
                return trials;
            }
            let done = device.update(start.slot, update);
            assert!(done.is_ok() || device.is_dark(), "{name}: {done:?}");
        }
    }
    panic!("{name}: came to no end in 12 starts");
}

impl Device {
    /// The power stays on unless a cut came; a planned cut stays planned.
    fn power_on_after_cut(&self) {
        if self.is_dark() {
            self.power_on();
        }
    }
}

fn at_every_cut(confirms: bool, ends_well: impl Fn(&Device, u8, &str)) {
    let update = Release::new(2);
    let prepared = Device::confirmed(&Release::new(1), 0);
    let uncut = prepared.again(0);
    live(&uncut, &update, confirms, "without a cut");
    let total = uncut.operations() - prepared.operations();
    assert!(total > 500, "an update has {total} operations");
    for cut in 0..total {
        for seed in 0..SEEDS_PER_CUT {
            let name = format!("cut after {cut} operations, seed {seed}");
            let device = prepared.again(cut * SEEDS_PER_CUT + seed);
            device.cut_after(cut);
            let trials = live(&device, &update, confirms, &name);
            ends_well(&device, trials, &name);
        }
    }
}

#[test]
fn an_update_survives_a_power_cut_at_every_operation() {
    at_every_cut(true, |device, trials, name| {
        assert!(trials <= TRIES, "{name}");
        let start = device.boot().unwrap();
        assert_eq!((start.slot, start.on_trial), (Slot::B, false), "{name}");
    });
}

#[test]
fn a_broken_update_is_given_up_after_two_tries_whatever_is_cut() {
    at_every_cut(false, |device, trials, name| {
        assert!(trials <= TRIES, "{name}: {trials} starts of a broken image");
        let start = device.boot().unwrap();
        assert_eq!((start.slot, start.on_trial), (Slot::A, false), "{name}");
        assert_eq!(device.control(Slot::A).unwrap().state().given_up, 1, "{name}");
    });
}

#[test]
fn thousands_of_lives_keep_a_confirmed_image_and_never_lower_a_floor() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("FOREBAY_FIRST_SEED").unwrap_or(0);
    let lives = number("FOREBAY_LIVES").unwrap_or(2000);
    for seed in number("FOREBAY_SEED").map_or(first..first + lives, |seed| seed..seed + 1) {
        let outcome = std::panic::catch_unwind(|| random_life(seed));
        assert!(outcome.is_ok(), "replay with FOREBAY_SEED={seed}");
    }
}

/// A life of twenty starts: updates that are good, broken, forged, older or damaged, and cuts at random moments.
fn random_life(seed: u64) {
    let mut random = Random(seed);
    let device = Device::confirmed(&Release::new(1), seed);
    let mut confirmed = Release::new(1);
    let mut offered: Option<(Release, bool)> = None;
    let mut patch = 1;
    let mut floor = 1;
    for _ in 0..20 {
        device.power_on();
        if random.below(2) == 0 {
            device.cut_after(random.below(700));
        }
        let Ok(start) = device.boot() else {
            assert!(device.is_dark(), "halted with the power on");
            continue;
        };
        if device.is_dark() {
            continue;
        }
        let version = start.header.version;
        let Some(mut control) = device.control(start.slot) else { continue };
        if device.is_dark() {
            continue;
        }
        assert!(control.state().counter_floor >= floor, "the floor fell");
        floor = control.state().counter_floor;
        if let Some((release, good)) = offered
            && version == release.version()
        {
            if control.status() == Status::Confirmed {
                // A cut came between the confirmation and our hearing of it.
                assert!(good, "a broken image is confirmed");
                (confirmed, offered) = (release, None);
            } else if good && control.confirm().is_ok() {
                (confirmed, offered) = (release, None);
            } else {
                continue;
            }
        }
        assert_eq!(version, confirmed.version(), "neither the confirmed image nor the one on trial");
        let Some(control) = device.control(start.slot) else { continue };
        if control.status() != Status::Confirmed {
            continue;
        }
        floor = control.state().counter_floor;
        patch += 1;
        offered = deliver(&device, start.slot, patch, floor, &mut random).or(offered);
    }
}

fn deliver(device: &Device, slot: Slot, patch: u16, floor: u32, random: &mut Random) -> Option<(Release, bool)> {
    let fresh = Release {
        security_counter: floor + u32::from(random.below(4) == 0),
        ..Release::new(patch)
    };
    match random.below(6) {
        0 => {
            let forged = Release { secret: STRANGER, ..fresh };
            assert!(device.update(slot, &forged).is_err());
            None
        }
        1 => {
            let older = Release {
                security_counter: floor - 1,
                ..fresh
            };
            let refused = device.update(slot, &older);
            assert!(refused == Err(UpdateError::Refused(Refusal::Counter)) || device.is_dark());
            None
        }
        2 => {
            let mut image = fresh.image(slot.other());
            let at = 1024 + random.below(image.len() as u64 - 1024) as usize;
            image[at] ^= 1 << random.below(8);
            assert!(device.update_with(slot, &image).is_err());
            None
        }
        kind => {
            // Even if a cut seems to have stopped it, its last record may stand.
            let begun = device.update(slot, &fresh);
            assert!(begun.is_ok() || device.is_dark(), "{begun:?}");
            Some((fresh, kind != 3))
        }
    }
}

fn state(number: u32) -> State {
    State {
        counter_floor: number,
        confirmed: Some(Slot::A),
        trial: (number.is_multiple_of(3)).then_some(Trial { slot: Slot::B, tries: 1 }),
        ..State::default()
    }
}

#[test]
fn the_state_survives_a_cut_at_every_operation_of_two_wraps() {
    let appends = 2 * (STATE_BYTES / 64) + 5;
    let mut whole = Sim::new(STATE_BYTES, 0);
    let mut log = StateLog::open(&mut whole);
    (1..=appends).for_each(|number| log.append(state(number)).unwrap());
    assert!(whole.most_erases() >= 2);
    for cut in 0..whole.operations() {
        let mut flash = Sim::new(STATE_BYTES, cut);
        flash.cut_after(cut);
        let mut acked = 0;
        let mut log = StateLog::open(&mut flash);
        for number in 1..=appends {
            if log.append(state(number)).is_err() {
                break;
            }
            acked = number;
        }
        flash.power_on();
        let found = *StateLog::open(&mut flash).state();
        let expected = [acked, acked + 1].map(|number| if number == 0 { State::default() } else { state(number) });
        assert!(expected.contains(&found), "cut after {cut}: {found:?} after {acked}");
        // What was read once stays, and the log goes on.
        assert_eq!(*StateLog::open(&mut flash).state(), found, "cut after {cut}");
        StateLog::open(&mut flash).append(state(9999)).unwrap();
        assert_eq!(*StateLog::open(&mut flash).state(), state(9999), "cut after {cut}");
    }
}

#[test]
fn the_state_survives_many_cuts_close_together() {
    for seed in 0..5000 {
        let mut random = Random(seed);
        let mut flash = Sim::new(2 * PAGE, seed);
        let (mut number, mut possible) = (0, vec![State::default()]);
        for _ in 0..40 {
            flash.power_on();
            flash.cut_after(random.below(120));
            let mut log = StateLog::open(&mut flash);
            for _ in 0..8 {
                number += 1;
                if log.append(state(number)).is_ok() {
                    possible = vec![state(number)];
                } else {
                    possible.push(state(number));
                    break;
                }
            }
            if flash.is_dark() {
                flash.power_on();
                let now = *StateLog::open(&mut flash).state();
                assert!(possible.contains(&now), "seed {seed}: {now:?} is none of {possible:?}");
                // What was once read, and perhaps acted on, stays.
                for _ in 0..4 {
                    assert_eq!(*StateLog::open(&mut flash).state(), now, "seed {seed}");
                }
                possible = vec![now];
            }
        }
    }
}

#[test]
fn a_worn_word_costs_its_place_and_no_state() {
    let mut flash = Sim::new(STATE_BYTES, 1);
    flash.wear_out(40);
    for run in 0..100 {
        let last = 10 * run + run % 10 + 1;
        let mut log = StateLog::open(&mut flash);
        (10 * run + 1..=last).for_each(|number| log.append(state(number)).unwrap());
        assert_eq!(*StateLog::open(&mut flash).state(), state(last));
    }
}

/// A flash of which only the first page still takes anything.
struct WornOut(Sim);

impl ErrorType for WornOut {
    type Error = SimError;
}

impl ReadNorFlash for WornOut {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), SimError> {
        self.0.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl NorFlash for WornOut {
    const WRITE_SIZE: usize = Sim::WRITE_SIZE;
    const ERASE_SIZE: usize = Sim::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), SimError> {
        self.0.erase(from, to)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SimError> {
        if offset >= PAGE {
            Err(SimError::NotErased)
        } else {
            self.0.write(offset, bytes)
        }
    }
}

#[test]
fn worn_pages_never_cost_the_state_that_was_written() {
    let mut flash = WornOut(Sim::new(STATE_BYTES, 1));
    let per_page = PAGE / 64;
    let mut log = StateLog::open(&mut flash);
    (1..=per_page).for_each(|number| log.append(state(number)).unwrap());
    log.append(state(9999)).unwrap_err();
    assert_eq!(*StateLog::open(&mut flash).state(), state(per_page));
}
