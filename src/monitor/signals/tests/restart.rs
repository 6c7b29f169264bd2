//! The state across restarts.

use super::super::checkpoint::{Unusable, load, path, save};
use super::*;

fn restarted(before: &Watched, clean: bool, now: u64) -> Watched {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    save(&path, &before.engine, &at(before.now), clean).unwrap();
    let mut after = Watched::new(ITEM);
    after.now = now;
    assert!(load(&path, &after.engine, &config(ITEM).watch, &at(now)).unwrap());
    after
}

fn seen() -> Watched {
    let mut watched = Watched::new(ITEM);
    for seq in 1..=10_u32 {
        watched.publish("d1", &message(seq.into(), "a", 20.0 + f64::from(seq)));
    }
    watched
}

#[test]
fn a_gap_across_a_clean_stop_is_told_and_the_gateways_own_absence_is_no_silence() {
    let before = seen();
    let mut after = restarted(&before, true, before.now + 3600);
    assert_eq!(after.report().in_trouble(Signal::Silent), 0);
    assert_eq!(after.report().series, 1);
    after.publish("d1", &message(13, "a", 21.0));
    assert_eq!(after.counted(), [("gaps", 1), ("missing", 2)]);
    after.now += 200;
    assert_eq!(
        after.report().in_trouble(Signal::Silent),
        1,
        "three misses after the start it is one"
    );
}

#[test]
fn after_a_kill_the_first_number_makes_no_gap_and_a_restart_meanwhile_is_told() {
    let before = seen();
    let mut after = restarted(&before, false, before.now + 60);
    after.publish("d1", &message(40, "a", 21.0));
    assert_eq!(after.counted(), []);
    after.publish("d1", &message(42, "a", 21.0));
    assert_eq!(after.counted(), [("gaps", 1), ("missing", 1)]);
    let mut after = restarted(&before, false, before.now + 60);
    after.publish("d1", &message(0, "b", 21.0));
    assert_eq!(after.counted(), [("restarts", 1)]);
}

#[test]
fn a_silence_goes_on_and_flaps_do_too() {
    let mut before = seen();
    let identity: Arc<str> = "d2".into();
    for _ in 0..3 {
        let address = "10.0.0.1:1".parse().unwrap();
        before
            .engine
            .ended(&identity, address, Some(Disconnection::KeepAlive), &at(before.now));
    }
    before.now += 100;
    before.publish("d3", &message(1, "a", 20.0));
    before.now += 100;
    assert_eq!(before.report().in_trouble(Signal::Silent), 1);
    let mut after = restarted(&before, true, before.now);
    let report = after.report();
    assert_eq!(report.of(Signal::Silent).next().unwrap().value, 200.0);
    assert_eq!(after.counted(), [], "it is the same silence");
    let flapping = restarted(&before, true, before.now - 150).report();
    assert_eq!(flapping.in_trouble(Signal::Flap), 0);
}

#[test]
fn fields_are_found_again_by_their_pointers_and_items_by_their_filters() {
    let before = seen();
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    save(&path, &before.engine, &at(before.now), true).unwrap();
    let other = "{topic: \"devices/+/telemetry/#\", fields: [{at: /humidity}, {at: /temp, range: [0, 10]}]}";
    let after = Watched::new(other);
    load(&path, &after.engine, &config(other).watch, &at(before.now)).unwrap();
    let series = after.engine.series();
    let series = lock(series.first().unwrap());
    assert_eq!(series.pointers, ["/humidity", "/temp"]);
    assert_eq!(series.fields[0], field::Field::default());
    assert_ne!(series.fields[1], field::Field::default());
    let gone = "{topic: \"elsewhere/#\", every: 60s}";
    let after = Watched::new(gone);
    load(&path, &after.engine, &config(gone).watch, &at(before.now)).unwrap();
    assert_eq!(after.engine.series().len(), 0);
}

#[test]
fn a_file_that_is_damaged_too_new_or_foreign_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    let load = |text: &[u8]| {
        std::fs::write(&path, text).unwrap();
        load(&path, &Watched::new(ITEM).engine, &config(ITEM).watch, &at(5))
    };
    for damaged in [&b""[..], b"{", b"\xff\xff", b"{\"format\":\"forebay watch\",\"version\":1}"] {
        assert!(matches!(load(damaged), Err(Unusable::Damaged(_))), "{damaged:?}");
    }
    assert!(matches!(
        load(b"{\"format\":\"forebay watch\",\"version\":2}"),
        Err(Unusable::Version(_, 2))
    ));
    assert!(matches!(load(b"{\"format\":\"other\",\"version\":1}"), Err(Unusable::Version(..))));
}

/// The first format, as the first release wrote it: `FOREBAY_BLESS=1` writes it only if it is missing, so that a released
/// one stays.
#[test]
fn version_1_is_readable() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/monitor/signals/tests/watch-1.json");
    if std::env::var_os("FOREBAY_BLESS").is_some() && !std::path::Path::new(golden).exists() {
        let mut before = seen();
        before.publish("d1", &message(13, "a", 99.0));
        before.publish("ref", &message(1, "r", 20.0));
        before.publish("d1", &message(14, "a", 99.0));
        let identity: Arc<str> = "d2".into();
        let address = "10.0.0.1:1".parse().unwrap();
        before.engine.ended(&identity, address, Some(Disconnection::KeepAlive), &at(5));
        save(std::path::Path::new(golden), &before.engine, &at(before.now), true).unwrap();
    }
    let mut after = Watched::new(ITEM);
    assert!(load(std::path::Path::new(golden), &after.engine, &config(ITEM).watch, &at(after.now)).unwrap());
    assert_eq!((after.engine.series().len(), after.engine.devices().len()), (2, 1));
    let report = after.report();
    assert_eq!(
        (report.of(Signal::Gap).next().unwrap().value, report.in_trouble(Signal::Range)),
        (2.0, 1)
    );
    after.publish("d1", &message(15, "a", 20.0));
    assert_eq!(after.counted(), []);
}

#[test]
fn the_file_is_the_old_one_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    let before = seen();
    save(&path, &before.engine, &at(1), true).unwrap();
    let first = std::fs::read(&path).unwrap();
    // A directory stands where the temporary file would: the write fails, and the old state is still whole.
    std::fs::create_dir(path.with_extension("json.tmp")).unwrap();
    save(&path, &before.engine, &at(2), true).unwrap_err();
    assert_eq!(std::fs::read(&path).unwrap(), first);
}
