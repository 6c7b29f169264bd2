//! Looking through all bytes of a segment, past redb.

use std::io;

use bytes::Bytes;

use crate::encoding::record::MAX_RECORD;
use crate::encoding::scan::{Piece, Scan, Wanted};
use crate::io::directory::StorageFile;

/// What is read behind a window besides: the longest record, and a block's header before it.
const BEYOND: usize = MAX_RECORD + (1 << 16);
/// The smallest part that is given up when the disk cannot read it.
const SECTOR: usize = 4096;
/// How often it is read before that.
const TRIES: usize = 3;

/// How a search goes on.
#[expect(clippy::large_enum_variant, reason = "made and taken apart at once, never kept")]
pub(crate) enum Step<'a> {
    /// Something whole, the window in which it lies, and where the window begins.
    Found(Piece<'a>, &'a Bytes, u64),
    /// So many bytes were looked through.
    Searched(u64),
}

/// Shows what is whole in a file, in order, until told to stop by false. It is read in windows of `size` bytes; what the disk
/// cannot read of it is taken for zeros.
///
/// # Errors
/// The file's length cannot be read, or nothing of it can: then the disk is away rather than damaged.
pub(crate) fn each_whole(file: &dyn StorageFile, size: usize, wanted: Wanted<'_>, see: &mut dyn FnMut(Step<'_>) -> bool) -> io::Result<()> {
    let len = file.len()?;
    let mut begin = 0;
    let mut has_read = false;
    while begin < len {
        let mut window = vec![0; ((size + BEYOND) as u64).min(len - begin) as usize];
        let read = read_what_can_be_read(file, begin, &mut window);
        has_read |= read.is_ok();
        // The last window says it, because a bad place may be as large as all before.
        if !has_read && begin + window.len() as u64 >= len {
            return read;
        }
        let window = Bytes::from(window);
        let mut scan = Scan::new(&window, size.min(window.len()), wanted);
        for piece in scan.by_ref() {
            if !see(Step::Found(piece, &window, begin)) {
                return Ok(());
            }
        }
        // What begins in a window is whole in it, so the search goes on behind what it found.
        begin += scan.position().max(1) as u64;
        if !see(Step::Searched(begin.min(len))) {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads a window; what the disk cannot read of it is zeros.
///
/// # Errors
/// Nothing of it can be read.
fn read_what_can_be_read(file: &dyn StorageFile, begin: u64, window: &mut [u8]) -> io::Result<()> {
    let Err(error) = file.read(begin, window) else { return Ok(()) };
    let mut has_read = false;
    for (nth, sector) in window.chunks_mut(SECTOR).enumerate() {
        if is_readable(file, begin + (nth * SECTOR) as u64, sector) {
            has_read = true;
        } else {
            sector.fill(0);
        }
    }
    if has_read { Ok(()) } else { Err(error) }
}

/// Reads a few times, because a disk that fails once may not fail again.
pub(crate) fn is_readable(file: &dyn StorageFile, at: u64, out: &mut [u8]) -> bool {
    (0..TRIES).any(|_| file.read(at, out).is_ok())
}
