//! From the rows of a segment to the catalogue.

use std::collections::BTreeMap;

use redb::Database;

use crate::catalog::catalogue::Catalogue;
use crate::encoding::change::Change;
use crate::encoding::row::{self, Row, RowKind, Rows};
use crate::record::StreamId;
use crate::segment::database::SegmentError;
use crate::segment::segments::Segments;
use crate::segment::table::{Next, Table};

/// What an opened newest segment says.
pub(crate) struct Recovered {
    pub(crate) state: Catalogue,
    pub(crate) last_row: u64,
    pub(crate) clean: bool,
    /// Rows of the state that could not be read.
    pub(crate) damaged_rows: u64,
    /// A change was lost with one: the state is to be rebuilt.
    pub(crate) incomplete: bool,
    /// Records of user streams that the segment's rows say were appended to it.
    pub(crate) appended: u64,
    /// Each stream's next offset when the segment began.
    pub(crate) began: BTreeMap<u8, u64>,
    /// Its epoch is over: it cannot be proved that the next offsets were never used.
    pub(crate) renew: bool,
    /// A write to it failed.
    pub(crate) has_failed: bool,
}

/// Reads the state in the newest segment. One that was closed properly is only looked at, because it is not appended to again. One that was
/// not is opened, so that redb repairs it, which compares all of its pages with their checksums; then it can be closed.
pub(crate) fn open_newest(segments: &Segments, number: u64) -> Result<Recovered, SegmentError> {
    if let Some(recovered) = segments.look_at_closed(number, |db| read_state(db, u64::MAX))? {
        return Ok(recovered);
    }
    let (recovered, clean) = segments.open_active(number, |db| read_state(db, u64::MAX))?;
    Ok(Recovered { clean, ..recovered })
}

/// Reads the state in a segment up to the row `last`, and leaves every byte of it as it is.
pub(crate) fn look_at(segments: &Segments, number: u64, last: u64) -> Result<Recovered, SegmentError> {
    let (recovered, clean) = segments.look_at(number, |db| read_state(db, last))?;
    Ok(Recovered { clean, ..recovered })
}

/// Replays the newest snapshot of a segment and the deltas after it. Rows of another version are an error, not damage.
pub(crate) fn read_state(db: &Database, last: u64) -> Result<Recovered, SegmentError> {
    let mut replay = Replay::default();
    let mut foreign = None;
    Table::open(db)?.each_row(last, |number, value| {
        let row = row::decode_row(value);
        if row.is_none() {
            foreign = row::foreign_version(value);
        }
        replay.take(number, row);
        if foreign.is_none() { Next::More } else { Next::Stop }
    })?;
    match foreign {
        Some(version) => Err(SegmentError::Version(version)),
        None => replay.into_recovered(),
    }
}

/// Replays the rows that were found in the bytes of a segment that does not open. What followed the last one is not known; what
/// comes before the first snapshot that names the segment is of an older one that lay in its place.
pub(crate) fn replay_rows(segment: u64, mut rows: Rows) -> Result<Recovered, SegmentError> {
    let names_it = |change: &Change| matches!(change, Change::Segment { segment: named, .. } if *named == segment);
    let begins = |row: &Row| row.kind == RowKind::Snapshot && row.changes.iter().any(names_it);
    let first = rows.iter().find(|(_, row)| begins(row)).map_or(u64::MAX, |(number, _)| *number);
    let mut replay = Replay::default();
    for (number, row) in rows.split_off(&first) {
        replay.take(number, Some(row));
    }
    replay.incomplete = true;
    replay.into_recovered()
}

/// Rows on their way to a state.
#[derive(Default)]
struct Replay {
    state: Option<Catalogue>,
    last_row: u64,
    damaged_rows: u64,
    incomplete: bool,
    appended: u64,
    began: BTreeMap<u8, u64>,
}

impl Replay {
    fn take(&mut self, number: u64, row: Option<Row>) {
        let is_next = self.state.is_none() || number == self.last_row + 1;
        self.last_row = number;
        let row = row.filter(|row| row.number == number);
        match (row, &mut self.state) {
            (Some(row), _) if row.kind == RowKind::Snapshot => {
                let state = Catalogue::of(&row.changes);
                self.began = state.streams.iter().map(|stream| (stream.id, stream.next)).collect();
                self.state = Some(state);
                self.incomplete = false;
            }
            (Some(row), Some(state)) => {
                self.incomplete |= !is_next;
                for change in &row.changes {
                    if let Change::Appended { stream, records, .. } = change
                        && *stream < StreamId::LOCAL.0
                    {
                        self.appended += records;
                    }
                    // The lost row may have suspended what this progress passes over.
                    if !(self.incomplete && matches!(change, Change::Progress { .. })) {
                        state.apply(change);
                    }
                }
            }
            (Some(_), None) | (None, _) => {
                self.damaged_rows += 1;
                self.incomplete = true;
            }
        }
    }

    fn into_recovered(self) -> Result<Recovered, SegmentError> {
        let missing = || SegmentError::Damaged("it holds no readable snapshot of the catalogue".into());
        Ok(Recovered {
            state: self.state.ok_or_else(missing)?,
            last_row: self.last_row,
            clean: true,
            damaged_rows: self.damaged_rows,
            incomplete: self.incomplete,
            appended: self.appended,
            began: self.began,
            renew: self.incomplete || self.damaged_rows > 0,
            has_failed: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64, kind: RowKind, changes: Vec<Change>) -> (u64, Row) {
        (number, Row { kind, number, changes })
    }

    fn snapshot(number: u64, segment: u64) -> (u64, Row) {
        row(number, RowKind::Snapshot, vec![Change::Segment { segment, epoch: 1 }])
    }

    fn delta(number: u64, epoch: u64) -> (u64, Row) {
        row(number, RowKind::Delta, vec![Change::Epoch { epoch }])
    }

    #[test]
    fn rows_of_a_segments_earlier_life_are_not_replayed() {
        let earlier = [snapshot(10, 3), snapshot(11, 3), delta(12, 5)];
        let later = [snapshot(40, 7), snapshot(41, 7), delta(42, 6)];
        let all = || earlier.clone().into_iter().chain(later.clone());
        let replay = replay_rows(7, all().collect()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((replay.state.epoch, replay.last_row, replay.damaged_rows), (6, 42, 0));
        assert!(replay.state.segment(3).is_none() && replay.state.segment(7).is_some());
        // Both copies of its own snapshot are lost: what it once was says nothing.
        let orphaned = all().filter(|(number, _)| !(40..=41).contains(number)).collect();
        assert!(replay_rows(7, orphaned).is_err());
    }
}
