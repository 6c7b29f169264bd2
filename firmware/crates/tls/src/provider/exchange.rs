//! Ephemeral ECDH on P-256 over `p256`.

use alloc::boxed::Box;

use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::{PublicKey, SecretKey};
use rustls::crypto::{ActiveKeyExchange, SecureRandom, SharedSecret, SupportedKxGroup};
use rustls::{Error, NamedGroup, PeerMisbehaved};

/// An uncompressed point: 4, x, y.
const POINT: usize = 65;
/// Draws until a scalar is one: a draw is at or above the group's order once in 2^32.
const DRAWS: usize = 8;

#[derive(Debug)]
pub(super) struct Secp256r1 {
    pub(super) random: &'static dyn SecureRandom,
}

impl SupportedKxGroup for Secp256r1 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        for _ in 0..DRAWS {
            let mut scalar = [0; 32];
            self.random.fill(&mut scalar)?;
            if let Ok(secret) = SecretKey::from_bytes(&scalar.into()) {
                let mut public = [0; POINT];
                public.copy_from_slice(secret.public_key().to_sec1_point(false).as_bytes());
                return Ok(Box::new(Exchange { secret, public }));
            }
        }
        // A source that gives no scalar eight times in a row is broken.
        Err(Error::FailedToGetRandomBytes)
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp256r1
    }
}

struct Exchange {
    secret: SecretKey,
    public: [u8; POINT],
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        // RFC 8446 section 4.2.8.2: only uncompressed points, and only ones on the curve.
        let peer = (peer.len() == POINT)
            .then(|| PublicKey::from_sec1_bytes(peer).ok())
            .flatten()
            .ok_or(PeerMisbehaved::InvalidKeyShare)?;
        Ok(self.secret.diffie_hellman(&peer).raw_secret_bytes().as_slice().into())
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp256r1
    }
}
