//! Where devices connect.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::schema::{Reading, Section};

const MAX_LISTENERS: usize = 16;
const MAX_IDENTITY: usize = 128;
const PLAIN_PORT: u16 = 1883;
const TEMPLATES: &str = "{cn}, {san_uri}, {san_dns}, {client_id}, or a fixed word";
const MAKE_SERVER: &str = "`forebay certs server --name NAME` makes it";
const MAKE_CA: &str = "`forebay certs ca` makes it";

/// One item of `listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Address and port; port 0 takes a free one.
    pub(crate) bind: SocketAddr,
    /// Host names and addresses that devices dial. Default none.
    pub(crate) names: Vec<String>,
    /// Mutual TLS; `None` if plain.
    pub(crate) tls: Option<ListenerTls>,
    /// Who a device is. Default `{cn}` with TLS, `local` plain on loopback, `{client_id}` plain elsewhere.
    pub(crate) identity: Identity,
    /// Whether plain TCP beyond loopback was asked for. Default false.
    pub(crate) insecure: bool,
}

/// The files of a listener's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenerTls {
    /// The server's chain. Default `certs/server.pem`.
    pub(crate) certificate: PathBuf,
    /// Its key. Default `certs/server.key`.
    pub(crate) key: PathBuf,
    /// The CAs of the devices. Default `certs/devices-ca.pem`.
    pub(crate) client_ca: PathBuf,
    /// Revoked certificates. Default `certs/devices.crl` if it exists.
    pub(crate) crl: Option<PathBuf>,
    /// The list by convention, if it is there when the listener opens: the folder may come later than the gateway.
    pub(crate) crl_if_there: Option<PathBuf>,
}

/// Where a device's identity comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// `{cn}`: the certificate's common name.
    CommonName,
    /// `{san_uri}`: its first URI name.
    SanUri,
    /// `{san_dns}`: its first DNS name.
    SanDns,
    /// `{client_id}`: the client id, which any client chooses freely.
    ClientId,
    /// The same word for everybody.
    Fixed(String),
}

impl Identity {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "{cn}" => Ok(Self::CommonName),
            "{san_uri}" => Ok(Self::SanUri),
            "{san_dns}" => Ok(Self::SanDns),
            "{client_id}" => Ok(Self::ClientId),
            _ if text.contains(['{', '}']) => Err(format!("unknown template; known templates: {TEMPLATES}")),
            _ if text.is_empty() || text.len() > MAX_IDENTITY || text.contains(['/', '+', '#', '\0']) => Err(format!(
                "an identity is one topic level: 1 to {MAX_IDENTITY} bytes without / + # and NUL"
            )),
            _ => Ok(Self::Fixed(text.to_owned())),
        }
    }

    fn needs_certificate(&self) -> bool {
        matches!(self, Self::CommonName | Self::SanUri | Self::SanDns)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommonName => "{cn}",
            Self::SanUri => "{san_uri}",
            Self::SanDns => "{san_dns}",
            Self::ClientId => "{client_id}",
            Self::Fixed(word) => word,
        })
    }
}

pub(super) fn read(root: &Section<'_>, reading: &mut Reading<'_>) -> Vec<Listener> {
    let Some(sections) = root.list("listeners") else {
        return Vec::new();
    };
    if sections.is_empty() || sections.len() > MAX_LISTENERS {
        let reason = format!("must be 1 to {MAX_LISTENERS} listeners, not {}", sections.len());
        reading.faults.push(root.fault("listeners", reason));
    }
    let mut listeners: Vec<Listener> = Vec::new();
    for section in sections {
        let Some(listener) = read_one(&section, reading) else { continue };
        if let Some(other) = listeners.iter().find(|other| clash(other.bind, listener.bind)) {
            let reason = format!("another listener has {} already; give each its own port", other.bind);
            reading.faults.push(section.fault("bind", reason));
        }
        if let Some(other) = listeners.iter().find(|other| lends_identity(other, &listener)) {
            let reason = format!(
                "the word `{}` is the identity on {} too, and one of the two is open to the network: its clients would have the rights of the other listener; give each its own word",
                listener.identity, other.bind
            );
            reading.faults.push(section.fault("identity", reason));
        }
        listeners.push(listener);
    }
    listeners
}

/// Whether two addresses cannot be bound side by side.
pub(super) fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let all = |one: IpAddr, other: IpAddr| one.is_unspecified() && (one.is_ipv6() || other.is_ipv4());
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || all(a.ip(), b.ip()) || all(b.ip(), a.ip()))
}

fn lends_identity(a: &Listener, b: &Listener) -> bool {
    let both_local = a.bind.ip().is_loopback() && b.bind.ip().is_loopback();
    matches!(a.identity, Identity::Fixed(_)) && a.identity == b.identity && !both_local
}

fn read_one(section: &Section<'_>, reading: &mut Reading<'_>) -> Option<Listener> {
    let bind = section.socket("bind")?;
    let insecure = section.flag("insecure");
    let tls = if wants_tls(section, bind, insecure, reading) {
        Some(read_tls(section, reading))
    } else {
        None
    };
    Some(Listener {
        bind,
        names: read_names(section, tls.is_some(), reading),
        identity: read_identity(section, bind, tls.is_some(), reading),
        tls,
        insecure,
    })
}

fn wants_tls(section: &Section<'_>, bind: SocketAddr, insecure: bool, reading: &mut Reading<'_>) -> bool {
    if section.has("tls") {
        if insecure {
            reading
                .faults
                .push(section.fault("insecure", "given together with `tls`: keep one of the two"));
        }
        return true;
    }
    if bind.ip().is_loopback() || insecure {
        return false;
    }
    if bind.port() == PLAIN_PORT {
        let reason = "plain TCP beyond loopback: bind 127.0.0.1:1883, or add `tls`, or set `insecure: true` if every host on the network may read and write everything";
        reading.faults.push(section.fault("bind", reason));
        return false;
    }
    true
}

fn read_tls(section: &Section<'_>, reading: &mut Reading<'_>) -> ListenerTls {
    let tls = section.section("tls");
    let mut file = |name: &str, default: &str, make: &str| {
        let plain = if section.has("tls") {
            ""
        } else {
            " (without `tls` a listener beyond loopback uses the files in certs/; `insecure: true` makes it plain)"
        };
        let hint = format!("{make}{plain}");
        tls.file(name, Some(default), &hint, reading).unwrap_or_default()
    };
    let certificate = file("certificate", "certs/server.pem", MAKE_SERVER);
    let key = file("key", "certs/server.key", MAKE_SERVER);
    let client_ca = file("client_ca", "certs/devices-ca.pem", MAKE_CA);
    let by_convention = reading.base_dir.join("certs/devices.crl");
    let crl = tls
        .file(
            "crl",
            None,
            "see certs/README.md for how to make it with `openssl ca`; leave the key out if nothing is revoked",
            reading,
        )
        .or_else(|| (!tls.has("crl") && by_convention.exists()).then(|| by_convention.clone()));
    ListenerTls {
        certificate,
        key,
        client_ca,
        crl,
        crl_if_there: (!tls.has("crl")).then_some(by_convention),
    }
}

fn read_names(section: &Section<'_>, tls: bool, reading: &mut Reading<'_>) -> Vec<String> {
    let names = section.texts("names");
    if !names.is_empty() && !tls {
        reading.faults.push(section.fault(
            "names",
            "`names` requires TLS, and this listener is plain: add `tls` or leave `names` out",
        ));
    }
    for (index, name) in names.iter().enumerate() {
        if name.parse::<IpAddr>().is_err() && !is_host_name(name) {
            let reason = "must be a host name or an address, without scheme and port";
            reading.faults.push(section.item_fault("names", index, reason));
        } else if names[..index].iter().any(|other| other.eq_ignore_ascii_case(name)) {
            reading.faults.push(section.item_fault("names", index, "is given twice"));
        }
    }
    names
}

/// A DNS name as certificates carry it; a leading `*.` is allowed.
pub(super) fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !label.is_empty() && label.len() <= 63 && label.chars().all(fits) && !label.starts_with('-') && !label.ends_with('-')
    };
    let name = name.strip_prefix("*.").unwrap_or(name);
    name.len() <= 253 && name.split('.').all(label)
}

fn read_identity(section: &Section<'_>, bind: SocketAddr, tls: bool, reading: &mut Reading<'_>) -> Identity {
    let default = match (tls, bind.ip().is_loopback()) {
        (true, _) => Identity::CommonName,
        (false, true) => Identity::Fixed("local".to_owned()),
        (false, false) => Identity::ClientId,
    };
    let Some(written) = section.text("identity") else { return default };
    match Identity::parse(&written) {
        Ok(identity) if identity.needs_certificate() && !tls => {
            let reason =
                format!("`{written}` is read from the device's certificate, and this listener is plain: use {{client_id}} or a fixed word");
            reading.faults.push(section.fault("identity", reason));
            default
        }
        Ok(identity) => identity,
        Err(reason) => {
            let near = super::fault::nearest(&written, ["{cn}", "{san_uri}", "{san_dns}", "{client_id}"]);
            let nearest = if written.contains('{') { near.map(str::to_owned) } else { None };
            reading.faults.push(super::Fault {
                nearest,
                ..section.fault("identity", reason)
            });
            default
        }
    }
}
