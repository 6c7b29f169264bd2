//! Checking everything that a log's segments say: pages, rows, blocks, records, the catalogue, the ledger.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::encoding::block::{self, Block};
use crate::encoding::entry::{Key, RawBlock};
use crate::encoding::row::{RowKind, decode_row};
use crate::inspect::audit::Audit;
use crate::inspect::inspector::Inspector;
use crate::inspect::source::Source;
use crate::io::directory::Overlay;
use crate::record::{Partition, StreamId};
use crate::segment::database::{SegmentError, contained, open_view};
use crate::segment::segments::{CLOSED_CACHE, name};
use crate::segment::table::{self, Next, Table};

/// How much is read at a time.
const CHUNK: usize = 1 << 20;

/// What was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Segments read to their end.
    pub segments: u64,
    /// Rows of the state.
    pub rows: u64,
    /// Blocks.
    pub blocks: u64,
    /// Records whose checksum is right.
    pub records: u64,
    /// Bytes of blocks.
    pub bytes: u64,
    /// Records that belong to no range of the catalogue: what a failed commit left behind. No fault.
    pub outside: u64,
    /// Faults found.
    pub findings: u64,
    /// The ledger, recounted; `None` if it could not be.
    pub audit: Option<Audit>,
}

/// One thing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The segment's name; `None` if it is about the log as a whole.
    pub segment: Option<String>,
    /// The stream and the offset, if it is about a record or a block.
    pub at: Option<(StreamId, u64)>,
    /// What is wrong.
    pub what: String,
}

/// How a verification goes on.
#[derive(Clone, Debug)]
pub enum VerifyStep {
    /// A segment was begun, the n-th of so many.
    Segment(String, u64, u64),
    /// So many bytes of blocks were read.
    Read(u64),
    /// Something is wrong.
    Finding(Finding),
}

struct Verification<'a> {
    source: &'a Source,
    verified: Verified,
    see: &'a mut dyn FnMut(VerifyStep) -> bool,
    /// The receiver wants no more.
    stopped: bool,
}

impl Inspector {
    /// Checks every segment of the catalogue to its last byte: redb's own page checksums (not of the segment that a running
    /// log appends to), rows of the state, blocks and records, the order of their keys, streams and partitions, what
    /// the catalogue says of each segment (a stopped log's), and the ledger. `see` hears of each step and ends it by false.
    pub fn verify(&self, see: &mut dyn FnMut(VerifyStep) -> bool) -> Verified {
        let mut verification = Verification {
            source: &self.source,
            verified: Verified::default(),
            see,
            stopped: false,
        };
        for note in self.notes() {
            verification.find(None, None, note.clone());
        }
        let segments: Vec<u64> = self
            .source
            .with_state(|state| state.segments.iter().map(|segment| segment.number).collect());
        let count = segments.len() as u64;
        for (nth, number) in segments.into_iter().enumerate() {
            verification.tell(VerifyStep::Segment(name(number), nth as u64 + 1, count));
            if verification.stopped {
                return verification.verified;
            }
            verification.segment(number);
        }
        verification.ledger(self);
        verification.verified
    }
}

impl Verification<'_> {
    fn tell(&mut self, step: VerifyStep) {
        self.stopped |= !(self.see)(step);
    }

    fn find(&mut self, segment: Option<u64>, at: Option<Key>, what: impl Into<String>) {
        self.verified.findings += 1;
        self.tell(VerifyStep::Finding(Finding {
            segment: segment.map(name),
            at: at.map(|(stream, offset)| (StreamId(stream), offset)),
            what: what.into(),
        }));
    }

    fn segment(&mut self, number: u64) {
        let before = self.verified.findings;
        let mut waiting = BTreeMap::new();
        let result = if self.source.active() == Some(number) {
            let segments = self.source.segments_for(number);
            self.content(number, &mut waiting, &mut |after| segments.read(number, |table| next(table, after)))
                .and_then(|()| segments.read(number, rows))
        } else {
            self.closed(number, &mut waiting)
        };
        match result {
            Ok(_) if self.stopped => return,
            Ok(rows) => {
                self.verified.segments += 1;
                self.verified.rows += rows.count;
                for fault in rows.faults {
                    self.find(Some(number), None, fault);
                }
            }
            Err(error) => {
                let is_there = self.source.with_state(|state| state.segment(number).is_some());
                if is_there {
                    self.find(Some(number), None, format!("it cannot be read: {error}"));
                }
            }
        }
        if before == self.verified.findings && self.source.active().is_none() {
            self.catalogue(number, &waiting);
        }
    }

    /// A segment that takes no appends: redb's own check first, on a copy in memory of what that changes.
    fn closed(&mut self, number: u64, waiting: &mut BTreeMap<u8, u64>) -> Result<Rows, SegmentError> {
        let file = self.source.directory().open(&name(number)).map_err(SegmentError::Io)?;
        let overlay = Overlay::new(file).map_err(SegmentError::Io)?;
        let (mut db, _) = contained(|| open_view(overlay, CLOSED_CACHE))?;
        match db.check_integrity() {
            Ok(true) => {}
            Ok(false) => self.find(Some(number), None, "redb's page checksums do not agree with its pages"),
            Err(error) => self.find(Some(number), None, format!("redb's check of its pages failed: {error}")),
        }
        self.content(number, waiting, &mut |after| db.contained(|db| next(&Table::open(db)?, after)))?;
        db.contained(|db| rows(&Table::open(db)?))
    }

    /// All blocks of a segment in the order of their keys, so many at a time.
    fn content(
        &mut self,
        number: u64,
        waiting: &mut BTreeMap<u8, u64>,
        read: &mut dyn FnMut(Option<Key>) -> Result<Vec<Keyed>, SegmentError>,
    ) -> Result<(), SegmentError> {
        let mut last: Option<Key> = None;
        // The offset behind the last block of the stream that is being read.
        let mut behind = 0;
        while !self.stopped {
            let blocks = read(last)?;
            if blocks.is_empty() {
                break;
            }
            let mut bytes = 0;
            for (key, block) in blocks {
                bytes += block.len() as u64;
                if last.is_some_and(|last| last >= key) {
                    self.find(Some(number), Some(key), "its key is out of order");
                    return Ok(());
                }
                if last.is_none_or(|last| last.0 != key.0) {
                    behind = 0;
                }
                if key.1 < behind {
                    self.find(
                        Some(number),
                        Some(key),
                        format!("it overlaps the block before it, which ends at {behind}"),
                    );
                }
                last = Some(key);
                behind = self.block(number, key, block, waiting);
            }
            self.verified.bytes += bytes;
            self.tell(VerifyStep::Read(self.verified.bytes));
        }
        Ok(())
    }

    /// Checks a block; gives the offset behind it.
    fn block(&mut self, number: u64, key: Key, bytes: Bytes, waiting: &mut BTreeMap<u8, u64>) -> u64 {
        self.verified.blocks += 1;
        let (stream, first) = key;
        if !block::is_whole(&bytes) {
            self.find(
                Some(number),
                Some(key),
                "the block's header or length is wrong; its records are looked for one by one",
            );
        }
        let block = Block::parse(RawBlock {
            first,
            until: u64::MAX,
            bytes,
        });
        let ranges: Vec<_> = self.source.with_state(|state| {
            let segment = state.segment(number);
            let part = segment.and_then(|segment| Some((segment.epoch, segment.part(stream)?)));
            part.map(|(epoch, part)| part.ranges(epoch).collect()).unwrap_or_default()
        });
        for (nth, entry) in block.entries.iter().enumerate() {
            let offset = block.offset(nth);
            let is_inside = ranges.iter().any(|range| (range.first..range.end).contains(&offset));
            self.verified.outside += u64::from(!is_inside);
            let fault = match block.record(nth) {
                None => Some("the record's checksum is wrong"),
                Some(view) if view.stream.0 != stream => Some("the record says that it belongs to another stream"),
                Some(view) if Partition::of(view.identity).index() != usize::from(entry.partition) => {
                    Some("the block's index gives it another partition than its identity's")
                }
                Some(view) if view.slot != entry.slot => Some("the block's index gives it another ledger slot than its own"),
                Some(_) => None,
            };
            match fault {
                Some(fault) => self.find(Some(number), Some((stream, offset)), fault),
                None => self.verified.records += 1,
            }
            if is_inside {
                let tracker = self.source.tracker();
                let tracked = tracker.streams.get(&stream);
                let waits = tracked.is_some_and(|tracked| tracked.is_counted(&block, nth));
                *waiting.entry(stream).or_default() += u64::from(waits);
            }
        }
        block.entries.len().checked_sub(1).map_or(first, |last| block.offset(last) + 1)
    }

    /// What the catalogue says of a segment against what was counted in it. Internal streams' counts are estimates.
    fn catalogue(&mut self, number: u64, counted: &BTreeMap<u8, u64>) {
        let parts = self
            .source
            .with_state(|state| state.segment(number).map(|segment| segment.parts.clone()).unwrap_or_default());
        for part in parts.iter().filter(|part| part.stream < StreamId::LOCAL.0) {
            let found = counted.get(&part.stream).copied().unwrap_or(0);
            if found != part.waiting {
                let what = format!("records that wait in it: {} by the catalogue, and {found} are there", part.waiting);
                self.find(Some(number), Some((part.stream, part.first)), what);
            }
        }
        let beyond = self.source.with_state(|state| {
            let beyond = |part: &&crate::catalog::catalogue::SegmentPart| {
                state.stream(part.stream).is_none_or(|stream| stream.next < part.last_end())
            };
            parts.iter().find(beyond).map(|part| (part.stream, part.end))
        });
        if let Some(at) = beyond {
            self.find(Some(number), Some(at), "the catalogue's range goes beyond the stream's next offset");
        }
    }

    fn ledger(&mut self, inspector: &Inspector) {
        match inspector.audit() {
            Ok(audit) => {
                if !audit.balances() {
                    let what = format!("the ledger does not balance: {audit:?}");
                    self.find(None, None, what);
                }
                self.verified.audit = Some(audit);
            }
            Err(error) => self.find(None, None, format!("the ledger could not be recounted: {error}")),
        }
    }
}

type Keyed = (Key, Bytes);

/// The blocks behind a key, about as much as is read at a time.
fn next(table: &Table, after: Option<Key>) -> Result<Vec<Keyed>, SegmentError> {
    let behind = |(stream, first): Key| first.checked_add(1).map_or((stream + 1, 0), |first| (stream, first));
    let from = after.map_or(table::ALL.start, behind);
    let mut blocks = Vec::new();
    let mut bytes = 0;
    table.each_block(from..table::ALL.end, |key, value| {
        bytes += value.len();
        blocks.push((key, Bytes::copy_from_slice(value)));
        Ok(if bytes >= CHUNK { Next::Stop } else { Next::More })
    })?;
    Ok(blocks)
}

struct Rows {
    count: u64,
    faults: Vec<String>,
}

/// Checks the rows of the state: checksums, and that they begin with a snapshot.
fn rows(table: &Table) -> Result<Rows, SegmentError> {
    let mut rows = Rows {
        count: 0,
        faults: Vec::new(),
    };
    let mut has_snapshot = false;
    table.each_row(u64::MAX, |number, value| {
        rows.count += 1;
        match decode_row(value).filter(|found| found.number == number).map(|found| found.kind) {
            Some(RowKind::Snapshot) => has_snapshot = true,
            Some(RowKind::Delta) if has_snapshot => {}
            Some(RowKind::Delta) => rows.faults.push(format!("row {number} of the state stands before its snapshot")),
            None => rows.faults.push(format!("row {number} of the state is damaged")),
        }
        // A segment can have hundreds of thousands of rows; the first faults say enough.
        if rows.faults.len() < 100 {
            return Next::More;
        }
        rows.faults.push("more rows may be damaged; the first hundred are named".into());
        Next::Stop
    })?;
    if !has_snapshot {
        rows.faults.push("it holds no readable snapshot of the catalogue".into());
    }
    Ok(rows)
}
