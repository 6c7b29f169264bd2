//! How a log that was opened begins to be written.

use crate::clock::new_epoch;
use crate::commit::bounds::BALLAST;
use crate::encoding::change::Change;
use crate::encoding::row::{RowKind, encode_row};
use crate::recovery::open::Found;
use crate::segment::database::SegmentError;
use crate::segment::segments::Segments;

/// Makes what opening changed durable in a new segment: nothing is appended to one that another process wrote, because redb reads the pages
/// of a segment that was closed unchecked, and in a commit it does not survive each damage. On a full disk the ballast goes for that; if
/// there is none, the newest segment goes on, if all of it is right.
pub(super) fn begin(segments: &Segments, found: &mut Found) -> Result<(), SegmentError> {
    if let Err(error) = make_next(segments) {
        segments.discard_ahead();
        return if error.is_full() && found.reusable {
            go_on(segments, found, error)
        } else {
            Err(error)
        };
    }
    if let Err(error) = segments.close_active() {
        if !error.is_lasting() {
            return Err(error);
        }
        tracing::error!(segment = found.number, %error, "the newest segment is damaged; its records are copied to a new one");
        segments.abandon_active();
        found.broken.insert(found.number, error.to_string());
        found.clean = false;
    }
    // A disk that was put back as it was yesterday looks as if it had been stopped just now. In an epoch of its own no start gives an
    // id that another has given.
    found.apply(Change::Epoch { epoch: new_epoch() });
    found.number += 1;
    found.apply(Change::Segment {
        segment: found.number,
        epoch: found.state.epoch,
    });
    found.row += 1;
    segments.switch(found.number, found.row, &found.state.snapshot())?;
    found.row += 1;
    Ok(())
}

fn make_next(segments: &Segments) -> Result<(), SegmentError> {
    let Err(error) = segments.prepare() else { return Ok(()) };
    segments.discard_ahead();
    let has_made_room = error.is_full() && segments.directory.remove(BALLAST).is_ok();
    if has_made_room { segments.prepare() } else { Err(error) }
}

/// Appends to the newest segment: with no room for another, what it may still write is what frees the others.
fn go_on(segments: &Segments, found: &mut Found, full: SegmentError) -> Result<(), SegmentError> {
    // One that was not closed is open, and was repaired.
    if segments.active_number().is_none()
        && let Err(error) = segments.open_verified(found.number)
    {
        tracing::error!(segment = found.number, %error, "the newest segment is damaged, and there is no room for another");
        return Err(full);
    }
    if found.changes.is_empty() {
        return Ok(());
    }
    found.row += 1;
    segments.commit(&[], found.row, &encode_row(RowKind::Delta, found.row, &found.changes))
}
