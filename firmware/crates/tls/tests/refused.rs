//! Whom the device talks to, and whom it must refuse.
#![allow(clippy::unwrap_used)]

mod support;

use forebay_device_core::{Lost, Secure as _, WallTime};
use forebay_device_tls::Client;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, date_time_ymd};
use support::{Authority, Credentials, Line, NAME, NOW, SOON, client, handshake, leaf, server, server_leaf, told};

struct Plant {
    ca: Authority,
    device: Credentials,
}

impl Plant {
    fn new() -> Self {
        let ca = Authority::new("plant");
        let device = ca.sign(device_leaf());
        Self { ca, device }
    }

    /// The device meets a server with these credentials; why it refused, none if it did not.
    async fn meets(&self, credentials: &Credentials, now: WallTime) -> Option<String> {
        let mut client = client(&self.ca, &self.device, NAME);
        let (result, gateway) = handshake(&mut client, server(credentials, &self.ca), now).await;
        match result {
            Ok(()) => {
                gateway.unwrap();
                None
            }
            Err(lost) => {
                assert_eq!(lost, Lost::NotTrusted);
                let gateway = gateway.unwrap_err();
                assert!(gateway.contains("alert"), "the gateway is told why: {gateway}");
                Some(client.why().unwrap())
            }
        }
    }

    async fn refuses(&self, credentials: &Credentials, reason: &str) {
        let why = self.meets(credentials, told(NOW)).await;
        assert!(why.as_ref().is_some_and(|why| why.contains(reason)), "{reason}: {why:?}");
    }
}

fn device_leaf() -> CertificateParams {
    let mut params = leaf(&[], ExtendedKeyUsagePurpose::ClientAuth);
    params.distinguished_name.push(DnType::CommonName, "board-1");
    params
}

#[tokio::test]
async fn the_gateway_is_trusted_and_trusts_the_device() {
    let plant = Plant::new();
    let gateway = plant.ca.sign(server_leaf());
    assert_eq!(plant.meets(&gateway, told(NOW)).await, None);
    let mut client = client(&plant.ca, &plant.device, "127.0.0.1");
    let (result, _) = handshake(&mut client, server(&gateway, &plant.ca), told(NOW)).await;
    result.unwrap();
}

#[tokio::test]
async fn the_end_of_the_gateways_certificate_is_known() {
    let plant = Plant::new();
    let config = server(&plant.ca.sign(server_leaf()), &plant.ca);
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let gateway = tokio::spawn(tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config)).accept(theirs));
    let mut client = client(&plant.ca, &plant.device, NAME);
    let stream = client.secure(Line::new(ours), told(NOW), SOON).await.unwrap();
    assert_eq!(Client::valid_until(&stream), Some(1_798_761_600), "2027-01-01");
    gateway.await.unwrap().unwrap();
}

#[tokio::test]
async fn another_ca_is_refused() {
    let plant = Plant::new();
    plant
        .refuses(&Authority::new("elsewhere").sign(server_leaf()), "UnknownIssuer")
        .await;
    let namesake = Authority::new("plant");
    plant.refuses(&namesake.sign(server_leaf()), "BadSignature").await;
}

#[tokio::test]
async fn a_wrong_name_is_refused() {
    let plant = Plant::new();
    let other = plant
        .ca
        .sign(leaf(&["gateway.other", "*.gateway.local"], ExtendedKeyUsagePurpose::ServerAuth));
    plant.refuses(&other, "not valid for name").await;
}

#[tokio::test]
async fn the_right_common_name_over_a_wrong_san_is_refused() {
    let plant = Plant::new();
    let mut params = leaf(&["gateway.other"], ExtendedKeyUsagePurpose::ServerAuth);
    params.distinguished_name.push(DnType::CommonName, NAME);
    plant.refuses(&plant.ca.sign(params), "not valid for name").await;
    let mut params = leaf(&[], ExtendedKeyUsagePurpose::ServerAuth);
    params.distinguished_name.push(DnType::CommonName, NAME);
    plant.refuses(&plant.ca.sign(params), "not valid for").await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused_even_while_the_time_is_only_a_lower_bound() {
    let plant = Plant::new();
    let mut params = server_leaf();
    params.not_after = date_time_ymd(2026, 5, 1);
    let expired = plant.ca.sign(params);
    plant.refuses(&expired, "expired").await;
    let at_boot = WallTime {
        seconds: NOW,
        is_told: false,
    };
    assert!(plant.meets(&expired, at_boot).await.unwrap().contains("expired"));
}

#[tokio::test]
async fn a_certificate_from_the_future_is_refused_only_by_a_clock_that_was_told() {
    let plant = Plant::new();
    let mut params = server_leaf();
    params.not_before = date_time_ymd(2026, 7, 1);
    let renewed = plant.ca.sign(params);
    plant.refuses(&renewed, "not valid yet").await;
    let at_boot = WallTime {
        seconds: NOW,
        is_told: false,
    };
    assert_eq!(plant.meets(&renewed, at_boot).await, None, "a device from the drawer connects");
    let mut params = leaf(&["gateway.other"], ExtendedKeyUsagePurpose::ServerAuth);
    params.not_before = date_time_ymd(2026, 7, 1);
    let why = plant.meets(&plant.ca.sign(params), at_boot).await.unwrap();
    assert!(why.contains("not valid for name"), "all else is still judged: {why}");
}

#[tokio::test]
async fn a_devices_leaf_used_as_a_ca_is_refused() {
    let plant = Plant::new();
    let forged = plant.ca.sign_with(server_leaf(), device_leaf(), &plant.device);
    plant.refuses(&forged, "EndEntityUsedAsCa").await;
}

#[tokio::test]
async fn another_devices_client_certificate_is_refused_as_a_gateway() {
    let plant = Plant::new();
    let other = plant.ca.sign(leaf(&[NAME], ExtendedKeyUsagePurpose::ClientAuth));
    plant
        .refuses(&other, "does not allow extended key usage for server authentication")
        .await;
}

#[tokio::test]
async fn the_ca_itself_is_refused_as_a_gateway() {
    let plant = Plant::new();
    let mut params = server_leaf();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    plant.refuses(&plant.ca.sign(params), "CaUsedAsEndEntity").await;
}

#[tokio::test]
async fn a_gateway_that_does_not_trust_the_device_is_reported_as_such() {
    let plant = Plant::new();
    let gateway = plant.ca.sign(server_leaf());
    let stranger = Authority::new("elsewhere");
    let mut client = client(&plant.ca, &plant.device, NAME);
    let (result, gateway) = handshake(&mut client, server(&gateway, &stranger), told(NOW)).await;
    assert_eq!(result, Err(Lost::NotTrusted));
    assert!(gateway.is_err());
    assert!(client.why().unwrap().contains("alert"), "{:?}", client.why());
}

#[tokio::test]
async fn a_gateway_without_our_suite_is_refused() {
    let plant = Plant::new();
    let credentials = plant.ca.sign(server_leaf());
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_none());
    let config = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(credentials.chain.clone(), credentials.key())
        .unwrap();
    let mut client = client(&plant.ca, &plant.device, NAME);
    let (result, _) = handshake(&mut client, config, told(NOW)).await;
    assert_eq!(result, Err(Lost::NotTrusted), "TLS 1.2 is never spoken");
}

/// A chain whose CAs could each have issued any other: they share two names, each has a key of its own and so many extensions.
fn look_alikes(count: usize, extensions: u64) -> Credentials {
    let ca = |at: usize| {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, format!("CA {}", at % 2));
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.custom_extensions = (0..extensions)
            .map(|number| rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, number], Vec::new()))
            .collect();
        params
    };
    let keys: Vec<_> = (0..=count).map(|_| rcgen::KeyPair::generate().unwrap()).collect();
    let issuer = |at: usize| rcgen::Issuer::new(ca(at), &keys[at % count]);
    let mut chain = vec![server_leaf().signed_by(&keys[count], &issuer(0)).unwrap().der().clone()];
    chain.extend((0..count).map(|at| ca(at).signed_by(&keys[at], &issuer(at + 1)).unwrap().der().clone()));
    let key = rcgen::KeyPair::try_from(keys[count].serialize_der()).unwrap();
    Credentials { chain, key }
}

#[tokio::test]
async fn a7_a_chain_of_look_alikes_is_refused_before_it_is_searched() {
    let plant = Plant::new();
    for count in [2, 3] {
        plant.refuses(&look_alikes(count, 0), "UnknownIssuer").await;
    }
    for (count, extensions, reason) in [
        (4, 0, "more than 3"),
        (9, 0, "more than 3"),
        (20, 0, "more than 3"),
        (3, 250, "bytes or more"),
    ] {
        plant.refuses(&look_alikes(count, extensions), reason).await;
    }
}
