//! `forebay-received-at`: RFC 3339 in UTC with milliseconds, or nothing while the clock was not to be believed.

use forebay_wal::Timestamp;

/// When the record was received, as far as that is known: a time taken on an untrusted clock is corrected when the same
/// boot trusts its clock by now, and left out otherwise.
pub(crate) fn received_at(received: &Timestamp, now: &Timestamp) -> Option<String> {
    if received.trusted {
        return Some(rfc3339(received.wall_ms));
    }
    let same_boot = received.boot == now.boot && now.trusted;
    same_boot.then(|| rfc3339(now.wall_ms.saturating_sub(now.monotonic_ms.saturating_sub(received.monotonic_ms))))
}

fn rfc3339(ms: u64) -> String {
    let (days, second_of_day) = (ms / 86_400_000, ms / 1000 % 86_400);
    // Days to a civil date in the proleptic Gregorian calendar, years counted from March (Howard Hinnant's algorithm).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

#[cfg(test)]
mod tests {
    use forebay_wal::BootId;

    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (1_764_115_199_999, "2025-11-25T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn a_time_of_a_boot_that_became_trusted_is_corrected_and_an_unknown_one_is_left_out() {
        let at = |boot, wall_ms, monotonic_ms, trusted| Timestamp {
            wall_ms,
            boot: BootId(boot),
            monotonic_ms,
            trusted,
        };
        let received = at(1, 5_000, 5_000, false);
        let trusted_now = at(1, 1_764_115_200_000, 65_000, true);
        assert_eq!(received_at(&received, &trusted_now).unwrap(), "2025-11-25T23:59:00.000Z");
        assert_eq!(received_at(&received, &at(1, 65_000, 65_000, false)), None);
        assert_eq!(received_at(&received, &at(2, 1_764_115_200_000, 65_000, true)), None);
    }
}
