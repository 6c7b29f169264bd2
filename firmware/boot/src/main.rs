//! The immutable bootloader: verifies, counts the try, jumps. What it decides is in `forebay-image`.
#![no_std]
#![no_main]

mod decimal;

use core::panic::PanicInfo;

#[cfg(feature = "iot01a")]
use board_iot01a as board;
#[cfg(feature = "qemu")]
use board_qemu as board;
use cortex_m::peripheral::SCB;
use cortex_m_rt::entry;
use decimal::Decimal;
#[cfg(feature = "prove-refusal")]
use fixed_seed as _;
use forebay_image::{Slot, Target, boot};

const TARGET: Target = match Target::new(trust::PRODUCT, board::HARDWARE) {
    Some(target) => target,
    None => panic!("product and hardware have at most 16 characters"),
};

#[entry]
fn main() -> ! {
    board::begin_boot();
    let Ok(mut flash) = board::flash::Flash::open() else {
        board::console::say(&["boot: the flash cannot be used"]);
        board::end()
    };
    match boot(&mut flash, &TARGET, trust::KEYS) {
        Ok(start) => {
            let version = start.header.version;
            let [major, minor, patch] = [version.major, version.minor, version.patch].map(Decimal::new);
            let slot = match start.slot {
                Slot::A => "A",
                Slot::B => "B",
            };
            let standing = if start.on_trial { " on trial" } else { " verified" };
            board::console::say(&[
                "boot: slot ",
                slot,
                " version ",
                major.text(),
                ".",
                minor.text(),
                ".",
                patch.text(),
                standing,
            ]);
            board::start_watchdog();
            board::end_boot();
            // SAFETY: `boot` verified the image, and nothing of ours is used again.
            unsafe { jump(start.vectors()) }
        }
        Err(halt) => {
            board::console::say(&["boot: nothing to run: slot A ", halt.a.word(), ", slot B ", halt.b.word()]);
            board::end()
        }
    }
}

/// Jumps into the image whose vector table is at `vectors`.
///
/// # Safety
/// The image there was verified; nothing of the caller is used again.
unsafe fn jump(vectors: u32) -> ! {
    // SAFETY: exclusive, as nothing else runs; the caller vouches for the table.
    unsafe {
        (*SCB::PTR).vtor.write(vectors);
        cortex_m::asm::bootload(vectors as *const u32)
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    board::console::say(&["boot: panic"]);
    board::reset()
}
