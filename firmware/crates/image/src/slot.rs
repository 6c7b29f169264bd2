//! The two places an image runs from.

use core::ops::Range;

use forebay_flash::map;

/// A place an image runs from, without being moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// In the first bank, behind the bootloader.
    A,
    /// The second bank.
    B,
}

impl Slot {
    /// Both.
    pub const ALL: [Slot; 2] = [Slot::A, Slot::B];

    /// The other one.
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    /// Where it lies in flash.
    pub fn range(self) -> Range<u32> {
        match self {
            Slot::A => map::SLOT_A,
            Slot::B => map::SLOT_B,
        }
    }

    /// The address its header must name.
    pub fn address(self) -> u32 {
        map::BASE + self.range().start
    }

    /// The slot that holds `address`: how an image learns where it runs.
    pub fn of_address(address: u32) -> Option<Slot> {
        let offset = address.checked_sub(map::BASE)?;
        Slot::ALL.into_iter().find(|slot| slot.range().contains(&offset))
    }

    pub(crate) fn code(slot: Option<Slot>) -> u8 {
        match slot {
            None => 0,
            Some(Slot::A) => 1,
            Some(Slot::B) => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Option<Slot>> {
        match code {
            0 => Some(None),
            1 => Some(Some(Slot::A)),
            2 => Some(Some(Slot::B)),
            _ => None,
        }
    }
}
