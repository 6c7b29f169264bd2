//! What a commit writes, gathered before it, and what of that is taken over into memory after it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use crate::catalog::catalogue::Catalogue;
use crate::clock::marks::Mark;
use crate::clock::{BootId, Timestamp};
use crate::commit::compaction::Part;
use crate::encoding::block::{self, NewBlock};
use crate::encoding::change::{Change, Count};
use crate::encoding::entry::{Appended, Entry};
use crate::intake::batch::OpenBatch;
use crate::progress::pending::{DeadJob, Leaving};
use crate::read::lookup::Absent;
use crate::record::StreamId;
use crate::segment::page_fill::PageFill;
use crate::shared::Shared;
use crate::sync::lock;

/// How many commits what became of records waits for one that died and cannot be read at the moment.
const LETTERS_WAIT: u32 = 20;
/// How far a trusted time must be from the one on disk to be worth writing.
const TRUSTED_STEP_MS: u64 = 60_000;

/// Stands for no last trusted time.
const FORGOTTEN: Timestamp = Timestamp {
    wall_ms: 0,
    boot: BootId(0),
    monotonic_ms: 0,
    trusted: true,
};

/// What a commit does besides storing a batch and what became of earlier records.
pub(crate) enum Extra<'a> {
    Nothing,
    /// A part of a segment is copied to the active one.
    Part(&'a Part),
    /// The last trusted time is forgotten.
    Forgetting,
    /// Dead letters leave.
    Leaving(&'a [Leaving]),
}

/// What one commit writes: blocks of records, and one row of what changes in the catalogue.
pub(crate) struct Draft {
    pub(crate) changes: Vec<Change>,
    /// Devices that get their places in the ledger with it.
    fresh: Vec<(u32, String)>,
    /// Blocks that compaction copies.
    copied: Vec<NewBlock<'static>>,
    /// The batch's records.
    streams: Vec<OfStream>,
    letters: Letters,
    /// Records that end although they were counted as gone, by stream.
    surplus: BTreeMap<u8, u64>,
    is_empty: bool,
}

/// Dead records in their envelopes.
struct Letters {
    data: Vec<u8>,
    records: Vec<Appended>,
    streams: Vec<OfStream>,
    /// The slots of those that could not be read any more.
    lost: Vec<u32>,
    /// Those that could not be read, and may be another time.
    unread: Vec<DeadJob>,
}

impl Draft {
    /// Gathers a batch, what became of earlier records, and what else the commit is to do. Either [`Draft::take_over`] or
    /// [`Draft::give_back`] must follow.
    pub(crate) fn gather(shared: &Shared, segment: u64, batch: &OpenBatch, extra: &Extra<'_>) -> Self {
        let mut copied = Vec::new();
        let (mut changes, dead, mut surplus) = {
            let mut tracker = lock(&shared.tracker);
            let catalogue = lock(&shared.catalogue);
            let (mut changes, dead) = tracker.collect(&catalogue);
            match extra {
                Extra::Nothing | Extra::Forgetting => {}
                Extra::Part(part) => {
                    let (change, moving) = part.select(&tracker, segment, &mut copied);
                    changes.push(change);
                    tracker.freeze(moving);
                }
                Extra::Leaving(letters) => changes.extend(tracker.take_out(letters)),
            }
            let surplus = surplus(&catalogue, &changes);
            (changes, dead, surplus)
        };
        let mut letters = Letters::of(shared, dead);
        if letters.unread.is_empty() {
            lock(&shared.tracker).letters_waited = 0;
        } else if matches!(extra, Extra::Nothing) && letters.may_wait(shared) {
            // Nothing that became of earlier records is written this time: a letter and its count go into one commit.
            lock(&shared.tracker).restore();
            shared.mark_dirty();
            changes.clear();
            surplus.clear();
            letters = Letters::of(shared, Vec::new());
        } else {
            letters.give_up();
        }
        changes.extend(surplus.values().map(|by| Change::Ledger {
            slot: 0,
            count: Count::Requeued,
            by: *by,
        }));
        let fresh = std::mem::take(&mut lock(&shared.intake).slots.fresh);
        changes.extend(fresh.iter().map(|(slot, identity)| Change::Slot {
            slot: *slot,
            identity: identity.clone(),
        }));
        let streams = by_stream(&batch.records);
        changes.extend(streams.iter().map(|stream| stream.appended(segment)));
        letters.correct(&mut changes);
        changes.extend(letters.streams.iter().map(|stream| stream.appended(segment)));
        count_accepted(batch, &mut changes);
        let forgets = matches!(extra, Extra::Forgetting);
        let is_empty = changes.is_empty() && !forgets;
        if !is_empty {
            trusted(shared, &mut changes, forgets);
        }
        Self {
            changes,
            fresh,
            copied,
            streams,
            letters,
            surplus,
            is_empty,
        }
    }

    /// Whether there is nothing to write.
    pub(crate) const fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// All blocks: those that are copied, those of the batch, those of dead letters.
    pub(crate) fn blocks<'a>(&'a mut self, batch: &'a OpenBatch, page_fill: &PageFill) -> Vec<NewBlock<'a>> {
        let mut blocks: Vec<NewBlock<'a>> = std::mem::take(&mut self.copied);
        let sources = [
            (batch.data.as_slice(), &self.streams),
            (self.letters.data.as_slice(), &self.letters.streams),
        ];
        for (data, streams) in sources {
            streams
                .iter()
                .for_each(|stream| stream.cut(data, page_fill.beside(stream.stream), &mut blocks));
        }
        blocks
    }

    /// Takes a commit that succeeded over into memory; gives the segments that it dropped from the catalogue.
    pub(crate) fn take_over(self, shared: &Shared) -> Vec<u64> {
        let mut dropped = Vec::new();
        let mut tracker = lock(&shared.tracker);
        let mut catalogue = lock(&shared.catalogue);
        for change in &self.changes {
            match change {
                Change::Settled {
                    stream, records, bytes, ..
                } if *stream >= StreamId::LOCAL.0 => shared.gauges.leave(*stream, *records, *bytes),
                Change::DropSegment { segment } => dropped.push(*segment),
                Change::Compacted { from, records, .. } if *from != 0 => {
                    shared.stats.compacted.fetch_add(*records, Ordering::Relaxed);
                }
                Change::Removed { stream, first, end } => tracker.removed(*stream, *first, *end),
                Change::Trusted { at } => shared.clock.kept(Some(*at).filter(|at| at.wall_ms > 0)),
                _ => {}
            }
            catalogue.apply(change);
        }
        self.surplus.iter().for_each(|(stream, by)| shared.gauges.enter(*stream, *by, 0));
        tracker.inflight = None;
        tracker.thaw(true);
        let lost = self.letters.lost.len() as u64;
        shared.stats.dead_lettered.fetch_sub(lost, Ordering::Relaxed);
        shared.stats.damaged.fetch_add(lost, Ordering::Relaxed);
        let letters = &self.letters.records;
        let bytes: u64 = letters.iter().map(|letter| letter.entry.cost()).sum();
        shared.gauges.enter(StreamId::DEAD.0, letters.len() as u64, bytes);
        dropped
    }

    /// The commit failed: what it was to write waits for the next one.
    pub(crate) fn give_back(self, shared: &Shared) {
        lock(&shared.intake).slots.fresh.splice(0..0, self.fresh);
        let mut tracker = lock(&shared.tracker);
        tracker.restore();
        tracker.thaw(false);
    }
}

impl Letters {
    /// Copies dead records into envelopes.
    fn of(shared: &Shared, jobs: Vec<DeadJob>) -> Self {
        let mut data = Vec::new();
        let mut records = Vec::new();
        let mut lost = Vec::new();
        let mut unread = Vec::new();
        for job in jobs {
            let record = match shared.known_record_at(job.segment, job.stream, job.offset) {
                Ok(record) => record,
                Err(Absent::ForNow) if is_sound(shared, &job) => {
                    unread.push(job);
                    continue;
                }
                Err(_) => {
                    tell_lost(&job);
                    lost.push(job.slot);
                    continue;
                }
            };
            let offset = {
                let mut intake = lock(&shared.intake);
                let next = &mut intake.next[usize::from(StreamId::DEAD.0)];
                *next += 1;
                *next - 1
            };
            let at = data.len() as u32;
            let len = crate::encoding::dead_letter::encode(&record, job.reason, &job.detail, offset, &mut data) as u32;
            let entry = Entry {
                partition: record.partition.index() as u8,
                slot: 0,
                at,
                len,
            };
            records.push(Appended {
                stream: StreamId::DEAD.0,
                offset,
                entry,
            });
        }
        let streams = by_stream(&records);
        Self {
            data,
            records,
            streams,
            lost,
            unread,
        }
    }

    /// Whether another commit may find what this one could not read.
    fn may_wait(&self, shared: &Shared) -> bool {
        let mut tracker = lock(&shared.tracker);
        tracker.letters_waited += 1;
        tracker.letters_waited <= LETTERS_WAIT
    }

    /// Those that could not be read never will be.
    fn give_up(&mut self) {
        for job in self.unread.drain(..) {
            tell_lost(&job);
            self.lost.push(job.slot);
        }
    }

    /// Counts those that could not be read any more as damaged instead.
    fn correct(&self, changes: &mut Vec<Change>) {
        for lost in &self.lost {
            let dead = changes.iter_mut().find_map(|change| match change {
                Change::Ledger { slot, count, by } if slot == lost && *count == Count::Dead && *by > 0 => Some(by),
                _ => None,
            });
            let Some(by) = dead else { continue };
            *by -= 1;
            changes.push(Change::Ledger {
                slot: *lost,
                count: Count::Damaged,
                by: 1,
            });
        }
    }
}

/// Whether nothing is known to be wrong with the segment of a record that died.
fn is_sound(shared: &Shared, job: &DeadJob) -> bool {
    let is_damaged = lock(&shared.repairs).damaged.contains_key(&job.segment);
    let lies_there = lock(&shared.catalogue).lies_in(job.segment, job.stream, job.offset);
    lies_there && !is_damaged
}

fn tell_lost(job: &DeadJob) {
    tracing::error!(
        stream = job.stream,
        offset = job.offset,
        slot = job.slot,
        reason = job.reason,
        "a record that the cloud refused cannot be read: it is counted as damaged, and there is no dead letter of it"
    );
}

/// How many more records the changes take out of segments than are counted there, by user stream. What could not be read when it was counted
/// was counted as damaged; if it ends after all, it was put back in between, or the ledger would count it twice.
fn surplus(catalogue: &Catalogue, changes: &[Change]) -> BTreeMap<u8, u64> {
    let mut left: BTreeMap<(u64, u8), u64> = BTreeMap::new();
    let mut surplus = BTreeMap::new();
    for change in changes {
        let (stream, from, to, records) = match change {
            Change::Settled {
                segment, stream, records, ..
            } => (*stream, *segment, 0, *records),
            Change::Compacted {
                stream, from, to, records, ..
            } => (*stream, *from, *to, *records),
            _ => continue,
        };
        if stream >= StreamId::LOCAL.0 {
            continue;
        }
        let counted = |segment: u64| {
            let part = catalogue.segment(segment).and_then(|entry| entry.part(stream));
            part.map_or(0, |part| part.waiting)
        };
        if from != 0 {
            let left = left.entry((from, stream)).or_insert_with(|| counted(from));
            let over = records.saturating_sub(*left);
            *left -= records - over;
            if over > 0 {
                *surplus.entry(stream).or_default() += over;
            }
        }
        if to != 0 {
            *left.entry((to, stream)).or_insert_with(|| counted(to)) += records;
        }
    }
    surplus
}

/// Notes the last trusted time, also one that is earlier than the one on disk, and marks what lies in the streams.
fn trusted(shared: &Shared, changes: &mut Vec<Change>, forgets: bool) {
    let now = shared.clock.now();
    let lasting = shared.clock.lasting();
    let catalogue = lock(&shared.catalogue);
    let is_news = |at: &Timestamp| {
        catalogue
            .trusted
            .is_none_or(|known| at.wall_ms.abs_diff(known.wall_ms) >= TRUSTED_STEP_MS)
    };
    if catalogue.marks.wants(&now) {
        let streams = shared.streams.iter().filter_map(|(id, _)| catalogue.stream(id.0));
        let next: Vec<_> = streams.map(|stream| (stream.id, stream.next)).collect();
        changes.extend((!next.is_empty()).then_some(Change::Mark(Mark { at: now, next })));
    }
    let at = if forgets { Some(FORGOTTEN) } else { lasting.filter(is_news) };
    changes.extend(at.map(|at| Change::Trusted { at }));
}

/// One stream's records of a commit; their offsets are consecutive.
struct OfStream {
    stream: u8,
    first: u64,
    entries: Vec<Entry>,
}

impl OfStream {
    /// What the catalogue is told of them.
    fn appended(&self, segment: u64) -> Change {
        let records = self.entries.len() as u64;
        Change::Appended {
            segment,
            stream: self.stream,
            first: self.first,
            end: self.first + records,
            records,
            bytes: self.entries.iter().map(|entry| entry.cost()).sum(),
        }
    }

    /// Cuts them into blocks.
    fn cut<'a>(&'a self, data: &'a [u8], beside: usize, blocks: &mut Vec<NewBlock<'a>>) {
        let costs: Vec<usize> = self.entries.iter().map(|entry| entry.cost() as usize).collect();
        let mut at = 0;
        for count in block::cut(&costs, beside) {
            blocks.push(NewBlock::Dense {
                key: (self.stream, self.first + at as u64),
                data,
                entries: &self.entries[at..at + count],
            });
            at += count;
        }
    }
}

fn by_stream(records: &[Appended]) -> Vec<OfStream> {
    let mut streams: Vec<OfStream> = Vec::new();
    for run in records.chunk_by(|one, next| one.stream == next.stream) {
        let entries = run.iter().map(|record| record.entry);
        let (stream, first) = (run[0].stream, run[0].offset);
        match streams.iter_mut().find(|known| known.stream == stream) {
            Some(known) => known.entries.extend(entries),
            None => streams.push(OfStream {
                stream,
                first,
                entries: entries.collect(),
            }),
        }
    }
    streams
}

/// User streams only: the internal ones are outside the ledger.
fn count_accepted(batch: &OpenBatch, changes: &mut Vec<Change>) {
    let (accepted, requeued) = batch.records.split_at(batch.requeued_from.min(batch.records.len()));
    for (count, records) in [(Count::Accepted, accepted), (Count::Requeued, requeued)] {
        let of_users = records.iter().filter(|record| record.stream < StreamId::LOCAL.0);
        let mut slots: Vec<u32> = of_users.map(|record| record.entry.slot).collect();
        slots.sort_unstable();
        changes.extend(slots.chunk_by(u32::eq).map(|same| Change::Ledger {
            slot: same[0],
            count,
            by: same.len() as u64,
        }));
    }
}
