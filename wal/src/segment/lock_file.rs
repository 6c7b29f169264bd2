//! What the lock file says: which segment is the newest, how much of it is believed, and which log this is.
//!
//! Two lines, each in a sector of its own, are written in turn, so that one that is torn leaves the one before it. Each has a
//! number, so that the newer one is known, and a checksum. A fourth sector says which segment is being opened. A third sector names the log and the lock file itself as it lies on
//! this disk: in a copy of the directory the two do not agree, so that a log that went back in time is known by it.

use crate::io::directory::Inode;

/// Where a line begins: each in its own sector.
const SECTOR: usize = 512;

/// The newest segment and its last row of the state that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// Counts the notes.
    turn: u64,
    /// 0 = none is known.
    pub(crate) segment: u64,
    /// `u64::MAX` = all of them; less after a write to the segment failed, or closing it.
    pub(crate) last_row: u64,
}

impl Note {
    /// Nothing was noted.
    pub(crate) const NONE: Self = Self {
        turn: 0,
        segment: 0,
        last_row: u64::MAX,
    };

    /// The newer of the two lines of a lock file, and whether that is sure: the other one is whole, or was never written.
    pub(crate) fn parse(bytes: &[u8]) -> (Self, bool) {
        let sectors = || bytes.chunks(SECTOR).take(2);
        let newest = sectors().filter_map(Self::parse_line).max_by_key(|note| note.turn);
        let is_sure = sectors().all(|sector| sector.iter().all(|byte| *byte == 0) || Self::parse_line(sector).is_some());
        (newest.unwrap_or(Self::NONE), is_sure)
    }

    fn parse_line(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (words, crc) = std::str::from_utf8(&bytes[..end]).ok()?.rsplit_once(' ')?;
        if crc != checksum(words) {
            return None;
        }
        let mut words = words.split(' ').map(str::parse);
        let mut word = || words.next()?.ok();
        Some(Self {
            turn: word()?,
            segment: word()?,
            last_row: word()?,
        })
    }

    /// The note that follows this one.
    pub(crate) const fn next(self, segment: u64, last_row: u64) -> Self {
        Self {
            turn: self.turn + 1,
            segment,
            last_row,
        }
    }

    /// Its line, and where in the file that is written.
    pub(crate) fn line(self) -> (u64, String) {
        let words = format!("{:020} {:010} {:020}", self.turn, self.segment, self.last_row);
        let at = self.turn % 2 * SECTOR as u64;
        (at, format!("{words} {}\n", checksum(&words)))
    }
}

/// Which log this is, and where it lay when this was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Random, made with the directory.
    pub(crate) log: u128,
    /// The lock file itself.
    pub(crate) inode: Inode,
}

impl Origin {
    /// Where its line begins.
    pub(crate) const AT: u64 = 2 * SECTOR as u64;

    /// What a lock file says; `None` if it says nothing.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(2 * SECTOR..)?;
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (words, crc) = std::str::from_utf8(&bytes[..end]).ok()?.rsplit_once(' ')?;
        if crc != checksum(words) {
            return None;
        }
        let mut words = words.split(' ');
        Some(Self {
            log: u128::from_str_radix(words.next()?, 16).ok()?,
            inode: Inode {
                number: words.next()?.parse().ok()?,
                born_ns: words.next()?.parse().ok()?,
            },
        })
    }

    /// Its line.
    pub(crate) fn line(self) -> String {
        let words = format!("{:032x} {:020} {:020}", self.log, self.inode.number, self.inode.born_ns);
        format!("{words} {}\n", checksum(&words))
    }
}

/// The segment that a start was opening, and how many starts in a row did not get beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    /// 0 = none.
    pub(crate) segment: u64,
    pub(crate) times: u32,
}

impl Opening {
    /// Where its line begins.
    pub(crate) const AT: u64 = 3 * SECTOR as u64;
    /// Nothing is being opened.
    pub(crate) const NONE: Self = Self { segment: 0, times: 0 };

    /// What a lock file says.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        Self::parse_line(bytes.get(3 * SECTOR..).unwrap_or_default()).unwrap_or(Self::NONE)
    }

    fn parse_line(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (words, crc) = std::str::from_utf8(&bytes[..end]).ok()?.rsplit_once(' ')?;
        let (segment, times) = words.split_once(' ').filter(|_| crc == checksum(words))?;
        Some(Self {
            segment: segment.parse().ok()?,
            times: times.parse().ok()?,
        })
    }

    /// Its line.
    pub(crate) fn line(self) -> String {
        let words = format!("{:010} {:010}", self.segment, self.times);
        format!("{words} {}\n", checksum(&words))
    }
}

fn checksum(words: &str) -> String {
    format!("{:08x}", crc32c::crc32c(words.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(bytes: &mut Vec<u8>, note: Note, until: usize) {
        let (at, line) = note.line();
        let at = at as usize;
        bytes.resize(bytes.len().max(at + line.len()), 0);
        bytes[at..at + until].copy_from_slice(&line.as_bytes()[..until]);
    }

    #[test]
    fn a_torn_note_leaves_the_one_before_it() {
        let first = Note::NONE.next(4, 27);
        let second = first.next(5, u64::MAX);
        let third = second.next(6, 30);
        let whole = first.line().1.len();
        // Its end is the same as that of the line that was there.
        for torn_at in 0..whole - 1 {
            let mut bytes = Vec::new();
            write(&mut bytes, first, whole);
            write(&mut bytes, second, whole);
            write(&mut bytes, third, torn_at);
            assert_eq!(Note::parse(&bytes).0, second, "torn at {torn_at}");
            write(&mut bytes, third, whole);
            assert_eq!(Note::parse(&bytes), (third, true));
        }
    }

    #[test]
    fn the_origin_stands_beside_both_notes() {
        let origin = Origin {
            log: u128::MAX - 5,
            inode: Inode {
                number: u64::MAX,
                born_ns: 7,
            },
        };
        let note = Note::NONE.next(4, 27);
        let mut bytes = vec![0; Origin::AT as usize];
        bytes.extend(origin.line().as_bytes());
        write(&mut bytes, note, note.line().1.len());
        assert_eq!(Origin::parse(&bytes), Some(origin));
        assert_eq!(Note::parse(&bytes), (note, true));
        for torn_at in 0..origin.line().len() {
            let mut torn = bytes.clone();
            torn.truncate(Origin::AT as usize + torn_at);
            assert_eq!(Origin::parse(&torn), None, "torn at {torn_at}");
        }
    }

    #[test]
    fn what_is_being_opened_stands_beside_the_others() {
        let opening = Opening { segment: 7, times: 2 };
        let mut bytes = vec![0; Opening::AT as usize];
        assert_eq!(Opening::parse(&bytes), Opening::NONE);
        bytes.extend(opening.line().as_bytes());
        assert_eq!(Opening::parse(&bytes), opening);
        bytes.truncate(bytes.len() - 1);
        assert_eq!(Opening::parse(&bytes), Opening::NONE);
    }

    #[test]
    fn nothing_is_read_from_what_is_no_note() {
        for (bytes, is_sure) in [
            (&b""[..], true),
            (&[0; 2048], true),
            (b"\n", false),
            (b"0 5 27 0", false),
            (&[0xff; 600], false),
        ] {
            assert_eq!(Note::parse(bytes), (Note::NONE, is_sure));
        }
    }
}
