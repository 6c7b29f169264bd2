//! Makes the device CA and what it signs. The profiles are described in `certs/README.md`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use forebay_broker::tls::{Identity, IdentityError, pem_fault};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::store::{self, NewFile, StoreError};

/// The device CA's certificate, by the convention of the configuration.
pub(crate) const CA_CERTIFICATE: &str = "devices-ca.pem";
const CA_KEY: &str = "devices-ca.key";
const SERVER: &str = "server";
const CA_DAYS: u32 = 20 * 365 + 5;
const LEAF_DAYS: u32 = 5 * 365 + 1;
/// The limit of X.509 (`ub-common-name`).
const MAX_COMMON_NAME: usize = 64;
/// Names whose files are somebody else's.
const RESERVED: [&str; 3] = [SERVER, "devices-ca", "cloud"];
/// 2026-01-01: no certificate is made by a clock that is before this program.
const EARLIEST_NOW: i64 = 1_767_225_600;

/// For how long, and over what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// The current time; the end of validity counts from it. The start is always 1970-01-01: boards boot there.
    pub(crate) now: SystemTime,
    /// Days of validity; by default 20 years for the CA and 5 for what it signs, never past the CA's own end.
    pub(crate) days: Option<u32>,
    /// Replace files that exist.
    pub(crate) force: bool,
}

impl Terms {
    /// The default lifetimes from `now`, overwriting nothing.
    pub(crate) fn from_now(now: SystemTime) -> Self {
        Self {
            now,
            days: None,
            force: false,
        }
    }
}

/// A certificate and its key on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    /// The certificate.
    pub(crate) certificate: PathBuf,
    /// Its private key, mode 0600.
    pub(crate) key: PathBuf,
    /// The end of its validity.
    pub(crate) not_after: OffsetDateTime,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    /// A file exists or cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The CA's files are missing or unreadable.
    #[error("cannot read the CA's {}; make it with `forebay certs ca`, or give its folder with --dir", path.display())]
    NoCa {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The CA's files do not go together.
    #[error("the CA in {} cannot sign: {detail}", path.display())]
    BadCa {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// A device's name is no identity.
    #[error("\"{name}\" cannot name a device")]
    Identity {
        /// The name.
        name: String,
        /// Why.
        source: IdentityError,
    },
    /// A name that is no common name or no file name here.
    #[error("\"{name}\" cannot name a device: {reason}; choose another name")]
    DeviceName {
        /// The name.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// Neither a DNS name nor an address.
    #[error("\"{name}\" is neither a DNS name nor an IP address: {reason}")]
    ServerName {
        /// The name.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// A clock that is before this program.
    #[error("the clock says {now}, which is wrong; set the clock first")]
    Clock {
        /// The date.
        now: String,
    },
    /// The library refused.
    #[error("the certificate could not be made")]
    Library(#[from] rcgen::Error),
}

/// Makes the CA that signs the server's and the devices' certificates: `devices-ca.pem` and `devices-ca.key` in `folder`.
pub(crate) fn ca(folder: &Path, terms: &Terms) -> Result<Made, MakeError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = params(terms, CA_DAYS, None)?;
    // Every CA gets a name of its own, so that two of them are told apart in a bundle and in an error.
    let id: String = params
        .key_identifier(&key)
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Forebay devices CA {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    let pem = params.self_signed(&key)?.pem();
    save(folder, (CA_CERTIFICATE, CA_KEY), pem, &key, params.not_after, terms.force)
}

/// Makes the gateway's certificate for `names` (DNS names and addresses): `server.pem` and `server.key`, signed by the CA in `folder`.
pub(crate) fn server(folder: &Path, names: &[String], terms: &Terms) -> Result<Made, MakeError> {
    for name in names {
        check_server_name(name)?;
    }
    let authority = Authority::open(folder)?;
    let mut params = params(terms, LEAF_DAYS, Some(authority.not_after))?;
    params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
    let common_name = names
        .first()
        .filter(|name| name.len() <= MAX_COMMON_NAME)
        .map_or("forebay gateway", String::as_str);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    authority.sign_and_save(folder, SERVER, params, terms.force)
}

/// Makes a device's certificate: `NAME.pem` and `NAME.key`, signed by the CA in `folder`. The name is the device's identity.
pub(crate) fn device(folder: &Path, name: &str, terms: &Terms) -> Result<Made, MakeError> {
    check_device_name(name)?;
    let authority = Authority::open(folder)?;
    let mut params = params(terms, LEAF_DAYS, Some(authority.not_after))?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    authority.sign_and_save(folder, name, params, terms.force)
}

/// Makes several; every name is checked before the first file is written.
pub(crate) fn devices(folder: &Path, names: &[String], terms: &Terms) -> Result<Vec<Made>, MakeError> {
    for (at, name) in names.iter().enumerate() {
        check_device_name(name)?;
        if names[..at].contains(name) {
            return Err(MakeError::DeviceName {
                name: name.clone(),
                reason: "it is given twice",
            });
        }
    }
    let files: Vec<PathBuf> = names
        .iter()
        .flat_map(|name| [folder.join(format!("{name}.pem")), folder.join(format!("{name}.key"))])
        .collect();
    store::check_free(files.iter().map(PathBuf::as_path), terms.force)?;
    names.iter().map(|name| device(folder, name, terms)).collect()
}

/// A key and a request for it, as PEM, for a CA elsewhere.
pub(super) fn request(common_name: &str) -> Result<(KeyPair, String), MakeError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let request = params.serialize_request(&key)?.pem()?;
    Ok((key, request))
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    not_after: OffsetDateTime,
}

impl Authority {
    /// Opens the CA in `folder`: of the certificates in its file (two during a rotation) the one that its key belongs to.
    fn open(folder: &Path) -> Result<Self, MakeError> {
        let (certificate_path, key_path) = (folder.join(CA_CERTIFICATE), folder.join(CA_KEY));
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|source| MakeError::NoCa {
                path: path.to_owned(),
                source,
            })
        };
        let (bundle, key) = (read(&certificate_path)?, read(&key_path)?);
        let bad = |path: &Path, detail: String| MakeError::BadCa {
            path: path.to_owned(),
            detail,
        };
        // The library's text may show lines of the file, and the file is the CA's key.
        let key = KeyPair::from_pem(&key).map_err(|_| bad(&key_path, "its key does not parse; restore it".to_owned()))?;
        for der in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            let der = der.map_err(|error| bad(&certificate_path, format!("{}; restore it", pem_fault(&error))))?;
            let (_, parsed) =
                X509Certificate::from_der(&der).map_err(|error| bad(&certificate_path, format!("it is damaged ({error})")))?;
            if parsed.public_key().subject_public_key.data != key.der_bytes() {
                continue;
            }
            if !parsed.is_ca() {
                return Err(bad(
                    &certificate_path,
                    "it is not a CA's certificate; make one with `forebay certs ca`".into(),
                ));
            }
            let not_after = parsed.validity().not_after.to_datetime();
            return Ok(Self {
                issuer: Issuer::from_ca_cert_der(&der, key)?,
                not_after,
            });
        }
        Err(bad(
            &certificate_path,
            format!(
                "no certificate in it belongs to {}; restore the pair that was made together",
                key_path.display()
            ),
        ))
    }

    fn sign_and_save(&self, folder: &Path, stem: &str, mut params: CertificateParams, force: bool) -> Result<Made, MakeError> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let pem = params.signed_by(&key, &self.issuer)?.pem();
        save(
            folder,
            (&format!("{stem}.pem"), &format!("{stem}.key")),
            pem,
            &key,
            params.not_after,
            force,
        )
    }
}

/// An empty subject with its validity; `limit` is the end of the CA, which nothing it signs may outlive.
fn params(terms: &Terms, default_days: u32, limit: Option<OffsetDateTime>) -> Result<CertificateParams, MakeError> {
    let now = OffsetDateTime::from(terms.now);
    if now.unix_timestamp() < EARLIEST_NOW {
        return Err(MakeError::Clock {
            now: now.date().to_string(),
        });
    }
    let end = now.replace_nanosecond(0).unwrap_or(now) + Duration::days(terms.days.unwrap_or(default_days).into());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = OffsetDateTime::UNIX_EPOCH;
    params.not_after = limit.map_or(end, |limit| end.min(limit));
    if params.not_after <= now {
        let detail = format!(
            "it expired on {}; make a new one with `forebay certs ca` in another folder",
            params.not_after.date()
        );
        return Err(MakeError::BadCa {
            path: CA_CERTIFICATE.into(),
            detail,
        });
    }
    Ok(params)
}

/// The key goes first: a certificate in place always has its key.
fn save(
    folder: &Path,
    (certificate, key_file): (&str, &str),
    pem: String,
    key: &KeyPair,
    not_after: OffsetDateTime,
    force: bool,
) -> Result<Made, MakeError> {
    let made = Made {
        certificate: folder.join(certificate),
        key: folder.join(key_file),
        not_after,
    };
    let files = [
        NewFile {
            path: made.key.clone(),
            content: key.serialize_pem(),
            secret: true,
        },
        NewFile {
            path: made.certificate.clone(),
            content: pem,
            secret: false,
        },
    ];
    store::write_all(&files, force)?;
    Ok(made)
}

fn check_device_name(name: &str) -> Result<(), MakeError> {
    Identity::new(name).map_err(|source| MakeError::Identity {
        name: name.to_owned(),
        source,
    })?;
    let reason = if name.chars().count() > MAX_COMMON_NAME {
        "a common name has at most 64 characters"
    } else if RESERVED.contains(&name) {
        "the file of that name is the gateway's own"
    } else if name.starts_with(['.', '-']) || name.contains('\\') || name.chars().any(char::is_control) {
        "it must also be a file name: no leading . or -, no backslash, no control characters"
    } else {
        return Ok(());
    };
    Err(MakeError::DeviceName {
        name: name.to_owned(),
        reason,
    })
}

fn check_server_name(name: &str) -> Result<(), MakeError> {
    if name.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let host = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let reason = if name.contains(':') || name.contains('/') {
        "give the host alone, without port or scheme"
    } else if !name.is_ascii() {
        "write it in its ASCII form (xn--...)"
    } else if name.len() > 253 || !host.split('.').all(label) {
        "labels are 1 to 63 letters, digits and hyphens"
    } else if host
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
    {
        "it looks like an address and is not a valid one"
    } else {
        return Ok(());
    };
    Err(MakeError::ServerName {
        name: name.to_owned(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn terms() -> Terms {
        Terms::from_now(UNIX_EPOCH + Duration::from_secs(1_790_000_000))
    }

    #[test]
    fn names_that_no_device_can_have_are_refused_before_any_file_is_written() {
        let folder = tempfile::tempdir().unwrap();
        ca(folder.path(), &terms()).unwrap();
        let long = "x".repeat(65);
        for bad in [
            "",
            "+",
            "a/b",
            "a#",
            "..",
            "-rf",
            "server",
            "devices-ca",
            "cloud",
            "a\nb",
            "a\\b",
            &long,
            "good",
        ] {
            let names = ["good".to_owned(), bad.to_owned()];
            devices(folder.path(), &names, &terms()).unwrap_err();
            assert!(!folder.path().join("good.pem").exists(), "{bad:?}");
        }
        assert_eq!(
            devices(folder.path(), &["good".into(), "Prüfstand 7".into()], &terms())
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn names_that_no_client_can_dial_are_refused() {
        for good in ["plant-7.local", "gw", "*.plant.local", "192.168.10.2", "fe80::1", "a_b.c"] {
            check_server_name(good).unwrap();
        }
        for bad in [
            "",
            "plant 7",
            "plant-7.local:8883",
            "https://x",
            "münchen.de",
            "192.168.10",
            "-a",
            "a..b",
            "*",
        ] {
            check_server_name(bad).unwrap_err();
        }
    }

    #[test]
    fn nothing_outlives_its_ca_and_an_expired_ca_signs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let short = Terms { days: Some(10), ..terms() };
        let authority = ca(folder.path(), &short).unwrap();
        assert_eq!(device(folder.path(), "board-1", &terms()).unwrap().not_after, authority.not_after);
        let later = Terms {
            now: terms().now + Duration::from_secs(11 * 86_400),
            ..terms()
        };
        assert!(matches!(device(folder.path(), "board-2", &later), Err(MakeError::BadCa { .. })));
    }

    #[test]
    fn a_clock_in_1970_makes_no_certificate() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            ca(folder.path(), &Terms::from_now(UNIX_EPOCH)),
            Err(MakeError::Clock { .. })
        ));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn without_a_ca_the_error_says_how_to_make_one() {
        let folder = tempfile::tempdir().unwrap();
        let error = server(folder.path(), &["gw".into()], &terms()).unwrap_err();
        assert!(error.to_string().contains("forebay certs ca"), "{error}");
    }

    #[test]
    fn during_a_rotation_the_ca_that_owns_the_key_signs() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [&old, &new] {
            ca(folder.path(), &terms()).unwrap();
        }
        let pem = |folder: &tempfile::TempDir| std::fs::read_to_string(folder.path().join(CA_CERTIFICATE)).unwrap();
        let both = format!("{}{}", pem(&old), pem(&new));
        std::fs::write(new.path().join(CA_CERTIFICATE), both).unwrap();
        device(new.path(), "board-1", &terms()).unwrap();
        std::fs::copy(old.path().join(CA_KEY), new.path().join(CA_KEY)).unwrap();
        device(new.path(), "board-2", &terms()).unwrap();
        std::fs::write(new.path().join(CA_CERTIFICATE), pem(&old).replace("CERT", "GONE")).unwrap();
        assert!(matches!(device(new.path(), "board-3", &terms()), Err(MakeError::BadCa { .. })));
    }
}
