//! The instruments of `watch:` (decision 0008).

use super::{Instrument, Moment, Series, by, count, counter, gauge, labelled, listed, one, series};
use crate::monitor::signals::{SIGNALS as ALL, Signal, named};

#[rustfmt::skip]
pub(super) const SIGNALS: &[Instrument] = &[
    gauge("forebay_watch_series", "series", "Series that `watch` follows, one for each device and topic.", |m| one(m.figures.signals.series as u64)),
    by(&["watch"], counter("forebay_watch_seen_total", "publishes", "Publishes that the item's filter matched. If it stays 0: is the filter misspelt?", |m| labelled(named(&m.stats.watch.seen)))),
    by(&["watch", "field"], counter("forebay_watch_values_total", "values", "Numbers found at the field's pointer. If it stays 0 while the item matches publishes: is the pointer misspelt?", |m| m.stats.watch.values().map(|(item, field, count)| series(&[item, field], count as f64)).collect())),
    counter("forebay_watch_unfollowed_total", "publishes", "Publishes that are not followed: of series beyond 20,000 or beyond 1,000 of one device, or on topics over 256 bytes; and devices beyond 10,000 whose history was dropped.", |m| count(&m.stats.watch.unfollowed)),
    by(&["reason"], counter("forebay_watch_unreadable_total", "publishes", "Publishes that could not be read in full: `too_large` (over 64 KiB), `not_json`, or no usable value at the `counter`, `boot` or `field` pointer. Is a pointer misspelt?", |m| labelled(m.stats.watch.unreadable()))),
    counter("forebay_watch_forgotten_total", "series", "Series dropped after seven days of silence.", |m| count(&m.stats.watch.forgotten)),
    counter("forebay_watch_checkpoint_failures_total", "writes", "How often the state of `watch` could not be written, or could not be used at the start.", |m| count(&m.stats.watch.checkpoint_failures)),
    by(&["signal"], gauge("forebay_watch_trouble", "series", "Series with the signal now; for `flap` devices.", |m| ALL.iter().map(|signal| series(&[signal.label()], m.figures.signals.in_trouble(*signal) as f64)).collect())),
    by(&["signal"], gauge("forebay_watch_unlisted", "series", "Those of them that have no series of their own below: only a hundred of each signal have.", |m| ALL.iter().map(|signal| series(&[signal.label()], (m.figures.signals.in_trouble(*signal) - m.figures.signals.of(*signal).count()) as f64)).collect())),
    counter("forebay_silences_total", "silences", "Silences begun: no publish for 3.25 times `every`.", |m| count(&m.stats.watch.silences)),
    counter("forebay_sequence_gaps_total", "gaps", "Gaps in devices' counters: which messages were lost before the gateway?", |m| count(&m.stats.watch.gaps)),
    counter("forebay_sequence_missing_total", "messages", "Numbers in those gaps.", |m| count(&m.stats.watch.missing)),
    counter("forebay_sequence_duplicates_total", "messages", "Numbers that came a second time.", |m| count(&m.stats.watch.duplicates)),
    counter("forebay_sequence_reordered_total", "messages", "Numbers that came late: into a gap, or from before a restart.", |m| count(&m.stats.watch.reordered)),
    counter("forebay_device_restarts_total", "restarts", "Restarts of devices: another boot id, or a counter that fell far.", |m| count(&m.stats.watch.restarts)),
    by(&["reason"], counter("forebay_device_flaps_total", "connections", "Device connections that ended without DISCONNECT and not by a stop of the gateway, by reason.", |m| labelled(m.stats.watch.flaps()))),
    counter("forebay_field_out_of_range_total", "values", "Values outside their `range`.", |m| count(&m.stats.watch.out_of_range)),
    counter("forebay_field_stuck_total", "fields", "How often a value became stuck.", |m| count(&m.stats.watch.stuck)),
    counter("forebay_field_drifts_total", "fields", "Drifts begun.", |m| count(&m.stats.watch.drifts)),
    by(&["device", "topic"], listed("forebay_device_silent_seconds", "seconds", "How long the device has been silent.", |m| plain(m, Signal::Silent))),
    by(&["device", "topic", "range"], listed("forebay_device_missing", "messages", "Missing numbers of the device, until five minutes after the newest gap. The label has the range of that gap.", |m| detailed(m, Signal::Gap))),
    by(&["device", "topic"], listed("forebay_device_duplicates", "messages", "Numbers of the device that came twice, until five minutes after the last one.", |m| plain(m, Signal::Duplicate))),
    by(&["device", "topic"], listed("forebay_device_reordered", "messages", "Numbers of the device that came late, until five minutes after the last one.", |m| plain(m, Signal::Reorder))),
    by(&["device", "topic"], listed("forebay_device_restarts", "restarts", "Restarts of the device, until five minutes after the last one.", |m| plain(m, Signal::Restart))),
    by(&["device", "reason"], listed("forebay_device_flaps", "connections", "Connections that the device lost within two minutes, if there are three or more. The label has the reason of the last one.", flaps)),
    by(&["device", "topic", "field"], listed("forebay_field_out_of_range", "the field's own", "The newest value, if it is outside its range.", |m| detailed(m, Signal::Range))),
    by(&["device", "topic", "field"], listed("forebay_field_stuck_seconds", "seconds", "How long a stuck value has not changed.", |m| detailed(m, Signal::Stuck))),
    by(&["device", "topic", "field"], listed("forebay_field_drift", "the field's own", "Median difference between a drifted value and its reference.", |m| detailed(m, Signal::Drift))),
    by(&["device", "topic", "field"], listed("forebay_field_blind_seconds", "seconds", "How long the reference has been missing, so that drift cannot be measured.", |m| detailed(m, Signal::Blind))),
];

fn plain(moment: &Moment<'_>, signal: Signal) -> Vec<Series> {
    let troubles = moment.figures.signals.of(signal);
    troubles
        .map(|trouble| series(&[&trouble.device, &trouble.topic], trouble.value))
        .collect()
}

fn detailed(moment: &Moment<'_>, signal: Signal) -> Vec<Series> {
    let troubles = moment.figures.signals.of(signal);
    troubles
        .map(|trouble| series(&[&trouble.device, &trouble.topic, &trouble.detail], trouble.value))
        .collect()
}

fn flaps(moment: &Moment<'_>) -> Vec<Series> {
    let troubles = moment.figures.signals.of(Signal::Flap);
    troubles
        .map(|trouble| series(&[&trouble.device, &trouble.detail], trouble.value))
        .collect()
}
