//! PUBACKs that the script holds back.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::faults::AckFault;

/// How long an incomplete group waits for company.
const GROUP_WAIT: Duration = Duration::from_millis(50);

/// An encoded PUBACK and its packet id.
#[derive(Debug)]
pub(super) struct Ack {
    pub(super) packet_id: u16,
    pub(super) bytes: Vec<u8>,
}

/// What waits: delayed ones by time, and a group to be reversed.
#[derive(Debug, Default)]
pub(super) struct Acks {
    delayed: VecDeque<(Instant, Ack)>,
    group: Vec<Ack>,
    group_due: Option<Instant>,
}

impl Acks {
    /// Sends an ack as the script says: now, later, or turned round in its group.
    pub(super) fn push(&mut self, ack: Ack, fault: &AckFault, out: &mut Vec<u8>, unacked: &mut HashSet<u16>) {
        let now = Instant::now();
        if fault.group > 1 {
            self.group.push(ack);
            self.group_due.get_or_insert(now + GROUP_WAIT);
            if self.group.len() >= fault.group {
                self.group_due = Some(now);
                self.release(now, out, unacked);
            }
        } else if fault.delay.is_zero() {
            send(&ack, out, unacked);
        } else {
            self.delayed.push_back((now + fault.delay, ack));
        }
    }

    /// When something is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let delayed = self.delayed.iter().map(|(due, _)| *due).min();
        delayed.into_iter().chain(self.group_due).min()
    }

    /// Writes what is due.
    pub(super) fn release(&mut self, now: Instant, out: &mut Vec<u8>, unacked: &mut HashSet<u16>) {
        self.delayed.retain(|(due, ack)| {
            let waits = *due > now;
            if !waits {
                send(ack, out, unacked);
            }
            waits
        });
        if self.group_due.is_some_and(|due| due <= now) {
            self.group_due = None;
            for ack in self.group.drain(..).rev() {
                send(&ack, out, unacked);
            }
        }
    }
}

fn send(ack: &Ack, out: &mut Vec<u8>, unacked: &mut HashSet<u16>) {
    out.extend_from_slice(&ack.bytes);
    unacked.remove(&ack.packet_id);
}
