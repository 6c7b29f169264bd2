//! The log's decoders: what the bytes are by the first one, then the bytes.

use forebay_wal::fuzzing::{Input, decode};

/// See [`decode`], which has the properties.
pub(crate) fn target(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let input = match choice % 5 {
        0 => Input::Raw,
        1 => Input::Record,
        2 => Input::Row,
        3 => Input::Block,
        _ => Input::DeadLetter,
    };
    decode(input, bytes);
}
