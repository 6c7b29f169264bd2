//! What goes to stdout, and how far a long command has come on stderr.

use std::io::{self, IsTerminal as _, StderrLock, Stdout, StdoutLock, Write};
use std::time::{Duration, Instant};

use super::failure::Failure;
use crate::config::show_bytes;
use crate::inspect::Line;

/// A command that takes longer says how far it has come.
const PATIENCE: Duration = Duration::from_secs(2);
const TELL: Duration = Duration::from_millis(250);

/// stdout, and progress on stderr if that is a terminal.
pub(super) struct Output {
    out: io::BufWriter<StdoutLock<'static>>,
    progress: Option<StderrLock<'static>>,
    started: Instant,
    told: Option<Instant>,
    lines: u64,
    searched: u64,
    result: Result<(), Failure>,
}

impl Output {
    pub(super) fn new() -> Self {
        let stdout: Stdout = io::stdout();
        let stderr = io::stderr();
        Self {
            out: io::BufWriter::with_capacity(64 << 10, stdout.lock()),
            progress: stderr.is_terminal().then(|| stderr.lock()),
            started: Instant::now(),
            told: None,
            lines: 0,
            searched: 0,
            result: Ok(()),
        }
    }

    /// Writes a line of text; false = nobody reads any more.
    pub(super) fn text(&mut self, text: impl std::fmt::Display) -> bool {
        let written = writeln!(self.out, "{text}");
        self.note(written)
    }

    /// Writes an object as one line.
    pub(super) fn json(&mut self, value: &impl serde::Serialize) -> bool {
        let written = crate::json::to_string(value)
            .map_err(io::Error::from)
            .and_then(|json| writeln!(self.out, "{json}"));
        self.lines += 1;
        self.note(written)
    }

    /// Takes note of how far a search has come, and says so after a while; every line of a stream comes by here. What is
    /// about the search alone is none of the output's business: false = it was that.
    pub(super) fn is_content(&mut self, line: &Line) -> bool {
        let is_content = match line {
            Line::Searched { searched_bytes } => {
                self.searched = *searched_bytes;
                false
            }
            _ => true,
        };
        let due = self.told.map_or(self.started + PATIENCE, |told| told + TELL);
        if let Some(progress) = self.progress.as_mut().filter(|_| Instant::now() >= due) {
            self.told = Some(Instant::now());
            let seconds = self.started.elapsed().as_secs();
            let text = format!("\r{} searched, {} found, {seconds} s\x1b[K", show_bytes(self.searched), self.lines);
            // Progress that cannot be shown is no failure.
            progress.write_all(text.as_bytes()).and_then(|()| progress.flush()).ok();
        }
        is_content
    }

    /// Hands over what was written, as one who follows wants to see it at once.
    pub(super) fn flush(&mut self) -> bool {
        let flushed = self.out.flush();
        self.note(flushed)
    }

    /// Ends the output.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        self.flush();
        if let Some(progress) = self.progress.as_mut().filter(|_| self.told.is_some()) {
            progress.write_all(b"\r\x1b[K").ok();
        }
        self.result
    }

    fn note(&mut self, written: io::Result<()>) -> bool {
        match written {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.result = Err(Failure::Unwanted);
                false
            }
            Err(error) => {
                self.result = Err(Failure::Disk(anyhow::Error::from(error).context("the output cannot be written")));
                false
            }
        }
    }
}

/// Rows in columns.
pub(in crate::cli) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |nth: usize| {
        rows.iter()
            .filter_map(|row| row.get(nth))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
