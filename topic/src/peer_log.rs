//! Log lines that a peer can cause, kept few: the first of each peer and reason in full, then one count a minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::peer_text::PeerText;

/// How long repetitions are counted before the count is told.
const WINDOW: Duration = Duration::from_secs(60);
/// Peers and reasons told apart at once; the others share one count.
const MAX_KEYS: usize = 64;
/// Lines at once, counts included, after a quiet time.
const BURST: u32 = 12;
/// The time that makes room for one more line. A line with two texts of a peer has some 600 bytes at most, so this is under
/// 3 KB/s.
const LINE_EVERY: Duration = Duration::from_millis(250);

/// Decides which lines about peers are written.
///
/// A line belongs to a peer (its identity, or its address while it has none) and a reason. The first one is told in full; the
/// next ones within a minute are counted, and [`PeerLog::due`] gives the counts. When 64 are being counted, or the
/// lines come faster than a log should grow, what comes is counted for all of them together. The caller passes the time.
#[derive(Debug, Default)]
pub struct PeerLog(Mutex<State>);

/// What was counted and not told: one line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// Whose lines.
    pub who: String,
    /// Why; empty for the lines of several peers together.
    pub reason: &'static str,
    /// How many.
    pub more: u64,
}

#[derive(Debug, Default)]
struct State {
    keys: HashMap<&'static str, HashMap<Box<str>, Counted>>,
    count: usize,
    /// Lines that found no room among the keys or the lines.
    others: Option<Counted>,
    rate: Rate,
}

#[derive(Debug)]
struct Counted {
    since: Instant,
    more: u64,
}

/// A bucket of lines.
#[derive(Debug, Default)]
struct Rate {
    /// When it would be full; `None` if it is.
    full_at: Option<Instant>,
}

impl PeerLog {
    /// Notes a line of this peer for this reason; whether to write it now, in full.
    pub fn is_first(&self, who: &str, reason: &'static str, now: Instant) -> bool {
        let mut state = self.lock();
        if let Some(counted) = state.keys.get_mut(reason).and_then(|peers| peers.get_mut(who)) {
            counted.more += 1;
            return false;
        }
        if state.count >= MAX_KEYS || !state.rate.takes(now) {
            state.others.get_or_insert(Counted { since: now, more: 0 }).more += 1;
            return false;
        }
        state.count += 1;
        let peers = state.keys.entry(reason).or_default();
        peers.insert(who.into(), Counted { since: now, more: 0 });
        true
    }

    /// As [`PeerLog::is_first`], for a peer without an identity. Who owns an IPv6 network owns all its addresses, so those of
    /// a /64 are one peer.
    pub fn is_first_from(&self, address: IpAddr, reason: &'static str, now: Instant) -> bool {
        self.is_first(&network(address).to_string(), reason, now)
    }

    /// As [`PeerLog::is_first_from`], for peers behind one address that `names` tells apart: what they claim, unproved.
    pub fn is_first_claiming(&self, address: IpAddr, names: &str, reason: &'static str, now: Instant) -> bool {
        self.is_first(&format!("{} {}", network(address), PeerText::new(names)), reason, now)
    }

    /// The counts of the minutes that are over, as many as may be written now. To be called every few seconds.
    pub fn due(&self, now: Instant) -> Vec<Repeated> {
        let mut state = self.lock();
        let State { keys, count, others, rate } = &mut *state;
        let mut due = Vec::new();
        let is_over = |counted: &Counted| now.saturating_duration_since(counted.since) >= WINDOW;
        for (reason, peers) in keys.iter_mut() {
            peers.retain(|who, counted| {
                if !is_over(counted) {
                    return true;
                }
                if counted.more == 0 {
                    *count -= 1;
                    return false;
                }
                if rate.takes(now) {
                    due.push(Repeated {
                        who: PeerText::new(who).to_string(),
                        reason,
                        more: counted.more,
                    });
                    *counted = Counted { since: now, more: 0 };
                }
                true
            });
        }
        keys.retain(|_, peers| !peers.is_empty());
        if let Some(counted) = others.as_ref().filter(|counted| is_over(counted))
            && rate.takes(now)
        {
            due.push(Repeated {
                who: "others".to_owned(),
                reason: "",
                more: counted.more,
            });
            *others = None;
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rate {
    /// Takes a line out of the bucket, if there is one.
    fn takes(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now)) + LINE_EVERY;
        let has_room = full_at.saturating_duration_since(now) <= LINE_EVERY * BURST;
        if has_room {
            self.full_at = Some(full_at);
        }
        has_room
    }
}

/// The address, or the /64 of an IPv6 one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        whole => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_line_is_told_in_full_and_the_others_each_minute_as_a_count() {
        let (log, start) = (PeerLog::default(), Instant::now());
        assert!(log.is_first("board-1", "refused", start));
        assert!((0..500).all(|_| !log.is_first("board-1", "refused", start)));
        assert!(log.is_first("board-1", "unrouted", start), "another reason");
        assert!(log.is_first("board-2", "refused", start), "another peer");
        assert_eq!(log.due(start + 59 * SECOND), []);
        let repeated = |more| Repeated {
            who: "board-1".to_owned(),
            reason: "refused",
            more,
        };
        assert_eq!(log.due(start + 60 * SECOND), [repeated(500)]);
        // It is still the same story for one more minute, and after a quiet one a new one.
        assert!(!log.is_first("board-1", "refused", start + 61 * SECOND));
        assert!(log.is_first("board-2", "refused", start + 61 * SECOND));
        assert_eq!(log.due(start + 120 * SECOND), [repeated(1)]);
        assert_eq!(log.due(start + 180 * SECOND), []);
        assert!(log.is_first("board-1", "refused", start + 180 * SECOND));
    }

    #[test]
    fn a11_a_storm_of_ever_new_peers_leaves_few_lines_and_little_memory() {
        let (log, start) = (PeerLog::default(), Instant::now());
        let (mut lines, mut counted) = (0, 0);
        for second in 0..600_u32 {
            let now = start + SECOND * second;
            for peer in 0..1000 {
                lines += u32::from(log.is_first(&format!("peer {second} {peer}"), "refused", now));
            }
            for repeated in log.due(now) {
                lines += 1;
                counted += repeated.more;
            }
            assert!(log.lock().count <= MAX_KEYS);
        }
        assert!(lines <= BURST + 4 * 600, "{lines} lines");
        assert!(counted > 500_000, "what is not told in full is counted: {counted}");
    }

    #[test]
    fn a11_no_second_has_more_lines_than_the_bound() {
        let (log, start) = (PeerLog::default(), Instant::now());
        let at_once = (0..100).filter(|peer| log.is_first(&peer.to_string(), "refused", start)).count();
        assert_eq!(at_once, BURST as usize);
        let later = (100..200).filter(|peer| log.is_first(&peer.to_string(), "refused", start + SECOND));
        assert_eq!(later.count(), 4);
    }

    #[test]
    fn two_devices_behind_one_address_are_told_apart_by_what_they_claim() {
        let (log, now) = (PeerLog::default(), Instant::now());
        let from = |names| log.is_first_claiming("192.0.2.1".parse().unwrap(), names, "tls", now);
        assert!(from("board-1"));
        assert!(from("board-2"));
        assert!(!from("board-1"));
    }

    #[test]
    fn addresses_of_one_network_are_one_peer() {
        let (log, now) = (PeerLog::default(), Instant::now());
        let from = |text: &str| log.is_first_from(text.parse().unwrap(), "tls", now);
        assert!(from("192.0.2.1"));
        assert!(from("192.0.2.2"));
        assert!(!from("::ffff:192.0.2.1"), "the same address by another family");
        assert!(from("2001:db8::1"));
        assert!(!from("2001:db8::ffff:2"));
        assert!(from("2001:db8:0:1::1"));
    }
}
