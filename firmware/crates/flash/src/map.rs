//! The division of the 1 MiB of flash. Offsets count from [`BASE`]; the second bank, which can be written while code runs in the
//! first, begins at `0x8_0000`.

use core::ops::Range;

/// Where flash appears in the address space.
pub const BASE: u32 = 0x0800_0000;

/// The immutable bootloader: 32 KiB, write protected on a finished device.
pub const BOOT: Range<u32> = 0x0_0000..0x0_8000;

/// What makes one device this device: its certificate and key, the CA, the gateway's name, Wi-Fi. Written once when it is provisioned.
pub const PROVISION: Range<u32> = 0x0_8000..0x0_c000;

/// Reserved.
pub const SPARE: Range<u32> = 0x0_c000..0x1_0000;

/// Slot A: header and image, run in place.
pub const SLOT_A: Range<u32> = 0x1_0000..0x8_0000;

/// Slot B: header and image, run in place.
pub const SLOT_B: Range<u32> = 0x8_0000..0xf_0000;

/// The bootloader's and the updater's state: which slot is confirmed, what is on trial, counters, evidence.
pub const STATE: Range<u32> = 0xf_0000..0xf_2000;

/// The application's small records: boots, last known good time.
pub const SETTINGS: Range<u32> = 0xf_2000..0xf_4000;

/// The telemetry queue's spill.
pub const QUEUE: Range<u32> = 0xf_4000..0x10_0000;

/// The whole flash.
pub const ALL: Range<u32> = 0..0x10_0000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE;

    #[test]
    fn the_parts_cover_the_flash_without_overlap_on_page_boundaries() {
        let mut end = ALL.start;
        for part in [BOOT, PROVISION, SPARE, SLOT_A, SLOT_B, STATE, SETTINGS, QUEUE] {
            assert_eq!(part.start, end);
            assert_eq!(part.start % PAGE, 0);
            end = part.end;
        }
        assert_eq!(end, ALL.end);
    }
}
