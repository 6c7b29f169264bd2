//! Steps of the clock against the judge, one boot after the other.

use super::trust::{CONFIRM_MS, Doubt, Judge, Sample, Sync, TrustSource};

const DAY: i64 = 86_400_000;
const HOUR: i64 = 3_600_000;
/// 2026-11-01, the release.
const RELEASE: u64 = 1_793_491_200_000;
/// 2026-12-01, the true time when a boot begins.
const BOOTED: i64 = 1_796_083_200_000;
/// The moments that the table is about, as differences to the true time.
const YEAR_1970: i64 = -BOOTED;
const YEAR_2038: i64 = 2_147_483_648_000 - BOOTED;
const YEAR_2069: i64 = 3_124_224_000_000 - BOOTED;
const YEAR_2099: i64 = 4_070_908_800_000 - BOOTED;

/// A machine whose wall clock a test sets, and its judge.
struct Machine {
    judge: Judge,
    /// Since the boot, sleep included.
    boot_ms: u64,
    /// How far the wall clock is ahead of the true time.
    ahead_ms: i64,
    sync: Sync,
}

impl Machine {
    fn booted() -> Self {
        Self {
            judge: Judge::new(RELEASE),
            boot_ms: 10_000,
            ahead_ms: 0,
            sync: Sync::No,
        }
    }

    fn synchronised() -> Self {
        Self {
            sync: Sync::Kernel,
            ..Self::booted()
        }
    }

    fn sample(&self) -> Sample {
        Sample {
            wall_ms: (BOOTED + self.boot_ms as i64 + self.ahead_ms).max(0) as u64,
            boot_ms: self.boot_ms,
            sync: self.sync,
        }
    }

    fn set(&mut self, ahead_ms: i64, sync: Sync) -> &mut Self {
        (self.ahead_ms, self.sync) = (ahead_ms, sync);
        self
    }

    fn look(&mut self) -> Result<TrustSource, Doubt> {
        self.judge.judge(&self.sample()).trust
    }

    fn keeps(&mut self) -> bool {
        self.judge.judge(&self.sample()).may_be_kept
    }

    /// Time passes, looked at every so often.
    fn pass(&mut self, ms: u64) -> Result<TrustSource, Doubt> {
        let end = self.boot_ms + ms;
        while self.boot_ms < end {
            self.boot_ms = (self.boot_ms + 60_000).min(end);
            self.look().ok();
        }
        self.look()
    }
}

#[test]
fn e2_no_wall_clock_is_trusted_before_it_was_synchronised_in_this_boot() {
    // E3 (20 days ahead until NTP comes), E2 and B2 (2099, two years ahead), and every other wrong time a board boots with.
    for ahead in [0, YEAR_1970, 20 * DAY, 2 * 365 * DAY, -20 * DAY, YEAR_2038, YEAR_2069, YEAR_2099] {
        let mut machine = Machine::booted();
        let doubt = machine.set(ahead, Sync::No).look().unwrap_err();
        assert_eq!(doubt.is_wrong(), ahead == YEAR_1970 || ahead >= YEAR_2038, "{ahead}: {doubt}");
        assert!(
            machine.set(ahead, Sync::Unknown(1)).pass(30 * DAY as u64).is_err(),
            "{ahead}: NTP never"
        );
        assert_eq!(machine.set(0, Sync::Kernel).look(), Ok(TrustSource::Kernel), "{ahead}: NTP late");
    }
}

#[test]
fn a_synchronised_clock_keeps_its_trust_while_it_keeps_pace_with_the_boot_time() {
    let mut machine = Machine::synchronised();
    assert_eq!(machine.look(), Ok(TrustSource::Kernel));
    assert_eq!(machine.set(0, Sync::No).pass(30 * DAY as u64), Ok(TrustSource::Boot), "NTP gone");
    assert_eq!(machine.set(0, Sync::Unknown(1)).look(), Ok(TrustSource::Boot));
    // Slewing: half a second in a thousand.
    assert_eq!(machine.set(400, Sync::No).pass(60_000), Ok(TrustSource::Boot));
    // Suspended for six hours: both go on, and nothing looks meanwhile.
    machine.boot_ms += 6 * HOUR as u64;
    assert_eq!(machine.look(), Ok(TrustSource::Boot));
}

#[test]
fn a_step_that_the_boot_time_does_not_prove_is_told_once_and_not_trusted() {
    for sync in [Sync::No, Sync::Kernel, Sync::TimesyncFile] {
        for ahead in [YEAR_1970, 20 * DAY, -20 * DAY, 2 * 365 * DAY, YEAR_2038, YEAR_2069, YEAR_2099] {
            let mut machine = Machine::synchronised();
            machine.look().unwrap();
            let verdict = machine.judge.judge(&machine.sample());
            assert_eq!(verdict.jump_ms, None);
            machine.set(ahead, sync);
            let verdict = machine.judge.judge(&machine.sample());
            assert!(verdict.trust.is_err() && !verdict.may_be_kept, "{ahead}: {verdict:?}");
            assert!(
                verdict.jump_ms.is_some_and(|by| (by - ahead).abs() <= 10_000),
                "{ahead}: {verdict:?}"
            );
            assert_eq!(machine.judge.judge(&machine.sample()).jump_ms, None, "once");
            // And back.
            assert!(machine.set(0, Sync::No).look().is_ok(), "{ahead}");
        }
    }
}

#[test]
fn a_synchronised_clock_is_believed_where_it_stands_for_an_hour() {
    let mut machine = Machine::synchronised();
    machine.look().unwrap();
    assert!(machine.set(20 * DAY, Sync::Kernel).pass(CONFIRM_MS - 60_000).is_err());
    assert_eq!(machine.pass(120_000), Ok(TrustSource::Kernel));
    // An hour of which it was not synchronised proves nothing.
    let mut machine = Machine::synchronised();
    machine.look().unwrap();
    assert!(machine.set(20 * DAY, Sync::Kernel).pass(CONFIRM_MS - 60_000).is_err());
    assert!(machine.set(20 * DAY, Sync::No).look().is_err());
    assert!(machine.set(20 * DAY, Sync::Kernel).pass(120_000).is_err());
    // A small step of a synchronised clock is what NTP does.
    let mut machine = Machine::synchronised();
    machine.look().unwrap();
    assert_eq!(machine.set(40_000, Sync::Kernel).look(), Ok(TrustSource::Kernel));
    assert!(machine.set(80_000, Sync::No).look().is_err(), "by hand it is a guess");
}

#[test]
fn the_first_synchronised_time_is_believed_unless_it_is_years_ahead() {
    let last = (BOOTED as u64, None);
    for (ahead, is_believed) in [
        (0, true),
        (20 * DAY, true),
        (399 * DAY, true),
        (2 * 365 * DAY, false),
        (YEAR_2099, false),
    ] {
        let mut machine = Machine::synchronised();
        machine.set(ahead, Sync::Kernel);
        machine.judge.remember(Some(last), &machine.sample());
        assert_eq!(machine.look().is_ok(), is_believed, "{ahead}");
        assert!(machine.pass(CONFIRM_MS + 60_000).is_ok(), "{ahead}: it has stood");
    }
    // Nothing on disk yet: a release may be installed years later.
    assert!(Machine::synchronised().set(2 * 365 * DAY, Sync::Kernel).look().is_ok());
    assert!(Machine::synchronised().set(YEAR_2099, Sync::Kernel).look().is_err());
}

#[test]
fn the_time_on_disk_rises_by_proof_and_never_past_our_certificate() {
    // Fresh: only what has stood.
    let mut machine = Machine::synchronised();
    assert!(!machine.keeps());
    machine.pass(CONFIRM_MS).unwrap();
    assert!(machine.keeps());
    // Known: by days only what has stood.
    let mut machine = Machine::synchronised();
    machine.judge.remember(Some((BOOTED as u64, None)), &machine.sample());
    assert!(machine.keeps());
    let mut machine = Machine::synchronised();
    machine.judge.remember(Some(((BOOTED - 20 * DAY) as u64, None)), &machine.sample());
    assert!(machine.look().is_ok() && !machine.keeps());
    // Our certificate ended yesterday.
    machine.judge.end_at((BOOTED - DAY) as u64);
    machine.pass(CONFIRM_MS + 60_000).unwrap();
    assert!(!machine.keeps());
}

#[test]
fn a_time_on_disk_that_lies_ahead_gives_way_to_a_synchronised_clock() {
    for ahead in [DAY, 2 * 365 * DAY, YEAR_2099] {
        let mut machine = Machine::booted();
        let wrong = (BOOTED + ahead) as u64;
        machine.judge.remember(Some((wrong, None)), &machine.sample());
        assert!(machine.look().is_err() && !machine.keeps(), "{ahead}: by hand it is a guess");
        machine.set(0, Sync::Kernel);
        assert!(machine.look().is_ok() && machine.keeps(), "{ahead}");
        // Even one of this very boot: an older version wrote it.
        let mut machine = Machine::synchronised();
        machine.judge.remember(Some((wrong, Some(5_000))), &machine.sample());
        assert!(machine.look().is_ok() && machine.keeps(), "{ahead}");
    }
}

#[test]
fn a_process_takes_up_the_proof_of_one_before_it_in_the_same_boot() {
    let mut machine = Machine::booted();
    let wall_of = |boot_ms: u64| (BOOTED as u64) + boot_ms;
    machine.judge.remember(Some((wall_of(5_000), Some(5_000))), &machine.sample());
    assert_eq!(machine.look(), Ok(TrustSource::Boot));
    let mut machine = Machine::booted();
    machine.judge.remember(Some((wall_of(5_000), None)), &machine.sample());
    assert_eq!(machine.look(), Err(Doubt::NotSynchronised), "another boot proves nothing");
    let mut machine = Machine::booted();
    machine.set(20 * DAY, Sync::No);
    machine.judge.remember(Some((wall_of(5_000), Some(5_000))), &machine.sample());
    assert!(machine.look().is_err(), "set while nothing ran");
}

#[test]
fn a_time_of_the_verified_cloud_proves_the_clock_or_refutes_it() {
    let truth = |machine: &Machine| BOOTED as u64 + machine.boot_ms;
    let mut machine = Machine::booted();
    machine.judge.cloud_said(truth(&machine) + 900, machine.boot_ms);
    assert_eq!(machine.look(), Ok(TrustSource::Cloud));
    assert!(machine.keeps());
    assert!(machine.set(20 * DAY, Sync::No).look().is_err());
    assert!(matches!(machine.set(20 * DAY, Sync::Kernel).look(), Err(Doubt::CloudDisagrees { by_ms }) if by_ms > 19 * DAY));
    assert!(machine.pass(2 * CONFIRM_MS).is_err(), "time alone does not outdo the cloud");
    // What it says now is what counts.
    machine.judge.cloud_said(machine.sample().wall_ms, machine.boot_ms);
    assert_eq!(machine.look(), Ok(TrustSource::Kernel));
}

#[test]
fn the_start_of_a_verified_certificate_lifts_the_past_and_proves_no_present() {
    let mut machine = Machine::booted();
    machine.judge.not_before((BOOTED + DAY) as u64);
    assert!(matches!(machine.look(), Err(Doubt::Past { .. })));
    assert_eq!(machine.set(2 * DAY, Sync::No).look(), Err(Doubt::NotSynchronised));
    machine.judge.not_before(RELEASE - 1);
    machine.judge.not_before((BOOTED + YEAR_2099) as u64);
    assert!(
        matches!(machine.set(0, Sync::Kernel).look(), Err(Doubt::Past { .. })),
        "it never sinks"
    );
}

#[test]
fn a_doubt_says_by_how_much() {
    let text = |doubt: Doubt| doubt.to_string();
    assert_eq!(
        text(Doubt::Jumped { by_ms: -20 * DAY }),
        "it was set 20 days back since it was last right"
    );
    assert_eq!(
        text(Doubt::Past { by_ms: 90_000 }),
        "it is 90 s behind a moment that has passed already"
    );
    assert_eq!(
        text(Doubt::CloudDisagrees { by_ms: 2 * HOUR }),
        "it is 2 h ahead of the cloud's time"
    );
}

#[test]
fn a_time_of_the_cloud_counts_on_the_machines_own_clock_unless_it_took_too_long() {
    use super::{Clock, CloudTime, SystemClock, wall_clock};
    use std::time::{Duration, UNIX_EPOCH};

    let unix_ms = wall_clock().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let said = |round_trip| CloudTime { unix_ms, round_trip };
    let clock = SystemClock::new(RELEASE);
    assert!(!clock.cloud_said(said(CloudTime::MAX_ROUND_TRIP + Duration::from_millis(1))));
    assert!(clock.cloud_said(said(Duration::from_millis(80))));
    assert!(clock.now().trusted, "{:?}", clock.report());
    // The first trusted time of a boot may be kept at once when the cloud vouches for it.
    assert!(clock.lasting().is_some());
    // A cloud that is a day off refutes it.
    let wrong = CloudTime {
        unix_ms: unix_ms - 86_400_000,
        ..said(Duration::ZERO)
    };
    assert!(clock.cloud_said(wrong));
    assert!(!clock.now().trusted && clock.lasting().is_none());
    assert!(matches!(clock.report().trust, Err(Doubt::CloudDisagrees { .. })));
}
