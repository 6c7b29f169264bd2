//! How a log that was opened begins to be written.

use crate::commit::bounds::BALLAST;
use crate::encoding::change::Change;
use crate::encoding::row::{RowKind, encode_row};
use crate::recovery::open::Found;
use crate::segment::database::SegmentError;
use crate::segment::segments::Segments;

/// Makes what opening changed durable: in the newest segment, or in a new one when there is none that was closed properly.
/// On a full disk the ballast goes for that; if there is none, a segment without known faults goes on.
pub(super) fn begin(segments: &Segments, found: &mut Found) -> Result<(), SegmentError> {
    if !found.appendable
        && let Err(error) = segments.prepare()
    {
        segments.discard_ahead();
        let has_made_room = error.is_full() && segments.directory.remove(BALLAST).is_ok();
        let is_possible = if has_made_room { segments.prepare() } else { Err(error) };
        match is_possible {
            Err(error) if error.is_full() && found.reusable => {
                segments.discard_ahead();
                found.appendable = true;
            }
            Err(error) => return Err(error),
            Ok(()) => {}
        }
    }
    if found.appendable {
        if found.changes.is_empty() {
            return Ok(());
        }
        found.row += 1;
        match segments.commit(&[], found.row, &encode_row(RowKind::Delta, found.row, &found.changes)) {
            Err(error) if error.is_lasting() => give_up_newest(segments, found, &error),
            done => return done,
        }
    }
    if let Err(error) = segments.close_active() {
        if !error.is_lasting() {
            return Err(error);
        }
        give_up_newest(segments, found, &error);
    }
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

/// The newest segment could be read and takes nothing more: what it holds is copied to another.
fn give_up_newest(segments: &Segments, found: &mut Found, error: &SegmentError) {
    tracing::error!(segment = found.number, %error, "the newest segment is damaged; its records are copied to a new one");
    segments.abandon_active();
    found.broken.insert(found.number, error.to_string());
    found.clean = false;
}
