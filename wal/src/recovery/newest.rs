//! The newest state that can be read: from the newest segment that says one, through redb or out of its bytes.

use crate::catalog::replay::{Recovered, replay_rows};
use crate::segment::database::SegmentError;
use crate::segment::lock_file::Note;
use crate::segment::remains::Remains;
use crate::segment::segments::Segments;

/// What a search found.
pub(crate) struct Search {
    /// `None` if no segment says anything.
    pub(crate) newest: Option<Readable>,
    /// Newer segments that say nothing of the log's state, but hold records; the newest first.
    pub(crate) silent: Vec<(u64, Remains)>,
}

/// A segment that says what the log's state is.
pub(crate) struct Readable {
    pub(crate) number: u64,
    pub(crate) recovered: Recovered,
    /// Its records, if it does not open.
    pub(crate) remains: Option<Remains>,
    /// The numbers of the segments before it.
    pub(crate) older: Vec<u64>,
}

/// Tries the segments of `numbers`, which are in order, from the newest on. `read` opens one and reads the rows up to the one
/// that is believed; `tell` hears of each that does not open.
///
/// # Errors
/// A segment's number, and why it cannot be used now although another time it may.
pub(crate) fn find(
    segments: &Segments,
    mut numbers: Vec<u64>,
    note: Note,
    read: &dyn Fn(u64, u64) -> Result<Recovered, SegmentError>,
    tell: &mut dyn FnMut(u64, &SegmentError),
) -> Result<Search, (u64, SegmentError)> {
    let mut silent = Vec::new();
    while let Some(number) = numbers.pop() {
        // After a failed write the page cache may show what is not on the disk.
        let last_row = if number == note.segment { note.last_row } else { u64::MAX };
        let (recovered, remains) = match read(number, last_row) {
            Ok(recovered) => (recovered, None),
            Err(error) if error.is_lasting() => {
                tell(number, &error);
                let looked = Remains::look_for_all(segments, number);
                let (remains, mut rows) = looked.map_err(|error| (number, SegmentError::Io(error)))?;
                rows.retain(|row, _| *row <= last_row);
                let Ok(recovered) = replay_rows(number, rows) else {
                    silent.push((number, remains));
                    continue;
                };
                (recovered, Some(remains))
            }
            Err(error) => return Err((number, error)),
        };
        let newest = Some(Readable {
            number,
            recovered,
            remains,
            older: numbers,
        });
        return Ok(Search { newest, silent });
    }
    Ok(Search { newest: None, silent })
}
