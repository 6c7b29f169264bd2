//! For a terminal.

use forebay_topic::is_safe;

use super::{Line, Style};

/// The lines as text; with colours if `colour`.
#[must_use]
pub(crate) fn terminal(lines: &[Line], colour: bool) -> String {
    let mut text = String::new();
    for line in lines {
        for (style, piece) in line {
            // What came from outside must not steer the terminal.
            let piece: String = piece.chars().map(|c| if !is_safe(c) { '\u{fffd}' } else { c }).collect();
            match code(*style).filter(|_| colour) {
                Some(code) => text += &format!("\u{1b}[{code}m{piece}\u{1b}[0m"),
                None => text += &piece,
            }
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

const fn code(style: Style) -> Option<&'static str> {
    match style {
        Style::Plain => None,
        Style::Bold => Some("1"),
        Style::Dim => Some("2"),
        Style::Good => Some("1;32"),
        Style::Warn => Some("33"),
        Style::Bad => Some("1;31"),
    }
}
