//! Updates the emulator's harness offers: the whole way from a header to a trial, without the download.

use core::cell::RefCell;

use board_qemu::delivery::Delivery;
use embassy_time::Timer;
use forebay_flash::NorFlash;
use forebay_image::{Control, HEADER_BYTES, Status, UpdateError};
use log::{info, warn};

/// Waits until the running image is confirmed and an update is offered, takes it, and starts it. A refused one is left alone.
pub(crate) async fn watch<F: NorFlash + Clone>(control: &RefCell<Control<'_, F>>) {
    loop {
        Timer::after_millis(200).await;
        if control.borrow().status() != Status::Confirmed {
            continue;
        }
        let Some(delivery) = Delivery::offered() else { continue };
        match take(&mut control.borrow_mut(), delivery) {
            Ok(()) => {
                info!("update ready");
                board_qemu::reset()
            }
            Err(Failure::Update(UpdateError::Refused(refusal))) => {
                warn!("update refused: {}", refusal.word());
                return;
            }
            Err(failure) => {
                warn!("update failed: {failure:?}");
                return;
            }
        }
    }
}

#[derive(Debug)]
enum Failure {
    Delivery,
    Update(UpdateError),
}

fn take<F: NorFlash + Clone>(control: &mut Control<'_, F>, mut delivery: Delivery) -> Result<(), Failure> {
    let mut header = [0; HEADER_BYTES];
    if delivery.read(&mut header).map_err(|_| Failure::Delivery)? != HEADER_BYTES {
        return Err(Failure::Delivery);
    }
    let mut update = control.update(&header).map_err(Failure::Update)?;
    info!("update begun");
    let mut chunk = [0; 1024];
    loop {
        let length = delivery.read(&mut chunk).map_err(|_| Failure::Delivery)?;
        if length == 0 {
            return update.finish().map_err(Failure::Update);
        }
        update.write(&chunk[..length]).map_err(Failure::Update)?;
    }
}
