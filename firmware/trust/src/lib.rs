//! The keys and the product a build trusts: bootloader and application must agree on them.
#![no_std]
#![forbid(unsafe_code)]

use forebay_image::{Key, Keys};

/// The product's name in every header.
pub const PRODUCT: &str = "forebay-device";

/// The keys in the file that `FOREBAY_KEYS` named when this was built.
pub const KEYS: Keys<'static> = Keys::new(include!(concat!(env!("OUT_DIR"), "/keys.rs")));
