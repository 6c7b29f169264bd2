//! What a rebuild has counted, kept beside the segments: a start that is killed in the middle of one need not count all again.
//!
//! A rebuild reads every segment, which takes as long as the backlog is large. What it finds in one that is not the newest depends on nothing
//! but the state that the newest one says and on a file that is written no more. So it is written down, durably, segment by segment, under
//! a sum of that state; a start that comes to the same state takes it over. The file goes when the log has been opened: from then on
//! the newest segment says it.
//!
//! A line is `state segment stream:records:bytes ... CRC32C`. A torn one ends the file.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use crate::catalog::catalogue::Catalogue;
use crate::encoding::change::Change;
use crate::encoding::row::{RowKind, encode_row};
use crate::io::directory::{Directory, StorageFile};
use crate::segment::segments::Segments;
use crate::stats::Observer;

/// The file.
pub(crate) const COUNTED: &str = "counted";
/// A file above that is begun anew: it has lines of states that never come again.
const LONGEST: usize = 4 << 20;

/// What waits in a segment, stream by stream: records and bytes. A stream that is missing could not be read, and the catalogue's word stands.
pub(crate) type Counts = Vec<(u8, u64, u64)>;

/// What was counted from the state of which this is the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StateSum(u32);

impl StateSum {
    /// The sum of a state, less its epoch, which is another one at each start.
    pub(crate) fn of(state: &Catalogue, newest: u64) -> Self {
        let mut changes = state.snapshot();
        changes.retain(|change| !matches!(change, Change::Epoch { .. }));
        Self(crc32c::crc32c(&encode_row(RowKind::Snapshot, newest, &changes)))
    }
}

/// Who counts: a start, which keeps what it has and tells how far it is, or somebody who only looks.
pub(crate) struct Counting<'a> {
    at: Option<(&'a Segments, &'a dyn Observer)>,
    known: HashMap<(StateSum, u64), Counts>,
    file: Option<Arc<dyn StorageFile>>,
    /// How much of the file is whole.
    len: u64,
}

impl<'a> Counting<'a> {
    /// Counts all, and keeps nothing.
    pub(crate) fn once() -> Self {
        Self {
            at: None,
            known: HashMap::new(),
            file: None,
            len: 0,
        }
    }

    /// Takes over what earlier starts have counted.
    pub(crate) fn resumed(segments: &'a Segments, observer: &'a dyn Observer) -> Self {
        let text = segments.directory.noted(COUNTED).unwrap_or_default();
        let mut counting = Self {
            at: Some((segments, observer)),
            ..Self::once()
        };
        if text.len() > LONGEST {
            return counting;
        }
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let Some((state, segment, counts)) = parse(line) else { break };
            counting.known.insert((state, segment), counts);
            counting.len += line.len() as u64;
        }
        counting
    }

    /// What is known of a segment.
    pub(crate) fn known(&self, state: StateSum, segment: u64) -> Option<&Counts> {
        self.known.get(&(state, segment))
    }

    /// A segment is read now, the `nth` of so many: if starts die of that, it is known of which.
    pub(crate) fn begin(&self, segment: u64, nth: u64, of: u64) {
        if let Some((segments, observer)) = self.at {
            observer.opening(nth, of);
            segments.note_opening(segment);
        }
    }

    /// Keeps what was counted in a segment. Where that fails it is counted again after a kill.
    pub(crate) fn keep(&mut self, state: StateSum, segment: u64, counts: &Counts) {
        let Some((segments, _)) = self.at else { return };
        let line = line(state, segment, counts);
        match self.append(&*segments.directory, &line) {
            Ok(()) => self.len += line.len() as u64,
            Err(error) => tracing::debug!(segment, %error, "what was counted in a segment could not be kept"),
        }
    }

    fn append(&mut self, directory: &dyn Directory, line: &str) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => {
                let file = if self.len > 0 {
                    directory.open_to_write(COUNTED)?
                } else {
                    directory.create(COUNTED)?
                };
                directory.sync()?;
                self.file.insert(file).clone()
            }
        };
        file.write(self.len, line.as_bytes())?;
        file.sync()
    }
}

/// Removes the file: the newest segment says what it said.
pub(super) fn forget(directory: &dyn Directory) {
    match directory.remove(COUNTED) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::debug!(%error, "what a rebuild had counted is no longer needed and could not be removed");
        }
        _ => {}
    }
}

fn line(state: StateSum, segment: u64, counts: &Counts) -> String {
    let mut words = format!("{:08x} {segment}", state.0);
    for (stream, records, bytes) in counts {
        write!(words, " {stream}:{records}:{bytes}").ok();
    }
    let crc = crc32c::crc32c(words.as_bytes());
    words + &format!(" {crc:08x}\n")
}

fn parse(line: &[u8]) -> Option<(StateSum, u64, Counts)> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (words, crc) = line.rsplit_once(' ')?;
    if crc != format!("{:08x}", crc32c::crc32c(words.as_bytes())) {
        return None;
    }
    let mut words = words.split(' ');
    let state = StateSum(u32::from_str_radix(words.next()?, 16).ok()?);
    let segment = words.next()?.parse().ok()?;
    let counts = words.map(|word| {
        let mut numbers = word.split(':');
        let stream = numbers.next()?.parse().ok()?;
        Some((stream, numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    });
    Some((state, segment, counts.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_was_counted_and_a_torn_one_says_nothing() {
        let counts = vec![(0, 12, 3400), (7, 0, 0), (254, u64::MAX, 1)];
        let whole = line(StateSum(0xabc), 41, &counts);
        assert_eq!(parse(whole.as_bytes()), Some((StateSum(0xabc), 41, counts)));
        for torn_at in 0..whole.len() {
            assert_eq!(parse(&whole.as_bytes()[..torn_at]), None, "torn at {torn_at}");
        }
        assert_eq!(parse(b"\xff\xff\n"), None);
    }
}
