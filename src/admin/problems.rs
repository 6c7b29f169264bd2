//! What a person should look at, each in one plain sentence, the most urgent first.

use std::time::Duration;

use forebay_bridge::State;
use forebay_broker::{DeviceStatus, UnroutedTopic};
use forebay_topic::PeerText;
use forebay_wal::Doubt;

use crate::check::{ADMIN, Finding, Severity};
use crate::config::{show_bytes, show_duration};
use crate::inspect::{ahead_seconds, wall};
use crate::monitor::self_check::FileState;
use crate::monitor::signals::{Counters, Report, SIGNALS, named, rough};
use crate::telemetry::{Cloud, Counted, Figures, Look, not_ready};
use crate::words::{count, times};

/// A certificate that ends sooner is a problem.
const CERTIFICATE_DAYS: i64 = 30;
/// A revocation list that is due sooner is one; they are renewed often.
const CRL_DAYS: i64 = 3;
const DAY: i64 = 86_400;
/// The reason of a refusal by `access`.
const NOT_AUTHORIZED: &str = "not_authorized";
/// Findings of the self-check told.
const MAX_FINDINGS: usize = 5;
/// Publishes without a field that make its pointer doubtful.
const ENOUGH: u64 = 10;
/// Devices told for each signal.
const SHOWN: usize = 3;

/// How long after a start it is told how the life before it ended.
const RECENT_START: Duration = Duration::from_secs(3600);

/// So many connections that the cloud closed without a reason within a day are no accident.
const OFTEN_CLOSED: u64 = 3;

/// How long a machine that starts may take to synchronise its clock before that is a problem.
const SYNCHRONISES: Duration = Duration::from_secs(60);

/// The problems of the moment; empty = nothing to do.
pub(super) fn problems(look: &Look, watch: &Counters, unrouted: &[UnroutedTopic], known: &[DeviceStatus]) -> Vec<String> {
    let figures = &look.figures;
    let mut list = not_ready(look);
    slow_disk(look, &mut list);
    start(figures, &mut list);
    lost(figures, &look.within_a_day, &mut list);
    if let Some(cloud) = &figures.cloud {
        link(cloud, figures, &mut list);
        taken_over(&look.within_a_day, &mut list);
    }
    room(look, &mut list);
    own_log(figures, &mut list);
    restarted(figures, &mut list);
    shortage(figures, &mut list);
    bounds(figures, &mut list);
    files(figures, &mut list);
    certificates(figures, &mut list);
    clock(figures, &mut list);
    self_check(figures, &mut list);
    devices(&look.within_a_day, unrouted, known, &mut list);
    signals(&figures.signals, &mut list);
    pointers(watch, &mut list);
    list
}

/// A commit that stands; after a minute it is a reason not to be ready.
fn slow_disk(look: &Look, list: &mut Vec<String>) {
    if let (Some(waited), None) = (look.commit_slow, look.log_stalled) {
        list.push(format!(
            "records have waited {} for a commit: the disk does not answer, and devices wait for their acks. Check the disk (`dmesg`)",
            rough(waited)
        ));
    }
}

/// An end before this start that was none.
fn start(figures: &Figures, list: &mut Vec<String>) {
    if !figures.start.clean && figures.clock.report.since_start < RECENT_START {
        list.push(format!(
            "the gateway was not stopped in order before this start: a kill, a crash or a power cut. {} waited then, and nothing that was acked is lost",
            count(figures.start.recovered, "record")
        ));
    }
}

/// Another gateway with the same id.
fn taken_over(day: &Counted, list: &mut Vec<String>) {
    if day.taken_over > 0 {
        list.push(format!(
            "another client with our client id took the cloud's connection over {} within a day: give each gateway its own gateway.id (cloud.client_id)",
            times(day.taken_over)
        ));
    } else if day.closed >= OFTEN_CLOSED {
        // Brokers such as Mosquitto 2.0.11 do not say that it was a takeover.
        list.push(format!(
            "the cloud closed the connection without a reason {} within a day: some brokers do so when another client connects with our client id. Give each gateway its own gateway.id (cloud.client_id), and look into the broker's log",
            times(day.closed)
        ));
    }
}

/// What was lost within a day, or nearly.
fn lost(figures: &Figures, day: &Counted, list: &mut Vec<String>) {
    if day.commits_failed > 0 {
        list.push(format!(
            "{} failed within a day; nothing of them was acked. Check the disk (`dmesg`)",
            count(day.commits_failed, "commit")
        ));
    }
    if day.disk_errors > 0 {
        list.push(format!(
            "{} to the log's disk failed within a day; the journal has the file, the offset and the error of each. Check the disk (`dmesg`)",
            count(day.disk_errors, "call")
        ));
    }
    if day.reads_corrected > 0 {
        list.push(format!(
            "{} of the log gave wrong bytes within a day, and the right ones when repeated. Check the disk, its cable and its power",
            count(day.reads_corrected, "read")
        ));
    }
    let damaged = day.damaged.max(figures.start.damaged);
    if damaged > 0 {
        let damaged = count(damaged, "record");
        list.push(format!(
            "{damaged} could not be read; their segments are kept in the log's directory. Check the disk (`dmesg`)"
        ));
    }
    if figures.start.quarantined > 0 {
        list.push(format!(
            "{} did not open at start and are quarantined in the log's directory. Check the disk (`dmesg`)",
            count(figures.start.quarantined, "segment")
        ));
    }
    if figures.front.state.is_lost {
        list.push(
            "sessions or retained messages were lost at this start: state.redb was damaged or removed, and the log no longer has all of it. Devices start new sessions; a retained message comes back with the next publish of its topic. Check the disk (`dmesg`)".to_owned(),
        );
    } else if figures.front.state.is_quarantined {
        list.push(
            "state.redb was damaged and has been made again from the log without a loss; the damaged file is kept as state.redb.damaged. Check the disk (`dmesg`)".to_owned(),
        );
    }
    dropped(day, list);
    if day.dead_lettered > 0 {
        list.push(format!(
            "{} became dead letters within a day: the cloud will never accept them; `forebay dead ls` says why",
            count(day.dead_lettered, "record")
        ));
    }
}

/// What was dropped within a day at a bound or for its age, and which one.
fn dropped(day: &Counted, list: &mut Vec<String>) {
    for (evicted, why) in [
        (
            day.evicted_at_keep_free,
            "because the file system was short of space: free some, or lower gateway.keep_free",
        ),
        (day.evicted_at_max_disk, "because the log was at gateway.max_disk: raise it"),
        (day.evicted_at_max_bytes, "because a stream was at its max_bytes: raise it"),
    ] {
        if evicted > 0 {
            list.push(format!("{} dropped within a day {why}", count(evicted, "record")));
        }
    }
    if day.expired > 0 {
        list.push(format!(
            "{} expired within a day: older than max_age of the stream, or than the message expiry that the device set",
            count(day.expired, "record")
        ));
    }
}

/// What the operator cannot read in the log.
fn own_log(figures: &Figures, list: &mut Vec<String>) {
    let lost = figures.log_lines;
    if lost.lasting {
        let lines = count(lost.total, "log line");
        let now = if lost.untold > 0 {
            "stderr cannot be written"
        } else {
            "stderr was not read fast enough"
        };
        list.push(format!(
            "{lines} dropped since the start: {now}. Check the program that reads stderr, and the disk that it writes to"
        ));
    }
}

/// Too few files for the configured connections.
fn shortage(figures: &Figures, list: &mut Vec<String>) {
    if let Some(shortage) = figures.shortage {
        list.push(format!(
            "the process may open {} files and limits.max_connections needs {}: it is lowered from {} to {}. Raise LimitNOFILE= of the service, or `ulimit -n`",
            shortage.limit, shortage.needed, shortage.configured, shortage.used
        ));
    }
}

/// Bounds on what peers leave behind that were reached within the last minute, and cost a peer more than a wait.
fn bounds(figures: &Figures, list: &mut Vec<String>) {
    let told = figures.front.bounds.iter().filter(|status| status.bound.line().is_told);
    for lasting in told.filter_map(|status| status.lasting.as_ref()) {
        list.push(format!(
            "{}; {}, last for {}",
            lasting.bound.line().reached(lasting.limit, lasting.is_share),
            times(lasting.times),
            lasting.last
        ));
    }
}

/// Tasks that were started again: a fault of ours that is told nowhere else.
fn restarted(figures: &Figures, list: &mut Vec<String>) {
    for task in &figures.tasks.restarted {
        let known = figures.tasks.restarts.iter().find(|(name, _)| name == task);
        let times = known.map_or(0, |(_, times)| *times);
        list.push(format!(
            "the task `{task}` ended unasked and was started again ({} since the start); the log has its error: please report it",
            count(times, "time")
        ));
    }
}

fn link(cloud: &Cloud, figures: &Figures, list: &mut Vec<String>) {
    let status = &cloud.status;
    let waiting: u64 = figures.log.streams.iter().map(|stream| stream.waiting).sum();
    if cloud.is_stalled() {
        list.push(format!(
            "the cloud is connected and has acked none of {} for five seconds",
            count(status.in_flight as u64, "publish")
        ));
    } else if !cloud.is_connected() && status.state != State::Stopped {
        let why = status
            .last_error
            .as_ref()
            .map_or_else(String::new, |error| format!(": {} ({} in a row)", error.text, times(error.times)));
        list.push(format!("the cloud is not connected{why}; {} in the log", count(waiting, "record")));
    }
    if let Some(canary) = &figures.canary
        && let Some(waiting) = canary.waiting
        && cloud.is_connected()
        && waiting > canary.interval * 3
    {
        list.push(format!(
            "the canary has waited {} for the cloud's ack although the cloud is connected: either a backlog drains, or the way to the cloud is interrupted",
            rough(waiting)
        ));
    }
    if !status.suspended_routes.is_empty() {
        list.push(format!(
            "the cloud's policy denies the routes {}; their records wait. Allow iot:Publish on their cloud topics",
            status.suspended_routes.join(", ")
        ));
    }
    if let Some(first) = status.suspended.first() {
        list.push(format!(
            "the cloud takes nothing of {} of route and device, for example `{}` of `{}`; their records wait, and one is tried each minute. Allow iot:Publish on their cloud topics; if that is allowed, the gateway's log says how the connection ends at them",
            count(status.suspended.len() as u64, "pair"),
            first.route,
            first.identity
        ));
    }
}

fn room(look: &Look, list: &mut Vec<String>) {
    let figures = &look.figures;
    for stream in figures
        .log
        .streams
        .iter()
        .filter(|stream| stream.is_nearly_full() && !(stream.refuses && stream.is_full()))
    {
        let then = if stream.refuses {
            "at the bound publishes are refused"
        } else {
            "at the bound its oldest records are dropped"
        };
        let (bytes, max) = (show_bytes(stream.waiting_bytes), show_bytes(stream.max_bytes));
        list.push(format!("stream `{}` has {bytes} of {max}; {then}", stream.name));
    }
    let wanted = figures.survive_outage;
    if let Some(seconds) = look.autonomy.filter(|seconds| *seconds > 0.0 && *seconds < wanted.as_secs_f64()) {
        let hours = seconds / 3600.0;
        let wanted = show_duration(wanted);
        let advice = if figures.log.is_short_of_space() {
            "Free some space of the file system, or lower gateway.keep_free"
        } else {
            "Raise max_bytes or gateway.max_disk"
        };
        list.push(format!(
            "at the present rate the log has room for {hours:.1} h; gateway.survive.outage requires {wanted}. {advice}"
        ));
    }
    quarantined(figures, list);
    if figures.log.free_bytes < figures.log.keep_free {
        let (free, keep) = (show_bytes(figures.log.free_bytes), show_bytes(figures.log.keep_free));
        list.push(format!(
            "the file system has {free} free, less than gateway.keep_free ({keep}). Free some space, or lower gateway.keep_free"
        ));
    }
}

/// What a person may still salvage, and until when.
fn quarantined(figures: &Figures, list: &mut Vec<String>) {
    let kept = figures.log.quarantined;
    if kept.segments > 0 {
        let until = kept
            .until
            .map_or_else(String::new, |until| format!(" by {}", wall(until.saturating_mul(1000))));
        list.push(format!(
            "{} ({}) kept in the log's directory: salvage what you need of them{until} with `forebay log salvage`; they are removed then, or earlier if their room is needed",
            count(kept.segments, "quarantined segment"),
            show_bytes(kept.bytes)
        ));
    }
}

/// Files on disk that are others than those in use.
fn files(figures: &Figures, list: &mut Vec<String>) {
    list.extend(figures.stale_files.iter().map(ToString::to_string));
    if figures.restart_is_pending {
        let new = figures.installed_version.as_deref().unwrap_or("another version or build");
        list.push(format!(
            "the program on disk ({new}) is another than the one that runs ({}): restart the gateway to use the new one",
            env!("CARGO_PKG_VERSION")
        ));
    }
    if let Some(fault) = &figures.cloud_files {
        list.push(format!(
            "the files of cloud.tls cannot be used: {fault}; the connection uses them as they were before. A restart would wait for them"
        ));
    }
}

fn certificates(figures: &Figures, list: &mut Vec<String>) {
    for (listener, left) in &figures.certificates {
        if *left < 0 {
            list.push(format!(
                "the certificate of listener {listener} expired {} ago; make a new one: `forebay certs server`",
                days(-left)
            ));
        } else if *left < CERTIFICATE_DAYS * DAY {
            list.push(format!(
                "the certificate of listener {listener} expires in {}; make a new one: `forebay certs server`",
                days(*left)
            ));
        }
    }
}

/// Why the clock is not trusted; that nothing has synchronised it yet is nothing to say while a machine starts.
fn clock(figures: &Figures, list: &mut Vec<String>) {
    let report = &figures.clock.report;
    if let Err(doubt) = report.trust
        && (doubt.is_wrong() || report.since_start >= SYNCHRONISES)
    {
        list.push(format!(
            "the machine's clock is not trusted: {doubt}; until it is right nothing expires by it: check NTP (`timedatectl`)"
        ));
    }
    let Some(last) = &figures.clock.last_trusted else { return };
    let ahead = ahead_seconds(last, &report.now);
    let is_past = matches!(report.trust, Err(Doubt::Past { .. }));
    if ahead > DAY && !is_past {
        list.push(format!(
            "the last trusted time on disk, {}, is {} ahead of the machine's clock; if the clock is right, `forebay clock reset` forgets it",
            wall(last.wall_ms),
            days(ahead)
        ));
    }
}

/// What the hourly self-check found beyond what is told already.
fn self_check(figures: &Figures, list: &mut Vec<String>) {
    let Some(check) = &figures.check else { return };
    match check.file {
        FileState::Same => {}
        FileState::Differs => {
            list.push("the configuration file differs from the running configuration; restart to use it, or restore it".to_owned())
        }
        FileState::Broken => list.push("a restart would fail: the configuration file has faults; `forebay check` lists them".to_owned()),
    }
    if check.new_errors > 0 {
        list.push(format!(
            "the kernel has counted {} in the file system of gateway.data_dir since the start. Check the disk (`dmesg`), and repair it (`e2fsck -f`) while the gateway is stopped",
            count(check.new_errors, "more error")
        ));
    }
    // The listeners' certificates stand above.
    for expiry in check.expiries.iter().filter(|expiry| expiry.what != "certificate") {
        let left = expiry.ends.saturating_sub(figures.judged);
        let soon = if expiry.what == "crl" { CRL_DAYS } else { CERTIFICATE_DAYS } * DAY;
        let what = match expiry.what {
            "crl" => "the revocation list",
            "device_ca" => "a device CA",
            "cloud_ca" => "a cloud CA",
            _ => "the cloud certificate",
        };
        if left < 0 {
            list.push(format!("{what} in {} expired {} ago; make a new one", expiry.file, days(-left)));
        } else if left < soon {
            list.push(format!("{what} in {} expires in {}; make a new one", expiry.file, days(left)));
        }
    }
    let expired = figures.certificates.iter().any(|(_, left)| *left < 0);
    // A token that others may read works, and is a fault all the same.
    let is_told = |finding: &&Finding| finding.severity == Severity::Error || (finding.severity == Severity::Warn && finding.area == ADMIN);
    let errors = check.report.findings.iter().filter(is_told);
    for finding in errors
        .filter(|finding| finding.area != "certificates" || !expired)
        .take(MAX_FINDINGS)
    {
        let hint = finding.hint.as_ref().map_or_else(String::new, |hint| format!("; {hint}"));
        list.push(format!("self-check, {}: {}{hint}", finding.area, finding.text));
    }
}

/// What `watch` notices: of each signal the worst three.
fn signals(report: &Report, list: &mut Vec<String>) {
    for signal in SIGNALS {
        let all = report.in_trouble(signal);
        list.extend(
            report
                .of(signal)
                .take(SHOWN)
                .map(|trouble| format!("{} {}", trouble.device, trouble.text)),
        );
        if all > SHOWN {
            list.push(format!("and {} more with the signal `{}`", all - SHOWN, signal.label()));
        }
    }
}

/// Pointers of `watch` at which nothing was found.
fn pointers(watch: &Counters, list: &mut Vec<String>) {
    for (item, field, _) in watch.values().filter(|(_, _, values)| *values == 0) {
        let seen = named(&watch.seen).find(|(known, _)| *known == item).map_or(0, |(_, seen)| seen);
        if seen >= ENOUGH {
            list.push(format!(
                "none of {seen} publishes on `{item}` has a number at {field}; is the pointer in `watch` misspelt?"
            ));
        }
    }
}

fn devices(day: &Counted, unrouted: &[UnroutedTopic], known: &[DeviceStatus], list: &mut Vec<String>) {
    if day.unrouted > 0 {
        let worst = unrouted.first().map_or_else(String::new, |worst| {
            let near = worst.nearest.as_ref().map_or_else(String::new, |(route, off)| {
                format!(", {} from `{route}`", count(*off as u64, "letter"))
            });
            format!("; most on `{}`{near}", worst.topic)
        });
        list.push(format!(
            "{} matched no route within a day and did not go to the cloud{worst}",
            count(day.unrouted, "publish")
        ));
    }
    let reasons = |counts: &[(String, u64)]| {
        let some = counts.iter().filter(|(_, count)| *count > 0);
        some.map(|(reason, count)| format!("{reason} {count}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    for (what, counts) in [
        ("publishes were refused", &day.refused),
        ("QoS 0 publishes were dropped", &day.dropped),
        ("publishes with RETAIN were delivered but not retained", &day.unretained),
        ("messages for local subscribers at QoS 1 and 2 were dropped", &day.owed_dropped),
        ("sessions, or parts of them, were dropped at a bound", &day.dropped_sessions),
        ("TLS handshakes failed", &day.handshake_faults),
    ] {
        if counts.iter().any(|(_, count)| *count > 0) {
            list.push(format!("{what} within a day: {}{}", reasons(counts), advice(counts, known)));
        }
    }
    // Nothing proves a name before the handshake is over: a few are enough, those dialled most.
    let mut wrong_names: Vec<_> = day
        .wrong_names
        .iter()
        .filter(|(name, dialled)| *dialled > 0 && name != "other")
        .collect();
    wrong_names.sort_by_key(|(_, handshakes)| std::cmp::Reverse(*handshakes));
    for (name, handshakes) in wrong_names.into_iter().take(SHOWN) {
        let dialled = if name == "none" {
            "an address".to_owned()
        } else {
            format!("`{name}`")
        };
        list.push(format!(
            "devices dial {dialled}, which is not in the server certificate ({} failed); if it is a name of this gateway, make one with `forebay certs server --name ...`",
            count(*handshakes, "handshake")
        ));
    }
    if day.retained_unread > 0 {
        list.push(format!(
            "{} within a day did not get retained messages because state.redb could not be read. Check the disk (`dmesg`)",
            count(day.retained_unread, "subscription")
        ));
    }
    if day.fanout_cut > 0 {
        list.push(format!(
            "{} within a day may have missed a local subscriber: too many overlapping filters with `+` match; subscribe with fewer, or with `#`",
            count(day.fanout_cut, "message")
        ));
    }
    if day.acks_late > 0 {
        list.push(format!(
            "{} within a day closed because a subscriber did not acknowledge a message within `sessions.ack_timeout`; the log names the client and the topic",
            count(day.acks_late, "connection")
        ));
    }
    if day.fanout_dropped > 0 {
        list.push(format!(
            "local subscribers read too slowly and lost {} within a day",
            count(day.fanout_dropped, "message")
        ));
    }
}

/// Where to look when the access rules refuse.
fn advice(counts: &[(String, u64)], known: &[DeviceStatus]) -> String {
    if !counts.iter().any(|(reason, count)| reason == NOT_AUTHORIZED && *count > 0) {
        return String::new();
    }
    let most = known.iter().filter(|device| device.refused > 0).max_by_key(|device| device.refused);
    let most = most.map_or_else(String::new, |device| format!("most of `{}`; ", PeerText::new(&device.identity)));
    format!(
        "; {most}the gateway's log names the topics: allow them in `access`, or correct the device (`forebay check --sample TOPIC --as DEVICE` says why)"
    )
}

fn days(seconds: i64) -> String {
    if seconds < 2 * DAY {
        format!("{} h", seconds / 3600)
    } else {
        format!("{} days", seconds / DAY)
    }
}
