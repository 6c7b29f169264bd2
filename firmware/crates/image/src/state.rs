//! What bootloader and updater remember.
//!
//! A record holds the whole state. 64 bytes, little-endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `FBS1` |
//! | 4 | 4 | sequence number |
//! | 8 | 4 | floor of the security counter |
//! | 12 | 4 | key floor |
//! | 16 | 1 | confirmed slot: 0 none, 1 A, 2 B |
//! | 17 | 1 | slot on trial, likewise |
//! | 18 | 1 | tries begun |
//! | 19 | 1 | 0 |
//! | 20 | 4 | evidence: kind, slot, refusal, reported |
//! | 24 | 8 | evidence: the image's version, times it was seen |
//! | 32 | 8 | evidence: first bytes of the image's hash |
//! | 40 | 4 | images refused so far |
//! | 44 | 4 | images given up so far |
//! | 48 | 4 | 0 |
//! | 52 | 4 | CRC-32 (ISO-HDLC) of bytes 0 to 51 |
//! | 56 | 8 | the seal: erased, then 0 |

use crc::{CRC_32_ISO_HDLC, Crc, NoTable};

use crate::header::{array_at, u32_at};
use crate::verify::Floors;
use crate::{Header, Refusal, Slot, Version};

/// Starts an image on trial is given to confirm itself.
pub const TRIES: u8 = 2;

pub(crate) const RECORD_BYTES: usize = 64;
pub(crate) const SEAL_AT: usize = 56;
const MAGIC: [u8; 4] = *b"FBS1";
const CRC_AT: usize = 52;
const CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);

/// What bootloader and updater remember.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Images with a lower security counter are refused.
    pub counter_floor: u32,
    /// Keys with a lower id are retired.
    pub key_floor: u32,
    /// The slot whose image has proved itself.
    pub confirmed: Option<Slot>,
    /// The image that is being tried.
    pub trial: Option<Trial>,
    /// The last image that was refused or given up.
    pub evidence: Option<Evidence>,
    /// Images refused so far.
    pub refused: u32,
    /// Images given up so far.
    pub given_up: u32,
}

/// An image on trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Where it is.
    pub slot: Slot,
    /// Starts so far.
    pub tries: u8,
}

/// What remains of an image that may not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What happened to it.
    pub kind: EvidenceKind,
    /// Where it was.
    pub slot: Slot,
    /// The version its header claims; zeros if there was no header.
    pub version: Version,
    /// The first bytes of the hash its header claims; zeros if there was no header.
    pub hash: [u8; 8],
    /// How often it was met, up to 65535.
    pub times: u16,
    /// Whether the application has reported it.
    pub reported: bool,
}

/// What happened to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvidenceKind {
    /// The bootloader found it wrong in its slot.
    RefusedAtBoot(Refusal),
    /// The application refused it as an update.
    RefusedAsUpdate(Refusal),
    /// It did not confirm itself in [`TRIES`] starts.
    GivenUp,
}

impl Evidence {
    pub(crate) fn new(kind: EvidenceKind, slot: Slot, header: Option<&Header>) -> Evidence {
        Evidence {
            kind,
            slot,
            version: header.map(|header| header.version).unwrap_or_default(),
            hash: header.map(|header| array_at(&header.hash, 0)).unwrap_or_default(),
            times: 1,
            reported: false,
        }
    }

    /// Whether this is the image with that header, given up after its tries.
    pub(crate) fn gave_up(&self, header: &Header) -> bool {
        self.kind == EvidenceKind::GivenUp && self.version == header.version && header.hash.starts_with(&self.hash)
    }

    fn same_image(&self, other: &Evidence) -> bool {
        (self.kind, self.slot, self.version, self.hash) == (other.kind, other.slot, other.version, other.hash)
    }
}

impl State {
    pub(crate) fn floors(&self) -> Floors {
        Floors {
            counter: self.counter_floor,
            key: self.key_floor,
        }
    }

    /// Adds evidence. The same image met again is counted, at most until the count is full, and not reported again.
    pub(crate) fn remember(&mut self, evidence: Evidence) {
        let known = self.evidence.filter(|known| known.same_image(&evidence));
        if known.is_none() {
            match evidence.kind {
                EvidenceKind::GivenUp => self.given_up = self.given_up.saturating_add(1),
                EvidenceKind::RefusedAtBoot(_) | EvidenceKind::RefusedAsUpdate(_) => self.refused = self.refused.saturating_add(1),
            }
        }
        self.evidence = Some(match known {
            Some(known) => Evidence {
                times: known.times.saturating_add(1),
                ..known
            },
            None => evidence,
        });
    }

    /// The image in `slot` has proved itself: it is the one to go back to, and the floors rise to what it demands.
    pub(crate) fn confirm(&mut self, slot: Slot, header: &Header) {
        self.confirmed = Some(slot);
        self.trial = None;
        self.counter_floor = self.counter_floor.max(header.security_counter);
        self.key_floor = self.key_floor.max(header.key_floor);
    }

    pub(crate) fn encode(&self, sequence: u32) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&sequence.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.counter_floor.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.key_floor.to_le_bytes());
        bytes[16] = Slot::code(self.confirmed);
        bytes[17] = Slot::code(self.trial.map(|trial| trial.slot));
        bytes[18] = self.trial.map_or(0, |trial| trial.tries);
        if let Some(evidence) = &self.evidence {
            let (kind, refusal) = match evidence.kind {
                EvidenceKind::RefusedAtBoot(refusal) => (1, refusal as u8),
                EvidenceKind::RefusedAsUpdate(refusal) => (2, refusal as u8),
                EvidenceKind::GivenUp => (3, 0),
            };
            bytes[20..24].copy_from_slice(&[kind, Slot::code(Some(evidence.slot)), refusal, u8::from(evidence.reported)]);
            bytes[24..26].copy_from_slice(&evidence.version.major.to_le_bytes());
            bytes[26..28].copy_from_slice(&evidence.version.minor.to_le_bytes());
            bytes[28..30].copy_from_slice(&evidence.version.patch.to_le_bytes());
            bytes[30..32].copy_from_slice(&evidence.times.to_le_bytes());
            bytes[32..40].copy_from_slice(&evidence.hash);
        }
        bytes[40..44].copy_from_slice(&self.refused.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.given_up.to_le_bytes());
        let crc = CRC.checksum(&bytes[..CRC_AT]);
        bytes[CRC_AT..SEAL_AT].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a record: its sequence number and the state. `None` if it is damaged.
    pub(crate) fn decode(bytes: &[u8; RECORD_BYTES]) -> Option<(u32, State)> {
        if bytes[..4] != MAGIC || u32_at(bytes, CRC_AT) != CRC.checksum(&bytes[..CRC_AT]) {
            return None;
        }
        let trial = Slot::from_code(bytes[17])?.map(|slot| Trial { slot, tries: bytes[18] });
        let evidence = match bytes[20] {
            0 => None,
            kind => Some(Evidence {
                kind: match kind {
                    1 => EvidenceKind::RefusedAtBoot(Refusal::from_code(bytes[22])?),
                    2 => EvidenceKind::RefusedAsUpdate(Refusal::from_code(bytes[22])?),
                    3 => EvidenceKind::GivenUp,
                    _ => return None,
                },
                slot: Slot::from_code(bytes[21])??,
                version: Version {
                    major: u16::from_le_bytes(array_at(bytes, 24)),
                    minor: u16::from_le_bytes(array_at(bytes, 26)),
                    patch: u16::from_le_bytes(array_at(bytes, 28)),
                },
                times: u16::from_le_bytes(array_at(bytes, 30)),
                hash: array_at(bytes, 32),
                reported: bytes[23] != 0,
            }),
        };
        let state = State {
            counter_floor: u32_at(bytes, 8),
            key_floor: u32_at(bytes, 12),
            confirmed: Slot::from_code(bytes[16])?,
            trial,
            evidence,
            refused: u32_at(bytes, 40),
            given_up: u32_at(bytes, 44),
        };
        Some((u32_at(bytes, 4), state))
    }
}
