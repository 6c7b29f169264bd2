//! Publishes that were sent and not acked.

use crate::clock::Uptime;
use crate::sample::SampleId;

/// Publishes in flight at once, at most.
pub(crate) const WINDOW: usize = 8;

/// What a publish carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    Sample(SampleId),
    Health,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlight {
    pub(crate) packet_id: u16,
    pub(crate) carried: Carried,
    pub(crate) sent: Uptime,
}

/// In the order of sending. It outlives connections: what a session still knows is sent again with the same packet ids.
#[derive(Debug, Default)]
pub(crate) struct Window {
    entries: [Option<InFlight>; WINDOW],
    length: usize,
    last_id: u16,
}

impl Window {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn nth(&self, index: usize) -> Option<InFlight> {
        self.entries[..self.length].get(index).copied().flatten()
    }

    pub(crate) fn contains(&self, carried: Carried) -> bool {
        self.entries[..self.length].iter().flatten().any(|entry| entry.carried == carried)
    }

    /// When the oldest was sent.
    pub(crate) fn oldest(&self) -> Option<Uptime> {
        self.entries[..self.length].iter().flatten().map(|entry| entry.sent).min()
    }

    /// Takes a place, with a packet id that no other has; none if the window is full.
    pub(crate) fn take(&mut self, carried: Carried, now: Uptime) -> Option<u16> {
        if self.length == WINDOW {
            return None;
        }
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.entries[..self.length]
                .iter()
                .flatten()
                .any(|entry| entry.packet_id == self.last_id)
            {
                break;
            }
        }
        self.entries[self.length] = Some(InFlight {
            packet_id: self.last_id,
            carried,
            sent: now,
        });
        self.length += 1;
        Some(self.last_id)
    }

    /// Notes that an entry was sent again.
    pub(crate) fn again(&mut self, index: usize, now: Uptime) {
        if let Some(entry) = self.entries[..self.length].get_mut(index).and_then(Option::as_mut) {
            entry.sent = now;
        }
    }

    /// Frees a place; what was in it.
    pub(crate) fn free(&mut self, packet_id: u16) -> Option<InFlight> {
        let place = self.entries[..self.length]
            .iter()
            .position(|entry| entry.is_some_and(|entry| entry.packet_id == packet_id))?;
        let entry = self.entries[place].take();
        self.entries[place..self.length].rotate_left(1);
        self.length -= 1;
        entry
    }

    pub(crate) fn clear(&mut self) {
        self.entries = [None; WINDOW];
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_round_and_are_never_given_twice_at_once() {
        let mut window = Window::default();
        let id = |sequence| Carried::Sample(SampleId { boot: 1, sequence });
        let kept = window.take(id(0), Uptime::default()).unwrap();
        for sequence in 1..200_000 {
            let packet_id = window.take(id(sequence), Uptime::default()).unwrap();
            assert!(packet_id != 0 && packet_id != kept);
            assert_eq!(window.free(packet_id).unwrap().carried, id(sequence));
        }
        assert!(window.contains(id(0)));
        for sequence in 1..WINDOW as u32 {
            window.take(id(sequence), Uptime::default()).unwrap();
        }
        assert_eq!(window.take(id(99), Uptime::default()), None);
        assert_eq!(window.free(kept).unwrap().carried, id(0));
        assert_eq!(window.nth(0).unwrap().carried, id(1), "the order of sending");
    }
}
