//! What the device does once it runs.

use core::cell::RefCell;

use embedded_hal_async::delay::DelayNs;
use forebay_board::{Parts, Platform};
use forebay_flash::NorFlash;
use forebay_image::Control;
use log::{error, info};

use crate::report;

/// Runs the device on a board. Never returns; every end is [`Platform::reset`].
pub(crate) async fn run<P, D, F, W, I>(mut parts: Parts<P, D, F, W, I>, control: &RefCell<Control<'_, F>>) -> !
where
    P: Platform,
    D: DelayNs,
    F: NorFlash + Clone,
{
    report::at_start(&mut control.borrow_mut(), parts.platform.reset_cause());
    if !self_test(&mut parts.platform) {
        error!("the self-test failed");
        parts.platform.reset()
    }
    if let Err(failure) = control.borrow_mut().confirm() {
        error!("cannot confirm: {failure:?}");
        parts.platform.reset()
    }
    info!("confirmed");
    report::stack(parts.platform.stack());
    loop {
        parts.delay.delay_ms(1000).await;
        parts.platform.feed_watchdog();
    }
}

fn self_test(platform: &mut impl Platform) -> bool {
    let (mut first, mut second) = ([0; 32], [0; 32]);
    platform.entropy(&mut first).is_ok() && platform.entropy(&mut second).is_ok() && first != second
}
