//! Makes every `fsync` and `fdatasync` of a program take as long as on a card: preloaded (`LD_PRELOAD`), its functions stand before the C
//! library's. The sync is made, then waited for until `FOREBAY_SYNC_MS` milliseconds (default 10) have passed since its call. Programs
//! that make the system call themselves are not slowed.

use std::ffi::c_int;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::{ClockId, clock_nanosleep_absolute};
use rustix::time::Timespec;

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

/// `fsync(2)`, slower.
#[unsafe(no_mangle)]
pub extern "C" fn fsync(fd: c_int) -> c_int {
    slowly(fd, |fd| rustix::fs::fsync(fd))
}

/// `fdatasync(2)`, slower.
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(fd: c_int) -> c_int {
    slowly(fd, |fd| rustix::fs::fdatasync(fd))
}

/// rustix makes the system call itself, so this does not come back to the functions above.
fn slowly(fd: c_int, sync: impl FnOnce(BorrowedFd<'_>) -> Result<(), Errno>) -> c_int {
    let until = later(rustix::time::clock_gettime(rustix::time::ClockId::Monotonic), delay());
    if fd < 0 {
        return failed(Errno::BADF);
    }
    // SAFETY: the descriptor is only handed to the kernel, for the time of this call; if the caller gave a closed one, the
    // kernel says so.
    let result = sync(unsafe { BorrowedFd::borrow_raw(fd) });
    while clock_nanosleep_absolute(ClockId::Monotonic, &until) == Err(Errno::INTR) {}
    match result {
        Ok(()) => 0,
        Err(error) => failed(error),
    }
}

fn failed(error: Errno) -> c_int {
    // SAFETY: the C library gives a pointer to this thread's own errno, which is valid for as long as the thread.
    unsafe { *__errno_location() = error.raw_os_error() };
    -1
}

fn delay() -> Duration {
    static DELAY: OnceLock<Duration> = OnceLock::new();
    *DELAY.get_or_init(|| {
        let given = std::env::var("FOREBAY_SYNC_MS").ok().and_then(|text| text.parse().ok());
        Duration::from_millis(given.unwrap_or(10))
    })
}

fn later(now: Timespec, by: Duration) -> Timespec {
    let nanos = now.tv_nsec + i64::from(by.subsec_nanos());
    Timespec {
        tv_sec: now.tv_sec + by.as_secs().cast_signed() + nanos / 1_000_000_000,
        tv_nsec: nanos % 1_000_000_000,
    }
}
