//! When what stands in a file ends.

use std::path::Path;

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// A revocation list may be as large as a listener takes.
const MAX_CRL: u64 = 16 << 20;

/// When the first of a file's certificates ends, in seconds since 1970; `None` if it cannot be read.
pub(crate) fn first_end(path: &Path) -> Option<i64> {
    let chain = super::certificates(path).ok()?;
    let ends = |der| Some(X509Certificate::from_der(der).ok()?.1.validity().not_after.timestamp());
    chain.iter().filter_map(|der| ends(der)).min()
}

/// When the first of a file's revocation lists is due for renewal, in seconds since 1970; `None` if it cannot be read, or none says.
pub(crate) fn crl_ends(path: &Path) -> Option<i64> {
    let size = path.metadata().ok()?.len();
    let pem = (size <= MAX_CRL).then(|| std::fs::read(path).ok()).flatten()?;
    let lists = CertificateRevocationListDer::pem_slice_iter(&pem).filter_map(Result::ok);
    let ends = |list: CertificateRevocationListDer<'_>| Some(CertificateRevocationList::from_der(&list).ok()?.1.next_update()?.timestamp());
    lists.filter_map(ends).min()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
        SerialNumber, date_time_ymd,
    };

    use super::*;

    #[test]
    fn the_first_end_of_several_counts() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for year in [2041, 2031, 2051] {
            let mut params = CertificateParams::default();
            params.not_after = date_time_ymd(year, 1, 1);
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            file.write_all(certificate.pem().as_bytes()).unwrap();
        }
        assert_eq!(first_end(file.path()), Some(date_time_ymd(2031, 1, 1).unix_timestamp()));
        assert_eq!(crl_ends(file.path()), None);
        assert_eq!(first_end(Path::new("/nowhere")), None);
    }

    #[test]
    fn a_revocation_list_ends_with_its_next_update() {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
        let issuer = Issuer::new(params, KeyPair::generate().unwrap());
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2027, 5, 4),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(list.signed_by(&issuer).unwrap().pem().unwrap().as_bytes()).unwrap();
        assert_eq!(crl_ends(file.path()), Some(date_time_ymd(2027, 5, 4).unix_timestamp()));
    }
}
