//! A gateway that leaves handshake messages out is refused, however well it computes the rest.
//!
//! Between the device and an honest server stands a proxy that knows the server's handshake secret. It opens the encrypted
//! flight, leaves messages out or cuts them over many records, computes the Finished that fits what is left, and seals all
//! again. Left whole, the device must not notice: that is the control.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use forebay_device_core::{Lost, Secure as _, Socket as _};
use hmac::{Hmac, Mac as _};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::KeyLog;
use sha2::{Digest as _, Sha256};
use support::{Authority, Line, NAME, NOW, SOON, client, leaf, server, server_leaf, told};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

const ENCRYPTED_EXTENSIONS: u8 = 8;
const CERTIFICATE: u8 = 11;
const CERTIFICATE_REQUEST: u8 = 13;
const CERTIFICATE_VERIFY: u8 = 15;
const FINISHED: u8 = 20;

#[derive(Debug, Default)]
struct Leak(Mutex<Option<Vec<u8>>>);

impl KeyLog for Leak {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if label == "SERVER_HANDSHAKE_TRAFFIC_SECRET" {
            *self.0.lock().unwrap() = Some(secret.to_vec());
        }
    }
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// RFC 8446 section 7.1, for outputs of at most one block.
fn expand_label(secret: &[u8], label: &str, length: u8) -> Vec<u8> {
    let label = format!("tls13 {label}");
    let mut info = vec![0, length, u8::try_from(label.len()).unwrap()];
    info.extend(label.as_bytes());
    info.extend([0, 1]);
    let mut block = hmac(secret, &info);
    block.truncate(length.into());
    block
}

struct Records {
    cipher: aes_gcm::Aes128Gcm,
    iv: [u8; 12],
    sequence: u64,
}

impl Records {
    fn new(secret: &[u8]) -> Self {
        Self {
            cipher: aes_gcm::Aes128Gcm::new_from_slice(&expand_label(secret, "key", 16)).unwrap(),
            iv: expand_label(secret, "iv", 12).try_into().unwrap(),
            sequence: 0,
        }
    }

    fn nonce(&mut self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, digit) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= digit;
        }
        self.sequence += 1;
        nonce
    }

    fn open(&mut self, record: &[u8]) -> Vec<u8> {
        let nonce = self.nonce();
        let (aad, msg) = record.split_at(5);
        let mut text = self.cipher.decrypt(&nonce.into(), Payload { msg, aad }).unwrap();
        assert_eq!(text.pop(), Some(22), "a handshake message");
        text
    }

    fn seal(&mut self, text: &[u8]) -> Vec<u8> {
        let nonce = self.nonce();
        let msg = [text, &[22]].concat();
        let length = u16::try_from(msg.len() + 16).unwrap().to_be_bytes();
        let aad = [23, 3, 3, length[0], length[1]];
        [
            aad.as_slice(),
            &self.cipher.encrypt(&nonce.into(), Payload { msg: &msg, aad: &aad }).unwrap(),
        ]
        .concat()
    }
}

async fn record(stream: &mut DuplexStream) -> Vec<u8> {
    let mut record = vec![0; 5];
    stream.read_exact(&mut record).await.unwrap();
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    stream.read_exact(&mut record[5..]).await.unwrap();
    record
}

/// Relays a handshake without the messages of the types in `left_out`, in records of at most `fragment` bytes.
async fn relay(mut device: DuplexStream, mut gateway: DuplexStream, leak: Arc<Leak>, left_out: &[u8], fragment: usize) {
    let hello = record(&mut device).await;
    gateway.write_all(&hello).await.unwrap();
    let answer = record(&mut gateway).await;
    device.write_all(&answer).await.unwrap();
    let mut transcript = Sha256::new();
    transcript.update(&hello[5..]);
    transcript.update(&answer[5..]);

    let secret = loop {
        if let Some(secret) = leak.0.lock().unwrap().clone() {
            break secret;
        }
        tokio::task::yield_now().await;
    };
    let (mut theirs, mut ours) = (Records::new(&secret), Records::new(&secret));
    let (mut flight, mut altered, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    while seen.last() != Some(&FINISHED) {
        let next = record(&mut gateway).await;
        if next[0] == 20 {
            continue; // change_cipher_spec, a relic
        }
        flight.extend(theirs.open(&next));
        while let Some(message) = message(&mut flight) {
            seen.push(message[0]);
            if left_out.contains(&message[0]) {
                continue;
            }
            let message = if message[0] == FINISHED {
                let verify = hmac(&expand_label(&secret, "finished", 32), &transcript.clone().finalize());
                [&message[..4], &verify].concat()
            } else {
                message
            };
            transcript.update(&message);
            altered.extend(message);
        }
    }
    assert_eq!(
        seen,
        [ENCRYPTED_EXTENSIONS, CERTIFICATE_REQUEST, CERTIFICATE, CERTIFICATE_VERIFY, FINISHED]
    );
    for part in altered.chunks(fragment) {
        device.write_all(&ours.seal(part)).await.unwrap();
    }
    tokio::io::copy_bidirectional(&mut device, &mut gateway).await.ok();
}

/// The first whole handshake message.
fn message(flight: &mut Vec<u8>) -> Option<Vec<u8>> {
    let header = flight.first_chunk::<4>()?;
    let length = 4 + u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
    (flight.len() >= length).then(|| flight.drain(..length).collect())
}

/// How a device fares whose gateway's handshake is altered so.
async fn meets(left_out: &'static [u8], fragment: usize) -> (Result<(), Lost>, Option<String>) {
    let ca = Authority::new("plant");
    let device = ca.sign(leaf(&[], ExtendedKeyUsagePurpose::ClientAuth));
    let leak = Arc::<Leak>::default();
    let mut config = server(&ca.sign(server_leaf()), &ca);
    config.key_log = leak.clone();
    let (ours, proxy_device) = tokio::io::duplex(1 << 16);
    let (proxy_gateway, theirs) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move {
        let mut stream = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(theirs).await?;
        tokio::io::copy(&mut tokio::io::empty(), &mut stream).await?;
        let mut buffer = [0; 4];
        stream.read_exact(&mut buffer).await?;
        stream.write_all(&buffer).await?;
        stream.flush().await
    });
    tokio::spawn(relay(proxy_device, proxy_gateway, leak, left_out, fragment));
    let mut client = client(&ca, &device, NAME);
    let result = async {
        let mut stream = client.secure(Line::new(ours), told(NOW), SOON).await?;
        stream.write_all(b"ping", SOON).await?;
        let mut answer = [0; 4];
        assert_eq!(stream.read(&mut answer, SOON).await?, 4);
        assert_eq!(&answer, b"ping");
        Ok(())
    }
    .await;
    (result, client.why())
}

#[tokio::test(start_paused = true)]
async fn a_whole_handshake_is_good_also_cut_over_many_records() {
    assert_eq!(meets(&[], 16_384).await, (Ok(()), None));
    assert_eq!(meets(&[], 50).await, (Ok(()), None));
    assert_eq!(meets(&[], 1).await.0, Ok(()), "records of one byte");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_with_messages_left_out_is_refused() {
    let cases: [&'static [u8]; 6] = [
        &[CERTIFICATE, CERTIFICATE_VERIFY],
        &[CERTIFICATE_REQUEST, CERTIFICATE, CERTIFICATE_VERIFY],
        &[CERTIFICATE],
        &[CERTIFICATE_VERIFY],
        &[ENCRYPTED_EXTENSIONS],
        &[ENCRYPTED_EXTENSIONS, CERTIFICATE_REQUEST, CERTIFICATE, CERTIFICATE_VERIFY],
    ];
    for left_out in cases {
        let (result, why) = meets(left_out, 16_384).await;
        assert_eq!(result, Err(Lost::NotTrusted), "without {left_out:?}");
        assert!(why.as_ref().unwrap().contains("unexpected"), "without {left_out:?}: {why:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_finished_nothing_is_ever_sent() {
    let (result, _) = meets(&[FINISHED], 16_384).await;
    assert!(result.is_err(), "{result:?}");
}
