//! Which record makes the peer close: the poison message. One state machine; a lane tells it what happens and asks it what may go.
//!
//! * In: a connection began, the canary went out and was answered, a record was acked, is settled or suspended, the peer
//!   closed with these in flight.
//! * Out: what may go next ([`Poison::turn`]), and what a close has shown ([`Poison::closed`]).
//!
//! A close with many in flight shows nothing by itself. Records that were in flight at two closes in a row are *tried*: from
//! then on records go one at a time. A record is a poison message if the peer closed three times while it was alone in
//! flight, each on a connection that was proven before: a canary of the bridge's own was answered there. A peer that names its
//! reason needs to close once. So a cloud that accepts CONNECT and then closes at every publish costs no record anything.
//!
//! A reason that is the peer's own, a takeover or a quota, and silence in which no ack comes any more, count in the same way, or a
//! record that is answered so would stand in front of all others for ever. But what they show is less sure: the record's pair is
//! suspended, and no record becomes a dead letter by them. Time is passed in.

mod accepted_topics;
mod canaries;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use forebay_wal::Record;
use tokio::time::Instant;

use self::accepted_topics::AcceptedTopics;
use self::canaries::{Canaries, Proof};
use crate::link::failure::Cause;
use crate::link::reason_code::Outcome;
use crate::message::item::{Item, RecordKey};
use crate::{Config, Version};

/// So often must the peer close while a record is alone in flight.
const CLOSES_ALONE: u32 = 3;

/// The search for poison messages on one lane.
#[derive(Debug)]
pub(crate) struct Poison {
    /// The topic of the canary; `None` if a quiet moment must do.
    canary: Option<String>,
    /// The first connection begins with a canary: only so is it known later whether its topic was allowed.
    canary_first: bool,
    quiet: Duration,
    canaries: Canaries,
    accepted: AcceptedTopics,
    /// In flight when the peer closed the last time.
    last: HashSet<RecordKey>,
    /// In flight at two closes in a row, with the closes at which they were alone since.
    tried: HashMap<RecordKey, Alone>,
    connection: Connection,
}

#[derive(Debug)]
struct Connection {
    since: Instant,
    proof: Proof,
}

/// The closes at which a tried record was alone in flight.
#[derive(Clone, Copy, Debug, Default)]
struct Alone {
    closes: u32,
    /// The peer gave a reason of its own at one of them, or none while it kept silent.
    is_unsure: bool,
}

/// What may go next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Records, as many as the window takes.
    Many,
    /// One record, and nothing is in flight.
    Alone,
    /// The canary, and nothing is in flight.
    Canary,
    /// Nothing before the next answer, or this time.
    Wait(Option<Instant>),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Close {
    /// What ended it.
    pub(crate) cause: Cause,
    /// What it said about a message.
    pub(crate) blame: Option<Outcome>,
    /// Publishes at QoS 0 went over this connection, so that the reason may be one of them and nothing in flight.
    pub(crate) sent_unacked: bool,
}

/// What a close has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The peer closes at the canary again and again.
    Canary,
    /// This record becomes a dead letter with this reason.
    DeadLetter(RecordKey, &'static str),
    /// The pair of this record is suspended: its topic was never accepted, so it may be denied.
    Suspend(RecordKey),
}

impl Poison {
    /// Nothing is known yet.
    pub(crate) fn new(config: &Config, now: Instant) -> Self {
        Self {
            canary: config.canary.as_ref().map(|canary| canary.topic.clone()),
            canary_first: config.version == Version::V311,
            quiet: config.quiet_before_alone,
            canaries: Canaries::default(),
            accepted: AcceptedTopics::default(),
            last: HashSet::new(),
            tried: HashMap::new(),
            connection: Connection {
                since: now,
                proof: Proof::None,
            },
        }
    }

    /// The cloud has accepted a new connection.
    pub(crate) const fn began(&mut self, now: Instant) {
        self.connection = Connection {
            since: now,
            proof: Proof::None,
        };
    }

    /// What may go now; `is_empty` says that nothing is in flight.
    pub(crate) fn turn(&self, is_empty: bool, now: Instant) -> Turn {
        let is_trying = self.is_trying();
        if is_trying && !is_empty {
            return Turn::Wait(None);
        }
        if !self.is_proven() && (is_trying || self.canary_first && self.canaries.are_unknown()) {
            let may_ask = self.connection.proof == Proof::None && is_empty;
            return if may_ask { Turn::Canary } else { Turn::Wait(None) };
        }
        let quiet_until = self.connection.since + self.quiet;
        match is_trying {
            false => Turn::Many,
            true if self.connection.proof == Proof::Given || now >= quiet_until => Turn::Alone,
            true => Turn::Wait(Some(quiet_until)),
        }
    }

    /// The canary is in flight.
    pub(crate) const fn canary_sent(&mut self) {
        self.connection.proof = Proof::Asked;
    }

    /// The canary was acked, or refused by name: this cloud answers.
    pub(crate) const fn canary_answered(&mut self) {
        self.connection.proof = Proof::Given;
        self.canaries.answered();
    }

    /// The cloud has taken a record, or at QoS 0 it was written.
    pub(crate) fn accepted(&mut self, record: &Record) {
        self.accepted.accepted(record);
        if self.canary.as_ref() == Some(&record.topic) {
            self.canaries.answered();
        } else {
            self.canaries.other_acked();
        }
    }

    /// A record is settled or suspended.
    pub(crate) fn forget(&mut self, key: RecordKey) {
        self.tried.remove(&key);
        self.last.remove(&key);
    }

    /// A record was read that comes behind all that waits here of its stream: what is tried before it did not come again, so it
    /// is suspended, expired or evicted.
    pub(crate) fn passed(&mut self, (stream, offset): RecordKey) {
        if self.is_trying() {
            self.tried.retain(|key, _| key.0 != stream || key.1 >= offset);
        }
    }

    /// Nothing is left to send: what is still tried is gone from the log.
    pub(crate) fn nothing_left(&mut self) {
        if self.is_trying() {
            self.tried.clear();
            self.last.clear();
        }
    }

    /// A connection ended with `in_flight` unanswered.
    pub(crate) fn closed(&mut self, close: Close, in_flight: &[&Item]) -> Option<Finding> {
        // A probe in flight is the likelier reason, and waits for its next turn anyway.
        if close.cause == Cause::Line || in_flight.iter().any(|item| item.probe) {
            return None;
        }
        let keys: Vec<_> = in_flight.iter().filter(|item| !item.canary).map(|item| item.key()).collect();
        if keys.len() < in_flight.len() && self.canaries.closed() {
            return Some(Finding::Canary);
        }
        let found = match close.blame {
            Some(_) if !close.sent_unacked => self.named(&keys)?,
            _ => self.unexplained(&keys, close.cause)?,
        };
        let is_unsure = self.tried.get(&found).is_some_and(|alone| alone.is_unsure);
        self.forget(found);
        let record = in_flight.iter().find(|item| item.key() == found).map(|item| &item.record)?;
        Some(match close.blame {
            Some(Outcome::Wrong(reason)) => Finding::DeadLetter(found, reason),
            // Without a reason the topic decides: one that the cloud took before is not denied.
            None if !is_unsure && self.accepted.knows(record) => Finding::DeadLetter(found, "peer-closes"),
            _ => Finding::Suspend(found),
        })
    }

    /// Whether records go one at a time, on a connection of which a close counts.
    pub(crate) fn is_searching(&self) -> bool {
        self.is_trying() && self.is_proven()
    }

    /// Whether records go one at a time.
    fn is_trying(&self) -> bool {
        !self.tried.is_empty()
    }

    /// Whether a close now counts against a record. Without a canary the quiet moment before it must do.
    const fn is_proven(&self) -> bool {
        matches!(self.connection.proof, Proof::Given) || self.canary.is_none() || self.canaries.are_useless()
    }

    /// The peer closed for a message. If that was alone it is found, else all that were in flight are tried.
    fn named(&mut self, in_flight: &[RecordKey]) -> Option<RecordKey> {
        if let [alone] = in_flight {
            return Some(*alone);
        }
        for key in in_flight {
            self.tried.entry(*key).or_default();
        }
        None
    }

    /// The peer closed without a reason that is about a message.
    fn unexplained(&mut self, in_flight: &[RecordKey], cause: Cause) -> Option<RecordKey> {
        let is_proven = self.is_proven();
        if let [alone] = in_flight
            && let Some(tried) = self.tried.get_mut(alone)
        {
            tried.closes += u32::from(is_proven);
            tried.is_unsure |= is_proven && cause == Cause::PeersOwn;
            return (tried.closes >= CLOSES_ALONE).then_some(*alone);
        }
        for key in in_flight.iter().filter(|key| self.last.contains(key)) {
            self.tried.entry(*key).or_default();
        }
        self.last = in_flight.iter().copied().collect();
        None
    }
}
