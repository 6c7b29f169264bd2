//! How a will stands in the log and the checkpoint, and the wills that a start finds there.
//!
//! Key: `w | number (8)`. Value, integers little-endian: `identity length (2) | identity | client id length (2) | client id | flags (1) |
//! delay (4) | expiry (4) | time (33) | topic length (2) | topic | properties length (4) | properties | payload`. Flags: bits 0-1 QoS, bit 2
//! RETAIN, bit 3 expiry present, bit 4 the client is gone since `time`; without that bit there is no time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use forebay_wal::{BootId, Checkpoint, CheckpointError, Timestamp, Write};

use super::WillNumber;
use crate::codec::{QoS, Text, Will, WillProperties};
use crate::local_state::{Entry, Follower, length_prefixed, write_entry};
use crate::session::SessionKey;

const TAG: u8 = b'w';
const RETAIN: u8 = 1 << 2;
const EXPIRY: u8 = 1 << 3;
const DETACHED: u8 = 1 << 4;

/// A will in the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredWill {
    pub(crate) number: WillNumber,
    pub(crate) key: SessionKey,
    pub(crate) will: Will,
    /// Since when its delay counts; `None` while its client was connected.
    pub(crate) detached: Option<Timestamp>,
}

/// The wills that a start finds.
#[derive(Default)]
pub(crate) struct StoredWills(Mutex<BTreeMap<u64, Vec<u8>>>);

pub(super) fn key(WillNumber(number): WillNumber) -> Vec<u8> {
    let mut key = vec![TAG];
    // In their order.
    key.extend(number.to_be_bytes());
    key
}

fn number_of(key: &[u8]) -> Option<u64> {
    let (tag, number) = key.split_first()?;
    (*tag == TAG).then(|| Some(u64::from_be_bytes(number.try_into().ok()?)))?
}

impl StoredWill {
    /// The entry of the log.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_entry(&key(self.number), Some(&self.to_bytes()), &mut out);
        out
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let text = |text: &[u8], out: &mut Vec<u8>| {
            out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
            out.extend(text);
        };
        text(self.key.identity.as_bytes(), &mut out);
        text(self.key.client_id.as_bytes(), &mut out);
        let Will { properties, .. } = &self.will;
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        out.push(
            self.will.qos.level()
                | flag(self.will.retain, RETAIN)
                | flag(properties.expiry.is_some(), EXPIRY)
                | flag(self.detached.is_some(), DETACHED),
        );
        out.extend(properties.delay.unwrap_or(0).to_le_bytes());
        out.extend(properties.expiry.unwrap_or(0).to_le_bytes());
        if let Some(at) = self.detached {
            out.extend(at.wall_ms.to_le_bytes());
            out.extend(at.boot.0.to_le_bytes());
            out.extend(at.monotonic_ms.to_le_bytes());
            out.push(u8::from(at.trusted));
        }
        text(self.will.topic.as_bytes(), &mut out);
        out.extend(u32::try_from(properties.travelling.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(&*properties.travelling);
        out.extend(&*self.will.payload);
        out
    }

    /// `None` for bytes that [`StoredWill::encode`] did not make.
    fn parse(number: u64, bytes: &[u8]) -> Option<Self> {
        let text = |bytes: &[u8]| Some(Arc::<str>::from(std::str::from_utf8(bytes).ok()?));
        let (identity, rest) = length_prefixed(bytes)?;
        let (client_id, rest) = length_prefixed(rest)?;
        let (flags, rest) = rest.split_first()?;
        let (delay, rest) = rest.split_first_chunk::<4>()?;
        let (expiry, mut rest) = rest.split_first_chunk::<4>()?;
        let mut detached = None;
        if flags & DETACHED != 0 {
            let (at, after) = timestamp(rest)?;
            (detached, rest) = (Some(at), after);
        }
        let (topic, rest) = length_prefixed(rest)?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (travelling, payload) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some(Self {
            number: WillNumber(number),
            key: SessionKey {
                identity: text(identity)?,
                client_id: text(client_id)?,
            },
            will: Will {
                topic: Text::from(std::str::from_utf8(topic).ok()?.to_owned()),
                payload: Bytes::copy_from_slice(payload),
                qos: QoS::from_level(flags & 3)?,
                retain: flags & RETAIN != 0,
                properties: WillProperties {
                    delay: Some(u32::from_le_bytes(*delay)),
                    expiry: (flags & EXPIRY != 0).then_some(u32::from_le_bytes(*expiry)),
                    travelling: Bytes::copy_from_slice(travelling),
                },
            },
            detached,
        })
    }
}

fn timestamp(bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (wall, rest) = bytes.split_first_chunk::<8>()?;
    let (boot, rest) = rest.split_first_chunk::<16>()?;
    let (monotonic, rest) = rest.split_first_chunk::<8>()?;
    let (trusted, rest) = rest.split_first()?;
    let at = Timestamp {
        wall_ms: u64::from_le_bytes(*wall),
        boot: BootId(u128::from_le_bytes(*boot)),
        monotonic_ms: u64::from_le_bytes(*monotonic),
        trusted: *trusted == 1,
    };
    Some((at, rest))
}

impl StoredWills {
    /// Takes out what was restored, and the highest number that was given.
    pub(crate) fn take(&self) -> (Vec<StoredWill>, u64) {
        let wills = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let last = wills.last_key_value().map_or(0, |(number, _)| *number);
        let wills = wills.into_iter().filter_map(|(number, value)| StoredWill::parse(number, &value));
        (wills.collect(), last)
    }

    fn take_entry(&self, key: &[u8], value: Option<&[u8]>) {
        let Some(number) = number_of(key) else { return };
        let mut wills = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match value {
            Some(value) => drop(wills.insert(number, value.to_vec())),
            None => drop(wills.remove(&number)),
        }
    }
}

impl Follower for StoredWills {
    fn owns(&self, key: &[u8]) -> bool {
        key.first() == Some(&TAG)
    }

    fn restore(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        checkpoint.snapshot()?.visit_from(&[TAG], |key, value| {
            let is_one = self.owns(key);
            if is_one {
                self.take_entry(key, Some(value));
            }
            is_one
        })
    }

    fn restore_entry(&self, (key, value): Entry, _checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        self.take_entry(&key, value.as_deref());
        Ok(())
    }

    /// An entry in the log is the same in the checkpoint.
    fn writes(&self, entries: Vec<Entry>, _checkpoint: &Checkpoint, out: &mut Vec<Write>) -> Result<u64, CheckpointError> {
        out.extend(entries);
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_state::read_entries;

    #[test]
    fn a_will_is_read_as_it_was_written_and_cut_bytes_never_panic() {
        let at = Timestamp {
            wall_ms: 1,
            boot: BootId(2),
            monotonic_ms: 3,
            trusted: true,
        };
        for (detached, expiry, retain) in [(None, None, true), (Some(at), Some(7), false)] {
            let stored = StoredWill {
                number: WillNumber(u64::MAX - 1),
                key: SessionKey {
                    identity: "d1".into(),
                    client_id: "c/α".into(),
                },
                will: Will {
                    topic: Text::from_static("t/x"),
                    payload: Bytes::from_static(b"gone"),
                    qos: QoS::ExactlyOnce,
                    retain,
                    properties: WillProperties {
                        delay: Some(5),
                        expiry,
                        travelling: Bytes::from_static(&[1, 1]),
                    },
                },
                detached,
            };
            let wills = StoredWills::default();
            for (key, value) in read_entries(&stored.encode()) {
                assert!(wills.owns(&key));
                let value = value.unwrap();
                for end in 0..value.len() {
                    StoredWill::parse(1, &value[..end]);
                }
                for end in 0..key.len() {
                    wills.take_entry(&key[..end], Some(&value));
                }
                wills.take_entry(&key, Some(&value));
            }
            assert_eq!(wills.take(), (vec![stored.clone()], u64::MAX - 1));
            for (key, value) in read_entries(&stored.encode())
                .into_iter()
                .chain(read_entries(&super::super::removal(stored.number)))
            {
                wills.take_entry(&key, value.as_deref());
            }
            assert_eq!(wills.take(), (vec![], 0));
        }
    }
}
