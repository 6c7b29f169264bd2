//! What makes one device this device, as it lies in flash: written once when it is provisioned, read at every start.
//!
//! 16 KiB at `forebay_flash::map::PROVISION`. Little-endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `FBD1` |
//! | 4 | 4 | length of the entries |
//! | 8 | 4 | CRC-32 (ISO-HDLC) of the entries |
//! | 12 | ... | entries: a tag of 1 byte, a length of 2, a value |
//!
//! | tag | value |
//! |---|---|
//! | 1 | the device's name: the common name of its certificate |
//! | 2 | the gateway's address as `host:port` |
//! | 3 | the name in the gateway's certificate |
//! | 4 | the CA that signs gateways, DER |
//! | 5 | the device's certificate, DER; again for each that leads to its CA |
//! | 6 | the device's key, PKCS#8 DER |
//! | 7 | the Wi-Fi network's name |
//! | 8 | its pass phrase |
//!
//! Unknown tags are passed over, so that older firmware reads newer identities.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::str;

use crc::{CRC_32_ISO_HDLC, Crc, NoTable};
use forebay_flash::{ReadNorFlash, map};

const MAGIC: [u8; 4] = *b"FBD1";
const HEADER: usize = 12;
const CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);

const NAME: u8 = 1;
const GATEWAY: u8 = 2;
const SERVER_NAME: u8 = 3;
const CA: u8 = 4;
const CERTIFICATE: u8 = 5;
const KEY: u8 = 6;
const NETWORK: u8 = 7;
const PASS_PHRASE: u8 = 8;

/// What makes one device this device.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    entries: Vec<u8>,
}

/// Why there is no identity to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device was never provisioned.
    Blank,
    /// What is there is no identity, or a damaged one.
    Damaged,
    /// An entry that every device needs is missing.
    Missing(&'static str),
    /// The flash could not be read.
    Unreadable,
}

impl core::fmt::Debug for Identity {
    /// The key and the pass phrase stay out of it.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name())
            .field("gateway", &self.gateway())
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads it from the device's flash.
    ///
    /// # Errors
    /// If there is none that can be used.
    pub fn read<F: ReadNorFlash>(flash: &mut F) -> Result<Identity, Fault> {
        let start = map::PROVISION.start;
        let mut header = [0; HEADER];
        flash.read(start, &mut header).map_err(|_| Fault::Unreadable)?;
        if header == [0xff; HEADER] {
            return Err(Fault::Blank);
        }
        let [length, crc] = [4, 8].map(|at| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
        let length = length as usize;
        if header[..4] != MAGIC || length > map::PROVISION.len() - HEADER {
            return Err(Fault::Damaged);
        }
        let mut entries = vec![0; length];
        flash.read(start + HEADER as u32, &mut entries).map_err(|_| Fault::Unreadable)?;
        if CRC.checksum(&entries) != crc {
            return Err(Fault::Damaged);
        }
        Identity { entries }.complete()
    }

    fn complete(self) -> Result<Identity, Fault> {
        let needed = [
            (NAME, "name"),
            (GATEWAY, "gateway"),
            (SERVER_NAME, "server name"),
            (CA, "CA"),
            (CERTIFICATE, "certificate"),
            (KEY, "key"),
        ];
        for (tag, what) in needed {
            if self.all(tag).next().is_none() {
                return Err(Fault::Missing(what));
            }
        }
        let texts = [NAME, GATEWAY, SERVER_NAME, NETWORK, PASS_PHRASE];
        if texts
            .into_iter()
            .any(|tag| self.all(tag).any(|value| str::from_utf8(value).is_err()))
        {
            return Err(Fault::Damaged);
        }
        Ok(self)
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        self.text(NAME)
    }

    /// The gateway's address as `host:port`.
    pub fn gateway(&self) -> &str {
        self.text(GATEWAY)
    }

    /// The name in the gateway's certificate.
    pub fn server_name(&self) -> &str {
        self.text(SERVER_NAME)
    }

    /// The CA that signs gateways, DER.
    pub fn ca(&self) -> &[u8] {
        self.all(CA).next().unwrap_or_default()
    }

    /// The device's certificate and what leads from it to its CA, DER.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.all(CERTIFICATE)
    }

    /// The device's key, PKCS#8 DER.
    pub fn key(&self) -> &[u8] {
        self.all(KEY).next().unwrap_or_default()
    }

    /// The Wi-Fi network's name; empty where there is no Wi-Fi.
    pub fn network(&self) -> &str {
        self.text(NETWORK)
    }

    /// The Wi-Fi network's pass phrase.
    pub fn pass_phrase(&self) -> &str {
        self.text(PASS_PHRASE)
    }

    fn text(&self, tag: u8) -> &str {
        // `complete` has looked at every text.
        self.all(tag)
            .next()
            .and_then(|value| str::from_utf8(value).ok())
            .unwrap_or_default()
    }

    fn all(&self, wanted: u8) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.entries[..];
        core::iter::from_fn(move || {
            loop {
                let (head, tail) = rest.split_at_checked(3)?;
                let (value, after) = tail.split_at_checked(usize::from(u16::from_le_bytes([head[1], head[2]])))?;
                rest = after;
                if head[0] == wanted {
                    return Some(value);
                }
            }
        })
    }
}

/// What [`write()`] puts together.
#[cfg(feature = "write")]
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// See [`Identity::name`].
    pub name: &'a str,
    /// See [`Identity::gateway`].
    pub gateway: &'a str,
    /// See [`Identity::server_name`].
    pub server_name: &'a str,
    /// See [`Identity::ca`].
    pub ca: &'a [u8],
    /// See [`Identity::chain`].
    pub chain: &'a [Vec<u8>],
    /// See [`Identity::key`].
    pub key: &'a [u8],
    /// See [`Identity::network`] and [`Identity::pass_phrase`].
    pub wifi: Option<(&'a str, &'a str)>,
}

/// An identity as it lies in flash. `None` if it does not fit.
#[cfg(feature = "write")]
pub fn write(content: &Content<'_>) -> Option<Vec<u8>> {
    let mut entries = Vec::new();
    let mut put = |tag: u8, value: &[u8]| {
        let length = u16::try_from(value.len()).ok()?;
        entries.push(tag);
        entries.extend_from_slice(&length.to_le_bytes());
        entries.extend_from_slice(value);
        Some(())
    };
    put(NAME, content.name.as_bytes())?;
    put(GATEWAY, content.gateway.as_bytes())?;
    put(SERVER_NAME, content.server_name.as_bytes())?;
    put(CA, content.ca)?;
    for certificate in content.chain {
        put(CERTIFICATE, certificate)?;
    }
    put(KEY, content.key)?;
    if let Some((network, pass_phrase)) = content.wifi {
        put(NETWORK, network.as_bytes())?;
        put(PASS_PHRASE, pass_phrase.as_bytes())?;
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&CRC.checksum(&entries).to_le_bytes());
    bytes.extend_from_slice(&entries);
    (bytes.len() <= map::PROVISION.len()).then_some(bytes)
}

#[cfg(all(test, feature = "write"))]
mod tests;
