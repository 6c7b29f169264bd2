//! The keys a device trusts.

use ed25519_dalek::{Signature, VerifyingKey};

/// A public key and the number headers call it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its number; a later key has a higher one.
    pub id: u32,
    /// The ed25519 public key (RFC 8032).
    pub public: [u8; 32],
}

/// The trusted keys: one, or two while one is being replaced. They are part of the bootloader and never change.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a>(&'a [Key]);

impl<'a> Keys<'a> {
    /// The keys a device trusts.
    ///
    /// # Panics
    /// If there is none or there are more than two, or two with one id: the bootloader was built wrongly.
    pub const fn new(keys: &'a [Key]) -> Keys<'a> {
        assert!(!keys.is_empty() && keys.len() <= 2);
        assert!(keys.len() == 1 || keys[0].id != keys[1].id);
        Keys(keys)
    }

    pub(crate) fn find(&self, id: u32) -> Option<&'a Key> {
        self.0.iter().find(|key| key.id == id)
    }
}

impl Key {
    /// Whether `signature` is this key's over `message`, by the strict rules (no small-order keys, no malleability).
    pub(crate) fn signed(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        match VerifyingKey::from_bytes(&self.public) {
            Ok(key) => key.verify_strict(message, &Signature::from_bytes(signature)).is_ok(),
            Err(_) => false,
        }
    }
}
