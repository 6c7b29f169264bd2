//! Devices of which the cloud refused a record for the moment, or keeps silent about one. The device waits until that record is in, so that its
//! order is kept; other devices go on. Time is passed in.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use forebay_wal::Offset;
use tokio::time::Instant;

use crate::message::item::DeviceKey;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct WaitingDevices<T> {
    devices: HashMap<DeviceKey, Device<T>>,
    next: Option<Instant>,
}

#[derive(Debug)]
struct Device<T> {
    queue: BTreeMap<Offset, T>,
    out: Option<Offset>,
    due: Instant,
    tries: u32,
}

impl<T> Default for WaitingDevices<T> {
    fn default() -> Self {
        Self {
            devices: HashMap::new(),
            next: None,
        }
    }
}

impl<T> WaitingDevices<T> {
    pub(crate) fn len(&self) -> usize {
        self.devices.len()
    }

    pub(crate) fn contains(&self, key: &DeviceKey) -> bool {
        !self.devices.is_empty() && self.devices.contains_key(key)
    }

    /// The cloud refused a record for the moment. Returns how often its device was refused in a row.
    pub(crate) fn refused(&mut self, key: DeviceKey, offset: Offset, item: T, now: Instant) -> u32 {
        let device = self.devices.entry(key).or_insert_with(|| Device {
            queue: BTreeMap::new(),
            out: None,
            due: now,
            tries: 0,
        });
        // Records that were already in flight behind the refused one join the queue and count for nothing.
        let first = device.queue.is_empty() && device.out.is_none();
        if first || device.out == Some(offset) {
            device.tries += 1;
            device.due = now + FIRST_DELAY.saturating_mul(1 << (device.tries - 1).min(10)).min(LONGEST_DELAY);
            device.out = None;
        }
        device.queue.insert(offset, item);
        let tries = device.tries;
        self.reschedule();
        tries
    }

    /// The cloud keeps silent about a record in flight while it acks others: its device waits for the answer.
    pub(crate) fn silent(&mut self, key: DeviceKey, offset: Offset, now: Instant) {
        self.devices.entry(key).or_insert_with(|| Device {
            queue: BTreeMap::new(),
            out: Some(offset),
            due: now,
            tries: 0,
        });
    }

    /// Keeps a later record of a waiting device behind the refused one.
    pub(crate) fn park(&mut self, key: &DeviceKey, offset: Offset, item: T) {
        if let Some(device) = self.devices.get_mut(key) {
            device.queue.insert(offset, item);
        }
    }

    pub(crate) const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// The oldest record of a device whose time has come. It is out until it is refused again or the device released.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<T> {
        if self.next.is_none_or(|next| next > now) {
            return None;
        }
        let device = self
            .devices
            .values_mut()
            .filter(|device| device.out.is_none())
            .min_by_key(|device| device.due)?;
        let (offset, item) = device.queue.pop_first()?;
        device.out = Some(offset);
        self.reschedule();
        Some(item)
    }

    /// The record that was out is settled: the device goes on. Returns its queue, in order.
    pub(crate) fn settled(&mut self, key: &DeviceKey, offset: Offset) -> Vec<T> {
        if self.devices.get(key).is_none_or(|device| device.out != Some(offset)) {
            return Vec::new();
        }
        let queue = self.devices.remove(key).map(|device| device.queue).unwrap_or_default();
        self.reschedule();
        queue.into_values().collect()
    }

    /// Takes those records of a device that `leaves` names out of the queue.
    pub(crate) fn extract(&mut self, key: &DeviceKey, mut leaves: impl FnMut(&T) -> bool) -> Vec<(Offset, T)> {
        let Some(device) = self.devices.get_mut(key) else {
            return Vec::new();
        };
        let (mut left, mut stays) = (Vec::new(), BTreeMap::new());
        for (offset, item) in std::mem::take(&mut device.queue) {
            if leaves(&item) {
                left.push((offset, item));
            } else {
                stays.insert(offset, item);
            }
        }
        device.queue = stays;
        if device.queue.is_empty() && device.out.is_none() {
            self.devices.remove(key);
        }
        self.reschedule();
        left
    }

    pub(crate) fn clear(&mut self) {
        self.devices.clear();
        self.next = None;
    }

    fn reschedule(&mut self) {
        self.next = self
            .devices
            .values()
            .filter(|device| device.out.is_none())
            .map(|device| device.due)
            .min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> DeviceKey {
        (0, "d1".to_owned())
    }

    #[test]
    fn a_device_waits_for_its_refused_record_and_then_goes_on_in_order() {
        let now = Instant::now();
        let mut waiting = WaitingDevices::default();
        waiting.refused(key(), Offset(5), 5, now);
        waiting.park(&key(), Offset(8), 8);
        waiting.refused(key(), Offset(6), 6, now);
        assert_eq!(waiting.take_due(now), None);
        let later = now + FIRST_DELAY;
        assert_eq!(waiting.take_due(later), Some(5));
        assert_eq!(waiting.take_due(later), None, "one at a time");
        assert_eq!(waiting.settled(&key(), Offset(6)), Vec::<i32>::new(), "6 was not out");
        assert_eq!(waiting.settled(&key(), Offset(5)), [6, 8]);
        assert!(!waiting.contains(&key()));
    }

    #[test]
    fn silence_about_a_record_holds_its_device_until_the_answer() {
        let now = Instant::now();
        let mut waiting = WaitingDevices::default();
        waiting.silent(key(), Offset(1), now);
        waiting.park(&key(), Offset(2), 2);
        assert_eq!(waiting.take_due(now + LONGEST_DELAY), None);
        assert_eq!(waiting.settled(&key(), Offset(1)), [2]);

        waiting.silent(key(), Offset(3), now);
        waiting.park(&key(), Offset(4), 4);
        assert_eq!(waiting.refused(key(), Offset(3), 3, now), 1, "the answer was a refusal");
        assert_eq!(waiting.take_due(now + FIRST_DELAY), Some(3));
    }

    #[test]
    fn delays_grow_to_five_seconds() {
        let mut now = Instant::now();
        let mut waiting = WaitingDevices::default();
        let mut delays = Vec::new();
        for _ in 0..8 {
            waiting.refused(key(), Offset(1), 1, now);
            delays.push((waiting.next().unwrap() - now).as_millis());
            now = waiting.next().unwrap();
            assert_eq!(waiting.take_due(now), Some(1));
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }
}
