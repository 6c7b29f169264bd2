//! What a peer wrote, made safe to show.
//!
//! Topics, client ids, names in certificates, user properties and reason strings are a peer's own choice. Shown as they
//! come, a newline forges a log line, an escape sequence drives the operator's terminal, and a bidirectional or invisible
//! character makes one name look like another. [`PeerText`] is what log lines, screens and error texts show instead.

use std::fmt::{self, Write as _};

/// Characters shown of one text.
pub const MAX_SHOWN: usize = 128;

/// A peer's text as it may be shown: control, format and separator characters are escaped (`\n`, `\u{202e}`), and what is
/// longer than [`MAX_SHOWN`] characters is cut, with the number of bytes left out.
///
/// `Display` shows the text alone, for a sentence. `Debug` puts it in quotes where it could be taken for something else, for
/// the fields of a log line: `a` stays what it is, `a identity=b` does not become two fields.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PeerText<'a>(&'a str);

impl<'a> PeerText<'a> {
    /// Shows `text`.
    #[must_use]
    pub const fn new(text: &'a str) -> Self {
        Self(text)
    }

    fn write(self, f: &mut fmt::Formatter<'_>, is_quoted: bool) -> fmt::Result {
        let mut shown = 0;
        for (at, character) in self.0.char_indices() {
            let is_escaped = !is_safe(character) || (is_quoted && matches!(character, '"' | '\\'));
            let escaped = is_escaped.then(|| character.escape_default());
            shown += escaped.as_ref().map_or(1, ExactSizeIterator::len);
            if shown > MAX_SHOWN {
                return write!(f, "…(+{} bytes)", self.0.len() - at);
            }
            match escaped {
                Some(escaped) => write!(f, "{escaped}")?,
                None => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for PeerText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, false)
    }
}

impl fmt::Debug for PeerText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_empty() && !self.0.contains([' ', '=', '"', ',', '{', '}']) {
            return self.write(f, false);
        }
        f.write_char('"')?;
        self.write(f, true)?;
        f.write_char('"')
    }
}

/// The first character of a text that must not be shown as it is: a control, format, separator (other than the plain
/// space) or invisible character.
#[must_use]
pub fn unsafe_character(text: &str) -> Option<char> {
    text.chars().find(|character| !is_safe(*character))
}

/// Whether a character shows as itself and moves nothing else on the screen.
#[must_use]
pub fn is_safe(character: char) -> bool {
    if character.is_ascii() {
        return !character.is_ascii_control();
    }
    let code = u32::from(character);
    let after = HIDDEN.partition_point(|(first, _)| *first <= code);
    HIDDEN[..after].last().is_none_or(|(_, last)| code > *last)
}

/// Unicode 16: the general categories Cc, Cf, Zl, Zp and Zs, the other code points of Default_Ignorable_Code_Point, and the
/// noncharacters of the first plane, in order. All but the plain space, of which MQTT client ids are full.
const HIDDEN: &[(u32, u32)] = &[
    (0x0080, 0x00A0),
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x0600, 0x0605),
    (0x061C, 0x061C),
    (0x06DD, 0x06DD),
    (0x070F, 0x070F),
    (0x0890, 0x0891),
    (0x08E2, 0x08E2),
    (0x115F, 0x1160),
    (0x1680, 0x1680),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x2000, 0x200F),
    (0x2028, 0x202F),
    (0x205F, 0x206F),
    (0x3000, 0x3000),
    (0x3164, 0x3164),
    (0xFDD0, 0xFDEF),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0xFFFE, 0xFFFF),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        PeerText::new(text).to_string()
    }

    #[test]
    fn what_could_forge_a_line_drive_a_terminal_or_hide_is_escaped() {
        assert_eq!(shown("a\nERROR all is lost"), "a\\nERROR all is lost");
        assert_eq!(shown("\u{1b}[2J\r\t\0\u{7f}\u{9b}"), "\\u{1b}[2J\\r\\t\\u{0}\\u{7f}\\u{9b}");
        for (hidden, escaped) in [
            ('\u{202e}', "\\u{202e}"),
            ('\u{2066}', "\\u{2066}"),
            ('\u{200b}', "\\u{200b}"),
            ('\u{feff}', "\\u{feff}"),
            ('\u{2028}', "\\u{2028}"),
            ('\u{a0}', "\\u{a0}"),
            ('\u{3000}', "\\u{3000}"),
            ('\u{e0041}', "\\u{e0041}"),
            ('\u{fe0f}', "\\u{fe0f}"),
        ] {
            assert_eq!(shown(&format!("a{hidden}b")), format!("a{escaped}b"));
            assert_eq!(unsafe_character(&format!("a{hidden}b")), Some(hidden));
        }
    }

    #[test]
    fn ordinary_text_of_any_script_shows_as_it_is() {
        for text in [
            "devices/board-1/telemetry",
            "Präge 7",
            "Предприятие",
            "温度計",
            "ทดสอบ",
            "हिन्दी",
            "😀",
        ] {
            assert_eq!((shown(text), unsafe_character(text)), (text.to_owned(), None));
        }
    }

    #[test]
    fn long_text_is_cut_and_says_by_how_much() {
        assert_eq!(shown(&"x".repeat(128)), "x".repeat(128));
        assert_eq!(shown(&"x".repeat(65_535)), format!("{}…(+65407 bytes)", "x".repeat(128)));
        assert_eq!(shown(&"é".repeat(130)), format!("{}…(+4 bytes)", "é".repeat(128)));
        // What it grows to is bounded, whatever it is made of.
        for character in ['\n', '\u{202e}', '\u{10ffff}', '"'] {
            let text = character.to_string().repeat(1000);
            assert!(shown(&text).chars().count() <= MAX_SHOWN + 20);
            assert!(format!("{:?}", PeerText::new(&text)).chars().count() <= MAX_SHOWN + 22);
        }
    }

    #[test]
    fn a_field_of_a_log_line_stays_one_field() {
        let field = |text| format!("topic={:?}", PeerText::new(text));
        assert_eq!(field("devices/d1/t"), "topic=devices/d1/t");
        assert_eq!(field("a identity=b"), "topic=\"a identity=b\"");
        assert_eq!(field("a\" identity=\"b"), "topic=\"a\\\" identity=\\\"b\"");
        assert_eq!(field(""), "topic=\"\"");
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(HIDDEN.iter().all(|(first, last)| first <= last));
        assert!(HIDDEN.windows(2).all(|pair| pair[0].1 < pair[1].0));
    }
}
