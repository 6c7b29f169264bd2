//! The header in front of an image.
//!
//! 1 KiB, because the vector table behind it must be aligned to that. Little-endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `FBI1` |
//! | 4 | 4 | length of what is signed: 112 |
//! | 8 | 16 | product, ASCII, padded with zeros |
//! | 24 | 16 | hardware, ASCII, padded with zeros |
//! | 40 | 6 | version: major, minor, patch |
//! | 46 | 2 | 0 |
//! | 48 | 4 | size of the image behind the header, bytes, a multiple of 8 |
//! | 52 | 4 | load address: where the header itself stands |
//! | 56 | 4 | security counter |
//! | 60 | 4 | key id |
//! | 64 | 4 | key floor: keys with lower ids are retired once this image is confirmed; at most the key id |
//! | 68 | 12 | 0 |
//! | 80 | 32 | SHA-256 of the image |
//! | 112 | 64 | ed25519 signature of bytes 0 to 111 |
//! | 176 | 848 | 0xff |

/// Bytes of the header in flash.
pub const HEADER_BYTES: usize = 1024;

pub(crate) const SIGNED_BYTES: usize = 112;
pub(crate) const SIGNATURE_BYTES: usize = 64;
const MAGIC: [u8; 4] = *b"FBI1";

/// An image's version, compared in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Incompatible changes.
    pub major: u16,
    /// New abilities.
    pub minor: u16,
    /// Corrections.
    pub patch: u16,
}

/// What a header says. Believe it only after [`verify_header`](crate::verify_header).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The product, padded with zeros.
    pub product: [u8; 16],
    /// The hardware, padded with zeros.
    pub hardware: [u8; 16],
    /// The image's version.
    pub version: Version,
    /// Bytes behind the header.
    pub size: u32,
    /// Where the header stands in the address space.
    pub load_address: u32,
    /// Raised by releases that close a hole: images with a lower one are refused after this one is confirmed.
    pub security_counter: u32,
    /// The key that signed.
    pub key_id: u32,
    /// Keys with lower ids are retired once this image is confirmed.
    pub key_floor: u32,
    /// SHA-256 of the bytes behind the header.
    pub hash: [u8; 32],
}

impl Header {
    /// Reads a header without judging what it says. `None` if these bytes are no header.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
        let zeros = bytes[46..48].iter().chain(&bytes[68..80]).all(|byte| *byte == 0);
        let erased = bytes[SIGNED_BYTES + SIGNATURE_BYTES..].iter().all(|byte| *byte == 0xff);
        if bytes[..4] != MAGIC || u32_at(bytes, 4) as usize != SIGNED_BYTES || !zeros || !erased {
            return None;
        }
        Some(Header {
            product: array_at(bytes, 8),
            hardware: array_at(bytes, 24),
            version: Version {
                major: u16::from_le_bytes(array_at(bytes, 40)),
                minor: u16::from_le_bytes(array_at(bytes, 42)),
                patch: u16::from_le_bytes(array_at(bytes, 44)),
            },
            size: u32_at(bytes, 48),
            load_address: u32_at(bytes, 52),
            security_counter: u32_at(bytes, 56),
            key_id: u32_at(bytes, 60),
            key_floor: u32_at(bytes, 64),
            hash: array_at(bytes, 80),
        })
    }

    /// The bytes that are signed.
    pub fn encode(&self) -> [u8; SIGNED_BYTES] {
        let mut bytes = [0; SIGNED_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&(SIGNED_BYTES as u32).to_le_bytes());
        bytes[8..24].copy_from_slice(&self.product);
        bytes[24..40].copy_from_slice(&self.hardware);
        bytes[40..42].copy_from_slice(&self.version.major.to_le_bytes());
        bytes[42..44].copy_from_slice(&self.version.minor.to_le_bytes());
        bytes[44..46].copy_from_slice(&self.version.patch.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.size.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.load_address.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.security_counter.to_le_bytes());
        bytes[60..64].copy_from_slice(&self.key_id.to_le_bytes());
        bytes[64..68].copy_from_slice(&self.key_floor.to_le_bytes());
        bytes[80..].copy_from_slice(&self.hash);
        bytes
    }
}

/// A name as it stands in a header. `None` if it is longer than 16 bytes.
pub(crate) const fn padded(name: &str) -> Option<[u8; 16]> {
    let name = name.as_bytes();
    if name.len() > 16 {
        return None;
    }
    let mut bytes = [0; 16];
    let mut index = 0;
    while index < name.len() {
        bytes[index] = name[index];
        index += 1;
    }
    Some(bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}
