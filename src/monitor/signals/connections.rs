//! A device's connections: the newest, and whether it flaps.

use std::collections::VecDeque;

use forebay_broker::Disconnection;
use serde::{Deserialize, Serialize};

use super::{Ms, Recent};

/// Moments kept for each device.
const HISTORY: usize = 8;
/// Flaps within [`WITHIN`] that make a device a flapping one.
const FLAPS: usize = 3;
/// Two minutes.
pub(super) const WITHIN: Ms = 120_000;

/// One device's connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Connections {
    history: VecDeque<Moment>,
    /// The newest ends that are flaps.
    flaps: VecDeque<Ms>,
    flapping: bool,
    /// When it was last heard of.
    pub(super) touched: Ms,
}

/// One moment in a device's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// By the machine's clock, milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// `connected`, `disconnected` (by its own DISCONNECT) or the reason of `forebay_disconnects_total`.
    pub(crate) what: String,
    /// From where.
    pub(crate) address: String,
}

/// What flaps, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flapping<'a> {
    pub(super) count: usize,
    pub(super) reason: &'a str,
    pub(super) since: Ms,
}

impl Connections {
    pub(super) fn connected(&mut self, now: Ms, at_ms: u64, address: String) {
        self.note(now, at_ms, "connected", address);
    }

    /// Whether the end is a flap.
    pub(super) fn ended(&mut self, now: Ms, at_ms: u64, address: String, cause: Option<Disconnection>) -> bool {
        self.note(now, at_ms, cause.map_or("disconnected", Disconnection::label), address);
        let is_flap = cause.is_some_and(|cause| cause != Disconnection::Shutdown);
        if is_flap {
            if self.flaps.len() == HISTORY {
                self.flaps.pop_front();
            }
            self.flaps.push_back(now);
        }
        is_flap
    }

    fn note(&mut self, now: Ms, at_ms: u64, what: &str, address: String) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.touched = now;
        self.history.push_back(Moment {
            at_ms,
            what: what.to_owned(),
            address,
        });
    }

    /// The flaps of the last two minutes while the device is flapping: three make it so, and none for two minutes ends it.
    pub(super) fn flapping(&mut self, now: Ms) -> Option<Flapping<'_>> {
        while self.flaps.front().is_some_and(|at| now - at > WITHIN) {
            self.flaps.pop_front();
        }
        self.flapping = self.flaps.len() >= FLAPS || self.flapping && !self.flaps.is_empty();
        let is_end = |moment: &&Moment| moment.what != "connected" && moment.what != "disconnected";
        let reason = self.history.iter().rev().find(is_end).map_or("", |moment| moment.what.as_str());
        let since = self.flaps.front().copied().unwrap_or(now);
        self.flapping.then_some(Flapping {
            count: self.flaps.len(),
            reason,
            since,
        })
    }

    /// The newest moments, oldest first.
    pub(super) fn history(&self) -> impl Iterator<Item = &Moment> {
        self.history.iter()
    }

    pub(super) fn shift(&mut self, by: Ms) {
        self.touched += by;
        self.flaps.iter_mut().for_each(|at| *at += by);
    }
}

impl Recent {
    /// Five minutes: how long a gap, a duplicate, a late number or a restart counts as trouble.
    const LASTS: Ms = 300_000;

    /// Adds to the count, which begins anew after five minutes without.
    pub(super) fn add(&mut self, now: Ms, count: u64) {
        if self.count(now) == 0 {
            (self.count, self.since) = (0, now);
        }
        self.count = self.count.saturating_add(count);
        self.last = now;
    }

    /// Takes back what turned out not to be so.
    pub(super) const fn take_back(&mut self, count: u64) {
        self.count = self.count.saturating_sub(count);
    }

    /// The count, zero after five minutes without.
    pub(super) const fn count(&self, now: Ms) -> u64 {
        if now - self.last <= Self::LASTS { self.count } else { 0 }
    }

    pub(super) const fn shift(&mut self, by: Ms) {
        self.since += by;
        self.last += by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(connections: &mut Connections, second: Ms, cause: Option<Disconnection>) {
        connections.connected(second * 1000, 0, String::new());
        connections.ended(second * 1000, 0, String::new(), cause);
    }

    #[test]
    fn three_losses_in_two_minutes_are_flapping_until_two_minutes_are_quiet() {
        let mut device = Connections::default();
        for second in [0, 30] {
            end(&mut device, second, Some(Disconnection::ConnectionLost));
            assert_eq!(device.flapping(second * 1000), None);
        }
        end(&mut device, 60, Some(Disconnection::KeepAlive));
        let flapping = device.flapping(60_000).unwrap();
        assert_eq!((flapping.count, flapping.reason, flapping.since), (3, "keep_alive", 0));
        assert!(device.flapping(170_000).is_some());
        assert_eq!(device.flapping(181_000), None);
    }

    #[test]
    fn a_device_that_says_goodbye_does_not_flap_nor_does_our_own_stop() {
        let mut device = Connections::default();
        for second in 0..100 {
            end(&mut device, second, None);
            end(&mut device, second, Some(Disconnection::Shutdown));
        }
        assert_eq!(device.flapping(100_000), None);
        assert_eq!(device.history().count(), HISTORY);
    }

    #[test]
    fn what_is_recent_ends_after_five_minutes() {
        let mut recent = Recent::default();
        assert_eq!(recent.count(0), 0);
        recent.add(1_000, 17);
        recent.add(200_000, 1);
        assert_eq!((recent.count(500_000), recent.count(500_001)), (18, 0));
        recent.add(600_000, 2);
        assert_eq!(recent.count(600_000), 2);
    }
}
