//! Which names the admin server answers to, on every path.
//!
//! A web page in a browser on this machine can let a name of its own resolve to this machine (DNS rebinding); then it reads what it
//! likes, under that name. So the `Host` must be an address, `localhost`, or one of `admin.names`. The token, which no page has,
//! opens every name.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use forebay_topic::PeerText;
use hyper::header::HOST;
use hyper::{Request, StatusCode};

use super::State;
use super::pages::{Page, has_token, text};

/// Why a request is not answered for its `Host`; `None` if it is. A refusal is counted and logged.
pub(super) fn refusal<B>(request: &Request<B>, state: &State, peer: SocketAddr) -> Option<Page> {
    let hosts = request.headers().get_all(HOST);
    let hosts: Vec<_> = hosts.iter().map(|host| host.to_str().unwrap_or_default()).collect();
    let foreign = match hosts.as_slice() {
        [] => Some(""),
        hosts => hosts.iter().copied().find(|host| !is_ours(host, &state.names)),
    };
    // A target such as `GET http://evil.example/status` names the host again.
    let target = request.uri().host().filter(|host| !is_ours(host, &state.names));
    let foreign = foreign.or(target)?;
    if has_token(request, state) {
        return None;
    }
    state.telemetry.count_foreign_host();
    let shown = PeerText::new(foreign);
    if state.peer_log.is_first_from(peer.ip(), "host", Instant::now()) {
        tracing::warn!(%peer, host = ?shown, "an admin request was refused: its Host is no address and not in admin.names");
    }
    let said = if foreign.is_empty() {
        "the request has no Host".to_owned()
    } else {
        format!("this gateway does not answer to the name `{shown}`")
    };
    let advice = "use its address or localhost, or add the name to admin.names in its configuration";
    Some(text(StatusCode::MISDIRECTED_REQUEST, format!("{said}: {advice}\n")))
}

/// Whether a `Host` is an address, `localhost` or one of the names. Its port does not matter.
fn is_ours(host: &str, names: &[String]) -> bool {
    if let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return is_port(port) && address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
    }
    let name = match host.split_once(':') {
        Some((name, port)) if is_port(&format!(":{port}")) => name,
        Some(_) => return false,
        None => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_name = |known: &str| known.strip_suffix('.').unwrap_or(known).eq_ignore_ascii_case(name);
    name.parse::<IpAddr>().is_ok() || is_name("localhost") || names.iter().any(|known| is_name(known))
}

/// Nothing, or a colon and a number.
fn is_port(port: &str) -> bool {
    port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b9_an_address_localhost_and_the_names_are_ours_and_nothing_else() {
        let names = ["prom.plant-7.example".to_owned(), "gw.local.".to_owned()];
        for port in ["", ":9464", ":80"] {
            for ours in [
                "127.0.0.1",
                "192.168.10.2",
                "[::1]",
                "[fe80::1]",
                "localhost",
                "LOCALHOST",
                "localhost.",
                "prom.plant-7.example",
                "PROM.plant-7.EXAMPLE",
                "prom.plant-7.example.",
                "gw.local",
            ] {
                assert!(is_ours(&format!("{ours}{port}"), &names), "{ours}{port}");
            }
            for foreign in [
                "",
                ".",
                "evil.example",
                "EVIL.example.",
                "localhost.evil.example",
                "127.0.0.1.evil.example",
                "evil.prom.plant-7.example",
                "plant-7.example",
                "localhost..",
                "[::1",
                "::1",
                "[127.0.0.1]",
                "[::1]evil",
                "localhost@evil.example",
                "2130706433",
                "0x7f.1",
                "localhost ",
                "localhost:80:evil",
            ] {
                assert!(!is_ours(&format!("{foreign}{port}"), &names), "{foreign}{port}");
            }
        }
        assert!(!is_ours("localhost:port", &names) && !is_ours("localhost:99999", &names));
    }

    #[test]
    fn b9_a_token_opens_every_name_and_no_host_is_refused_like_a_foreign_one() {
        use hyper::header::HeaderValue;

        use crate::telemetry::tests::{Fake, watching};
        let state = State::new(watching(&Fake::new()), None);
        let peer = SocketAddr::from(([127, 0, 0, 1], 5));
        let refused = |headers: &[&str], target: &str| {
            let mut request = Request::get(target);
            for host in headers {
                request = request.header(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
            }
            refusal(&request.body(()).unwrap(), &state, peer).is_some()
        };
        assert!(!refused(&["127.0.0.1:9464"], "/status"));
        assert!(refused(&[], "/status"));
        assert!(refused(&["127.0.0.1", "evil.example"], "/status"), "two Hosts");
        assert!(refused(&["localhost"], "http://evil.example/status"), "the target's host");
        assert!(!refused(&["localhost"], "http://localhost:9464/status"));
        assert!(refused(&["ev\u{e9}l"], "/status"));
    }
}
