//! When a certificate is valid: the two dates of its DER, and nothing else of it.
//!
//! rustls judges certificates and keeps what it read to itself. The device needs one date of the gateway's leaf: no time it
//! is told may lie beyond it.

use forebay_chain::der::{element, from_issuer, sequence};

/// The dates of a certificate, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Reads the dates; none if these are not the bytes of a certificate.
pub(crate) fn validity(certificate: &[u8]) -> Option<Validity> {
    let (_issuer, rest) = element(from_issuer(certificate)?)?;
    let (dates, _) = sequence(rest)?;
    let (not_before, rest) = time(dates)?;
    let (not_after, _) = time(rest)?;
    Some(Validity { not_before, not_after })
}

/// RFC 5280 section 4.1.2.5: `YYMMDDHHMMSSZ` up to 2049, `YYYYMMDDHHMMSSZ` after.
fn time(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (text, rest) = element(bytes)?;
    let (year, text) = match (bytes.first(), text.len()) {
        (Some(&UTC_TIME), 13) => {
            let year = digits(text, 2)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &text[2..])
        }
        (Some(&GENERALIZED_TIME), 15) => (digits(text, 4)?, &text[4..]),
        _ => return None,
    };
    if text.last() != Some(&b'Z') {
        return None;
    }
    let part = |index: usize| digits(text.get(2 * index..)?, 2);
    let (month, day, hour, minute, second) = (part(0)?, part(1)?, part(2)?, part(3)?, part(4)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days_since_1970(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
    Some((seconds, rest))
}

fn digits(text: &[u8], count: usize) -> Option<u64> {
    text.get(..count)?
        .iter()
        .try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

/// Days of the Gregorian calendar; none before 1970.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    // Years are counted from March, so that the leap day is a year's last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    days.checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn dates_are_counted_as_the_calendar_does() {
        assert_eq!(days_since_1970(1970, 1, 1), Some(0));
        assert_eq!(days_since_1970(2000, 2, 29), Some(11_016));
        assert_eq!(days_since_1970(2026, 11, 26), Some(20_783));
        assert_eq!(days_since_1970(1969, 12, 31), None);
        assert_eq!(time(b"\x17\x0d261126200000Z"), Some((1_795_723_200, &[][..])));
        assert_eq!(time(b"\x18\x0f20500101000000Z"), Some((2_524_608_000, &[][..])));
        assert_eq!(time(b"\x17\x0d269926200000Z"), None);
    }

    #[test]
    fn the_dates_of_a_certificate_are_found() {
        let mut params = rcgen::CertificateParams::new(std::vec!["gateway.local".into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2025, 3, 1);
        params.not_after = rcgen::date_time_ymd(2055, 3, 2);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let found = validity(certificate.der()).unwrap();
        assert_eq!(found.not_before, 1_740_787_200);
        assert_eq!(found.not_after, 2_687_558_400);
    }

    #[test]
    fn no_bytes_panic_it() {
        let key = rcgen::KeyPair::generate().unwrap();
        let good = rcgen::CertificateParams::new([]).unwrap().self_signed(&key).unwrap().der().to_vec();
        for length in 0..good.len() {
            let _cut = validity(&good[..length]);
        }
        for place in 0..good.len() {
            for value in [0, 0x7f, 0x80, 0x83, 0x84, 0xff] {
                let mut bad = good.clone();
                bad[place] = value;
                let _changed = validity(&bad);
            }
        }
    }
}
