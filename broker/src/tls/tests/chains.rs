//! Chains that are made to keep the verifier busy: many certificates that could each have issued any other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, UNIX_EPOCH};

use forebay_chain::{MAX_BYTES, MAX_INTERMEDIATES};
use rcgen::{BasicConstraints, Certificate, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::bench::{Authority, Client, Leaf, Listener, NOW, Plan, VERSIONS, meet};
use crate::tls::verifier::{Presented, RememberingVerifier};
use crate::tls::{CertificateClock, HandshakeFault};

/// A leaf and look-alikes: `count` CAs that share `names` names in a ring, each with a key of its own and so many small extensions.
fn look_alikes(count: usize, names: usize, extensions: u64) -> (Vec<Certificate>, KeyPair) {
    let ca = |name: usize| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("CA {}", name % names));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.custom_extensions = (0..extensions)
            .map(|number| CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, number], Vec::new()))
            .collect();
        params
    };
    let keys: Vec<_> = (0..=count).map(|_| KeyPair::generate().unwrap()).collect();
    let signed =
        |params: CertificateParams, key: usize, by: usize| params.signed_by(&keys[key], &Issuer::from_params(&ca(by), &keys[by])).unwrap();
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name.push(DnType::CommonName, "board-7");
    let mut chain = vec![signed(leaf, count, 0)];
    chain.extend((0..count).map(|at| signed(ca(at), at, (at + 1) % count)));
    let key = KeyPair::from_pem(&keys[count].serialize_pem()).unwrap();
    (chain, key)
}

fn shapes() -> impl Iterator<Item = (usize, usize, u64)> {
    let counts = [1, 2, 3, 4, 9, 20];
    counts
        .into_iter()
        .flat_map(|count| [1, 2, 3].map(move |names| (count, names)))
        .flat_map(|(count, names)| [0, 60, 150, 600].map(move |extensions| (count, names, extensions)))
        // More than a handshake message may have.
        .filter(|(count, _, extensions)| *count * usize::try_from(*extensions).unwrap() <= 6000)
}

/// What the verifier behind ours was given.
#[derive(Debug)]
struct Counting {
    real: Arc<dyn ClientCertVerifier>,
    most: AtomicUsize,
    bytes: AtomicUsize,
}

impl ClientCertVerifier for Counting {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.real.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.most.fetch_max(others.len(), Ordering::Relaxed);
        let bytes = leaf.len() + others.iter().map(|other| other.len()).sum::<usize>();
        self.bytes.fetch_max(bytes, Ordering::Relaxed);
        self.real.verify_client_cert(leaf, others, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!("no handshake goes on")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!("no handshake goes on")
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.real.supported_verify_schemes()
    }
}

struct Verifiers {
    inner: Arc<Counting>,
    ours: RememberingVerifier,
}

fn verifiers(ca: &Authority) -> Verifiers {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap()).unwrap();
    let real = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()));
    let inner = Arc::new(Counting {
        real: real.build().unwrap(),
        most: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
    });
    let ours = RememberingVerifier {
        inner: inner.clone(),
        presented: Arc::new(OnceLock::<Presented>::new()),
        judgement: CertificateClock::fixed(UNIX_EPOCH + Duration::from_secs(NOW)).judgement(),
    };
    Verifiers { inner, ours }
}

impl Verifiers {
    fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<ClientCertVerified, Error> {
        self.ours
            .verify_client_cert(&chain[0], &chain[1..], UnixTime::since_unix_epoch(Duration::from_secs(NOW)))
    }

    /// The shortest of some times: what the machine does besides makes none shorter.
    fn time(&self, chain: &[CertificateDer<'_>], is_good: bool) -> Duration {
        let once = || {
            let began = Instant::now();
            assert_eq!(self.judge(chain).is_ok(), is_good);
            began.elapsed()
        };
        (0..5).map(|_| once()).min().unwrap()
    }
}

#[test]
fn a7_what_is_verified_of_a_chain_is_bounded_and_so_is_its_time() {
    let ca = Authority::named("devices");
    let verifiers = verifiers(&ca);
    let good = ca.issue(&Plan::device("board-7"));
    let good = [CertificateDer::from_pem_slice(good.pem.as_bytes()).unwrap()];
    let usual = verifiers.time(&good, true);
    for (count, names, extensions) in shapes() {
        let (chain, _) = look_alikes(count, names, extensions);
        let mut chain: Vec<_> = chain.iter().map(|certificate| certificate.der().clone()).collect();
        for turn in 0..2 {
            let took = verifiers.time(&chain, false);
            // A search over all of nine takes thousands of times as long.
            assert!(
                took < usual * 40,
                "{count} of {names} names with {extensions} extensions, order {turn}: {took:?} against {usual:?}"
            );
            chain[1..].reverse();
        }
    }
    let (most, bytes) = (&verifiers.inner.most, &verifiers.inner.bytes);
    assert!(most.load(Ordering::Relaxed) <= MAX_INTERMEDIATES, "{most:?}");
    assert!(bytes.load(Ordering::Relaxed) <= MAX_BYTES, "{bytes:?}");
}

#[tokio::test]
async fn a7_a_chain_beyond_the_limits_is_refused_by_its_name() {
    let listener = Listener::new();
    let tls = listener.load().unwrap();
    for (extensions, named) in [(0, "more than 3 certificates"), (350, "bytes or more")] {
        let (chain, key) = look_alikes(9, 2, extensions);
        let leaf = Leaf {
            pem: chain.iter().map(Certificate::pem).collect(),
            key: key.serialize_pem(),
        };
        for version in VERSIONS {
            let client = Client {
                version,
                leaf: Some(&leaf),
                trusts: &listener.ca.pem,
                dials: "plant-7.local",
            };
            let (outcome, _) = meet(&tls, &client).await;
            let failure = outcome.unwrap_err();
            assert!(matches!(failure.fault, HandshakeFault::LongChain { .. }), "{failure}");
            assert_eq!(failure.fault.label(), "long_chain");
            let line = failure.to_string();
            assert!(line.contains(named) && line.contains("CN=board-7"), "{line}");
        }
    }
}

#[tokio::test]
async fn a_device_behind_three_intermediates_is_let_in_whatever_it_sends_besides() {
    let listener = Listener::new();
    let leaf = listener.ca.issue_behind(3, &Plan::device("board-7"));
    let strangers: String = look_alikes(5, 5, 0).0.iter().map(Certificate::pem).collect();
    let tls = listener.load().unwrap();
    for more in [String::new(), listener.ca.pem.clone(), strangers] {
        let leaf = Leaf {
            pem: leaf.pem.clone() + &more,
            key: leaf.key.clone(),
        };
        for version in VERSIONS {
            let client = Client {
                version,
                leaf: Some(&leaf),
                trusts: &listener.ca.pem,
                dials: "plant-7.local",
            };
            meet(&tls, &client).await.0.unwrap();
        }
    }
}
