//! Making signed images. Never part of a device.

extern crate alloc;

use alloc::vec::Vec;

use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};

use crate::header::{SIGNATURE_BYTES, SIGNED_BYTES};
use crate::{HEADER_BYTES, Header, Key, Slot, Target, Version};

/// What the signer says of an image.
#[derive(Clone, Copy, Debug)]
pub struct Claims {
    /// What it is made for.
    pub target: Target,
    /// The slot it is linked for.
    pub slot: Slot,
    /// Its version.
    pub version: Version,
    /// See [`Header::security_counter`].
    pub security_counter: u32,
    /// See [`Header::key_floor`].
    pub key_floor: u32,
    /// The id of the signing key.
    pub key_id: u32,
}

/// The image with its header in front, padded with 0xff to whole words.
pub fn sign(image: &[u8], claims: &Claims, secret: &[u8; 32]) -> Vec<u8> {
    let mut body = image.to_vec();
    body.resize(image.len().next_multiple_of(8), 0xff);
    let mut hash = [0; 32];
    hash.copy_from_slice(&Sha256::digest(&body));
    let header = Header {
        product: claims.target.product,
        hardware: claims.target.hardware,
        version: claims.version,
        size: body.len() as u32,
        load_address: claims.slot.address(),
        security_counter: claims.security_counter,
        key_id: claims.key_id,
        key_floor: claims.key_floor,
        hash,
    };
    let mut signed = seal(&header, secret).to_vec();
    signed.extend_from_slice(&body);
    signed
}

/// A header with its signature, whatever it says: tests need wrong ones as well.
pub fn seal(header: &Header, secret: &[u8; 32]) -> [u8; HEADER_BYTES] {
    let encoded = header.encode();
    let signature = SigningKey::from_bytes(secret).sign(&encoded);
    let mut bytes = [0xff; HEADER_BYTES];
    bytes[..SIGNED_BYTES].copy_from_slice(&encoded);
    bytes[SIGNED_BYTES..SIGNED_BYTES + SIGNATURE_BYTES].copy_from_slice(&signature.to_bytes());
    bytes
}

/// The public half of a secret key.
pub fn public(id: u32, secret: &[u8; 32]) -> Key {
    Key {
        id,
        public: SigningKey::from_bytes(secret).verifying_key().to_bytes(),
    }
}
