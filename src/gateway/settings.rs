//! From the configuration to the settings of the log and of the front.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use forebay_broker::tls::{CertificateClock, IdentityTemplate, ServerTls, TlsFiles, TlsSource};
use forebay_broker::{ListenerConfig, Route, Routes};
use forebay_wal::Log;

use crate::config::{Config, Listener, Stream, WhenFull};
use crate::monitor::files::UsedFiles;

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
pub(super) fn front(config: &Config, listeners: Vec<ListenerConfig>, log: &Log) -> anyhow::Result<forebay_broker::Config> {
    Ok(forebay_broker::Config {
        gateway: config.gateway.id.to_string(),
        listeners,
        access: config.access_rules(),
        routes: routes(config, log)?,
        limits: config.front_limits(),
        state: config.gateway.data_dir.join("state.redb"),
    })
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

/// The listeners; `opened` is told of each certificate that is used.
pub(super) fn listeners(config: &Config, clock: &CertificateClock, opened: &Opened) -> anyhow::Result<Vec<ListenerConfig>> {
    config.listeners.iter().map(|listener| listen(listener, clock, opened)).collect()
}

/// Is told which listener begins to use which certificate and files.
pub(super) type Opened = Arc<dyn Fn(&str, &ServerTls, UsedFiles) + Send + Sync>;

fn listen(listener: &Listener, clock: &CertificateClock, opened: &Opened) -> anyhow::Result<ListenerConfig> {
    let tls = listener.tls.as_ref().map(|files| {
        let files = files.clone();
        let (clock, opened, bind) = (clock.clone(), Arc::clone(opened), listener.bind.to_string());
        TlsSource::new(move || {
            let by_convention = files.crl_if_there.as_ref().filter(|path| path.exists());
            let files = TlsFiles {
                certificate: files.certificate.clone(),
                key: files.key.clone(),
                client_ca: files.client_ca.clone(),
                crl: files.crl.as_ref().or(by_convention).cloned(),
            };
            // Before they are read: what is replaced meanwhile is told once too often, not once too few.
            let used = UsedFiles::of(&files, &clock);
            let tls = ServerTls::load(&files, &clock)?;
            for overdue in tls.overdue() {
                tracing::warn!(listener = %bind, "{overdue}");
            }
            opened(&bind, &tls, used);
            Ok(Arc::new(tls))
        })
    });
    let identity = IdentityTemplate::parse(&listener.identity.to_string()).with_context(|| format!("listener {}", listener.bind))?;
    Ok(ListenerConfig {
        bind: listener.bind,
        tls,
        identity,
    })
}
