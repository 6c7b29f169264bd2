//! JSON as it may be shown: what a peer wrote moves nothing on a terminal and hides nothing in a line. Control, format and separator
//! characters are escaped (`\u202e`), so that the value stays the same for a program.

use std::fmt::Write as _;

use forebay_topic::is_safe;
use serde::Serialize;

/// On one line.
///
/// # Errors
/// As `serde_json`.
pub(crate) fn to_string(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(value).map(escaped)
}

/// On several lines.
///
/// # Errors
/// As `serde_json`.
pub(crate) fn to_string_pretty(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(escaped)
}

/// The same JSON. Outside of strings there is nothing to escape but line ends, which stay.
fn escaped(json: String) -> String {
    let is_shown = |character: char| character == '\n' || is_safe(character);
    if json.chars().all(is_shown) {
        return json;
    }
    let mut safe = String::with_capacity(json.len() + 64);
    for character in json.chars() {
        if is_shown(character) {
            safe.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a String does not fail.
                write!(safe, "\\u{unit:04x}").ok();
            }
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use forebay_topic::unsafe_character;

    use super::*;

    #[test]
    fn a12_no_character_of_a_peer_is_shown_that_is_not_safe_and_each_comes_back() {
        for code in (0..=0x0010_ffff).filter_map(char::from_u32) {
            if code.is_ascii_graphic() || is_safe(code) && u32::from(code) % 97 != 0 {
                continue;
            }
            let value = serde_json::json!({ "topic": format!("a{code}b") });
            for json in [to_string(&value).unwrap(), to_string_pretty(&value).unwrap()] {
                let shown: String = json.chars().filter(|character| *character != '\n').collect();
                assert_eq!(unsafe_character(&shown), None, "{code:?} in {json:?}");
                assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value);
            }
        }
        assert_eq!(to_string(&"\u{202e}\u{e0001}\u{7f}é").unwrap(), "\"\\u202e\\udb40\\udc01\\u007fé\"");
    }
}
