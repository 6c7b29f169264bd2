//! AES-128-GCM records (RFC 8446 section 5.2) over `aes-gcm`.

use alloc::boxed::Box;

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes128Gcm as Cipher, Tag};
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, Nonce, OutboundOpaqueMessage,
    OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm, UnsupportedOperationError, make_tls13_aad,
};
use rustls::{ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion};

const KEY: usize = 16;
const TAG: usize = 16;

pub(super) struct Aes128Gcm;

impl Tls13AeadAlgorithm for Aes128Gcm {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Keyed { cipher: cipher(&key), iv })
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Keyed { cipher: cipher(&key), iv })
    }

    fn key_len(&self) -> usize {
        KEY
    }

    fn extract_keys(&self, key: AeadKey, iv: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Ok(ConnectionTrafficSecrets::Aes128Gcm { key, iv })
    }
}

fn cipher(key: &AeadKey) -> Cipher {
    Cipher::new_from_slice(&key.as_ref()[..KEY]).expect("a slice of a key's length is a key")
}

/// One direction of a connection.
struct Keyed {
    cipher: Cipher,
    iv: Iv,
}

impl Keyed {
    fn nonce(&self, sequence: u64) -> [u8; 12] {
        Nonce::new(&self.iv, sequence).0
    }
}

impl MessageEncrypter for Keyed {
    fn encrypt(&mut self, message: OutboundPlainMessage<'_>, sequence: u64) -> Result<OutboundOpaqueMessage, Error> {
        let total = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(total);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&message.typ.to_array());
        let tag = self
            .cipher
            .encrypt_inout_detached(&self.nonce(sequence).into(), &make_tls13_aad(total), payload.as_mut().into())
            .map_err(|_| Error::EncryptError)?;
        payload.extend_from_slice(&tag);
        Ok(OutboundOpaqueMessage::new(
            ContentType::ApplicationData,
            // Section 5.1: the record layer of TLS 1.3 calls itself 1.2.
            ProtocolVersion::TLSv1_2,
            payload,
        ))
    }

    fn encrypted_payload_len(&self, payload: usize) -> usize {
        payload + 1 + TAG
    }
}

impl MessageDecrypter for Keyed {
    fn decrypt<'a>(&mut self, mut message: InboundOpaqueMessage<'a>, sequence: u64) -> Result<InboundPlainMessage<'a>, Error> {
        let payload = &mut message.payload;
        let total = payload.len();
        let text = total.checked_sub(TAG).ok_or(Error::DecryptError)?;
        let (text_bytes, tag) = payload.split_at_mut(text);
        let tag = Tag::try_from(&*tag).map_err(|_| Error::DecryptError)?;
        self.cipher
            .decrypt_inout_detached(&self.nonce(sequence).into(), &make_tls13_aad(total), text_bytes.into(), &tag)
            .map_err(|_| Error::DecryptError)?;
        payload.truncate(text);
        message.into_tls13_unpadded_message()
    }
}
