//! Command lines: a letter and a digit, `=` and a value, a carriage return.

use core::fmt::{self, Write};

/// A command line being built. 96 bytes hold the longest: a network's name of 32, a pass phrase of 64.
#[derive(Debug)]
pub(crate) struct Line {
    bytes: [u8; Self::ROOM],
    length: usize,
}

impl Line {
    const ROOM: usize = 96;

    /// A line; none if it would not fit, or if a value would end it early.
    pub(crate) fn new(text: fmt::Arguments<'_>) -> Option<Self> {
        let mut line = Self {
            bytes: [0; Self::ROOM],
            length: 0,
        };
        line.write_fmt(text).ok()?;
        line.write_str("\r").ok()?;
        let (last, before) = line.as_bytes().split_last()?;
        (*last == b'\r' && !before.contains(&b'\r') && !before.contains(&b'\n')).then_some(line)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes
            .get_mut(self.length..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_smuggle_a_command() {
        let line = |value: &str| Line::new(format_args!("C1={value}")).map(|line| line.as_bytes().len());
        assert_eq!(line("plant"), Some(9));
        assert_eq!(line("plant\rZR"), None);
        assert_eq!(line("plant\n"), None);
        let long = core::str::from_utf8(&[b'x'; 93]).unwrap();
        assert_eq!(line(long), None);
    }
}
