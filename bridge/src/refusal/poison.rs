//! Which record makes the peer close. A record is guilty only if it was alone in flight when the peer closed, three times,
//! each on a connection that was proven before (`proof`).

use std::collections::{HashMap, HashSet};

use crate::message::item::RecordKey;

const STRIKES: u32 = 3;

#[derive(Debug, Default)]
pub(crate) struct Suspects {
    /// In flight when the peer closed the last time.
    last: HashSet<RecordKey>,
    /// Present at two closes in a row, with how often they were alone since.
    strikes: HashMap<RecordKey, u32>,
}

impl Suspects {
    /// Whether records go one at a time now.
    pub(crate) fn solo(&self) -> bool {
        !self.strikes.is_empty()
    }

    /// The peer closed without saying why. Returns the record that is guilty now. A close on a connection that is not
    /// `proven` says nothing about the record that was alone on it.
    pub(crate) fn peer_closed(&mut self, in_flight: &[RecordKey], proven: bool) -> Option<RecordKey> {
        if let [alone] = in_flight
            && let Some(strikes) = self.strikes.get_mut(alone)
        {
            if !proven {
                return None;
            }
            *strikes += 1;
            if *strikes >= STRIKES {
                self.forget(*alone);
                return Some(*alone);
            }
            return None;
        }
        for place in in_flight.iter().filter(|place| self.last.contains(place)) {
            self.strikes.entry(*place).or_default();
        }
        self.last = in_flight.iter().copied().collect();
        None
    }

    /// The peer closed and blamed a message. Returns the record if it was alone, otherwise all are sent alone next.
    pub(crate) fn peer_blamed(&mut self, in_flight: &[RecordKey]) -> Option<RecordKey> {
        if let [alone] = in_flight {
            self.forget(*alone);
            return Some(*alone);
        }
        for place in in_flight {
            self.strikes.entry(*place).or_default();
        }
        None
    }

    /// The record is settled or suspended.
    pub(crate) fn forget(&mut self, place: RecordKey) {
        self.strikes.remove(&place);
        self.last.remove(&place);
    }

    /// A record was read that comes behind all that waits here of its stream: earlier suspects were never yielded again, so
    /// they are suspended, expired or evicted, and no reason to go on one at a time.
    pub(crate) fn passed(&mut self, (stream, offset): RecordKey) {
        self.strikes.retain(|place, _| place.0 != stream || place.1 >= offset);
    }

    /// Nothing is left to send: whoever is still suspected is gone from the log.
    pub(crate) fn clear(&mut self) {
        self.strikes.clear();
        self.last.clear();
    }
}

#[cfg(test)]
mod tests {
    use forebay_wal::{Offset, StreamId};

    use super::*;

    const fn key(offset: u64) -> RecordKey {
        (StreamId(0), Offset(offset))
    }

    #[test]
    fn guilt_takes_three_closes_alone() {
        let mut suspects = Suspects::default();
        let crowd = [key(1), key(2), key(3)];
        assert_eq!(suspects.peer_closed(&crowd, true), None);
        assert!(!suspects.solo(), "one close is the network's");
        assert_eq!(suspects.peer_closed(&crowd, true), None);
        assert!(suspects.solo());
        suspects.forget(key(1));
        assert_eq!(suspects.peer_closed(&[key(2)], true), None);
        assert_eq!(suspects.peer_closed(&[key(2)], true), None);
        assert_eq!(suspects.peer_closed(&[key(2)], true), Some(key(2)));
        suspects.forget(key(3));
        assert!(!suspects.solo());
    }

    #[test]
    fn a_close_on_a_connection_that_is_not_proven_is_no_strike() {
        let mut suspects = Suspects::default();
        let crowd = [key(1), key(2)];
        suspects.peer_closed(&crowd, false);
        suspects.peer_closed(&crowd, false);
        assert!(suspects.solo(), "to send them one at a time harms nobody");
        for _ in 0..10 {
            assert_eq!(suspects.peer_closed(&[key(1)], false), None);
        }
        assert_eq!(suspects.peer_closed(&[key(1)], true), None);
        assert_eq!(suspects.peer_closed(&[key(1)], true), None);
        assert_eq!(suspects.peer_closed(&[key(1)], true), Some(key(1)));
    }

    #[test]
    fn a_record_that_was_not_there_twice_is_not_suspected() {
        let mut suspects = Suspects::default();
        suspects.peer_closed(&[key(1)], true);
        suspects.forget(key(1));
        suspects.peer_closed(&[key(2)], true);
        suspects.peer_closed(&[], true);
        suspects.peer_closed(&[key(2)], true);
        assert!(!suspects.solo());
    }

    #[test]
    fn a_suspect_that_is_gone_from_the_log_is_forgotten_when_the_reading_has_passed_it() {
        let mut suspects = Suspects::default();
        let elsewhere = (StreamId(1), Offset(1));
        suspects.peer_blamed(&[key(3), key(7), elsewhere]);
        suspects.passed(key(7));
        assert!(suspects.solo(), "7 itself is still to be sent");
        suspects.passed(key(8));
        assert!(suspects.solo(), "another stream");
        suspects.passed((StreamId(1), Offset(2)));
        assert!(!suspects.solo());
    }

    #[test]
    fn a_named_blame_is_enough_when_alone_and_separates_a_crowd() {
        let mut suspects = Suspects::default();
        assert_eq!(suspects.peer_blamed(&[key(7)]), Some(key(7)));
        assert_eq!(suspects.peer_blamed(&[key(7), key(8)]), None);
        assert!(suspects.solo());
        suspects.clear();
        assert!(!suspects.solo());
    }
}
