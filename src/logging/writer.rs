//! The thread that writes the log. It alone waits for whoever reads, and it alone meets what a write can fail with.

use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::queue::Queue;

/// A pipe takes so many bytes whole, between those of other writers (POSIX).
const PIPE_BUF: usize = 4096;
/// How long to wait when the descriptor does not block and takes nothing.
const PAUSE: Duration = Duration::from_millis(20);

/// Whether the thread has died.
static IS_DEAD: AtomicBool = AtomicBool::new(false);

/// Notes the end of the thread, which only a panic can bring about.
struct Alive;

impl Alive {
    const fn until_the_end() -> Self {
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        IS_DEAD.store(true, Ordering::Release);
    }
}

/// Whether lines are written.
pub(super) fn is_alive() -> bool {
    !IS_DEAD.load(Ordering::Acquire)
}

/// Writes what comes, for as long as the process lives. `notice` makes the line that tells of lost ones.
pub(super) fn run(queue: &Queue, mut sink: impl Write, notice: impl Fn(u64) -> Vec<u8>) {
    let (mut batch, mut is_torn) = (Vec::new(), false);
    let _alive = Alive::until_the_end();
    loop {
        forebay_wal::panic_if_asked("log");
        let untold = queue.take(&mut batch);
        let lost = write_lines(&mut sink, &batch, &mut is_torn);
        if lost > 0 {
            queue.lose(lost, Instant::now());
        } else if untold > 0 && write_lines(&mut sink, &notice(untold), &mut is_torn) == 0 {
            queue.note_told(untold);
        }
    }
}

/// Writes whole lines, as many at once as a pipe takes whole. Gives how many were not written to their end. `is_torn` =
/// the last line written has no end yet.
fn write_lines(sink: &mut impl Write, lines: &[u8], is_torn: &mut bool) -> u64 {
    let (mut lost, mut rest) = (0, lines);
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(whole_lines(rest));
        rest = after;
        let written = if *is_torn && write_all(sink, b"\n") == 0 {
            0
        } else {
            *is_torn = false;
            write_all(sink, chunk)
        };
        if written > 0 {
            *is_torn = chunk[written - 1] != b'\n';
        }
        lost += chunk[written..].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    lost
}

/// The length of as many lines as a pipe takes whole; of one line, if that is longer.
fn whole_lines(lines: &[u8]) -> usize {
    let is_end = |byte: &u8| *byte == b'\n';
    let fitting = &lines[..lines.len().min(PIPE_BUF)];
    let end = match fitting.iter().rposition(is_end) {
        Some(end) => Some(end),
        None => lines.iter().position(is_end),
    };
    end.map_or(lines.len(), |end| end + 1)
}

/// Writes all it can; how many bytes that were.
fn write_all(sink: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match sink.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Whoever shares our stderr made it so. Full is full: as with a pipe that blocks, the wait is this thread's.
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::park_timeout(PAUSE),
            Err(_) => break,
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Takes so many bytes, then says that the disk is full until `room` is made.
    struct Disk {
        room: usize,
        holds: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.holds.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_full_disk_does_not_take_are_counted_and_tear_no_later_line() {
        let (mut disk, mut is_torn) = (
            Disk {
                room: 10,
                holds: Vec::new(),
            },
            false,
        );
        assert_eq!(write_lines(&mut disk, b"one\ntwo\nthree\n", &mut is_torn), 1);
        assert_eq!(write_lines(&mut disk, b"four\n", &mut is_torn), 1);
        disk.room = 100;
        assert_eq!(write_lines(&mut disk, b"five\nsix\n", &mut is_torn), 0);
        assert_eq!(String::from_utf8(disk.holds).unwrap(), "one\ntwo\nth\nfive\nsix\n");
    }

    #[test]
    fn lines_go_out_whole_and_as_many_as_a_pipe_takes_whole() {
        let lines = format!("{}\n", "x".repeat(999)).repeat(10);
        assert_eq!(whole_lines(lines.as_bytes()), 4000);
        let long = format!("{}\nshort\n", "y".repeat(9000));
        assert_eq!(whole_lines(long.as_bytes()), 9001);
    }
}
