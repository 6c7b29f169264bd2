//! Signed images, slots, trial and rollback, and the state that survives power cuts.
//!
//! # The promises
//!
//! 1. The bootloader jumps only into an image whose whole header is signed by a trusted key, whose hash matches, and that was made for
//!    this product, this hardware and this slot ([`boot()`]).
//! 2. An update touches only the slot that is not running, and only while the running image is confirmed, so that there is always one to
//!    go back to ([`Update`]).
//! 3. A new image is on trial: [`TRIES`] starts, each counted before the jump. Unless it confirms itself it is given up for good and
//!    the confirmed image starts again.
//! 4. An image with a security counter below the floor is refused. The floor rises to the image's counter when the image is confirmed.
//! 5. Two keys are trusted during a rotation. An image may carry a key floor; confirmed, it retires the keys below it.
//! 6. A refused or given-up image leaves evidence: what, where and why ([`Evidence`]). The application reports it and marks it reported.
//! 7. A power cut at any write loses at most the step it interrupted ([`StateLog`]).
//!
//! # Limits
//!
//! Two slots, two keys. The state's pages hold 128 records; a power loss during a trial counts as a failed try. Whoever can write the flash
//! freely can also erase the state and with it the floor: debug lock and write protection are what prevents that.
#![no_std]
#![forbid(unsafe_code)]

mod boot;
mod control;
mod header;
mod keys;
mod log;
#[cfg(feature = "sign")]
pub mod sign;
mod slot;
mod state;
mod update;
mod verify;

pub use boot::{Halt, Start, boot};
pub use control::{Control, ControlError, Status};
pub use header::{HEADER_BYTES, Header, Version};
pub use keys::{Key, Keys};
pub use log::{LogError, StateLog};
pub use slot::Slot;
pub use state::{Evidence, EvidenceKind, State, TRIES, Trial};
pub use update::{Update, UpdateError};
pub use verify::{Refusal, Target, verify, verify_header};
