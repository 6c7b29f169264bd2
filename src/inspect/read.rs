//! Reading for the commands and the admin API: each function gives its lines one by one, so that memory does not grow with
//! the log, and ends when its receiver wants no more. All block on the disk.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use forebay_wal::{Cursor, DeadLetter, Found, Inspector, Offset, RecordId, StreamId, StreamReport, VerifyStep};

use super::line::Names;
use super::{AuditLine, Line, Selection};

/// Gets each line; false = no more.
pub(crate) type See<'a> = dyn FnMut(Line) -> bool + 'a;

/// How much is read at a time.
const CHUNK: usize = 1 << 20;
/// How often a search says how far it has come.
const TELL: Duration = Duration::from_secs(1);
/// Records that `tail` shows at most before it follows.
const MAX_TAIL: usize = 10_000;

/// Says how far a search has come.
struct Searching {
    bytes: u64,
    told: Instant,
}

impl Searching {
    fn new() -> Self {
        Self {
            bytes: 0,
            told: Instant::now(),
        }
    }

    fn passed(&mut self, bytes: u64, see: &mut See<'_>) -> bool {
        self.bytes += bytes;
        if self.told.elapsed() < TELL {
            return true;
        }
        self.told = Instant::now();
        see(Line::Searched {
            searched_bytes: self.bytes,
        })
    }
}

/// Records by stream in offset order.
///
/// # Errors
/// A stream that the log does not have.
pub(crate) fn records(gateway: &str, inspector: &Inspector, selection: &Selection, see: &mut See<'_>) -> Result<(), String> {
    let streams = inspector.streams();
    let names = Names {
        gateway,
        streams: &streams,
    };
    let mut searching = Searching::new();
    let mut left = selection.limit.unwrap_or(u64::MAX);
    for stream in selection.streams(inspector)? {
        let from = selection.from.map_or(stream.oldest.unwrap_or_default(), Offset);
        let mut cursor = inspector.cursor(stream.id, from);
        let firsts = FirstOnes::new(inspector, &stream, selection);
        // What comes meanwhile is not waited for.
        while cursor.position() < stream.next && left > 0 {
            let chunk = cursor.read(CHUNK, &|candidate| selection.wants(candidate));
            for found in chunk.found {
                let line = match found {
                    Found::Record(kept) if firsts.is_copy(kept.record.id, kept.offset) => continue,
                    Found::Record(kept) => Line::Record(Box::new(names.record(&kept))),
                    Found::Damaged(damage) => Line::Damaged(names.damage(&damage)),
                };
                if left == 0 || !see(line) {
                    return Ok(());
                }
                left -= 1;
            }
            if chunk.is_end || !searching.passed(chunk.bytes, see) {
                break;
            }
        }
    }
    Ok(())
}

/// Tells copies apart whose first one is still in a segment.
struct FirstOnes {
    stream: StreamId,
    epochs: Vec<(u64, u64, String)>,
    is_wanted: bool,
}

impl FirstOnes {
    fn new(inspector: &Inspector, stream: &StreamReport, selection: &Selection) -> Self {
        let files = if selection.originals {
            inspector.segments().unwrap_or_default()
        } else {
            Vec::new()
        };
        let epochs = files.iter().flat_map(|file| {
            let parts = file.parts.iter().filter(|part| part.stream == stream.id);
            parts.filter_map(|part| Some((part.first.0, part.end.0, file.epoch?.to_string())))
        });
        Self {
            stream: stream.id,
            epochs: epochs.collect(),
            is_wanted: selection.originals,
        }
    }

    fn is_copy(&self, id: RecordId, offset: Offset) -> bool {
        self.is_wanted
            && id.stream == self.stream
            && id.offset != offset
            && self
                .epochs
                .iter()
                .any(|(first, end, epoch)| (*first..*end).contains(&id.offset.0) && *epoch == id.epoch.to_string())
    }
}

/// The newest `count` records of each stream, in the order in which they came.
///
/// # Errors
/// A stream that the log does not have.
pub(crate) fn tail(gateway: &str, inspector: &Inspector, selection: &Selection, count: usize, see: &mut See<'_>) -> Result<(), String> {
    let streams = inspector.streams();
    let names = Names {
        gateway,
        streams: &streams,
    };
    let count = count.min(MAX_TAIL);
    let mut newest = Vec::new();
    for stream in selection.streams(inspector)? {
        let oldest = stream.oldest.unwrap_or_default().0;
        // Ever more of the end, until it holds enough that the filters let through.
        let mut window = (count as u64).max(16);
        loop {
            let from = stream.next.0.saturating_sub(window).max(oldest);
            let found = last(inspector.cursor(stream.id, Offset(from)), stream.next, selection, count);
            if found.len() >= count || from <= oldest {
                newest.extend(found);
                break;
            }
            window = window.saturating_mul(8);
        }
    }
    newest.sort_by_key(|found| match found {
        Found::Record(kept) => kept.record.received.wall_ms,
        Found::Damaged(_) => 0,
    });
    for found in newest {
        let line = match found {
            Found::Record(kept) => Line::Record(Box::new(names.record(&kept))),
            Found::Damaged(damage) => Line::Damaged(names.damage(&damage)),
        };
        if !see(line) {
            break;
        }
    }
    Ok(())
}

fn last(mut cursor: Cursor, end: Offset, selection: &Selection, count: usize) -> VecDeque<Found> {
    let mut found = VecDeque::new();
    while cursor.position() < end && count > 0 {
        let chunk = cursor.read(CHUNK / 4, &|candidate| selection.wants(candidate));
        for one in chunk.found {
            if found.len() == count {
                found.pop_front();
            }
            found.push_back(one);
        }
        if chunk.is_end {
            break;
        }
    }
    found
}

/// What comes from now on, until `wait` says false; `wait` passes the time between two looks.
///
/// # Errors
/// A stream that the log does not have.
pub(crate) fn follow(
    gateway: &str,
    inspector: &Inspector,
    selection: &Selection,
    count: usize,
    wait: &mut dyn FnMut() -> bool,
    see: &mut See<'_>,
) -> Result<(), String> {
    let mut cursors: HashMap<StreamId, Cursor> = selection
        .streams(inspector)?
        .into_iter()
        .map(|stream| (stream.id, inspector.cursor(stream.id, stream.next)))
        .collect();
    let mut goes_on = true;
    tail(gateway, inspector, selection, count, &mut |line| {
        goes_on = see(line);
        goes_on
    })?;
    while goes_on {
        let streams = inspector.streams();
        let names = Names {
            gateway,
            streams: &streams,
        };
        for stream in &streams {
            let Some(cursor) = cursors.get_mut(&stream.id) else { continue };
            while goes_on && cursor.position() < stream.next {
                let chunk = cursor.read(CHUNK, &|candidate| selection.wants(candidate));
                for found in chunk.found {
                    let line = match found {
                        Found::Record(kept) => Line::Record(Box::new(names.record(&kept))),
                        Found::Damaged(damage) => Line::Damaged(names.damage(&damage)),
                    };
                    goes_on = goes_on && see(line);
                }
                if chunk.is_end {
                    break;
                }
            }
        }
        goes_on = goes_on && wait();
    }
    Ok(())
}

/// Dead letters, oldest first.
pub(crate) fn letters(gateway: &str, inspector: &Inspector, selection: &Selection, see: &mut See<'_>) {
    let streams = inspector.streams();
    let names = Names {
        gateway,
        streams: &streams,
    };
    let Some(dead) = streams.iter().find(|stream| stream.id == StreamId::DEAD) else {
        return;
    };
    let mut cursor = inspector.cursor(StreamId::DEAD, selection.from.map_or(dead.oldest.unwrap_or_default(), Offset));
    let mut searching = Searching::new();
    let mut left = selection.limit.unwrap_or(u64::MAX);
    while cursor.position() < dead.next && left > 0 {
        let chunk = cursor.read(CHUNK, &|candidate| selection.wants_letter(candidate));
        for found in chunk.found {
            let line = match found {
                Found::Damaged(damage) => Line::Damaged(names.damage(&damage)),
                Found::Record(kept) => {
                    let Some(letter) = DeadLetter::open(&kept.record) else { continue };
                    if !selection.takes(&names.stream(letter.id.stream), &letter.reason) {
                        continue;
                    }
                    Line::Record(Box::new(names.letter(&kept, letter)))
                }
            };
            if left == 0 || !see(line) {
                return;
            }
            left -= 1;
        }
        if chunk.is_end || !searching.passed(chunk.bytes, see) {
            return;
        }
    }
}

/// The segments.
///
/// # Errors
/// The directory cannot be listed.
pub(crate) fn segments(inspector: &Inspector, see: &mut See<'_>) -> Result<(), String> {
    let streams = inspector.streams();
    let names = Names {
        gateway: "",
        streams: &streams,
    };
    let files = inspector
        .segments()
        .map_err(|error| format!("{} cannot be listed: {error}", inspector.directory().display()))?;
    for file in files {
        if !see(Line::Segment(names.segment(file))) {
            break;
        }
    }
    Ok(())
}

/// Checks everything: findings as they come, and what was checked.
pub(crate) fn verify(inspector: &Inspector, see: &mut See<'_>) {
    let streams = inspector.streams();
    let names = Names {
        gateway: "",
        streams: &streams,
    };
    let mut searching = Searching::new();
    let mut goes_on = true;
    let verified = inspector.verify(&mut |step| {
        goes_on = goes_on
            && match step {
                VerifyStep::Finding(finding) => see(Line::Finding(names.finding(finding))),
                VerifyStep::Read(bytes) => searching.passed(bytes.saturating_sub(searching.bytes), see),
                VerifyStep::Segment(..) => true,
            };
        goes_on
    });
    if goes_on {
        see(Line::Verified((&verified).into()));
    }
}

/// The ledger, recounted by reading.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn audit(inspector: &Inspector) -> Result<AuditLine, String> {
    let audit = inspector.audit().map_err(|error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default())
    })?;
    Ok(AuditLine::new(&audit, inspector.ledger()))
}
