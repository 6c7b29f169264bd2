//! The provider: one suite, one group, one signature.

mod aead;
mod exchange;
mod hash;
mod signing;
mod verifying;

use alloc::boxed::Box;
use alloc::vec;

use rustls::crypto::{CipherSuiteCommon, CryptoProvider, SecureRandom, tls13::HkdfUsingHmac};
use rustls::{CipherSuite, SupportedCipherSuite, Tls13CipherSuite};

static SUITE: Tls13CipherSuite = Tls13CipherSuite {
    common: CipherSuiteCommon {
        suite: CipherSuite::TLS13_AES_128_GCM_SHA256,
        hash_provider: &hash::Sha256Hash,
        // RFC 8446 section 5.5: 2^24.5 full records under one AES-GCM key.
        confidentiality_limit: 1 << 24,
    },
    hkdf_provider: &HkdfUsingHmac(&hash::Sha256Hmac),
    aead_alg: &aead::Aes128Gcm,
    quic: None,
};

/// The device's provider, over this source of randomness.
///
/// The key exchange gets no argument from rustls, so the little that holds the source is never freed (8 bytes): make one
/// provider per boot, or per process.
pub fn provider(random: &'static dyn SecureRandom) -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![SupportedCipherSuite::Tls13(&SUITE)],
        kx_groups: vec![Box::leak(Box::new(exchange::Secp256r1 { random }))],
        signature_verification_algorithms: verifying::ALGORITHMS,
        secure_random: random,
        key_provider: &signing::Keys,
    }
}
