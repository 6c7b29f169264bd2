//! The shape of an answer: `CRLF`, a body, `CRLF`, `OK` or `ERROR`, `CRLF`, the prompt.

/// How an answer that went well ends.
pub(crate) const WELL: &[u8] = b"\r\nOK\r\n> ";
/// How every answer ends.
pub(crate) const PROMPT: &[u8] = b"\r\n> ";
/// What a refusal holds.
const ERROR: &[u8] = b"ERROR";

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer<'a> {
    /// It went well, with this body.
    Well(&'a [u8]),
    /// The module refused.
    Refused,
    /// It is no answer.
    Nonsense,
}

/// Reads an answer.
pub(crate) fn parse(bytes: &[u8]) -> Answer<'_> {
    if let Some(body) = bytes.strip_suffix(WELL) {
        // An empty body shares its CRLF with the end.
        return Answer::Well(body.strip_prefix(b"\r\n").unwrap_or(body));
    }
    let is_refusal = bytes.ends_with(PROMPT) && bytes.windows(ERROR.len()).any(|window| window == ERROR);
    if is_refusal { Answer::Refused } else { Answer::Nonsense }
}

/// A decimal number with an optional sign and nothing else.
pub(crate) fn number(body: &[u8]) -> Option<i32> {
    core::str::from_utf8(body).ok()?.trim().parse().ok()
}

/// The IPv4 address that a body is.
pub(crate) fn address(body: &[u8]) -> Option<core::net::Ipv4Addr> {
    core::str::from_utf8(body).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_a_shape() {
        assert_eq!(parse(b"\r\nOK\r\n> "), Answer::Well(b""));
        assert_eq!(parse(b"\r\n\r\nOK\r\n> "), Answer::Well(b""));
        assert_eq!(parse(b"\r\n-45\r\nOK\r\n> "), Answer::Well(b"-45"));
        assert_eq!(
            parse(b"\r\n\r\nOK\r\n> x\r\nOK\r\n> "),
            Answer::Well(b"\r\nOK\r\n> x"),
            "data may look like an end"
        );
        assert_eq!(parse(b"\r\n[JOIN   ] plant\r\n[JOIN   ] Failed\r\nERROR\r\n> "), Answer::Refused);
        for nonsense in [
            &b""[..],
            b"> ",
            b"\r\nOK\r\n>",
            b"\xff\x00",
            b"\r\nOK\r\n> \x15",
            b"\r\nhello\r\n> ",
        ] {
            assert_eq!(parse(nonsense), Answer::Nonsense, "{nonsense:?}");
        }
        assert_eq!(
            (number(b"-61"), number(b"1024\r\n"), number(b"x"), number(b"")),
            (Some(-61), Some(1024), None, None)
        );
        assert_eq!(address(b"192.168.1.2"), Some(core::net::Ipv4Addr::new(192, 168, 1, 2)));
        assert_eq!(address(b"192.168.1"), None);
    }
}
