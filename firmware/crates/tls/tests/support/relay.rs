//! A gateway that leaves handshake messages out, however well it computes the rest.
//!
//! Between the device and an honest server stands this relay, which knows the server's handshake secret. It opens the encrypted
//! flight, leaves messages out or cuts them over many records, computes the Finished that fits what is left, and seals all again.

use std::sync::{Arc, Mutex};

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use hmac::{Hmac, Mac as _};
use rustls::KeyLog;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

pub const ENCRYPTED_EXTENSIONS: u8 = 8;
pub const CERTIFICATE: u8 = 11;
pub const CERTIFICATE_REQUEST: u8 = 13;
pub const CERTIFICATE_VERIFY: u8 = 15;
pub const FINISHED: u8 = 20;

/// Learns the server's handshake secret.
#[derive(Debug, Default)]
pub struct Leak(Mutex<Option<Vec<u8>>>);

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
pub async fn relay(mut device: DuplexStream, mut gateway: DuplexStream, leak: Arc<Leak>, left_out: &[u8], fragment: usize) {
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
