//! Which bounds were reached, how often, and for whom last.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forebay_topic::PeerText;

use super::account::Owner;
use super::bound::Bound;

/// How long after the last time a bound still counts as reached.
const LASTS: Duration = Duration::from_secs(60);

/// A bound that does not allow more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Exceeded {
    pub(crate) bound: Bound,
    pub(crate) limit: u64,
    /// Whether it is one owner's bound, and not that of all together.
    pub(crate) is_share: bool,
}

/// A bound that is reached now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lasting {
    /// The bound.
    pub bound: Bound,
    /// What it allows: to one owner, or to all together.
    pub limit: u64,
    /// Whether it is one owner's bound, and not that of all together.
    pub is_share: bool,
    /// How often it was reached since then with less than a minute between.
    pub times: u64,
    /// For whom it was reached last: an identity or an address.
    pub last: String,
}

/// All bounds.
#[derive(Debug)]
pub(crate) struct Reached(Mutex<Vec<Times>>);

#[derive(Clone, Debug, Default)]
struct Times {
    total: u64,
    /// The last time, and how often since it lasts.
    lasting: Option<(Instant, u64, Exceeded, String)>,
}

impl Exceeded {
    pub(crate) const fn share(bound: Bound, limit: u64) -> Self {
        Self {
            bound,
            limit,
            is_share: true,
        }
    }

    pub(crate) const fn whole(bound: Bound, limit: u64) -> Self {
        Self {
            bound,
            limit,
            is_share: false,
        }
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bound.line().reached(self.limit, self.is_share))
    }
}

impl Default for Reached {
    fn default() -> Self {
        Self(Mutex::new(vec![Times::default(); Bound::ALL.len()]))
    }
}

impl Reached {
    /// Counts that a bound was reached.
    pub(crate) fn note(&self, exceeded: Exceeded, owner: &Owner) {
        self.note_at(exceeded, owner, Instant::now());
    }

    fn note_at(&self, exceeded: Exceeded, owner: &Owner, now: Instant) {
        let mut all = self.lock();
        let Some(times) = all.get_mut(exceeded.bound as usize) else {
            return;
        };
        times.total += 1;
        let earlier = times.lasting.as_ref().filter(|(last, ..)| now.duration_since(*last) < LASTS);
        let count = earlier.map_or(0, |(_, count, ..)| *count) + 1;
        times.lasting = Some((now, count, exceeded, owner.to_string()));
    }

    /// How often a bound was reached since the start.
    pub(super) fn total(&self, bound: Bound) -> u64 {
        self.lock().get(bound as usize).map_or(0, |times| times.total)
    }

    /// The bounds that were reached within the last minute.
    pub(super) fn lasting(&self, now: Instant) -> Vec<Lasting> {
        let all = self.lock();
        let lasting = all.iter().filter_map(|times| times.lasting.as_ref());
        lasting
            .filter(|(last, ..)| now.duration_since(*last) < LASTS)
            .map(|(_, count, exceeded, owner)| Lasting {
                bound: exceeded.bound,
                limit: exceeded.limit,
                is_share: exceeded.is_share,
                times: *count,
                last: owner.clone(),
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Times>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FixedWord => f.write_str("a listener's fixed word"),
            Self::Identity(identity) => write!(f, "`{}`", PeerText::new(identity)),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(network)) => write!(f, "{network}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_lasts_for_a_minute_after_it_was_reached_last() {
        let (reached, start) = (Reached::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let exceeded = Exceeded::share(Bound::Filters, 7);
        let owner = Owner::Identity("board-1\n".into());
        for second in [0, 59, 118] {
            reached.note_at(exceeded, &owner, after(second));
        }
        let lasting = reached.lasting(after(177));
        assert_eq!(lasting.len(), 1);
        assert_eq!((lasting[0].times, lasting[0].limit, lasting[0].is_share), (3, 7, true));
        assert!(!lasting[0].last.contains('\n'), "{}", lasting[0].last);
        assert_eq!(reached.lasting(after(178)), []);
        reached.note_at(exceeded, &owner, after(300));
        assert_eq!(reached.lasting(after(300))[0].times, 1, "what was before has ended");
        assert_eq!((reached.total(Bound::Filters), reached.total(Bound::Connections)), (4, 0));
    }
}
