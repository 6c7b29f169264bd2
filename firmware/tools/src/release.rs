//! The header in front of a linked image.

use std::str::FromStr;

use anyhow::{Context, Result, bail};
use forebay_image::sign::{Claims, sign};
use forebay_image::{HEADER_BYTES, Slot, Target, Version};

/// The product of these images; the firmware's crate `trust` says the same.
pub const PRODUCT: &str = "forebay-device";

/// A version as `major.minor.patch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionText(pub Version);

impl FromStr for VersionText {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<VersionText> {
        let parts: Vec<u16> = text
            .split('.')
            .map(|part| {
                part.parse()
                    .with_context(|| format!("`{text}` is no version: three numbers up to 65535, like 1.4.2"))
            })
            .collect::<Result<_>>()?;
        match parts[..] {
            [major, minor, patch] => Ok(VersionText(Version { major, minor, patch })),
            _ => bail!("`{text}` is no version: three numbers up to 65535, like 1.4.2"),
        }
    }
}

/// What a release says of itself, whatever its slot.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    /// `b-l475e-iot01a`, or the emulator's name.
    pub hardware: &'a str,
    /// Its version.
    pub version: Version,
    /// See [`forebay_image::Header::security_counter`].
    pub security_counter: u32,
    /// The signing key's id.
    pub key_id: u32,
    /// See [`forebay_image::Header::key_floor`].
    pub key_floor: u32,
}

/// Puts a signed header in front of `binary`, an image linked for `slot`.
///
/// # Errors
/// If it was linked for another slot, does not fit, or retires its own key.
pub fn make(binary: &[u8], slot: Slot, release: &Release<'_>, secret: &[u8; 32]) -> Result<Vec<u8>> {
    let room = slot.range().len() - HEADER_BYTES;
    if binary.len() > room {
        bail!("the image has {} bytes, the slot room for {room}", binary.len());
    }
    let Some(entry) = binary.get(4..8) else {
        bail!("the image is too short for a vector table");
    };
    let entry = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
    if Slot::of_address(entry) != Some(slot) {
        bail!("the image starts at {entry:#010x}: it was not linked for slot {slot:?}");
    }
    if release.key_floor > release.key_id {
        bail!(
            "key floor {} would retire key {}, which signs this image",
            release.key_floor,
            release.key_id
        );
    }
    let claims = Claims {
        target: Target::new(PRODUCT, release.hardware).context("hardware names have at most 16 characters")?,
        slot,
        version: release.version,
        security_counter: release.security_counter,
        key_floor: release.key_floor,
        key_id: release.key_id,
    };
    Ok(sign(binary, &claims, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: Release<'_> = Release {
        hardware: "test",
        version: Version {
            major: 1,
            minor: 2,
            patch: 3,
        },
        security_counter: 1,
        key_id: 1,
        key_floor: 0,
    };

    fn image(entry: u32) -> Vec<u8> {
        [[0; 4], entry.to_le_bytes()].concat()
    }

    #[test]
    fn an_image_linked_for_the_other_slot_is_not_signed() {
        let entry = Slot::B.address() + 0x401;
        assert!(make(&image(entry), Slot::B, &RELEASE, &[1; 32]).is_ok());
        let refused = make(&image(entry), Slot::A, &RELEASE, &[1; 32]).unwrap_err().to_string();
        assert!(refused.contains("not linked for slot A"), "{refused}");
    }

    #[test]
    fn a_release_cannot_retire_its_own_key() {
        let release = Release { key_floor: 2, ..RELEASE };
        let refused = make(&image(Slot::A.address() + 0x401), Slot::A, &release, &[1; 32])
            .unwrap_err()
            .to_string();
        assert!(refused.contains("retire key 1"), "{refused}");
    }

    #[test]
    fn versions_are_three_numbers() {
        assert_eq!("1.2.3".parse::<VersionText>().unwrap().0, RELEASE.version);
        for wrong in ["1.2", "1.2.3.4", "1.2.x", "1.2.65536", ""] {
            assert!(wrong.parse::<VersionText>().is_err(), "{wrong}");
        }
    }
}
