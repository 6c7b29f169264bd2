//! The two names of a certificate, as the bytes they are written in, and nothing else of it.

/// Whom a certificate is for, and who says that it signed it. Names are the same if their bytes are, as in the verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Names<'a> {
    pub(crate) issuer: &'a [u8],
    pub(crate) subject: &'a [u8],
}

const SEQUENCE: u8 = 0x30;
const EXPLICIT_VERSION: u8 = 0xa0;

impl<'a> Names<'a> {
    /// `None` if these are not the bytes of a certificate.
    pub(crate) fn of(certificate: &'a [u8]) -> Option<Self> {
        let (certificate, _) = sequence(certificate)?;
        let (mut rest, _) = sequence(certificate)?;
        if rest.first() == Some(&EXPLICIT_VERSION) {
            (_, rest) = element(rest)?;
        }
        let (_serial, rest) = element(rest)?;
        let (_algorithm, rest) = element(rest)?;
        let (issuer, rest) = sequence(rest)?;
        let (_validity, rest) = sequence(rest)?;
        let (subject, _) = sequence(rest)?;
        Some(Self { issuer, subject })
    }
}

fn sequence(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    (bytes.first() == Some(&SEQUENCE)).then(|| element(bytes))?
}

/// The content of the first element, and what follows it. Lengths of up to 3 bytes: no certificate in a handshake has more.
fn element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
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
