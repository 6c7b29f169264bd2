//! What must hold, whatever happened.

use std::collections::BTreeSet;

use super::model::Told;
use super::world::{Process, Verdict, World};
use crate::commit::recount::count_in;
use crate::record::{PartitionSet, StreamId};
use crate::sync::lock;

impl World {
    /// Everything that waits is what must wait, and the ledger balances.
    pub(super) fn check(&mut self) -> Verdict {
        self.disk.forget_plan();
        self.disk.set_free(None);
        if self.disk.is_off() {
            return Ok(());
        }
        // What a look meets is mended before the next.
        let mut found = BTreeSet::new();
        let mut looks = 0;
        loop {
            self.mend()?;
            looks += 1;
            match self.look(&mut found) {
                Err(told) if looks == 5 || !told.contains("is damaged") => return Err(told),
                Err(_) => {}
                Ok(()) => break,
            }
        }
        // A suspended record's damage is found by looking for it, and what redb passes by in silence by the audit.
        self.mend()?;
        // It may meet a segment that was open and sound in memory until a damaged record made somebody read it again.
        self.with(|_, process| {
            process.log.audit().ok();
            Ok(())
        })?;
        self.mend()?;
        self.with(|world, process| world.judge(process, &found))
    }

    /// Reads all that waits, suspended or not.
    fn look(&mut self, found: &mut BTreeSet<u64>) -> Verdict {
        self.with(|world, process| {
            for stream in [StreamId(0), StreamId(1)] {
                let mut reader = process.log.reader(stream, PartitionSet::ALL);
                let mut last = None;
                loop {
                    let records = reader.read(1 << 20).map_err(|error| chain(&error))?;
                    if records.is_empty() {
                        break;
                    }
                    for record in &records {
                        if last >= Some(record.offset) {
                            return Err(format!("out of order: {:?} after {last:?}", record.offset));
                        }
                        last = Some(record.offset);
                        let number = world.model.yielded(record)?;
                        process.open.insert((stream, record.offset), number);
                        found.insert(number);
                    }
                }
                for suspension in process.log.suspensions(stream) {
                    let suspended = process
                        .log
                        .read_suspended(&suspension.key, usize::MAX)
                        .map_err(|error| chain(&error))?;
                    for record in suspended {
                        found.insert(world.model.yielded(&record)?);
                    }
                }
                if let Some(reader) = process.readers.get_mut(&stream) {
                    reader.rewind();
                }
                process.passed.insert(stream, None);
            }
            Ok(())
        })
    }

    pub(super) fn judge(&mut self, process: &Process, found: &BTreeSet<u64>) -> Verdict {
        let audit = process.log.audit().map_err(|error| chain(&error))?;
        if !audit.balances() {
            return Err(format!("the ledger does not balance: {audit:?}\n{}", uneven(process)));
        }
        if !self.model.is_corrupted && audit.damaged > 0 {
            return Err(format!("records are counted as damaged that nothing damaged: {audit:?}"));
        }
        let missing = self.model.missing(found);
        let excused = audit.evicted + audit.damaged + self.model.count(|known| known.may_expire && known.end.is_none()).min(audit.expired);
        if missing.len() as u64 > excused {
            return Err(format!("acked and gone: {missing:?}, by {audit:?}"));
        }
        if !self.model.is_corrupted {
            let acked = self.model.count(|known| known.told == Told::Acked);
            let perhaps = self.model.count(|known| known.may_be_there);
            if !(acked..=acked + perhaps).contains(&audit.accepted) {
                return Err(format!("{acked} acked, {perhaps} perhaps, by the ledger {}", audit.accepted));
            }
        }
        Ok(())
    }

    /// Gives the writer the time to mend what it met.
    pub(super) fn mend(&mut self) -> Verdict {
        for _ in 0..200 {
            let mut is_mended = false;
            self.with(|_, process| {
                // Reading finds what is to be mended.
                for reader in process.readers.values_mut() {
                    while reader.read(1 << 20).is_ok_and(|records| !records.is_empty()) {}
                    reader.rewind();
                }
                process.passed.clear();
                let writer = &mut process.writer;
                writer.rotation.retry_now();
                writer.tick();
                while writer.compaction.is_under_way() && writer.rotation.broken().is_none() {
                    writer.compact_step().ok();
                }
                writer.reject_late();
                let progressed = writer.rotation.broken().is_none() && writer.commit_progress().is_ok();
                let repairs = lock(&writer.shared.repairs);
                is_mended = progressed && repairs.damaged.is_empty() && repairs.unsure.is_empty();
                Ok(())
            })?;
            if is_mended {
                return Ok(());
            }
        }
        Err("it is never mended".into())
    }

    /// Good weather comes, everything is delivered, and the books are closed.
    pub(super) fn end(&mut self) -> Verdict {
        self.disk.forget_plan();
        self.disk.set_free(None);
        self.restart("the end", true)?;
        self.mend()?;
        self.with(|world, process| {
            for _ in 0..1000 {
                let mut some = false;
                for stream in [StreamId(0), StreamId(1)] {
                    some |= world.read_on(process, stream, 1 << 20)? > 0;
                    for suspension in process.log.suspensions(stream) {
                        some |= !world.look_at_hold(process, &suspension.key)?;
                    }
                }
                let places: Vec<_> = process.open.keys().copied().collect();
                places.into_iter().for_each(|place| world.settle_one(process, place));
                process.writer.commit_progress().map_err(|error| chain(&error))?;
                process.writer.tick();
                // What only this reading met is repaired as well.
                while process.writer.compaction.is_under_way() && process.writer.rotation.broken().is_none() {
                    process.writer.compact_step().map_err(|error| chain(&error))?;
                    some = true;
                }
                if !some {
                    break;
                }
            }
            process.writer.commit_progress().map_err(|error| chain(&error))?;
            let audit = process.log.audit().map_err(|error| chain(&error))?;
            if audit.waiting != 0 || !audit.balances() {
                return Err(format!("not all is settled at the end: {audit:?}\n{}", uneven(process)));
            }
            let missing = world.model.missing(&BTreeSet::new());
            let excused = audit.evicted + audit.damaged + audit.expired;
            if missing.len() as u64 > excused {
                return Err(format!("acked and never seen: {missing:?}, by {audit:?}"));
            }
            Ok(())
        })?;
        self.with(|_, process| {
            for _ in 0..4 {
                process.writer.commit_progress().map_err(|error| chain(&error))?;
            }
            let left = lock(&process.log.shared().catalogue).segments.clone();
            let number = process.writer.number;
            let pinned: Vec<_> = left.iter().filter(|segment| segment.number != number).collect();
            let letters = |segment: &&&crate::catalog::catalogue::SegmentEntry| {
                segment.parts.iter().any(|part| part.stream == StreamId::DEAD.0 && part.waiting > 0)
            };
            let strays: Vec<_> = pinned.iter().filter(|segment| !letters(segment)).collect();
            if strays.is_empty() {
                return Ok(());
            }
            Err(format!("segments are left that nothing waits in: {strays:?}"))
        })
    }
}

/// Where the catalogue counts other than the disk, block by block: offset, counted as waiting, readable.
fn uneven(process: &Process) -> String {
    let shared = process.log.shared();
    let tracker = lock(&shared.tracker);
    let segments = lock(&shared.catalogue).segments.clone();
    let mut text = format!("{:?}", tracker.pending);
    for (segment, part) in segments
        .iter()
        .flat_map(|segment| segment.parts.iter().map(|part| (segment.number, part)))
    {
        let found = count_in(shared, &tracker, segment, part.stream);
        if found.as_ref().is_ok_and(|(records, _)| *records == part.waiting) {
            continue;
        }
        text += &format!("\nfile {segment} of {}, found {found:?}: {part:?}", process.writer.number);
        let Some(tracked) = tracker.streams.get(&part.stream) else {
            continue;
        };
        let blocks = shared.segments.blocks(segment, part.stream, 0, u64::MAX, usize::MAX);
        for block in blocks.into_iter().flat_map(|blocks| blocks.list) {
            let entries =
                (0..block.entries.len()).map(|nth| (block.offset(nth), tracked.is_counted(&block, nth), block.record(nth).is_some()));
            let entries: Vec<_> = entries.collect();
            text += &format!("\n  {}..{} unsure {}: {entries:?}", block.first, block.until, block.is_unsure);
        }
        text += &format!("\n  delivered up to {:?}, holds {:?}", tracked.up_to(), tracked.suspensions);
    }
    text
}

pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
