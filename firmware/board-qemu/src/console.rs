//! Log lines, on the emulator's standard error.

use core::ffi::CStr;
use core::fmt::{self, Write};

use crate::semihosting;

const LINE: usize = 240;

struct Console;

static CONSOLE: Console = Console;

/// Prints one line, put together from its parts. The bootloader has no room for formatting.
pub fn say(parts: &[&str]) {
    let mut line = Line { bytes: [0; LINE], used: 0 };
    for part in parts {
        let _ = line.write_str(part);
    }
    line.end();
}

/// Sends what is logged to the console.
pub fn begin() {
    let _ = log::set_logger(&CONSOLE);
    log::set_max_level(log::LevelFilter::Info);
}

impl log::Log for Console {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut line = Line { bytes: [0; LINE], used: 0 };
        // A line that is too long is cut.
        let _ = write!(line, "{}: {}", record.target(), record.args());
        line.end();
    }

    fn flush(&self) {}
}

struct Line {
    bytes: [u8; LINE],
    used: usize,
}

impl Line {
    fn end(&mut self) {
        let at = self.used.min(LINE - 2);
        self.bytes[at] = b'\n';
        self.bytes[at + 1] = 0;
        if let Ok(text) = CStr::from_bytes_until_nul(&self.bytes) {
            semihosting::print(text);
        }
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LINE - 2 - self.used;
        let taken = text.len().min(room);
        self.bytes[self.used..self.used + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.used += taken;
        if taken == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
