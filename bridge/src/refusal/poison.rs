//! Which record makes the peer close. A record is guilty only if it was alone in flight when the peer closed, three times,
//! each on a connection that was proven before (`proof`).

use std::collections::{HashMap, HashSet};

use crate::message::item::Place;

const STRIKES: u32 = 3;

#[derive(Debug, Default)]
pub(crate) struct Suspects {
    /// In flight when the peer closed the last time.
    last: HashSet<Place>,
    /// Present at two closes in a row, with how often they were alone since.
    strikes: HashMap<Place, u32>,
}

impl Suspects {
    /// Whether records go one at a time now.
    pub(crate) fn solo(&self) -> bool {
        !self.strikes.is_empty()
    }

    /// The peer closed without saying why. Returns the record that is guilty now. A close on a connection that is not
    /// `proven` says nothing about the record that was alone on it.
    pub(crate) fn peer_closed(&mut self, in_flight: &[Place], proven: bool) -> Option<Place> {
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
    pub(crate) fn peer_blamed(&mut self, in_flight: &[Place]) -> Option<Place> {
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
    pub(crate) fn forget(&mut self, place: Place) {
        self.strikes.remove(&place);
        self.last.remove(&place);
    }

    /// A record was read that comes behind all that waits here of its stream: earlier suspects were never yielded again, so
    /// they are suspended, expired or evicted, and no reason to go on one at a time.
    pub(crate) fn passed(&mut self, (stream, offset): Place) {
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

    const fn place(offset: u64) -> Place {
        (StreamId(0), Offset(offset))
    }

    #[test]
    fn guilt_takes_three_closes_alone() {
        let mut suspects = Suspects::default();
        let crowd = [place(1), place(2), place(3)];
        assert_eq!(suspects.peer_closed(&crowd, true), None);
        assert!(!suspects.solo(), "one close is the network's");
        assert_eq!(suspects.peer_closed(&crowd, true), None);
        assert!(suspects.solo());
        suspects.forget(place(1));
        assert_eq!(suspects.peer_closed(&[place(2)], true), None);
        assert_eq!(suspects.peer_closed(&[place(2)], true), None);
        assert_eq!(suspects.peer_closed(&[place(2)], true), Some(place(2)));
        suspects.forget(place(3));
        assert!(!suspects.solo());
    }

    #[test]
    fn a_close_on_a_connection_that_is_not_proven_is_no_strike() {
        let mut suspects = Suspects::default();
        let crowd = [place(1), place(2)];
        suspects.peer_closed(&crowd, false);
        suspects.peer_closed(&crowd, false);
        assert!(suspects.solo(), "to send them one at a time harms nobody");
        for _ in 0..10 {
            assert_eq!(suspects.peer_closed(&[place(1)], false), None);
        }
        assert_eq!(suspects.peer_closed(&[place(1)], true), None);
        assert_eq!(suspects.peer_closed(&[place(1)], true), None);
        assert_eq!(suspects.peer_closed(&[place(1)], true), Some(place(1)));
    }

    #[test]
    fn a_record_that_was_not_there_twice_is_not_suspected() {
        let mut suspects = Suspects::default();
        suspects.peer_closed(&[place(1)], true);
        suspects.forget(place(1));
        suspects.peer_closed(&[place(2)], true);
        suspects.peer_closed(&[], true);
        suspects.peer_closed(&[place(2)], true);
        assert!(!suspects.solo());
    }

    #[test]
    fn a_suspect_that_is_gone_from_the_log_is_forgotten_when_the_reading_has_passed_it() {
        let mut suspects = Suspects::default();
        let elsewhere = (StreamId(1), Offset(1));
        suspects.peer_blamed(&[place(3), place(7), elsewhere]);
        suspects.passed(place(7));
        assert!(suspects.solo(), "7 itself is still to be sent");
        suspects.passed(place(8));
        assert!(suspects.solo(), "another stream");
        suspects.passed((StreamId(1), Offset(2)));
        assert!(!suspects.solo());
    }

    #[test]
    fn a_named_blame_is_enough_when_alone_and_separates_a_crowd() {
        let mut suspects = Suspects::default();
        assert_eq!(suspects.peer_blamed(&[place(7)]), Some(place(7)));
        assert_eq!(suspects.peer_blamed(&[place(7), place(8)]), None);
        assert!(suspects.solo());
        suspects.clear();
        assert!(!suspects.solo());
    }
}
