//! A device for tests: simulated flash, two keys, and images that are small and quick to verify.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "only tests use it")]

use std::cell::RefCell;

use forebay_flash::sim::Sim;
use forebay_flash::{NorFlash, PAGE, Shared, map};
use forebay_image::sign::{Claims, public, sign};
use forebay_image::{Control, HEADER_BYTES, Halt, Key, Keys, Slot, Start, Target, UpdateError, Version, boot};

pub const OLD_SECRET: [u8; 32] = [7; 32];
pub const NEW_SECRET: [u8; 32] = [8; 32];
pub const STRANGER: [u8; 32] = [9; 32];
/// More than two pages, ending within one.
pub const BODY: usize = 2 * PAGE as usize + 264;

pub fn target() -> Target {
    Target::new("forebay-device", "test-board").unwrap()
}

pub fn trusted() -> [Key; 2] {
    [public(1, &OLD_SECRET), public(2, &NEW_SECRET)]
}

/// What varies between images in these tests.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    pub patch: u16,
    pub security_counter: u32,
    pub key_id: u32,
    pub key_floor: u32,
    pub secret: [u8; 32],
}

impl Release {
    pub fn new(patch: u16) -> Release {
        Release {
            patch,
            security_counter: 1,
            key_id: 1,
            key_floor: 0,
            secret: OLD_SECRET,
        }
    }

    pub fn version(&self) -> Version {
        Version {
            major: 1,
            minor: 0,
            patch: self.patch,
        }
    }

    pub fn image(&self, slot: Slot) -> Vec<u8> {
        let body: Vec<u8> = (0..BODY).map(|index| (index as u16 ^ self.patch.wrapping_mul(251)) as u8).collect();
        let claims = Claims {
            target: target(),
            slot,
            version: self.version(),
            security_counter: self.security_counter,
            key_floor: self.key_floor,
            key_id: self.key_id,
        };
        sign(&body, &claims, &self.secret)
    }
}

pub struct Device {
    pub flash: RefCell<Sim>,
    pub keys: [Key; 2],
}

impl Device {
    /// Fresh from the factory with `release` in slot A.
    pub fn factory(release: &Release, seed: u64) -> Device {
        let device = Device {
            flash: RefCell::new(Sim::new(map::ALL.end, seed)),
            keys: trusted(),
        };
        device.place(&release.image(Slot::A), Slot::A);
        device
    }

    /// The same after its first start and self-test.
    pub fn confirmed(release: &Release, seed: u64) -> Device {
        let device = Device::factory(release, seed);
        let start = device.boot().unwrap();
        device.control(start.slot).unwrap().confirm().unwrap();
        device
    }

    /// Puts bytes into a slot as a programmer would.
    pub fn place(&self, image: &[u8], slot: Slot) {
        let mut flash = self.flash.borrow_mut();
        let range = slot.range();
        flash.erase(range.start, range.end).unwrap();
        flash.write(range.start, image).unwrap();
    }

    pub fn boot(&self) -> Result<Start, Halt> {
        boot(&mut *self.flash.borrow_mut(), &target(), Keys::new(&self.keys))
    }

    pub fn control(&self, slot: Slot) -> Option<Control<'_, Shared<'_, Sim>>> {
        Control::open(Shared(&self.flash), slot, target(), Keys::new(&self.keys)).ok()
    }

    /// The running image in `slot` receives `release`.
    pub fn update(&self, slot: Slot, release: &Release) -> Result<(), UpdateError> {
        self.update_with(slot, &release.image(slot.other()))
    }

    pub fn update_with(&self, slot: Slot, image: &[u8]) -> Result<(), UpdateError> {
        let mut control = self.control(slot).ok_or(UpdateError::NotConfirmed)?;
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&image[..HEADER_BYTES]);
        let mut update = control.update(&header)?;
        for chunk in image[HEADER_BYTES..].chunks(499) {
            update.write(chunk)?;
        }
        update.finish()
    }

    /// The same device, with other randomness to come.
    pub fn again(&self, seed: u64) -> Device {
        let mut flash = self.flash.borrow().clone();
        flash.reseed(seed);
        Device {
            flash: RefCell::new(flash),
            keys: self.keys,
        }
    }

    pub fn is_dark(&self) -> bool {
        self.flash.borrow().is_dark()
    }

    pub fn cut_after(&self, operations: u64) {
        self.flash.borrow_mut().cut_after(operations);
    }

    pub fn power_on(&self) {
        self.flash.borrow_mut().power_on();
    }

    pub fn operations(&self) -> u64 {
        self.flash.borrow().operations()
    }
}
