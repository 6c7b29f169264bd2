//! The device's side of every handshake: who it is, whom it believes, whom it dials.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use forebay_device_core::{Lost, Secure, Socket, Uptime, WallTime};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, Error, RootCertStore};

use crate::judge::{HandshakeClock, Judge};
use crate::stream::{RECORD_BYTES, Stream};

/// What a device is given when it is provisioned.
#[derive(Debug)]
pub struct Identity {
    /// The CA that signs gateways, in DER.
    pub ca: CertificateDer<'static>,
    /// The device's certificate, then what leads from it to the CA that the gateway believes; in DER.
    pub chain: Vec<CertificateDer<'static>>,
    /// The device's P-256 key, PKCS #8 or SEC1 in DER.
    pub key: PrivateKeyDer<'static>,
    /// The DNS name or IP address that is dialled; the gateway's certificate must bear it as a SAN.
    pub gateway: String,
}

/// Why an [`Identity`] cannot be used.
#[derive(Debug)]
pub enum NotUsable {
    /// The name is neither a DNS name nor an IP address.
    Name(String),
    /// The CA's certificate is none.
    Ca(String),
    /// Key and certificate do not make a client.
    Certificate(String),
}

impl fmt::Display for NotUsable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(
                f,
                "{name:?} is neither a DNS name nor an IP address: give the name in the gateway's certificate"
            ),
            Self::Ca(why) => write!(f, "the CA's certificate cannot be used: {why}"),
            Self::Certificate(why) => write!(f, "the device's certificate and key cannot be used: {why}"),
        }
    }
}

impl core::error::Error for NotUsable {}

/// Makes TLS connections to one gateway, one at a time, in a buffer of [`RECORD_BYTES`] of its own.
pub struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    pub(crate) clock: Arc<HandshakeClock>,
    pub(crate) incoming: Vec<u8>,
    error: Option<Error>,
    told: Option<Told>,
}

/// Is told why a connection was not trusted.
type Told = Box<dyn Fn(&str) + Send + Sync>;

impl Client {
    /// A client of this identity, over a provider (see [`provider`](crate::provider())).
    ///
    /// # Errors
    /// The identity cannot be used; the text says what to provision anew.
    pub fn new(provider: Arc<CryptoProvider>, identity: Identity) -> Result<Self, NotUsable> {
        let name = ServerName::try_from(identity.gateway.clone()).map_err(|_| NotUsable::Name(identity.gateway))?;
        let mut roots = RootCertStore::empty();
        roots.add(identity.ca).map_err(|error| NotUsable::Ca(error.to_string()))?;
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| NotUsable::Ca(error.to_string()))?;
        let clock = Arc::<HandshakeClock>::default();
        let unusable = |error: Error| NotUsable::Certificate(error.to_string());
        let mut config = ClientConfig::builder_with_details(provider, clock.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Judge::new(inner, clock.clone())))
            .with_client_auth_cert(identity.chain, identity.key)
            .map_err(unusable)?;
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            name,
            clock,
            incoming: alloc::vec![0; RECORD_BYTES],
            error: None,
            told: None,
        })
    }

    /// From now on `told` hears why a connection was not trusted, in rustls's words, when that happens.
    pub fn tell(&mut self, told: impl Fn(&str) + Send + Sync + 'static) {
        self.told = Some(Box::new(told));
    }

    pub(crate) fn failed(&mut self, error: Error) {
        if let Some(told) = &self.told {
            told(&error.to_string());
        }
        self.error = Some(error);
    }

    /// Why the last connection was not trusted, in rustls's words.
    pub fn why(&self) -> Option<String> {
        self.error.as_ref().map(|error| error.to_string())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Secure for Client {
    type Stream<'a, S: Socket> = Stream<'a, S>;

    async fn secure<S: Socket>(&mut self, socket: S, now: WallTime, until: Uptime) -> Result<Stream<'_, S>, Lost> {
        self.clock.set(now);
        self.error = None;
        let config = self.config.clone();
        let name = self.name.clone();
        Stream::open(self, config, name, socket, until).await
    }

    fn valid_until<S: Socket>(stream: &Stream<'_, S>) -> Option<u64> {
        stream.valid_until()
    }
}
