//! What the kernel knows of a disk, and nobody asks: errors in its file system, that it is write-protected, how worn a flash card is.

use std::path::{Path, PathBuf};

use super::report::Report;
use crate::words::count;

/// What the kernel says of the disk under a directory; `None` where it says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// Errors that ext4 has met since the file system was made or repaired.
    pub(crate) errors: Option<u64>,
    /// The device takes no writes.
    pub(super) is_protected: bool,
    /// How much of a flash card's life is used, in tenths; 11 = more than all.
    pub(super) life_used: Option<u8>,
    /// How much of its reserve is left: 1 = enough, 2 = a fifth, 3 = nearly none.
    pub(super) reserve: Option<u8>,
}

impl Kernel {
    /// It says nothing.
    pub(super) const UNKNOWN: Self = Self {
        errors: None,
        is_protected: false,
        life_used: None,
        reserve: None,
    };

    /// Of the disk under a directory, or under its nearest parent that exists.
    pub(crate) fn of(directory: &Path) -> Self {
        let there = super::disk::existing(directory);
        let Ok(found) = rustix::fs::stat(&there) else {
            return Self::UNKNOWN;
        };
        Self::told(Path::new("/sys"), rustix::fs::major(found.st_dev), rustix::fs::minor(found.st_dev))
    }

    /// As `sys` says.
    fn told(sys: &Path, major: u32, minor: u32) -> Self {
        let Ok(device) = sys.join(format!("dev/block/{major}:{minor}")).canonicalize() else {
            return Self::UNKNOWN;
        };
        let name = device.file_name().map(PathBuf::from).unwrap_or_default();
        let text = |path: PathBuf| std::fs::read_to_string(path).ok();
        // A partition's disk is the directory above it.
        let of_card = |file: &str| text(device.join("device").join(file)).or_else(|| text(device.parent()?.join("device").join(file)));
        let hex = |word: &str| u8::from_str_radix(word.trim_start_matches("0x"), 16).ok();
        let life = of_card("life_time").and_then(|life| life.split_whitespace().filter_map(hex).max());
        Self {
            errors: text(sys.join("fs/ext4").join(name).join("errors_count")).and_then(|count| count.trim().parse().ok()),
            is_protected: text(device.join("ro")).is_some_and(|ro| ro.trim() == "1"),
            // 0 = the card does not say.
            life_used: life.filter(|life| (1..=11).contains(life)),
            reserve: of_card("pre_eol_info")
                .and_then(|reserve| hex(reserve.trim()))
                .filter(|reserve| (1..=3).contains(reserve)),
        }
    }

    /// Tells what is to be told of it.
    pub(super) fn check(&self, area: &'static str, here: &str, report: &mut Report) {
        if let Some(errors) = self.errors.filter(|errors| *errors > 0) {
            report.warn(
                area,
                format!(
                    "the kernel has counted {} in the file system of {here} since it was made or repaired",
                    count(errors, "error")
                ),
                "check the disk (`dmesg`); stop Forebay, unmount it and repair it (`e2fsck -f`), which also resets the count",
            );
        }
        if self.is_protected {
            report.error(
                area,
                format!("the device under {here} is write-protected: nothing can be accepted there"),
                "check the switch of the card; a card at the end of its life protects itself: replace it",
            );
        }
        let hint = "replace the card before it fails; what waits can be moved with the directory while Forebay is stopped";
        match self.life_used {
            Some(11) => report.error(
                area,
                format!("the flash card under {here} is worn beyond its life by its own count"),
                hint,
            ),
            Some(life) if life >= 9 => {
                report.warn(
                    area,
                    format!("the flash card under {here} has used {}0 % of its life by its own count", life),
                    hint,
                );
            }
            Some(life) => report.ok(
                area,
                format!(
                    "the flash card under {here} has used at most {}0 % of its life by its own count",
                    life
                ),
            ),
            None => {}
        }
        match self.reserve {
            Some(3) => report.error(area, format!("the flash card under {here} has nearly no reserve blocks left"), hint),
            Some(2) => report.warn(
                area,
                format!("the flash card under {here} has used four fifths of its reserve blocks"),
                hint,
            ),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Severity;
    use super::*;

    /// A `/sys` with a card of two partitions.
    fn sys(errors: &str, ro: &str, life: &str, reserve: &str) -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        let card = sys.path().join("devices/mmcblk0");
        let partition = card.join("mmcblk0p2");
        let files = [
            (partition.join("ro"), ro),
            (card.join("device/life_time"), life),
            (card.join("device/pre_eol_info"), reserve),
            (sys.path().join("fs/ext4/mmcblk0p2/errors_count"), errors),
        ];
        for (path, text) in files {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        std::fs::create_dir_all(sys.path().join("dev/block")).unwrap();
        std::os::unix::fs::symlink(&partition, sys.path().join("dev/block/179:2")).unwrap();
        sys
    }

    #[test]
    fn k20_what_the_kernel_knows_of_a_disk_is_told() {
        for (texts, expected) in [
            (["0\n", "0\n", "0x01 0x02\n", "0x01\n"], vec![(Severity::Ok, "at most 20 %")]),
            (["3\n", "0\n", "0x00 0x00\n", "0x00\n"], vec![(Severity::Warn, "counted 3 errors")]),
            (["0\n", "1\n", "", ""], vec![(Severity::Error, "write-protected")]),
            (
                ["0\n", "0\n", "0x09 0x01\n", "0x02\n"],
                vec![(Severity::Warn, "used 90 %"), (Severity::Warn, "four fifths")],
            ),
            (
                ["0\n", "0\n", "0x02 0x0b\n", "0x03\n"],
                vec![(Severity::Error, "beyond its life"), (Severity::Error, "nearly no reserve")],
            ),
            (["nonsense", "", "0xzz", "7 of 9"], vec![]),
        ] {
            let [errors, ro, life, reserve] = texts;
            let sys = sys(errors, ro, life, reserve);
            let mut report = Report::default();
            Kernel::told(sys.path(), 179, 2).check("disk", "/data", &mut report);
            let found: Vec<_> = report
                .findings
                .iter()
                .map(|finding| (finding.severity, finding.text.as_str()))
                .collect();
            assert_eq!(found.len(), expected.len(), "{texts:?}: {found:?}");
            for (severity, words) in expected {
                let is_told = found.iter().any(|(told, text)| *told == severity && text.contains(words));
                assert!(is_told, "{texts:?}: {words} is not in {found:?}");
            }
            assert_eq!(Kernel::told(sys.path(), 8, 1), Kernel::UNKNOWN);
        }
    }
}
