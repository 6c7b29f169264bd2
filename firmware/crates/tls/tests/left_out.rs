//! A gateway that leaves handshake messages out is refused, however well it computes the rest.
//!
//! `support/relay.rs` alters what an honest server says. Left whole, the device must not notice: that is the control.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use forebay_device_core::{Lost, Secure as _, Socket as _};
use rcgen::ExtendedKeyUsagePurpose;
use support::relay::{CERTIFICATE, CERTIFICATE_REQUEST, CERTIFICATE_VERIFY, ENCRYPTED_EXTENSIONS, FINISHED, Leak, relay};
use support::{Authority, Line, NAME, NOW, SOON, client, leaf, server, server_leaf, told};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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
