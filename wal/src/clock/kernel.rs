//! What the kernel says of the machine's clock.

use std::path::Path;

use rtime_clock::adjtime::{Timex, adjtimex};

use super::trust::Sync;

/// Made by systemd-timesyncd when it first synchronises in a boot. `/run` is empty at the next one.
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";
/// `STA_UNSYNC` of `adjtimex(2)`.
const UNSYNCHRONISED: i32 = 0x40;
/// From this maximum error on, in microseconds, the kernel itself sets `STA_UNSYNC` (`NTP_PHASE_LIMIT`).
const MAX_ERROR_US: i64 = 16_000_000;

/// Asks the kernel whether something keeps the clock right; where it refuses to say, as a container or a system call filter may
/// make it, the file of systemd-timesyncd answers. Reads only: `modes` is 0, and no capability is wanted.
pub(super) fn ask() -> Sync {
    let mut found = Timex::new();
    match adjtimex(&mut found) {
        #[allow(clippy::useless_conversion, reason = "a C long: 32 bits on 32-bit boards")]
        Ok(_) => judge(found.0.status, i64::from(found.0.maxerror)),
        Err(_) if Path::new(SYNCHRONIZED).exists() => Sync::TimesyncFile,
        Err(error) => Sync::Unknown(error.raw_os_error().unwrap_or_default()),
    }
}

/// As systemd judges it: chrony without `rtcsync` leaves `STA_UNSYNC` set, to keep the kernel from the RTC, but keeps the maximum
/// error small. An error of nothing at all is nobody's estimate.
const fn judge(status: i32, max_error_us: i64) -> Sync {
    let is_small = 0 < max_error_us && max_error_us < MAX_ERROR_US;
    if status & UNSYNCHRONISED == 0 || is_small {
        Sync::Kernel
    } else {
        Sync::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_or_a_small_error_says_that_the_clock_is_synchronised() {
        // A fresh boot; ntpd, timesyncd or chrony with rtcsync; chrony without; the flag alone.
        assert_eq!(judge(0x40, 16_000_000), Sync::No);
        assert_eq!(judge(0x2001, 250_000), Sync::Kernel);
        assert_eq!(judge(0x40, 250_000), Sync::Kernel);
        assert_eq!(judge(0x40, 0), Sync::No);
        assert_eq!(judge(0, 16_000_000), Sync::Kernel);
    }

    #[test]
    fn this_machine_answers() {
        assert!(
            !matches!(ask(), Sync::Unknown(libc_einval) if libc_einval == 22),
            "a read-only call is well-formed"
        );
    }
}
