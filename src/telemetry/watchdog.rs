//! Notices a log that takes records in and never commits them.

use std::time::{Duration, Instant};

/// How long records may wait for a commit; `gateway.commit_wait` is 10 s at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the log has done, as of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Commits that ended, well or not.
    pub(crate) commits: u64,
    /// Records taken in: those that wait, committed or not, and those that ended.
    pub(crate) taken_in: u64,
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
                if self.waiting_since.is_none() && progress.taken_in > last.taken_in {
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
            }
        };
        assert!(stalls(300, dead_from(100)));
        assert!(!stalls(150, dead_from(100)));
    }

    #[test]
    fn an_idle_log_and_a_slow_one_are_well() {
        assert!(!stalls(10_000, |_| Progress { commits: 7, taken_in: 900 }));
        assert!(!stalls(10_000, |second| Progress {
            commits: second / 30,
            taken_in: second
        }));
    }
}
