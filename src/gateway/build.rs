//! The start, in order: admin, the log, the front, the bridge, the canary and the self-check.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use forebay_broker::{Front, FrontError, ListenerConfig, LocalFanout};
use forebay_wal::{Clock, Log, OpenError, Opened, SystemClock};
use tokio_util::sync::CancellationToken;

use super::cloud_files::CloudFiles;
use super::shutdown::Running;
use super::{Exit, cloud, descriptors, private, settings, time};
use crate::admin;
use crate::check::Mount;
use crate::config::Config;
use crate::inspect::{About, warned_at};
use crate::monitor::canary::{self, Canary};
use crate::monitor::certificate_ends::CertificateEnds;
use crate::monitor::files::ListenerFiles;
use crate::monitor::self_check::{Origin, SelfCheck};
use crate::monitor::signals::{self, Watch};
use crate::monitor::tasks::{Task, Tasks};
use crate::telemetry::{Sources, Telemetry};
use crate::traces::Tracer;

/// A gateway that is ready for its devices.
pub(super) struct Gateway {
    /// Where devices connect.
    pub(super) front: Front,
    /// Where admin listens.
    pub(super) admin: SocketAddr,
    /// What runs behind the front.
    pub(super) parts: Running,
}

/// Builds and starts everything but the front, which is only bound. None if `shutdown` came while the log was being opened.
pub(super) async fn build(
    mut config: Config,
    origin: Origin,
    tasks: &Tasks,
    shutdown: &CancellationToken,
) -> Result<Option<Gateway>, Exit> {
    let shortage = descriptors::fit(&mut config);
    let machine = super::clock();
    let clock = Arc::clone(&machine) as Arc<dyn Clock>;
    let telemetry = Telemetry::new(config.gateway.id.as_str(), &config.fingerprint).map_err(Exit::Internal)?;
    let fanout = LocalFanout::start().map_err(|error| Exit::Internal(error.into()))?;
    // From here on its pages say how far the start is.
    let pages = admin::State::new(telemetry.clone(), config.admin.token.clone())
        .with_token_file(config.admin.token_file.clone())
        .with_names(config.admin.names.clone());
    let admin = admin::bind(config.admin.bind).await;
    let address = admin.address();
    let mut others = vec![tasks.vital("admin", shutdown, admin.run(pages.clone(), shutdown.clone()))];
    let opened = tokio::select! {
        opened = open_log(&config, Arc::clone(&clock), &telemetry, &fanout) => opened?,
        // As with a kill: what is on disk stays as it is.
        () = shutdown.cancelled() => return Ok(None),
    };
    let Opened { log, report, .. } = opened;
    let data_dir = config.gateway.data_dir.clone();
    let closed = tokio::task::spawn_blocking(move || private::close_to_others(&data_dir)).await;
    closed.map_err(|error| Exit::Internal(error.into()))?;
    if let Some((mount, why)) = Mount::of(&config.gateway.data_dir).and_then(|mount| Some((mount.kind.clone(), mount.loses()?))) {
        tracing::error!(directory = %config.gateway.data_dir.display(), "gateway.data_dir is on {mount}, {why}; name a directory on a local disk");
    }
    machine.remember(log.status().last_trusted);
    if report.new {
        tracing::info!(
            directory = %config.gateway.data_dir.display(),
            "there was no log, and a new one was made; if this is not the gateway's first start, its disk is not mounted, or gateway.data_dir is another"
        );
    }
    tracing::info!(clean = report.clean, waiting = report.recovered, damaged = report.damaged, took = ?report.took, "the log is open");
    let traces = trace(&config, &log, &clock, &telemetry, tasks).map_err(Exit::Internal)?;

    let judged = time::certificates(&machine, log.clone());
    let ends = CertificateEnds::default();
    let files = ListenerFiles::of_this_process();
    let opened = listener_opened(&machine, &ends, &files);
    let listeners = settings::listeners(&config, &judged, &opened).map_err(Exit::Configuration)?;
    let mapping = Arc::new(cloud::mapping(&config).map_err(Exit::Configuration)?);
    let cloud_files = CloudFiles::default();
    let of_bridge = |cloud| cloud::bridge(&config, cloud, &machine, &judged, &cloud_files);
    let bridge = config.cloud.as_ref().map(of_bridge);
    let (watch, witness) = signals::start(&config, Arc::clone(&clock), telemetry.broker_observer())
        .context("the thread of `watch` cannot be started")
        .map_err(Exit::Internal)?;
    let parts = forebay_broker::Parts {
        log: log.clone(),
        fanout,
        admission: Arc::new(cloud::MappedAdmission(Arc::clone(&mapping))),
        clock: Arc::clone(&clock),
        observer: Arc::new(witness),
    };
    let front = bind_front(&config, listeners, parts, shutdown.clone()).await?;

    let handle = bridge.is_some().then(forebay_bridge::Handle::new);
    let canary = canary(&config, &log);
    let self_check = SelfCheck::default();
    let sources = Sources {
        view: front.view(),
        log: log.clone(),
        bridge: handle.clone(),
        report,
        clock: Arc::clone(&machine),
        judged: judged.clone(),
        certificates: ends,
        files: files.clone(),
        cloud_files: {
            let files = cloud_files.clone();
            Arc::new(move || files.fault())
        },
        watch: watch.clone(),
        canary: canary.clone(),
        check: self_check.clone(),
        tasks: tasks.clone(),
        shortage,
    };
    let about = About::new(&config, Arc::clone(&machine));
    telemetry.observe(sources, &config).map_err(Exit::Internal)?;
    pages.open_front(front.view());
    pages.open_log(admin::LogPages::new(log.clone(), about));

    let bridge = bridge.zip(handle).map(|(bridge, handle)| {
        let observer = bridge_observer(&telemetry, canary.as_ref());
        let (log, clock) = (log.clone(), Arc::clone(&clock));
        let stop = CancellationToken::new();
        let run = forebay_bridge::run(bridge, log, mapping, handle, observer, clock, stop.clone());
        tasks.vital("bridge", &stop, run)
    });
    if let Some(canary) = canary {
        let (log, stop) = (log.clone(), shutdown.clone());
        let make = move || canary.clone().run(log.clone(), Arc::clone(&clock), stop.clone());
        others.push(tasks.restarting("canary", shutdown, make));
    }
    let (check, stop) = (self_check.clone(), shutdown.clone());
    let make = move || files.clone().run(check.clone(), stop.clone());
    others.push(tasks.restarting("files", shutdown, make));
    let (config, origin, stop) = (Arc::new(config), Arc::new(origin), shutdown.clone());
    let checked = log.clone();
    let make = move || {
        let (config, origin) = (Arc::clone(&config), Arc::clone(&origin));
        let (machine, judged) = (Arc::clone(&machine), judged.clone());
        let now = move || warned_at(&machine.report(), judged.judgement().at());
        self_check.clone().run(config, origin, checked.clone(), now, stop.clone())
    };
    others.push(tasks.restarting("self-check", shutdown, make));
    Ok(Some(Gateway {
        front,
        admin: address,
        parts: Running {
            shutdown: shutdown.clone(),
            bridge,
            traces,
            others,
            closing: watch_threads(tasks, &log, &watch),
            watch,
            log,
            tasks: tasks.clone(),
        },
    }))
}

/// Looks after the threads, until the token is cancelled.
fn watch_threads(tasks: &Tasks, log: &Log, watch: &Watch) -> CancellationToken {
    let closing = CancellationToken::new();
    let (of_log, of_watch) = (log.clone(), watch.clone());
    tasks.threads("wal", &closing, move || of_log.is_alive());
    tasks.threads("watch", &closing, move || of_watch.is_alive());
    tasks.threads("log", &closing, crate::logging::is_alive);
    closing
}

async fn open_log(config: &Config, clock: Arc<dyn Clock>, telemetry: &Telemetry, fanout: &LocalFanout) -> Result<Opened, Exit> {
    let options = settings::log_options(config);
    let (observer, tap) = (telemetry.wal_observer(), fanout.tap());
    let opened = tokio::task::spawn_blocking(move || Log::open(options, clock, observer, Some(tap))).await;
    match opened {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error @ OpenError::OrphanStream { .. })) => Err(Exit::Configuration(error.into())),
        // Locked among them: whoever holds it ends, and then a service manager's next try succeeds. 78 would end the tries.
        Ok(Err(error)) => Err(Exit::Disk(error.into())),
        Err(error) => Err(Exit::Internal(error.into())),
    }
}

async fn bind_front(
    config: &Config,
    listeners: Vec<ListenerConfig>,
    parts: forebay_broker::Parts,
    shutdown: CancellationToken,
) -> Result<Front, Exit> {
    let front = settings::front(config, listeners, &parts.log).map_err(Exit::Internal)?;
    Front::bind(front, parts, shutdown).await.map_err(|error| match error {
        error @ FrontError::State(_) => Exit::Disk(error.into()),
        error => Exit::Internal(error.into()),
    })
}

/// A listener begins to use a certificate: its end is told, no time past it is believed, and its files are looked after.
fn listener_opened(machine: &Arc<SystemClock>, ends: &CertificateEnds, files: &ListenerFiles) -> settings::Opened {
    let (machine, ends, files) = (Arc::clone(machine), ends.clone(), files.clone());
    Arc::new(move |listener, tls, used| {
        files.uses(listener, used);
        ends.note(listener, tls.not_after());
        time::end_with(&machine, &ends.list());
    })
}

fn trace(config: &Config, log: &Log, clock: &Arc<dyn Clock>, telemetry: &Telemetry, tasks: &Tasks) -> anyhow::Result<Option<Task>> {
    let Some(otlp) = &config.admin.otlp else { return Ok(None) };
    let stop = CancellationToken::new();
    let (tracer, exporting) = Tracer::start(otlp, config.gateway.id.as_str(), log, Arc::clone(clock))?;
    telemetry.trace(tracer)?;
    let asked = stop.clone();
    Ok(Some(
        tasks.restarting("traces", &stop, move || exporting.clone().run(asked.clone())),
    ))
}

/// The canary goes through the first stream: what it tells is whether the way is open, not how long the last backlog is.
fn canary(config: &Config, log: &Log) -> Option<Canary> {
    let interval = config.cloud.as_ref()?.canary?;
    let stream = log.stream(&config.streams.first()?.name)?;
    Some(Canary::new(config.gateway.id.as_str(), interval, stream))
}

fn bridge_observer(telemetry: &Telemetry, canary: Option<&Canary>) -> Arc<dyn forebay_bridge::Observer> {
    match canary {
        Some(canary) => Arc::new(canary::Witness {
            inner: telemetry.bridge_observer(),
            canary: canary.clone(),
        }),
        None => telemetry.bridge_observer(),
    }
}
