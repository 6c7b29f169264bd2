//! The application image: takes the board into use and runs [`application`] on it.
#![no_std]
#![no_main]

extern crate alloc;

mod application;
#[cfg(feature = "qemu")]
mod delivered;
mod heap;
mod platform;
mod report;
mod stack;

use core::cell::RefCell;
use core::panic::PanicInfo;

#[cfg(feature = "iot01a")]
use board_iot01a as board;
#[cfg(feature = "qemu")]
use board_qemu as board;
use embassy_executor::Spawner;
use forebay_board::{Parts, Platform as _};
#[cfg(feature = "qemu")]
use forebay_eswifi::Serial;
use forebay_flash::Shared;
use forebay_image::{Control, Slot, Target};
use log::error;

const TARGET: Target = match Target::new(trust::PRODUCT, board::HARDWARE) {
    Some(target) => target,
    None => panic!("product and hardware have at most 16 characters"),
};

#[embassy_executor::main(executor = "embassy_executor::Executor")]
async fn main(_spawner: Spawner) {
    stack::paint();
    board::console::begin();
    heap::begin();
    let Parts {
        platform,
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
    let cause = platform.reset_cause();
    platform::share(platform);
    let flash = RefCell::new(flash);
    let flash = Shared(&flash);
    // Where our own code is, there we run.
    let Some(slot) = Slot::of_address(own_address()) else {
        error!("this image runs in no slot");
        board::reset()
    };
    let control = match Control::open(flash, slot, TARGET, trust::KEYS) {
        Ok(control) => RefCell::new(control),
        Err(failure) => {
            error!("our own header cannot be believed: {failure:?}");
            board::reset()
        }
    };
    #[cfg(feature = "qemu")]
    embassy_futures::join::join(
        application::run(flash, Serial(wifi), sensors, cause, &control),
        delivered::watch(&control),
    )
    .await;
    #[cfg(feature = "iot01a")]
    application::run(flash, wifi, sensors, cause, &control).await;
}

fn own_address() -> u32 {
    own_address as *const () as u32
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    error!("panic: {info}");
    board::reset()
}
