//! The provider's parts against the vectors of the RFCs, and against the host's `ring`.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use forebay_device_tls::{GetRandomFailed, SecureRandom, provider};
use rustls::crypto::cipher::{AeadKey, Iv, OutboundChunks, OutboundPlainMessage};
use rustls::crypto::tls13::{Hkdf, OkmBlock};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::PrivateKeyDer;
use rustls::{CipherSuite, ContentType, NamedGroup, ProtocolVersion, SignatureScheme, Tls13CipherSuite};

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

/// Gives what a test put in, then fails.
#[derive(Debug)]
struct Fixed(Mutex<Vec<Vec<u8>>>);

impl SecureRandom for Fixed {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        let next = self.0.lock().unwrap().pop().ok_or(GetRandomFailed)?;
        buffer.copy_from_slice(&next);
        Ok(())
    }
}

fn ours(random: &[&str]) -> CryptoProvider {
    let draws = random.iter().rev().map(|text| hex(text)).collect();
    provider(Box::leak(Box::new(Fixed(Mutex::new(draws)))))
}

fn suite(provider: &CryptoProvider) -> &'static Tls13CipherSuite {
    provider
        .cipher_suites
        .iter()
        .find(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256)
        .and_then(rustls::SupportedCipherSuite::tls13)
        .unwrap()
}

fn rings() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

#[test]
fn there_is_one_suite_one_group_and_one_signature() {
    let ours = ours(&[]);
    assert_eq!(ours.cipher_suites.len(), 1);
    assert_eq!(
        ours.kx_groups.iter().map(|group| group.name()).collect::<Vec<_>>(),
        [NamedGroup::secp256r1]
    );
    assert_eq!(
        ours.signature_verification_algorithms.supported_schemes(),
        [SignatureScheme::ECDSA_NISTP256_SHA256]
    );
}

#[test]
fn sha256_of_fips_180_and_in_parts() {
    let hash = suite(&ours(&[])).common.hash_provider;
    let expected = hex("ba7816bf 8f01cfea 414140de 5dae2223 b00361a3 96177a9c b410ff61 f20015ad");
    assert_eq!(hash.hash(b"abc").as_ref(), expected);
    let mut context = hash.start();
    context.update(b"a");
    let mut fork = context.fork();
    fork.update(b"bc");
    assert_eq!(fork.fork_finish().as_ref(), expected);
    assert_eq!(fork.finish().as_ref(), expected);
    assert_eq!(context.finish().as_ref(), hash.hash(b"a").as_ref());
}

#[test]
fn hkdf_of_rfc_5869_case_1_and_hmac_of_rfc_4231_case_2() {
    let hkdf = suite(&ours(&[])).hkdf_provider;
    let expander = hkdf.extract_from_secret(Some(&hex("000102030405060708090a0b0c")), &[0x0b; 22]);
    let mut okm = [0; 42];
    expander.expand_slice(&[&hex("f0f1f2f3f4"), &hex("f5f6f7f8f9")], &mut okm).unwrap();
    assert_eq!(
        okm.as_slice(),
        hex("3cb25f25faacd57a90434f64d0362f2a 2d2d0a90cf1a5a4c5db02d56ecc4c5bf 34007208d5b887185865")
    );
    assert!(expander.expand_slice(&[], &mut [0; 255 * 32 + 1]).is_err());
    let tag = hkdf.hmac_sign(&OkmBlock::new(b"Jefe"), b"what do ya want for nothing?");
    assert_eq!(
        tag.as_ref(),
        hex("5bdcc146bf60754e6a042426089575c7 5a003f089d2739839dec58b964ec3843")
    );
}

#[test]
fn the_key_schedule_is_rings() {
    let (ours, rings) = (suite(&ours(&[])).hkdf_provider, suite(&rings()).hkdf_provider);
    let both = |run: &dyn Fn(&dyn Hkdf) -> Vec<u8>| assert_eq!(run(ours), run(rings));
    both(&|hkdf| hkdf.extract_from_zero_ikm(None).expand_block(&[b"a", b"bc"]).as_ref().to_vec());
    both(&|hkdf| hkdf.extract_from_secret(None, &[7; 32]).expand_block(&[b"x"]).as_ref().to_vec());
    both(&|hkdf| {
        hkdf.extract_from_secret(Some(&[1; 32]), &[7; 32])
            .expand_block(&[])
            .as_ref()
            .to_vec()
    });
    both(&|hkdf| {
        hkdf.expander_for_okm(&OkmBlock::new(&[9; 32]))
            .expand_block(&[b"x"])
            .as_ref()
            .to_vec()
    });
}

/// A record as it goes over the wire.
fn seal(suite: &Tls13CipherSuite, key: [u8; 32], iv: [u8; 12], sequence: u64, text: &[u8]) -> Vec<u8> {
    let message = OutboundPlainMessage {
        typ: ContentType::ApplicationData,
        version: ProtocolVersion::TLSv1_2,
        payload: OutboundChunks::Single(text),
    };
    let mut encrypter = suite.aead_alg.encrypter(AeadKey::from(key), Iv::from(iv));
    encrypter.encrypt(message, sequence).unwrap().encode()
}

#[test]
fn the_record_of_rfc_8448_is_sealed_as_printed() {
    // Section 3, "{client} send application_data record".
    let mut key = [0; 32];
    key[..16].copy_from_slice(&hex("17 42 2d da 59 6e d5 d9 ac d8 90 e3 c6 3f 50 51"));
    let iv = hex("5b 78 92 3d ee 08 57 90 33 e5 23 d9").try_into().unwrap();
    let text: Vec<u8> = (0..=0x31).collect();
    let expected = hex(
        "17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea 42 f9 14 aa 66 bc ab 3f 2b 98 19 a8
         a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 97 70 14 bd 1e 3d ea e6 3a ee bb 21 69 49 15 e4",
    );
    assert_eq!(seal(suite(&ours(&[])), key, iv, 0, &text), expected);
}

#[test]
fn records_of_all_lengths_open_with_another_interface() {
    for (sequence, length) in (0..40).chain([255, 1024, 16_384]).enumerate() {
        let text = vec![0x5a; length];
        let mut key = [0; 32];
        key[..16].copy_from_slice(&[3; 16]);
        // rustls lets nobody outside make a key of 16 bytes, as ring needs it; ring's records meet ours in the handshakes of refused.rs.
        let sealed = seal(suite(&ours(&[])), key, [9; 12], sequence as u64, &text);
        let mut nonce = [9; 12];
        for (byte, digit) in nonce[4..].iter_mut().zip((sequence as u64).to_be_bytes()) {
            *byte ^= digit;
        }
        let opened = aes_gcm::Aes128Gcm::new(&[3; 16].into())
            .decrypt(
                &nonce.into(),
                Payload {
                    msg: &sealed[5..],
                    aad: &sealed[..5],
                },
            )
            .unwrap();
        assert_eq!(opened[..length], text);
        assert_eq!(opened[length..], [23], "the content type, and no padding");
    }
}

const I: &str = "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433";
const GI: &str = "04 DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180
    5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3";
const GR: &str = "04 D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63
    56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB";
const GIR: &str = "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE";
const NO_SCALAR: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

#[test]
fn the_exchange_of_rfc_5903_section_8_1() {
    let exchange = ours(&[I]).kx_groups[0].start().unwrap();
    assert_eq!(exchange.pub_key(), hex(GI));
    assert_eq!(exchange.complete(&hex(GR)).unwrap().secret_bytes(), hex(GIR));
}

#[test]
fn the_exchange_meets_rings() {
    let ring_provider = rings();
    let ring = ring_provider
        .kx_groups
        .iter()
        .find(|group| group.name() == NamedGroup::secp256r1)
        .unwrap();
    let theirs = ring.start().unwrap();
    let mine = ours(&[I]).kx_groups[0].start().unwrap();
    let (their_point, my_point) = (theirs.pub_key().to_vec(), mine.pub_key().to_vec());
    assert_eq!(
        mine.complete(&their_point).unwrap().secret_bytes(),
        theirs.complete(&my_point).unwrap().secret_bytes()
    );
}

#[test]
fn a_draw_that_is_no_scalar_is_drawn_again_and_a_broken_source_is_an_error() {
    assert_eq!(ours(&[NO_SCALAR, I]).kx_groups[0].start().unwrap().pub_key(), hex(GI));
    assert!(ours(&[]).kx_groups[0].start().is_err());
    assert!(ours(&[NO_SCALAR; 20]).kx_groups[0].start().is_err());
    assert!(
        ours(&["0000000000000000000000000000000000000000000000000000000000000000"; 20]).kx_groups[0]
            .start()
            .is_err()
    );
}

#[test]
fn points_off_the_curve_compressed_or_at_infinity_are_refused() {
    let group: &dyn SupportedKxGroup = ours(&[I, I, I, I]).kx_groups[0];
    let mut off = hex(GR);
    off[64] ^= 1;
    let mut compressed = hex(GR);
    compressed.truncate(33);
    compressed[0] = 2;
    for bad in [off, compressed, vec![0], Vec::new()] {
        assert!(group.start().unwrap().complete(&bad).is_err(), "{bad:02x?}");
    }
}

#[test]
fn signatures_are_those_of_rfc_6979_and_ring_believes_them() {
    // Appendix A.2.5, SHA-256, message "sample": the key as SEC1, and what it must sign.
    let mut sec1 = hex("30310201010420");
    sec1.extend(hex("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721"));
    sec1.extend(hex("A00A06082A8648CE3D030107"));
    let key = ours(&[]).key_provider.load_private_key(PrivateKeyDer::Sec1(sec1.into())).unwrap();
    assert!(key.choose_scheme(&[SignatureScheme::ED25519]).is_none());
    let signer = key
        .choose_scheme(&[SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256])
        .unwrap();
    let signature = signer.sign(b"sample").unwrap();
    let r = hex("EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716");
    let s = hex("F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8");
    assert_eq!(signature, [hex("3046022100"), r, hex("022100"), s].concat());
    let public = hex("04 60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6
        7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299");
    let verified = |provider: &CryptoProvider, message: &[u8]| {
        let algorithms = provider.signature_verification_algorithms.mapping;
        let (_, algorithms) = algorithms
            .iter()
            .find(|(scheme, _)| *scheme == SignatureScheme::ECDSA_NISTP256_SHA256)
            .unwrap();
        algorithms[0].verify_signature(&public, message, &signature).is_ok()
    };
    for provider in [ours(&[]), rings()] {
        assert!(verified(&provider, b"sample"));
        assert!(!verified(&provider, b"simple"));
    }
}

#[test]
fn keys_of_other_kinds_are_refused_with_words() {
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let error = ours(&[])
        .key_provider
        .load_private_key(PrivateKeyDer::try_from(p384.serialize_der()).unwrap())
        .unwrap_err();
    assert!(error.to_string().contains("P-256"), "{error}");
}
