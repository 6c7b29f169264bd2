//! Notices a log that takes records in and never commits them.

use std::time::{Duration, Instant};

/// How long records may wait for a commit; `gateway.commit_wait` is 10 s at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long they may before it is told, beside the time that commits wait on purpose.
const SLOW: Duration = Duration::from_secs(10);

/// What the log has done, as of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Commits that ended, well or not.
    pub(crate) commits: u64,
    /// Records taken in: those that wait, committed or not, and those that ended.
    pub(crate) taken_in: u64,
    /// Something waits for a commit now.
    pub(crate) is_waiting: bool,
}

/// Since when records wait although no commit has ended.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    at_last_commit: Option<Progress>,
    waiting_since: Option<Instant>,
}

impl Watchdog {
    /// Takes note. To be called every second or so.
    pub(crate) fn note(&mut self, now: Instant, progress: Progress) {
        match self.at_last_commit {
            Some(last) if last.commits == progress.commits => {
                if self.waiting_since.is_none() && (progress.is_waiting || progress.taken_in > last.taken_in) {
                    self.waiting_since = Some(now);
                }
            }
            _ => {
                *self = Self {
                    at_last_commit: Some(progress),
                    waiting_since: None,
                }
            }
        }
    }

    /// How long records have waited for a commit that takes long; `None` if it is less than ten seconds and `commit_wait`.
    #[must_use]
    pub(crate) fn slow(&self, now: Instant, commit_wait: Duration) -> Option<Duration> {
        let waited = now.duration_since(self.waiting_since?);
        (waited >= SLOW + commit_wait).then_some(waited)
    }

    /// How long records have waited for a commit in vain; `None` if it is less than a minute.
    #[must_use]
    pub(crate) fn stalled(&self, now: Instant) -> Option<Duration> {
        let waited = now.duration_since(self.waiting_since?);
        (waited >= PATIENCE).then_some(waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes each second what `progress` gives; says whether that is a stall.
    fn stalls(seconds: u64, progress: impl Fn(u64) -> Progress) -> bool {
        let (start, mut watchdog) = (Instant::now(), Watchdog::default());
        (0..seconds).for_each(|second| watchdog.note(start + Duration::from_secs(second), progress(second)));
        watchdog.stalled(start + Duration::from_secs(seconds)).is_some()
    }

    #[test]
    fn a_log_that_takes_records_in_and_never_commits_them_is_noticed_after_a_minute() {
        let dead_from = |dead: u64| {
            move |second: u64| Progress {
                commits: second.min(dead),
                taken_in: 10 * second,
                ..Progress::default()
            }
        };
        assert!(stalls(300, dead_from(100)));
        assert!(!stalls(150, dead_from(100)));
    }

    #[test]
    fn e27_a_commit_that_stands_is_named_within_15_seconds_and_one_that_waits_on_purpose_is_not() {
        for commit_wait in [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(10)] {
            let (start, mut watchdog) = (Instant::now(), Watchdog::default());
            let mut named = None;
            for second in 0..30 {
                let now = start + Duration::from_secs(second);
                // One record, taken in within the second of the last commit: nothing rises any more.
                let progress = Progress {
                    commits: 7,
                    taken_in: 100,
                    is_waiting: true,
                };
                watchdog.note(now, progress);
                named = named.or(watchdog.slow(now, commit_wait).map(|_| second));
            }
            assert_eq!(named, Some(11 + commit_wait.as_secs_f64().ceil() as u64));
        }
    }

    #[test]
    fn an_idle_log_and_a_slow_one_are_well() {
        assert!(!stalls(10_000, |_| Progress {
            commits: 7,
            taken_in: 900,
            ..Progress::default()
        }));
        assert!(!stalls(10_000, |second| Progress {
            commits: second / 30,
            taken_in: second,
            is_waiting: true,
        }));
    }
}
