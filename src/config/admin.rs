//! The admin listener.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::fault::Fault;
use super::listener::{Listener, clash, is_host_name};
use super::schema::{Reading, Section};

const MIN_TOKEN: usize = 16;
const MAX_TOKEN: usize = 4096;

/// `admin`: metrics, health, status.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Admin {
    /// Address and port. Default 127.0.0.1:9464.
    pub(crate) bind: SocketAddr,
    /// Names beside addresses and `localhost` under which it is asked. Default none.
    pub(crate) names: Vec<String>,
    /// The file of the token; `None` if only loopback is served.
    pub(crate) token_file: Option<PathBuf>,
    /// What the file held when the configuration was read.
    pub(crate) token: Option<Secret>,
    /// Traces; `None` if no record is traced.
    pub(crate) otlp: Option<Otlp>,
}

/// `admin.otlp`: where traces go.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Otlp {
    /// The collector's address without a path at its end, as in `http://127.0.0.1:4318`.
    pub(crate) endpoint: String,
    /// The share of records traced, 0 to 1. Default 0.01.
    pub(crate) sample: f64,
}

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// The text itself, for comparing.
    #[must_use]
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

pub(super) fn read(root: &Section<'_>, listeners: &[Listener], reading: &mut Reading<'_>) -> Admin {
    let section = root.section("admin");
    let bind = section.socket("bind").unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9464)));
    if let Some(listener) = listeners.iter().find(|listener| clash(listener.bind, bind)) {
        let reason = format!("a listener has {} already; give admin its own port", listener.bind);
        reading.faults.push(section.fault("bind", reason));
    }
    let names = section.texts("names");
    for (index, name) in names.iter().enumerate() {
        if !is_host_name(name.strip_suffix('.').unwrap_or(name)) || name.starts_with("*.") {
            let reason = "must be a host name such as gateway.example, without scheme and port";
            reading.faults.push(section.item_fault("names", index, reason));
        }
    }
    let hint = "Make it with: openssl rand -hex 32 > FILE && chmod 600 FILE";
    let token_file = section.file("token_file", None, hint, reading);
    if token_file.is_none() && !section.has("token_file") && !bind.ip().is_loopback() {
        let reason = format!("required, because the network can reach {bind}. {hint}");
        reading.faults.push(section.fault("token_file", reason));
    }
    let token = token_file.as_deref().and_then(|path| match read_token(path)? {
        Ok(token) => Some(token),
        Err(reason) => {
            if reading.check_files {
                reading.faults.push(Fault {
                    passes: true,
                    ..section.fault("token_file", format!("{reason}. {hint}"))
                });
            }
            None
        }
    });
    let otlp = otlp(&section.section("otlp"), reading);
    Admin {
        bind,
        names,
        token_file,
        token,
        otlp,
    }
}

fn otlp(section: &Section<'_>, reading: &mut Reading<'_>) -> Option<Otlp> {
    if !section.present() {
        return None;
    }
    let endpoint = section.text("endpoint")?;
    let uri = endpoint.parse::<hyper::Uri>().ok();
    let is_plain = uri.is_some_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some() && uri.query().is_none());
    if !is_plain {
        let reason = "must be like http://127.0.0.1:4318: OTLP goes over plain HTTP to a collector near the gateway; the collector can forward it over TLS";
        reading.faults.push(section.fault("endpoint", reason));
    }
    Some(Otlp {
        endpoint: endpoint.trim_end_matches('/').to_owned(),
        sample: section.share("sample").unwrap_or_default(),
    })
}

/// None if the file cannot be read, which is reported already.
pub(crate) fn read_token(path: &Path) -> Option<Result<Secret, String>> {
    let length = std::fs::metadata(path).ok()?.len();
    if length > MAX_TOKEN as u64 {
        return Some(Err(format!(
            "{} has {length} bytes; a token has at most {MAX_TOKEN}",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(path).ok()?;
    let token = text.trim();
    if token.len() < MIN_TOKEN || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Some(Err(format!(
            "{} must hold one token of at least {MIN_TOKEN} visible ASCII characters",
            path.display()
        )));
    }
    Some(Ok(Secret(token.to_owned())))
}
