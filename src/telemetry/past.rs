//! What was counted within a day: that is worth a sentence; what happened before was told for a day.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use forebay_bridge::Ended;
use forebay_broker::{Disconnection, DroppedOwed, DroppedSession, Refusal, Unretained};
use forebay_wal::DiskCall;

use super::figures::{ByLabel, Stats, value};

/// Of what subscribers did not get, what an operator can do something about.
const LOST: [DroppedOwed; 4] = [
    DroppedOwed::SessionBound,
    DroppedOwed::AllSessionsBound,
    DroppedOwed::TooLarge,
    DroppedOwed::Refused,
];

/// How far back it looks.
const DAY: Duration = Duration::from_secs(86_400);
/// How often counters are kept.
const APART: Duration = Duration::from_secs(900);

/// The counters that problems tell of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) unrouted: u64,
    pub(crate) refused: ByLabel,
    pub(crate) dropped: ByLabel,
    pub(crate) unretained: ByLabel,
    pub(crate) dropped_sessions: ByLabel,
    pub(crate) retained_unread: u64,
    pub(crate) fanout_dropped: u64,
    pub(crate) fanout_cut: u64,
    pub(crate) owed_dropped: Vec<(String, u64)>,
    pub(crate) acks_late: u64,
    pub(crate) handshake_faults: ByLabel,
    pub(crate) wrong_names: ByLabel,
    pub(crate) commits_failed: u64,
    pub(crate) disk_errors: u64,
    pub(crate) reads_corrected: u64,
    pub(crate) damaged: u64,
    /// Records evicted at `max_bytes` of their stream.
    pub(crate) evicted_at_max_bytes: u64,
    /// The same at `max_disk`.
    pub(crate) evicted_at_max_disk: u64,
    /// The same because the file system was short of space.
    pub(crate) evicted_at_keep_free: u64,
    pub(crate) expired: u64,
    pub(crate) dead_lettered: u64,
    /// Connections to the cloud that another client with our id ended.
    pub(crate) taken_over: u64,
    /// Connections to the cloud that it closed without a reason.
    pub(crate) closed: u64,
}

impl Counted {
    /// The counters now.
    pub(super) fn of(stats: Stats<'_>, wrong_names: ByLabel) -> Self {
        let (front, log) = (stats.front, stats.log);
        let refusals = |count: &dyn Fn(Refusal) -> u64| {
            let all = Refusal::ALL.iter();
            all.map(|reason| (reason.label().to_owned(), count(*reason))).collect()
        };
        let unretained = Unretained::ALL.iter();
        let handshake_faults = front.handshake_faults().into_iter();
        Self {
            unrouted: value(&front.unrouted),
            refused: refusals(&|reason| front.refused(reason)),
            dropped: refusals(&|reason| front.dropped(reason)),
            unretained: unretained
                .map(|reason| (reason.label().to_owned(), front.unretained(*reason)))
                .collect(),
            dropped_sessions: DroppedSession::ALL
                .iter()
                .map(|reason| (reason.label().to_owned(), front.dropped_sessions(*reason)))
                .collect(),
            retained_unread: value(&front.retained_unread),
            fanout_dropped: value(&front.fanout_dropped),
            fanout_cut: value(&front.fanout_cut),
            owed_dropped: LOST.map(|reason| (reason.label().to_owned(), front.owed_dropped(reason))).to_vec(),
            acks_late: front.disconnected(Disconnection::AckTimeout),
            handshake_faults: handshake_faults.map(|(label, count)| (label.to_owned(), count)).collect(),
            wrong_names,
            commits_failed: value(&log.commits_failed),
            disk_errors: DiskCall::ALL.into_iter().map(|call| log.disk_errors.of(call)).sum(),
            reads_corrected: value(&log.reads_corrected),
            damaged: value(&log.damaged),
            evicted_at_max_bytes: value(&log.evicted_at.max_bytes),
            evicted_at_max_disk: value(&log.evicted_at.max_disk),
            evicted_at_keep_free: value(&log.evicted_at.keep_free),
            expired: value(&log.expired),
            dead_lettered: value(&log.dead_lettered),
            taken_over: stats.cloud.map_or(0, |cloud| ended(cloud, Ended::TakenOver)),
            closed: stats.cloud.map_or(0, |cloud| ended(cloud, Ended::PeerClosed)),
        }
    }

    /// What was counted since `before`.
    fn since(&self, before: &Self) -> Self {
        Self {
            unrouted: self.unrouted.saturating_sub(before.unrouted),
            refused: since(&self.refused, &before.refused),
            dropped: since(&self.dropped, &before.dropped),
            dropped_sessions: since(&self.dropped_sessions, &before.dropped_sessions),
            unretained: since(&self.unretained, &before.unretained),
            retained_unread: self.retained_unread.saturating_sub(before.retained_unread),
            fanout_dropped: self.fanout_dropped.saturating_sub(before.fanout_dropped),
            fanout_cut: self.fanout_cut.saturating_sub(before.fanout_cut),
            owed_dropped: since(&self.owed_dropped, &before.owed_dropped),
            acks_late: self.acks_late.saturating_sub(before.acks_late),
            handshake_faults: since(&self.handshake_faults, &before.handshake_faults),
            wrong_names: since(&self.wrong_names, &before.wrong_names),
            commits_failed: self.commits_failed.saturating_sub(before.commits_failed),
            disk_errors: self.disk_errors.saturating_sub(before.disk_errors),
            reads_corrected: self.reads_corrected.saturating_sub(before.reads_corrected),
            damaged: self.damaged.saturating_sub(before.damaged),
            evicted_at_max_bytes: self.evicted_at_max_bytes.saturating_sub(before.evicted_at_max_bytes),
            evicted_at_max_disk: self.evicted_at_max_disk.saturating_sub(before.evicted_at_max_disk),
            evicted_at_keep_free: self.evicted_at_keep_free.saturating_sub(before.evicted_at_keep_free),
            expired: self.expired.saturating_sub(before.expired),
            dead_lettered: self.dead_lettered.saturating_sub(before.dead_lettered),
            taken_over: self.taken_over.saturating_sub(before.taken_over),
            closed: self.closed.saturating_sub(before.closed),
        }
    }
}

fn ended(stats: &forebay_bridge::Stats, reason: Ended) -> u64 {
    let counts = stats.reconnects().filter(|(ended, _)| *ended == reason);
    counts.map(|(_, count)| count).sum()
}

/// What was counted since `before`, by label.
fn since(now: &ByLabel, before: &ByLabel) -> ByLabel {
    let earlier = |label: &str| before.iter().find(|(known, _)| known == label).map_or(0, |(_, count)| *count);
    now.iter()
        .map(|(label, count)| (label.clone(), count.saturating_sub(earlier(label))))
        .collect()
}

/// The counters of the last day.
#[derive(Debug, Default)]
pub(super) struct Past(VecDeque<(Instant, Counted)>);

impl Past {
    /// Keeps the counters now and then; gives what was counted within a day.
    pub(super) fn look(&mut self, now: Instant, counted: Counted) -> Counted {
        while self.0.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= DAY) {
            self.0.pop_front();
        }
        let day_ago = self.0.front().filter(|(at, _)| now.duration_since(*at) >= DAY);
        let within_a_day = day_ago.map_or_else(|| counted.clone(), |(_, before)| counted.since(before));
        if self.0.back().is_none_or(|(last, _)| now.duration_since(*last) >= APART) {
            self.0.push_back((now, counted));
        }
        within_a_day
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_more_than_a_day_ago_is_past_and_little_is_kept() {
        let (start, mut past) = (Instant::now(), Past::default());
        let mut at = |hour: u64, unrouted: u64| {
            let counted = Counted {
                unrouted,
                refused: vec![("log_full".to_owned(), unrouted)],
                ..Counted::default()
            };
            let within = past.look(start + Duration::from_secs(hour * 3600), counted);
            assert_eq!(within.refused[0].1, within.unrouted);
            within.unrouted
        };
        assert_eq!(at(0, 7), 7, "since the start all counts");
        assert_eq!(at(23, 9), 9);
        assert_eq!(at(25, 9), 2);
        assert_eq!(at(48, 9), 0);
        for minute in 0..10_000 {
            past.look(start + Duration::from_secs(50 * 3600 + minute * 60), Counted::default());
        }
        assert!(past.0.len() <= 98, "{}", past.0.len());
    }
}
