//! The elements of DER, as far as a certificate has them: nothing is copied, and no byte sequence makes it panic.

/// The tag of a sequence.
pub const SEQUENCE: u8 = 0x30;

/// The tag that a certificate's version stands under; the first version has none.
const EXPLICIT_VERSION: u8 = 0xa0;

/// The content of the first element, and what follows it. Lengths of up to 3 bytes: no certificate in a handshake has more.
#[must_use]
pub fn element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&short, mut rest) = bytes.get(1..)?.split_first()?;
    let length = if short < 0x80 {
        usize::from(short)
    } else {
        let digits = usize::from(short & 0x7f);
        if !(1..=3).contains(&digits) {
            return None;
        }
        let (length, after) = rest.split_at_checked(digits)?;
        rest = after;
        length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    rest.split_at_checked(length)
}

/// [`element`] of a sequence; `None` if it is something else.
#[must_use]
pub fn sequence(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    (bytes.first() == Some(&SEQUENCE)).then(|| element(bytes))?
}

/// What a certificate says from its issuer on: issuer, validity, subject and more. `None` if these are not the bytes of one.
#[must_use]
pub fn from_issuer(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = sequence(certificate)?;
    let (mut rest, _) = sequence(certificate)?;
    if rest.first() == Some(&EXPLICIT_VERSION) {
        (_, rest) = element(rest)?;
    }
    let (_serial, rest) = element(rest)?;
    let (_algorithm, rest) = element(rest)?;
    Some(rest)
}
