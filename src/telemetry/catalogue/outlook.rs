//! The instruments of the canary, the deadlines and the self-check.

use super::{Instrument, Moment, Series, by, counter, gauge, labelled, listed, pairs, series};
use crate::check::{AREAS, Severity};
use crate::monitor::canary::CanaryFigures;
use crate::monitor::self_check::{FILE_STATES, Findings};

#[rustfmt::skip]
pub(super) const CANARY: &[Instrument] = &[
    gauge("forebay_canary_interval_seconds", "seconds", "The interval of the canary; 0 if it is off.", |m| vec![series(&[], m.figures.canary.as_ref().map_or(0.0, |canary| canary.interval.as_secs_f64()))]),
    counter("forebay_canary_sent_total", "canaries", "Canaries appended to the log.", |m| canary(m, |canary| canary.sent as f64)),
    counter("forebay_canary_acked_total", "canaries", "Canaries acked by the cloud: does the whole way work?", |m| canary(m, |canary| canary.acked as f64)),
    by(&["reason"], counter("forebay_canary_failed_total", "canaries", "Canaries that did not arrive: `refused` by the log, a `dead` letter, `expired`, or `lost` at a bound of their stream.", |m| m.figures.canary.iter().flat_map(|canary| labelled(pairs(&canary.failed))).collect())),
    counter("forebay_canary_bytes_total", "bytes", "Bytes of topic and payload of the acked canaries. `forebay_cloud_sent_bytes_total` counts their whole packets.", |m| canary(m, |canary| canary.bytes as f64)),
    gauge("forebay_canary_waiting_seconds", "seconds", "How long the canary has waited for the cloud's ack; 0 if none waits. Is the way to the cloud interrupted? While a backlog drains it is the backlog's age.", |m| canary(m, |canary| canary.waiting.unwrap_or_default().as_secs_f64())),
    listed("forebay_canary_round_trip_seconds", "seconds", "Time from append to ack of the newest acked canary; no series before the first.", |m| m.figures.canary.iter().filter_map(|canary| Some(series(&[], canary.round_trip?.as_secs_f64()))).collect()),
];

#[rustfmt::skip]
pub(super) const OUTLOOK: &[Instrument] = &[
    by(&["what"], listed("forebay_deadline_seconds", "seconds", "Time until something fails if nothing is done. `disk`: the log is full at the present rate; `quota`: the same while connected, because devices publish more than the cloud's quota; `certificate`, `device_ca`, `crl`, `cloud_certificate`, `cloud_ca`: the first of them expires. Negative: it has failed. No series: not within ten years.", |m| m.look.outlook.iter().map(|deadline| series(&[deadline.what], deadline.seconds)).collect())),
    by(&["what", "file"], listed("forebay_expiry_seconds", "seconds", "Time until the first certificate in the file expires, or the next revocation list is due; negative if that has passed. As of the newest self-check.", expiries)),
    gauge("forebay_survive_autonomy_seconds", "seconds", "How long the log has room without the cloud at the rate and size of `gateway.survive`; ten years at most.", |m| vec![series(&[], (m.figures.log.headroom() as f64 / m.figures.survive_bytes.max(f64::MIN_POSITIVE)).min(super::LONGEST_AUTONOMY))]),
    by(&["severity", "area"], gauge("forebay_check_findings", "findings", "Findings of `forebay check` on this machine, at start and every hour.", findings)),
    listed("forebay_check_time_seconds", "seconds since 1970", "When the self-check last ended; no series before the first.", |m| m.figures.check.iter().map(|check| series(&[], check.at as f64)).collect()),
    by(&["state"], gauge("forebay_config_file", "0 or 1", "The configuration file compared with the running configuration: `same`, `differs` (a restart changes settings) or `broken` (a restart fails).", config_file)),
];

fn canary(moment: &Moment<'_>, read: fn(&CanaryFigures) -> f64) -> Vec<Series> {
    moment.figures.canary.iter().map(|canary| series(&[], read(canary))).collect()
}

fn expiries(moment: &Moment<'_>) -> Vec<Series> {
    let expiries = moment.figures.check.iter().flat_map(|check| &check.expiries);
    expiries
        .map(|expiry| {
            series(
                &[expiry.what, &expiry.file],
                expiry.ends.saturating_sub(moment.figures.judged) as f64,
            )
        })
        .collect()
}

fn findings(moment: &Moment<'_>) -> Vec<Series> {
    let count = |check: &Findings, severity: Severity, area: &str| {
        let found = check.report.findings.iter();
        found.filter(|finding| finding.severity == severity && finding.area == area).count() as f64
    };
    let mut all = Vec::new();
    if let Some(check) = &moment.figures.check {
        for (severity, label) in [(Severity::Warn, "warn"), (Severity::Error, "error")] {
            all.extend(AREAS.iter().map(|area| series(&[label, area], count(check, severity, area))));
        }
    }
    all
}

fn config_file(moment: &Moment<'_>) -> Vec<Series> {
    let states = moment
        .figures
        .check
        .iter()
        .flat_map(|check| FILE_STATES.map(|state| (state, check.file == state)));
    states.map(|(state, is)| series(&[state.label()], f64::from(is))).collect()
}
