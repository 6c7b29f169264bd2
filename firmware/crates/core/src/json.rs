//! Compact JSON into a buffer of fixed size.

use core::fmt::{self, Write as _};

/// Writes one object, field by field.
pub(crate) struct Object<'b> {
    buffer: &'b mut [u8],
    length: usize,
    /// Something did not fit.
    is_full: bool,
    is_first: bool,
}

impl<'b> Object<'b> {
    pub(crate) fn new(buffer: &'b mut [u8]) -> Self {
        let mut object = Self {
            buffer,
            length: 0,
            is_full: false,
            is_first: true,
        };
        object.raw(format_args!("{{"));
        object
    }

    pub(crate) fn number(&mut self, key: &str, value: impl Into<i64>) {
        self.key(key);
        self.raw(format_args!("{}", value.into()));
    }

    /// A number given in units of 10^-`digits`.
    pub(crate) fn fixed(&mut self, key: &str, value: impl Into<i64>, digits: u32) {
        self.key(key);
        self.raw(format_args!("{}", Fixed(value.into(), digits)));
    }

    pub(crate) fn axes(&mut self, key: &str, axes: [i16; 3], digits: u32) {
        self.key(key);
        let [x, y, z] = axes.map(|axis| Fixed(axis.into(), digits));
        self.raw(format_args!("[{x},{y},{z}]"));
    }

    /// Text of our own, or an identity without quotes, backslashes and control characters.
    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.raw(format_args!("\""));
        for character in value.chars() {
            match character {
                '"' | '\\' => self.raw(format_args!("\\{character}")),
                character if character < ' ' => self.raw(format_args!("\\u{:04x}", u32::from(character))),
                character => self.raw(format_args!("{character}")),
            }
        }
        self.raw(format_args!("\""));
    }

    /// An object within.
    pub(crate) fn object(&mut self, key: &str, fill: impl FnOnce(&mut Object<'b>)) {
        self.key(key);
        self.raw(format_args!("{{"));
        self.is_first = true;
        fill(self);
        self.raw(format_args!("}}"));
        self.is_first = false;
    }

    /// The whole text; none if it did not fit.
    pub(crate) fn finish(mut self) -> Option<&'b [u8]> {
        self.raw(format_args!("}}"));
        (!self.is_full).then_some(&self.buffer[..self.length])
    }

    fn key(&mut self, key: &str) {
        let comma = if self.is_first { "" } else { "," };
        self.is_first = false;
        self.raw(format_args!("{comma}\"{key}\":"));
    }

    fn raw(&mut self, text: fmt::Arguments<'_>) {
        if self.write_fmt(text).is_err() {
            self.is_full = true;
        }
    }
}

impl fmt::Write for Object<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.buffer
            .get_mut(self.length..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

struct Fixed(i64, u32);

impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value, digits) = *self;
        let unit = 10_u64.pow(digits);
        let sign = if value < 0 { "-" } else { "" };
        let (whole, part) = (value.unsigned_abs() / unit, value.unsigned_abs() % unit);
        if digits == 0 {
            return write!(f, "{sign}{whole}");
        }
        write!(f, "{sign}{whole}.{part:0width$}", width = digits as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_written_compactly() {
        let mut buffer = [0; 128];
        let mut object = Object::new(&mut buffer);
        object.text("a", "x\"\n");
        object.fixed("b", -5, 2);
        object.fixed("c", 101_325, 2);
        object.axes("d", [-1, 0, 1000], 0);
        object.object("e", |inner| inner.number("f", 1));
        object.number("g", 2);
        assert_eq!(
            core::str::from_utf8(object.finish().unwrap()).unwrap(),
            r#"{"a":"x\"\u000a","b":-0.05,"c":1013.25,"d":[-1,0,1000],"e":{"f":1},"g":2}"#
        );
    }

    #[test]
    fn what_does_not_fit_is_not_cut() {
        let mut buffer = [0; 8];
        let mut object = Object::new(&mut buffer);
        object.text("key", "value");
        assert_eq!(object.finish(), None);
    }
}
