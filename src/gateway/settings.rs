//! From the configuration to the settings of the log and of the front.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use forebay_broker::tls::{CertificateClock, IdentityTemplate, ServerTls, TlsFiles};
use forebay_broker::{AccessRule, AccessRules, Route, Routes};
use forebay_wal::Log;

use crate::config::{Config, Listener, Stream, WhenFull};

/// Where the log lies.
pub(crate) fn log_directory(config: &Config) -> PathBuf {
    config.gateway.data_dir.join("log")
}

/// The log's settings.
pub(crate) fn log_options(config: &Config) -> forebay_wal::Options {
    forebay_wal::Options {
        directory: log_directory(config),
        max_disk: config.gateway.max_disk,
        keep_free: config.gateway.keep_free,
        commit_wait: config.gateway.commit_wait,
        // Every connection's device, and as many again that come and go.
        max_devices: config.limits.max_connections.saturating_mul(2),
        streams: config.streams.iter().map(stream).collect(),
    }
}

fn stream(stream: &Stream) -> forebay_wal::StreamOptions {
    forebay_wal::StreamOptions {
        name: stream.name.clone(),
        max_bytes: stream.max_bytes,
        max_age: stream.max_age,
        when_full: match stream.when_full {
            WhenFull::Refuse => forebay_wal::WhenFull::Refuse,
            WhenFull::DropOldest => forebay_wal::WhenFull::DropOldest,
        },
    }
}

/// The front's settings.
pub(super) fn front(config: &Config, listeners: &[NamedListener], log: &Log) -> anyhow::Result<forebay_broker::Config> {
    Ok(forebay_broker::Config {
        gateway: config.gateway.id.to_string(),
        listeners: listeners.iter().map(|(listener, _)| listener.clone()).collect(),
        access: access(config),
        routes: routes(config, log)?,
        limits: limits(config),
        state: config.gateway.data_dir.join("state.redb"),
    })
}

/// The front's bounds.
pub(crate) fn limits(config: &Config) -> forebay_broker::Limits {
    let limits = forebay_broker::Limits {
        max_connections: config.limits.max_connections as usize,
        max_pending: config.limits.max_pending as usize,
        connect_timeout: config.limits.connect_timeout,
        max_packet: config.limits.max_packet as usize,
        max_in_flight: config.limits.max_in_flight,
        max_keep_alive: config.limits.max_keep_alive,
        max_levels: config.limits.max_levels as usize,
        max_topic: config.limits.max_topic as usize,
        max_topics: config.limits.max_topics as usize,
        max_retained_bytes: config.sessions.max_bytes,
        max_session_expiry: config.sessions.max_expiry,
        ..forebay_broker::Limits::default()
    };
    limits.within(usize::try_from(config.gateway.max_memory).unwrap_or(usize::MAX))
}

fn access(config: &Config) -> AccessRules {
    let rule = |rule: &crate::config::AccessRule| AccessRule {
        who: rule.who.clone(),
        publish: rule.publish.clone(),
        subscribe: rule.subscribe.clone(),
        deny: rule.deny.clone(),
        max_connections: rule.max_connections,
    };
    AccessRules(config.access.iter().map(rule).collect())
}

fn routes(config: &Config, log: &Log) -> anyhow::Result<Routes> {
    let mut routes = Vec::with_capacity(config.routes.len());
    for route in &config.routes {
        let stream = match route.cloud() {
            None => None,
            Some(cloud) => {
                let name = &config.streams[cloud.stream].name;
                Some(log.stream(name).with_context(|| format!("the log has no stream `{name}`"))?)
            }
        };
        routes.push(Route {
            name: route.name().to_owned(),
            from: route.from.clone(),
            stream,
        });
    }
    Ok(Routes::new(routes))
}

pub(super) type NamedListener = (forebay_broker::ListenerConfig, String);

pub(super) fn listeners(config: &Config, clock: &CertificateClock) -> anyhow::Result<Vec<NamedListener>> {
    config
        .listeners
        .iter()
        .map(|listener| Ok((listen(listener, clock)?, listener.bind.to_string())))
        .collect()
}

fn listen(listener: &Listener, clock: &CertificateClock) -> anyhow::Result<forebay_broker::ListenerConfig> {
    let tls = match &listener.tls {
        None => None,
        Some(files) => {
            let files = TlsFiles {
                certificate: files.certificate.clone(),
                key: files.key.clone(),
                client_ca: files.client_ca.clone(),
                crl: files.crl.clone(),
            };
            let tls = ServerTls::load(&files, clock).with_context(|| format!("listener {}", listener.bind))?;
            for overdue in tls.overdue() {
                tracing::warn!(listener = %listener.bind, "{overdue}");
            }
            Some(Arc::new(tls))
        }
    };
    let identity = IdentityTemplate::parse(&listener.identity.to_string()).with_context(|| format!("listener {}", listener.bind))?;
    Ok(forebay_broker::ListenerConfig {
        bind: listener.bind,
        tls,
        identity,
    })
}

/// When each TLS listener's certificate ends, in seconds since 1970.
pub(super) fn certificates(listeners: &[NamedListener]) -> Vec<(String, i64)> {
    listeners
        .iter()
        .filter_map(|(listener, name)| Some((name.clone(), listener.tls.as_ref()?.not_after())))
        .collect()
}
