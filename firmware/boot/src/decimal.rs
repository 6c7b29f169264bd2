//! Numbers as text, without the kilobytes of `core::fmt`.

use core::str;

/// A number's decimal digits.
pub(crate) struct Decimal {
    digits: [u8; 5],
    first: usize,
}

impl Decimal {
    pub(crate) fn new(mut number: u16) -> Decimal {
        let mut digits = [b'0'; 5];
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Decimal { digits, first };
            }
        }
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.digits[self.first..]).unwrap_or_default()
    }
}
