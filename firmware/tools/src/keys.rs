//! Release keys.
//!
//! A secret key is a PKCS#8 PEM file (`release-ID.key`), readable by its owner only, as `openssl pkey` knows it. The public keys an image
//! trusts are lines of `id hex` in `trusted-keys.txt`.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use forebay_image::Key;
use forebay_image::sign::public;

/// The file with the public keys.
pub const TRUSTED: &str = "trusted-keys.txt";

/// Makes key `id` in `folder` and adds its public half to the trusted ones.
///
/// # Errors
/// If the key exists, two keys are trusted already, or a file cannot be written.
pub fn create(folder: &Path, id: u32) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let trusted = folder.join(TRUSTED);
    let mut keys = if trusted.exists() { read_trusted(&trusted)? } else { Vec::new() };
    if keys.iter().any(|key| key.id == id) {
        bail!("{} trusts a key {id} already: a new key takes a higher id", trusted.display());
    }
    if keys.len() == 2 {
        bail!(
            "{} trusts two keys already: take the line of the retired one out first",
            trusted.display()
        );
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    let pem = SigningKey::from_bytes(&secret).to_pkcs8_pem(LineEnding::LF);
    let pem = pem.map_err(|error| anyhow::anyhow!("cannot encode the key: {error}"))?;
    let path = folder.join(format!("release-{id}.key"));
    write_secret(&path, pem.as_bytes())?;
    keys.push(public(id, &secret));
    write_trusted(&trusted, &keys)?;
    Ok(path)
}

/// Writes a new file that only its owner can read.
///
/// # Errors
/// If it exists or cannot be written.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(bytes).with_context(|| format!("cannot write {}", path.display()))?;
    file.sync_all().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a secret key.
///
/// # Errors
/// If the file is not a PKCS#8 PEM ed25519 key.
pub fn read_secret(path: &Path) -> Result<[u8; 32]> {
    let pem = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    match SigningKey::from_pkcs8_pem(&pem) {
        Ok(key) => Ok(key.to_bytes()),
        Err(error) => bail!("{} is no ed25519 key in PKCS#8 PEM: {error}", path.display()),
    }
}

/// Reads the trusted keys.
///
/// # Errors
/// If a line is not `id hex`.
pub fn read_trusted(path: &Path) -> Result<Vec<Key>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| parse(line).with_context(|| format!("{}: `{line}` is no `id hex` with 64 hexadecimal digits", path.display())))
        .collect()
}

fn parse(line: &str) -> Option<Key> {
    let (id, hex) = line.split_once(' ')?;
    let hex = hex.trim();
    let mut public = [0; 32];
    if hex.len() != 64 {
        return None;
    }
    for (index, byte) in public.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(Key {
        id: id.parse().ok()?,
        public,
    })
}

fn write_trusted(path: &Path, keys: &[Key]) -> Result<()> {
    let mut text = String::from("# Public release keys: id and ed25519 key. Images are built with this file (FOREBAY_KEYS).\n");
    for key in keys {
        let hex: String = key.public.iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!("{} {hex}\n", key.id);
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_as_they_were_made() {
        let folder = tempfile::tempdir().unwrap();
        let first = create(folder.path(), 1).unwrap();
        create(folder.path(), 2).unwrap();
        let trusted = read_trusted(&folder.path().join(TRUSTED)).unwrap();
        assert_eq!(trusted[0], public(1, &read_secret(&first).unwrap()));
        assert_eq!(trusted[1].id, 2);
        let twice = create(folder.path(), 1).unwrap_err().to_string();
        assert!(twice.contains("higher id"), "{twice}");
        let third = create(folder.path(), 3).unwrap_err().to_string();
        assert!(third.contains("two keys"), "{third}");
    }

    #[test]
    fn a_secret_key_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = create(folder.path(), 1).unwrap();
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
