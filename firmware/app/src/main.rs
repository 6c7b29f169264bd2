//! The application image: takes the board into use and runs [`application`] on it.
#![no_std]
#![no_main]

mod application;
#[cfg(feature = "qemu")]
mod delivered;
mod report;

use core::cell::RefCell;
use core::panic::PanicInfo;

#[cfg(feature = "iot01a")]
use board_iot01a as board;
#[cfg(feature = "qemu")]
use board_qemu as board;
use embassy_executor::Spawner;
use forebay_board::{Parts, Platform};
use forebay_flash::Shared;
use forebay_image::{Control, Slot, Target};
use log::error;

const TARGET: Target = match Target::new(trust::PRODUCT, board::HARDWARE) {
    Some(target) => target,
    None => panic!("product and hardware have at most 16 characters"),
};

#[embassy_executor::main(executor = "embassy_executor::Executor")]
async fn main(_spawner: Spawner) {
    board::console::begin();
    let Parts {
        mut platform,
        delay,
        flash,
        wifi,
        sensors,
    } = match board::parts() {
        Ok(parts) => parts,
        Err(failure) => {
            error!("the board cannot be used: {failure:?}");
            board::reset()
        }
    };
    let flash = RefCell::new(flash);
    let flash = Shared(&flash);
    // Where our own code is, there we run.
    let Some(slot) = Slot::of_address(application_address()) else {
        error!("this image runs in no slot");
        platform.reset()
    };
    let control = match Control::open(flash, slot, TARGET, trust::KEYS) {
        Ok(control) => RefCell::new(control),
        Err(failure) => {
            error!("our own header cannot be believed: {failure:?}");
            platform.reset()
        }
    };
    let parts = Parts {
        platform,
        delay,
        flash,
        wifi,
        sensors,
    };
    #[cfg(feature = "qemu")]
    embassy_futures::join::join(application::run(parts, &control), delivered::watch(&control)).await;
    #[cfg(not(feature = "qemu"))]
    application::run(parts, &control).await;
}

fn application_address() -> u32 {
    application_address as *const () as u32
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    error!("panic: {info}");
    board::reset()
}
