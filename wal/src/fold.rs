//! From the rows of a file to the small state of the log.

use std::collections::BTreeMap;

use redb::{Database, ReadableDatabase};

use crate::StreamId;
use crate::files::STATE;
use crate::rescue::Rows;
use crate::row::{self, Row, RowKind};
use crate::state::{Change, State};
use crate::store::FileError;

/// What an opened newest file says.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) last_row: u64,
    pub(crate) clean: bool,
    /// Rows of the state that could not be read.
    pub(crate) damaged_rows: u64,
    /// A change was lost with one: the state is to be rebuilt.
    pub(crate) incomplete: bool,
    /// Records of user streams that the file's rows say were appended to it.
    pub(crate) appended: u64,
    /// Each stream's next offset when the file began.
    pub(crate) began: BTreeMap<u8, u64>,
    /// Its epoch is over: it cannot be proved that the next offsets were never used.
    pub(crate) renew: bool,
    /// A write to it failed.
    pub(crate) has_failed: bool,
}

/// Folds the newest snapshot of a file and the deltas after it.
pub(crate) fn read_state(db: &Database, last: u64) -> Result<Recovered, FileError> {
    let transaction = db.begin_read()?;
    let table = transaction.open_table(STATE)?;
    let mut folded = Folded::default();
    for entry in table.range::<u64>(..=last)? {
        let (number, value) = entry?;
        folded.take(number.value(), row::decode_row(value.value()));
    }
    folded.into_recovered()
}

/// Folds the rows that were found in the bytes of a file that does not open. What followed the last one is not known.
pub(crate) fn fold_rows(rows: Rows) -> Result<Recovered, FileError> {
    let mut folded = Folded::default();
    for (number, row) in rows {
        folded.take(number, Some(row));
    }
    folded.incomplete = true;
    folded.into_recovered()
}

/// Rows on their way to a state.
#[derive(Default)]
struct Folded {
    state: Option<State>,
    last_row: u64,
    damaged_rows: u64,
    incomplete: bool,
    appended: u64,
    began: BTreeMap<u8, u64>,
}

impl Folded {
    fn take(&mut self, number: u64, row: Option<Row>) {
        let is_next = self.state.is_none() || number == self.last_row + 1;
        self.last_row = number;
        let row = row.filter(|row| row.number == number);
        match (row, &mut self.state) {
            (Some(row), _) if row.kind == RowKind::Snapshot => {
                let mut state = State::default();
                row.changes.iter().for_each(|change| state.apply(change));
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

    fn into_recovered(self) -> Result<Recovered, FileError> {
        let missing = || FileError::Damaged("it holds no readable snapshot of the log's state".into());
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
