//! Whether an image may run.

use forebay_flash::ReadNorFlash;
use sha2::{Digest, Sha256};

use crate::header::{self, SIGNATURE_BYTES, SIGNED_BYTES};
use crate::{HEADER_BYTES, Header, Keys, Slot};

/// What an image must have been made for.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub(crate) product: [u8; 16],
    pub(crate) hardware: [u8; 16],
}

impl Target {
    /// A product on a hardware, at most 16 ASCII characters each. `None` if either is longer.
    pub const fn new(product: &str, hardware: &str) -> Option<Target> {
        match (header::padded(product), header::padded(hardware)) {
            (Some(product), Some(hardware)) => Some(Target { product, hardware }),
            _ => None,
        }
    }
}

/// Why an image may not run. The numbers are part of the state's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// The slot is erased.
    Empty = 1,
    /// What is there is no header of this format.
    NoHeader = 2,
    /// Signed by a key this device does not know.
    UnknownKey = 3,
    /// Signed by a key that was retired.
    RetiredKey = 4,
    /// The signature is not that key's over this header.
    Signature = 5,
    /// Made for another product.
    Product = 6,
    /// Made for other hardware.
    Hardware = 7,
    /// Linked for another address.
    LoadAddress = 8,
    /// Empty, not a multiple of 8, or larger than the slot.
    Size = 9,
    /// Its security counter is below the floor.
    Counter = 10,
    /// It would retire the key it is signed with, and so itself.
    KeyFloor = 11,
    /// The image is not the one that was signed.
    Hash = 12,
    /// The flash could not be read.
    Unreadable = 13,
    /// It was tried before and given up.
    GivenUp = 14,
}

impl Refusal {
    const ALL: [Refusal; 14] = [
        Refusal::Empty,
        Refusal::NoHeader,
        Refusal::UnknownKey,
        Refusal::RetiredKey,
        Refusal::Signature,
        Refusal::Product,
        Refusal::Hardware,
        Refusal::LoadAddress,
        Refusal::Size,
        Refusal::Counter,
        Refusal::KeyFloor,
        Refusal::Hash,
        Refusal::Unreadable,
        Refusal::GivenUp,
    ];

    pub(crate) fn from_code(code: u8) -> Option<Refusal> {
        Refusal::ALL.into_iter().find(|refusal| *refusal as u8 == code)
    }

    /// The word for reports and logs.
    pub fn word(self) -> &'static str {
        match self {
            Refusal::Empty => "empty",
            Refusal::NoHeader => "no-header",
            Refusal::UnknownKey => "unknown-key",
            Refusal::RetiredKey => "retired-key",
            Refusal::Signature => "signature",
            Refusal::Product => "product",
            Refusal::Hardware => "hardware",
            Refusal::LoadAddress => "load-address",
            Refusal::Size => "size",
            Refusal::Counter => "security-counter",
            Refusal::KeyFloor => "key-floor",
            Refusal::Hash => "hash",
            Refusal::Unreadable => "unreadable",
            Refusal::GivenUp => "given-up",
        }
    }
}

/// The floors below which nothing is accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Floors {
    pub(crate) counter: u32,
    pub(crate) key: u32,
}

/// Judges a header for `slot`: its signature first, so that whatever else it says is the signer's word.
///
/// # Errors
/// The first rule it breaks.
pub fn verify_header(
    bytes: &[u8; HEADER_BYTES],
    slot: Slot,
    target: &Target,
    keys: Keys<'_>,
    state: &crate::State,
) -> Result<Header, Refusal> {
    if bytes.iter().all(|byte| *byte == 0xff) {
        return Err(Refusal::Empty);
    }
    let header = Header::decode(bytes).ok_or(Refusal::NoHeader)?;
    let key = keys.find(header.key_id).ok_or(Refusal::UnknownKey)?;
    let floors = state.floors();
    if key.id < floors.key {
        return Err(Refusal::RetiredKey);
    }
    let signature = header::array_at::<SIGNATURE_BYTES>(bytes, SIGNED_BYTES);
    if !key.signed(&bytes[..SIGNED_BYTES], &signature) {
        return Err(Refusal::Signature);
    }
    let room = slot.range().len() - HEADER_BYTES;
    let size = header.size as usize;
    if header.product != target.product {
        Err(Refusal::Product)
    } else if header.hardware != target.hardware {
        Err(Refusal::Hardware)
    } else if header.load_address != slot.address() {
        Err(Refusal::LoadAddress)
    } else if size == 0 || !size.is_multiple_of(8) || size > room {
        Err(Refusal::Size)
    } else if header.security_counter < floors.counter {
        Err(Refusal::Counter)
    } else if header.key_floor > header.key_id {
        Err(Refusal::KeyFloor)
    } else {
        Ok(header)
    }
}

/// Judges what lies in `slot`: the header, then every byte behind it.
///
/// # Errors
/// The first rule it breaks.
pub fn verify<F: ReadNorFlash>(
    flash: &mut F,
    slot: Slot,
    target: &Target,
    keys: Keys<'_>,
    state: &crate::State,
) -> Result<Header, Refusal> {
    let mut bytes = [0; HEADER_BYTES];
    let start = slot.range().start;
    flash.read(start, &mut bytes).map_err(|_| Refusal::Unreadable)?;
    let header = verify_header(&bytes, slot, target, keys, state)?;
    let mut hash = Sha256::new();
    let mut at = start + HEADER_BYTES as u32;
    let mut rest = header.size as usize;
    while rest > 0 {
        let length = rest.min(bytes.len());
        flash.read(at, &mut bytes[..length]).map_err(|_| Refusal::Unreadable)?;
        hash.update(&bytes[..length]);
        at += length as u32;
        rest -= length;
    }
    if hash.finalize()[..] == header.hash[..] {
        Ok(header)
    } else {
        Err(Refusal::Hash)
    }
}
