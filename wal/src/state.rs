//! The small state: what the newest file says of the whole directory. It changes only by [`Change`]s, each commit writes
//! the ones it makes, and a snapshot is the changes that lead from nothing to here.

use crate::{Partition, Timestamp};

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
