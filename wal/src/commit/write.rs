//! What a commit writes, and what it changes in memory.

use std::sync::atomic::Ordering;

use crate::clock::marks::Mark;
use crate::clock::{BootId, Timestamp};
use crate::commit::compaction::Part;
use crate::commit::writer::{Failure, Writer};
use crate::encoding::block::{self, NewBlock};
use crate::encoding::change::{Change, Count};
use crate::encoding::entry::{Appended, Entry};
use crate::encoding::row::{RowKind, encode_row};
use crate::intake::batch::OpenBatch;
use crate::progress::pending::{DeadJob, Leaving};
use crate::record::StreamId;
use crate::sync::lock;

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

impl Writer {
    pub(crate) fn store(&mut self, batch: &OpenBatch, beside: &Extra<'_>) -> Result<(), Failure> {
        if let Some(broken) = &self.broken {
            return Err(Failure::Refused(broken.reason.clone()));
        }
        self.rotate_if_due().map_err(Failure::Segment)?;
        // Before what was passed by is noted as passed.
        self.count_unsure();
        let mut blocks = Vec::new();
        let (mut changes, dead) = {
            let mut tracker = lock(&self.shared.tracker);
            let state = lock(&self.shared.catalogue);
            let (mut changes, dead) = tracker.collect(&state);
            match beside {
                Extra::Nothing | Extra::Forgetting => {}
                Extra::Part(part) => {
                    let (change, moving) = part.select(&tracker, self.number, &mut blocks);
                    changes.push(change);
                    tracker.freeze(moving);
                }
                Extra::Leaving(letters) => changes.extend(tracker.take_out(letters)),
            }
            (changes, dead)
        };
        let fresh = std::mem::take(&mut lock(&self.shared.intake).slots.fresh);
        changes.extend(fresh.iter().map(|(slot, identity)| Change::Slot {
            slot: *slot,
            identity: identity.clone(),
        }));
        let streams = by_stream(&batch.records);
        self.cut(&batch.data, &streams, &mut blocks, &mut changes);
        let (letters, letter_records) = self.letters(dead);
        let dead = by_stream(&letter_records);
        self.cut(&letters, &dead, &mut blocks, &mut changes);
        count_accepted(batch, &mut changes);
        let forgets = matches!(beside, Extra::Forgetting);
        if blocks.is_empty() && changes.is_empty() && !forgets {
            self.settled_with(&[], &[]);
            return Ok(());
        }
        self.trusted(&mut changes, forgets);
        let delta = encode_row(RowKind::Delta, self.row + 1, &changes);
        match self.shared.segments.commit(&blocks, self.row + 1, &delta) {
            Ok(()) => {
                self.row += 1;
                self.page_fill.stored(&blocks, &delta);
                self.shared.stats.commits.fetch_add(1, Ordering::Relaxed);
                self.settled_with(&changes, &letter_records);
                Ok(())
            }
            Err(error) => {
                lock(&self.shared.intake).slots.fresh.splice(0..0, fresh);
                let mut tracker = lock(&self.shared.tracker);
                tracker.restore();
                tracker.thaw(false);
                Err(Failure::Segment(error))
            }
        }
    }

    /// Cuts the records of each stream into blocks.
    fn cut<'a>(&self, data: &'a [u8], streams: &'a [OfStream], blocks: &mut Vec<NewBlock<'a>>, changes: &mut Vec<Change>) {
        for OfStream { stream, first, entries } in streams {
            let costs: Vec<usize> = entries.iter().map(|entry| entry.cost() as usize).collect();
            let mut at = 0;
            for count in block::cut(&costs, self.page_fill.beside(*stream)) {
                blocks.push(NewBlock::Dense {
                    key: (*stream, first + at as u64),
                    data,
                    entries: &entries[at..at + count],
                });
                at += count;
            }
            let records = entries.len() as u64;
            changes.push(Change::Appended {
                segment: self.number,
                stream: *stream,
                first: *first,
                end: first + records,
                records,
                bytes: costs.iter().sum::<usize>() as u64,
            });
        }
    }

    /// Copies dead records into envelopes.
    fn letters(&self, jobs: Vec<DeadJob>) -> (Vec<u8>, Vec<Appended>) {
        let mut data = Vec::new();
        let mut records = Vec::new();
        for job in jobs {
            let Some(record) = self.shared.record_at(job.segment, job.stream, job.offset) else {
                tracing::error!(
                    stream = job.stream,
                    offset = job.offset,
                    slot = job.slot,
                    reason = job.reason,
                    "a record could not be copied to the dead letters"
                );
                continue;
            };
            let offset = {
                let mut intake = lock(&self.shared.intake);
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
        (data, records)
    }

    /// Notes the last trusted time, also one that is earlier than the one on disk, and marks what lies in the streams.
    fn trusted(&self, changes: &mut Vec<Change>, forgets: bool) {
        let now = self.shared.clock.now();
        let lasting = self.shared.clock.lasting();
        let state = lock(&self.shared.catalogue);
        let is_news = |at: &Timestamp| {
            state
                .trusted
                .is_none_or(|known| at.wall_ms.abs_diff(known.wall_ms) >= TRUSTED_STEP_MS)
        };
        if state.marks.wants(&now) {
            let streams = self.shared.streams.iter().filter_map(|(id, _)| state.stream(id.0));
            let next: Vec<_> = streams.map(|stream| (stream.id, stream.next)).collect();
            changes.extend((!next.is_empty()).then_some(Change::Mark(Mark { at: now, next })));
        }
        let at = if forgets { Some(FORGOTTEN) } else { lasting.filter(is_news) };
        changes.extend(at.map(|at| Change::Trusted { at }));
    }

    /// Takes a successful commit over into memory.
    pub(crate) fn settled_with(&mut self, changes: &[Change], letters: &[Appended]) {
        let mut dropped = Vec::new();
        let mut more = false;
        {
            let mut tracker = lock(&self.shared.tracker);
            let mut state = lock(&self.shared.catalogue);
            for change in changes {
                match change {
                    Change::Settled {
                        stream, records, bytes, ..
                    } if *stream >= StreamId::LOCAL.0 => {
                        self.shared.gauges.leave(*stream, *records, *bytes);
                    }
                    Change::DropSegment { segment } => dropped.push(*segment),
                    Change::Compacted { records, .. } => {
                        self.shared.stats.compacted.fetch_add(*records, Ordering::Relaxed);
                    }
                    Change::Removed { stream, first, end } => tracker.removed(*stream, *first, *end),
                    Change::Trusted { at } => self.shared.clock.kept(Some(*at).filter(|at| at.wall_ms > 0)),
                    _ => {}
                }
                state.apply(change);
            }
            tracker.inflight = None;
            tracker.thaw(true);
            let bytes: u64 = letters.iter().map(|letter| letter.entry.cost()).sum();
            self.shared.gauges.enter(StreamId::DEAD.0, letters.len() as u64, bytes);
            let repairs = lock(&self.shared.repairs);
            for segment in &state.segments {
                let is_kept = self.compaction.has(segment.number) || repairs.damaged.contains_key(&segment.number);
                let spent = segment.number != self.number && segment.waiting() == 0 && !is_kept;
                if spent && !tracker.pending.drop_segments.contains(&segment.number) {
                    tracker.pending.drop_segments.push(segment.number);
                    more = true;
                }
            }
        }
        for segment in dropped {
            self.space.forget(segment);
            // A disk that failed to write to a segment does so again.
            let is_sound = !self.compaction.forget(segment);
            let gone = if is_sound {
                self.shared.segments.retire(segment)
            } else {
                self.shared.segments.unlink(segment)
            };
            match gone {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(segment, %error, "a segment that is no longer needed could not be removed"),
            }
        }
        if more {
            self.shared.mark_dirty();
        }
        let ready = lock(&self.shared.tracker).let_go_on();
        self.wake(|stream| ready.contains(&stream.0));
    }
}

/// One stream's records of a commit; their offsets are consecutive.
struct OfStream {
    stream: u8,
    first: u64,
    entries: Vec<Entry>,
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
