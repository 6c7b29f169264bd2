//! One handshake, from the first byte to an identified peer.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::server::ClientHello;
use rustls::{ProtocolVersion, SignatureAlgorithm};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::{StartHandshake, TlsStream};

use super::verifier::Presented;
use super::{HandshakeFailure, HandshakeFault, PeerCertificate, ServerTls, fault, opening};

/// How long and how much a refused peer is listened to, so that it can read the alert before the connection resets.
const LINGER: Duration = Duration::from_millis(250);
const LINGER_BYTES: usize = 16 * 1024;

/// A finished handshake.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The stream of clear bytes.
    pub stream: TlsStream<S>,
    /// The peer's certificate, issued by a CA of the listener.
    pub peer_certificate: PeerCertificate,
    /// The name it connected to (SNI); `None` if it connected to an address.
    pub sni: Option<String>,
    /// `1.2` or `1.3`.
    pub version: &'static str,
}

/// Ends the TLS handshake of one connection, all of it before `deadline`.
///
/// On failure the peer gets its alert and the connection is closed here. Cancel safe in the sense that dropping the future closes
/// the connection.
///
/// # Errors
/// [`HandshakeFailure`]: the fault, with the name that the peer connected to and the certificate it presented, if it came so far.
pub async fn accept<S>(mut stream: S, tls: &ServerTls, deadline: Instant) -> Result<Accepted<S>, HandshakeFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failure = |fault, sni: &Option<String>, presented| HandshakeFailure {
        fault,
        sni: sni.clone(),
        presented,
        names: tls.names().clone(),
        ours_ended: tls.ended(),
    };

    let hello = match timeout_at(deadline, opening::client_hello(&mut stream)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(fault)) => {
            linger(stream, deadline).await;
            return Err(failure(fault, &None, None));
        }
        Err(_) => {
            return Err(failure(
                HandshakeFault::Timeout {
                    heard: "no complete ClientHello came",
                },
                &None,
                None,
            ));
        }
    };
    let sni = hello.client_hello().server_name().map(str::to_owned);
    let key_kind = key_kind(&hello.client_hello(), tls);

    let presented = Arc::new(OnceLock::new());
    let config = tls
        .handshake(presented.clone())
        .map_err(|error| failure(HandshakeFault::Internal { detail: error.to_string() }, &sni, None))?;
    let handshake = StartHandshake::from_parts(hello, stream).into_stream(config).into_fallible();
    let stream = match timeout_at(deadline, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, stream))) => {
            linger(stream, deadline).await;
            let seen = presented.get();
            let fault = match fault::of_io(&error, seen) {
                HandshakeFault::Incompatible { detail } => key_kind.unwrap_or(HandshakeFault::Incompatible { detail }),
                fault => fault,
            };
            return Err(failure(fault, &sni, seen.and_then(certificate)));
        }
        Err(_) => {
            let fault = HandshakeFault::Timeout {
                heard: "its ClientHello came, the rest did not",
            };
            return Err(failure(fault, &sni, presented.get().and_then(certificate)));
        }
    };

    match peer(&stream) {
        Ok(peer_certificate) => {
            let version = version(&stream);
            Ok(Accepted {
                stream,
                peer_certificate,
                sni,
                version,
            })
        }
        Err(detail) => Err(failure(HandshakeFault::BadCertificate { detail }, &sni, None)),
    }
}

/// The fault of a peer that can verify no server with a key of our kind: rustls then finds no suite or no signature in common.
fn key_kind(hello: &ClientHello<'_>, tls: &ServerTls) -> Option<HandshakeFault> {
    let (ours, wanted) = match tls.key_algorithm() {
        SignatureAlgorithm::ECDSA => ("ECDSA", "RSA"),
        SignatureAlgorithm::RSA => ("RSA", "ECDSA"),
        _ => return None,
    };
    let is_of = |kind: &str, name: Option<&str>| name.is_some_and(|name| name.contains(kind));
    let suites = hello.cipher_suites();
    let has_suite = |kind: &str| suites.iter().any(|suite| is_of(&format!("_{kind}_"), suite.as_str()));
    // The suites of TLS 1.3 name no kind.
    let speaks_13 = suites.iter().any(|suite| is_of("TLS13_", suite.as_str()));
    let schemes = hello.signature_schemes();
    let has_scheme = |kind: &str| schemes.iter().any(|scheme| is_of(kind, scheme.as_str()));
    let by_suites = !speaks_13 && !has_suite(ours) && has_suite(wanted);
    let by_schemes = !has_scheme(ours) && has_scheme(wanted);
    (by_suites || by_schemes).then_some(HandshakeFault::KeyKind { wanted, ours })
}

/// Closing a socket with unread bytes resets it, and a reset can overtake the alert that tells the peer what is wrong.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, deadline: Instant) {
    let until = deadline.min(Instant::now() + LINGER);
    let drained = timeout_at(until, async {
        stream.shutdown().await?;
        let mut unread = [0; 1024];
        let mut total = 0;
        while total < LINGER_BYTES {
            match stream.read(&mut unread).await? {
                0 => break,
                count => total += count,
            }
        }
        std::io::Result::Ok(())
    });
    // Best effort by nature: the fault is reported whether or not the peer listens.
    drained.await.ok();
}

fn certificate(presented: &Presented) -> Option<Box<PeerCertificate>> {
    PeerCertificate::from_der(&presented.der).ok().map(Box::new)
}

fn peer<S>(stream: &TlsStream<S>) -> Result<PeerCertificate, String> {
    let (_, session) = stream.get_ref();
    let leaf = session
        .peer_certificates()
        .and_then(<[_]>::first)
        .ok_or("it is missing after the handshake")?;
    PeerCertificate::from_der(leaf)
}

fn version<S>(stream: &TlsStream<S>) -> &'static str {
    match stream.get_ref().1.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        _ => "1.3",
    }
}
