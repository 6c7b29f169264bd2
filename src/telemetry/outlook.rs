//! The deadlines: what fails if nothing is done, and when.

use super::figures::{Cloud, Figures};
use super::rates::Flow;

/// Something that fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Deadline {
    /// `disk`, `quota`, `certificate`, `device_ca`, `crl`, `cloud_certificate` or `cloud_ca`.
    pub(crate) what: &'static str,
    /// In how many seconds; negative = it has.
    pub(crate) seconds: f64,
}

/// The share of the cloud's quota from which on what grows is the quota's doing.
const AT_QUOTA: f64 = 0.85;
/// Growth below this share of what comes is none.
const NOISE: f64 = 0.1;
/// Beyond ten years nothing is in sight.
const SIGHT: f64 = 10.0 * 365.0 * 86_400.0;

/// All deadlines in sight, the nearest first.
pub(super) fn outlook(figures: &Figures, flow: &Flow) -> Vec<Deadline> {
    let mut all = Vec::new();
    // What waits goes up and down a little all the time.
    if flow.growth > flow.bytes * NOISE {
        let seconds = figures.log.headroom() as f64 / flow.growth;
        all.push(Deadline { what: "disk", seconds });
        if figures.cloud.as_ref().is_some_and(|cloud| is_at_quota(cloud, flow)) {
            all.push(Deadline { what: "quota", seconds });
        }
    } else if figures.log.headroom() == 0 {
        all.push(Deadline {
            what: "disk",
            seconds: 0.0,
        });
    }
    for expiry in figures.check.iter().flat_map(|check| &check.expiries) {
        let seconds = expiry.ends.saturating_sub(figures.judged) as f64;
        match all.iter_mut().find(|deadline| deadline.what == expiry.what) {
            Some(deadline) => deadline.seconds = deadline.seconds.min(seconds),
            None => all.push(Deadline {
                what: expiry.what,
                seconds,
            }),
        }
    }
    all.retain(|deadline| deadline.seconds < SIGHT);
    all.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    all
}

fn is_at_quota(cloud: &Cloud, flow: &Flow) -> bool {
    let limit = cloud.status.messages_per_second.unwrap_or(f64::INFINITY);
    cloud.is_connected() && !cloud.is_stalled() && flow.delivered >= limit * AT_QUOTA
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::figures;
    use super::*;
    use crate::monitor::self_check::{Expiry, Findings};

    fn flow(growth: f64, delivered: f64) -> Flow {
        Flow {
            growth,
            delivered,
            ..Flow::default()
        }
    }

    fn seconds(all: &[Deadline], what: &str) -> Option<f64> {
        all.iter().find(|deadline| deadline.what == what).map(|deadline| deadline.seconds)
    }

    #[test]
    fn the_disk_fails_as_fast_as_what_waits_grows() {
        let figures = figures();
        assert_eq!(outlook(&figures, &flow(0.0, 40.0)), []);
        let headroom = figures.log.headroom() as f64;
        let all = outlook(&figures, &flow(100.0, 40.0));
        assert_eq!(seconds(&all, "disk"), Some(headroom / 100.0));
        assert_eq!(seconds(&all, "quota"), None, "the cloud would take more");
        let all = outlook(&figures, &flow(100.0, 89.0));
        assert_eq!(seconds(&all, "quota"), Some(headroom / 100.0));
    }

    #[test]
    fn of_several_files_the_first_end_counts_and_the_nearest_stands_first() {
        let mut figures = figures();
        figures.judged = 1_000;
        let expiry = |what, file: &str, ends| Expiry {
            what,
            file: file.to_owned(),
            ends,
        };
        figures.check = Some(Arc::new(Findings {
            expiries: vec![
                expiry("certificate", "a", 90_000),
                expiry("crl", "l", 500),
                expiry("certificate", "b", 50_000),
                expiry("device_ca", "c", i64::MAX),
            ],
            ..Findings::default()
        }));
        let all = outlook(&figures, &flow(0.0, 0.0));
        assert_eq!(all.iter().map(|deadline| deadline.what).collect::<Vec<_>>(), ["crl", "certificate"]);
        assert_eq!((seconds(&all, "crl"), seconds(&all, "certificate")), (Some(-500.0), Some(49_000.0)));
    }
}
