//! The small state: what the newest file says of the whole directory. It changes only by [`Change`]s, each commit writes
//! the ones it makes, and a snapshot is the changes that lead from nothing to here.

use crate::codec::Cursor;
use crate::{BootId, Partition, Timestamp};

/// Ways a counter of the ledger can rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Count {
    Accepted = 0,
    Requeued = 1,
    Delivered = 2,
    Expired = 3,
    Evicted = 4,
    Dead = 5,
    Damaged = 6,
}

impl Count {
    pub(crate) const ALL: [Self; 7] = [
        Self::Accepted,
        Self::Requeued,
        Self::Delivered,
        Self::Expired,
        Self::Evicted,
        Self::Dead,
        Self::Damaged,
    ];
}

/// One step of the small state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Epoch {
        epoch: u64,
    },
    Stream {
        stream: u8,
        name: String,
    },
    Next {
        stream: u8,
        next: u64,
    },
    Floor {
        stream: u8,
        floor: u64,
    },
    Progress {
        stream: u8,
        up_to: Box<[u64; Partition::COUNT]>,
    },
    File {
        file: u64,
        epoch: u64,
    },
    Appended {
        file: u64,
        stream: u8,
        first: u64,
        end: u64,
        records: u64,
        bytes: u64,
    },
    Settled {
        file: u64,
        stream: u8,
        records: u64,
        bytes: u64,
    },
    DropFile {
        file: u64,
    },
    Slot {
        slot: u32,
        identity: String,
    },
    Ledger {
        slot: u32,
        count: Count,
        by: u64,
    },
    Hold {
        stream: u8,
        from: u64,
        next: u64,
        until: u64,
        route: String,
        identity: String,
    },
    Release {
        stream: u8,
        from: u64,
        route: String,
        identity: String,
    },
    Trusted {
        at: Timestamp,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamState {
    pub(crate) id: u8,
    pub(crate) name: String,
    /// The next offset; state, never derived from keys.
    pub(crate) next: u64,
    /// Everything below was evicted or trimmed.
    pub(crate) floor: u64,
    /// Per partition: everything below is settled or held.
    pub(crate) up_to: Box<[u64; Partition::COUNT]>,
}

/// A file of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileEntry {
    pub(crate) number: u64,
    pub(crate) epoch: u64,
    pub(crate) parts: Vec<FilePart>,
}

/// What a file holds of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePart {
    pub(crate) stream: u8,
    pub(crate) first: u64,
    pub(crate) end: u64,
    pub(crate) waiting: u64,
    pub(crate) bytes: u64,
}

/// A suspended pair. Its records from `from` to `next` are settled, those from there to `until` wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HoldState {
    pub(crate) stream: u8,
    pub(crate) from: u64,
    pub(crate) next: u64,
    /// `u64::MAX` = still suspended.
    pub(crate) until: u64,
    pub(crate) route: String,
    pub(crate) identity: String,
}
/// A device's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) identity: String,
    pub(crate) counts: [u64; 7],
}

/// The state after the last successful commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) epoch: u64,
    pub(crate) streams: Vec<StreamState>,
    pub(crate) files: Vec<FileEntry>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) holds: Vec<HoldState>,
    pub(crate) trusted: Option<Timestamp>,
}

impl State {
    pub(crate) fn stream(&self, id: u8) -> Option<&StreamState> {
        self.streams.iter().find(|stream| stream.id == id)
    }

    pub(crate) fn file(&self, number: u64) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.number == number)
    }

    /// The files' parts of one stream, oldest first.
    pub(crate) fn parts(&self, stream: u8) -> impl Iterator<Item = (&FileEntry, &FilePart)> {
        self.files.iter().flat_map(move |file| {
            file.parts
                .iter()
                .filter(move |part| part.stream == stream)
                .map(move |part| (file, part))
        })
    }

    /// Records and bytes of a stream that wait.
    pub(crate) fn waiting(&self, stream: u8) -> (u64, u64) {
        self.parts(stream)
            .fold((0, 0), |(records, bytes), (_, part)| (records + part.waiting, bytes + part.bytes))
    }

    /// The sum of one counter over all devices.
    pub(crate) fn total(&self, count: Count) -> u64 {
        self.slots.iter().map(|slot| slot.counts[count as usize]).sum()
    }

    /// Makes one step.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Epoch { epoch } => self.epoch = *epoch,
            Change::Stream { stream, name } => {
                self.streams.push(StreamState {
                    id: *stream,
                    name: name.clone(),
                    next: 0,
                    floor: 0,
                    up_to: Box::new([0; Partition::COUNT]),
                });
            }
            Change::Next { stream, next } => self.with_stream(*stream, |state| state.next = state.next.max(*next)),
            Change::Floor { stream, floor } => self.with_stream(*stream, |state| state.floor = *floor),
            Change::Progress { stream, up_to } => self.with_stream(*stream, |state| state.up_to.clone_from(up_to)),
            Change::File { file, epoch } => self.files.push(FileEntry {
                number: *file,
                epoch: *epoch,
                parts: Vec::new(),
            }),
            Change::Appended {
                file,
                stream,
                first,
                end,
                records,
                bytes,
            } => {
                self.with_stream(*stream, |state| state.next = state.next.max(*end));
                let Some(file) = self.files.iter_mut().find(|entry| entry.number == *file) else {
                    return;
                };
                if let Some(part) = file.parts.iter_mut().find(|part| part.stream == *stream) {
                    part.end = *end;
                    part.waiting = part.waiting.saturating_add(*records);
                    part.bytes = part.bytes.saturating_add(*bytes);
                } else {
                    file.parts.push(FilePart {
                        stream: *stream,
                        first: *first,
                        end: *end,
                        waiting: *records,
                        bytes: *bytes,
                    });
                }
            }
            Change::Settled {
                file,
                stream,
                records,
                bytes,
            } => {
                let part = self
                    .files
                    .iter_mut()
                    .find(|entry| entry.number == *file)
                    .and_then(|file| file.parts.iter_mut().find(|part| part.stream == *stream));
                if let Some(part) = part {
                    part.waiting = part.waiting.saturating_sub(*records);
                    part.bytes = if part.waiting == 0 { 0 } else { part.bytes.saturating_sub(*bytes) };
                }
            }
            Change::DropFile { file } => self.files.retain(|entry| entry.number != *file),
            Change::Slot { slot, identity } => self.slot(*slot).identity.clone_from(identity),
            Change::Ledger { slot, count, by } => {
                let value = &mut self.slot(*slot).counts[*count as usize];
                *value = value.saturating_add(*by);
            }
            Change::Hold {
                stream,
                from,
                next,
                until,
                route,
                identity,
            } => {
                if let Some(hold) = self.holds.iter_mut().find(|hold| hold.is(*stream, *from, route, identity)) {
                    (hold.next, hold.until) = (*next, *until);
                } else {
                    let (route, identity) = (route.clone(), identity.clone());
                    self.holds.push(HoldState {
                        stream: *stream,
                        from: *from,
                        next: *next,
                        until: *until,
                        route,
                        identity,
                    });
                }
            }
            Change::Release {
                stream,
                from,
                route,
                identity,
            } => self.holds.retain(|hold| !hold.is(*stream, *from, route, identity)),
            Change::Trusted { at } => self.trusted = Some(*at),
        }
    }

    /// The steps that lead from nothing to here.
    pub(crate) fn snapshot(&self) -> Vec<Change> {
        let mut changes = vec![Change::Epoch { epoch: self.epoch }];
        for stream in &self.streams {
            changes.push(Change::Stream {
                stream: stream.id,
                name: stream.name.clone(),
            });
            changes.push(Change::Next {
                stream: stream.id,
                next: stream.next,
            });
            changes.push(Change::Floor {
                stream: stream.id,
                floor: stream.floor,
            });
            changes.push(Change::Progress {
                stream: stream.id,
                up_to: stream.up_to.clone(),
            });
        }
        for file in &self.files {
            changes.push(Change::File {
                file: file.number,
                epoch: file.epoch,
            });
            for part in &file.parts {
                let FilePart {
                    stream,
                    first,
                    end,
                    waiting,
                    bytes,
                } = *part;
                changes.push(Change::Appended {
                    file: file.number,
                    stream,
                    first,
                    end,
                    records: waiting,
                    bytes,
                });
            }
        }
        for (number, slot) in self.slots.iter().enumerate() {
            changes.push(Change::Slot {
                slot: number as u32,
                identity: slot.identity.clone(),
            });
            for count in Count::ALL {
                if slot.counts[count as usize] > 0 {
                    changes.push(Change::Ledger {
                        slot: number as u32,
                        count,
                        by: slot.counts[count as usize],
                    });
                }
            }
        }
        changes.extend(self.holds.iter().map(HoldState::change));
        changes.extend(self.trusted.map(|at| Change::Trusted { at }));
        changes
    }

    fn with_stream(&mut self, id: u8, change: impl FnOnce(&mut StreamState)) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) {
            change(stream);
        }
    }

    fn slot(&mut self, number: u32) -> &mut Slot {
        let number = number as usize;
        if self.slots.len() <= number {
            self.slots.resize(number + 1, Slot::default());
        }
        &mut self.slots[number]
    }
}

impl HoldState {
    pub(crate) fn is(&self, stream: u8, from: u64, route: &str, identity: &str) -> bool {
        self.stream == stream && self.from == from && self.route == route && self.identity == identity
    }

    fn change(&self) -> Change {
        let Self {
            stream,
            from,
            next,
            until,
            route,
            identity,
        } = self.clone();
        Change::Hold {
            stream,
            from,
            next,
            until,
            route,
            identity,
        }
    }
}
/// What a row of the state table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowKind {
    Snapshot = 0,
    Delta = 1,
}

const VERSION: u8 = 1;

/// A row of the state table: CRC32C, version, kind, changes.
pub(crate) fn encode_row(kind: RowKind, changes: &[Change]) -> Vec<u8> {
    let mut out = vec![0, 0, 0, 0, VERSION, kind as u8];
    for change in changes {
        encode_change(change, &mut out);
    }
    let crc = crc32c::crc32c(&out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Reads a row; none = damaged or of a later version.
pub(crate) fn decode_row(bytes: &[u8]) -> Option<(RowKind, Vec<Change>)> {
    let mut rest = Cursor(bytes);
    let crc = rest.u32()?;
    if crc32c::crc32c(rest.0) != crc || rest.u8()? != VERSION {
        return None;
    }
    let kind = match rest.u8()? {
        0 => RowKind::Snapshot,
        1 => RowKind::Delta,
        _ => return None,
    };
    let mut changes = Vec::new();
    while !rest.0.is_empty() {
        changes.push(decode_change(&mut rest)?);
    }
    Some((kind, changes))
}

fn encode_change(change: &Change, out: &mut Vec<u8>) {
    match change {
        Change::Epoch { epoch } => put(out, 1, &[*epoch]),
        Change::Stream { stream, name } => {
            out.extend_from_slice(&[2, *stream]);
            text(out, name);
        }
        Change::Next { stream, next } => {
            put(out, 3, &[]);
            put(out, *stream, &[*next]);
        }
        Change::Floor { stream, floor } => {
            put(out, 4, &[]);
            put(out, *stream, &[*floor]);
        }
        Change::Progress { stream, up_to } => progress(out, *stream, up_to),
        Change::File { file, epoch } => put(out, 6, &[*file, *epoch]),
        Change::Appended {
            file,
            stream,
            first,
            end,
            records,
            bytes,
        } => {
            put(out, 7, &[]);
            put(out, *stream, &[*file, *first, *end, *records, *bytes]);
        }
        Change::Settled {
            file,
            stream,
            records,
            bytes,
        } => {
            put(out, 8, &[]);
            put(out, *stream, &[*file, *records, *bytes]);
        }
        Change::DropFile { file } => put(out, 9, &[*file]),
        Change::Slot { slot, identity } => {
            out.push(10);
            out.extend_from_slice(&slot.to_le_bytes());
            text(out, identity);
        }
        Change::Ledger { slot, count, by } => {
            out.push(11);
            out.extend_from_slice(&slot.to_le_bytes());
            put(out, *count as u8, &[*by]);
        }
        Change::Hold {
            stream,
            from,
            next,
            until,
            route,
            identity,
        } => {
            put(out, 12, &[]);
            put(out, *stream, &[*from, *next, *until]);
            text(out, route);
            text(out, identity);
        }
        Change::Release {
            stream,
            from,
            route,
            identity,
        } => {
            put(out, 13, &[]);
            put(out, *stream, &[*from]);
            text(out, route);
            text(out, identity);
        }
        Change::Trusted { at } => {
            put(out, 14, &[at.wall_ms, at.monotonic_ms]);
            out.extend_from_slice(&at.boot.0.to_le_bytes());
        }
    }
}

fn put(out: &mut Vec<u8>, tag: u8, values: &[u64]) {
    out.push(tag);
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Most partitions stand at the same place, so: that place, which ones differ, and where those are.
fn progress(out: &mut Vec<u8>, stream: u8, up_to: &[u64; Partition::COUNT]) {
    let common = up_to.iter().copied().max().unwrap_or(0);
    let differing = up_to
        .iter()
        .enumerate()
        .filter(|(_, value)| **value != common)
        .fold(0_u64, |bits, (p, _)| bits | 1 << p);
    out.push(5);
    put(out, stream, &[common, differing]);
    for value in up_to.iter().filter(|value| **value != common) {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn decode_change(rest: &mut Cursor<'_>) -> Option<Change> {
    Some(match rest.u8()? {
        1 => Change::Epoch { epoch: rest.u64()? },
        2 => Change::Stream {
            stream: rest.u8()?,
            name: owned(rest)?,
        },
        3 => Change::Next {
            stream: rest.u8()?,
            next: rest.u64()?,
        },
        4 => Change::Floor {
            stream: rest.u8()?,
            floor: rest.u64()?,
        },
        5 => {
            let stream = rest.u8()?;
            let mut up_to = Box::new([rest.u64()?; Partition::COUNT]);
            let differing = rest.u64()?;
            for (p, value) in up_to.iter_mut().enumerate() {
                if differing & (1 << p) != 0 {
                    *value = rest.u64()?;
                }
            }
            Change::Progress { stream, up_to }
        }
        6 => Change::File {
            file: rest.u64()?,
            epoch: rest.u64()?,
        },
        7 => Change::Appended {
            stream: rest.u8()?,
            file: rest.u64()?,
            first: rest.u64()?,
            end: rest.u64()?,
            records: rest.u64()?,
            bytes: rest.u64()?,
        },
        8 => Change::Settled {
            stream: rest.u8()?,
            file: rest.u64()?,
            records: rest.u64()?,
            bytes: rest.u64()?,
        },
        9 => Change::DropFile { file: rest.u64()? },
        10 => Change::Slot {
            slot: bounded_slot(rest)?,
            identity: owned(rest)?,
        },
        11 => {
            let slot = bounded_slot(rest)?;
            let kind = rest.u8()?;
            Change::Ledger {
                slot,
                count: *Count::ALL.get(usize::from(kind))?,
                by: rest.u64()?,
            }
        }
        12 => Change::Hold {
            stream: rest.u8()?,
            from: rest.u64()?,
            next: rest.u64()?,
            until: rest.u64()?,
            route: owned(rest)?,
            identity: owned(rest)?,
        },
        13 => Change::Release {
            stream: rest.u8()?,
            from: rest.u64()?,
            route: owned(rest)?,
            identity: owned(rest)?,
        },
        14 => {
            let (wall_ms, monotonic_ms) = (rest.u64()?, rest.u64()?);
            Change::Trusted {
                at: Timestamp {
                    wall_ms,
                    monotonic_ms,
                    boot: BootId(rest.u128()?),
                    trusted: true,
                },
            }
        }
        _ => return None,
    })
}

fn owned(rest: &mut Cursor<'_>) -> Option<String> {
    let len = usize::from(rest.u16()?);
    rest.text(len).map(str::to_owned)
}

/// A slot's number, which sizes a table: no damage may make that table huge.
fn bounded_slot(rest: &mut Cursor<'_>) -> Option<u32> {
    rest.u32().filter(|slot| *slot <= 1 << 20)
}
