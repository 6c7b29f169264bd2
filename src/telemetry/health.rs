//! The two verdicts: can a publish be acked truthfully now, and would a restart help?

use super::Look;
use crate::config::show_bytes;

/// What keeps a publish from being acked truthfully now; empty = ready. The cloud's absence does not: the log takes what comes.
#[must_use]
pub(crate) fn not_ready(look: &Look) -> Vec<String> {
    let log = &look.figures.log;
    let mut missing = restart_helps(look);
    for (address, why) in &look.figures.front.closed_listeners {
        missing.push(format!("listener {address} does not serve: {why}"));
    }
    if let Some(reason) = &log.unavailable {
        missing.push(format!("the log cannot be written: {reason}"));
    }
    // A stream that drops its oldest still takes what comes.
    for stream in log.streams.iter().filter(|stream| stream.refuses && stream.is_full()) {
        missing.push(format!(
            "stream `{}` is full: {} of {} wait for the cloud; raise its max_bytes or fix the link",
            stream.name,
            show_bytes(stream.waiting_bytes),
            show_bytes(stream.max_bytes)
        ));
    }
    missing
}

/// What only a restart fixes; empty = healthy.
#[must_use]
pub(crate) fn restart_helps(look: &Look) -> Vec<String> {
    let figures = &look.figures;
    let dead = figures.tasks.dead.iter().map(ToString::to_string);
    let mut broken: Vec<_> = dead.chain(figures.front.fault.clone()).collect();
    for task in &mut broken {
        task.push_str("; the gateway ends with exit code 70 and must be started again");
    }
    if !look.figures.front.fanout_alive {
        broken.push("the fan-out to local subscribers has ended; restart the gateway (nothing acked is lost)".to_owned());
    }
    if look.figures.log.writer_ended {
        broken.push("the log's writer has ended; restart the gateway (nothing acked is lost)".to_owned());
    }
    if let Some(waited) = look.log_stalled {
        let seconds = waited.as_secs();
        broken.push(format!("records have waited {seconds} s for a commit: the log's writer has ended or the disk hangs. Check the disk (`dmesg`) and restart the gateway (nothing acked is lost)"));
    }
    broken
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::look;
    use super::*;

    #[test]
    fn b1_a_listener_that_cannot_serve_is_named_and_a_restart_does_not_help() {
        let mut look = look();
        look.figures.front.closed_listeners = vec![(([10, 0, 0, 7], 8883).into(), "cannot listen: no such address".to_owned())];
        assert_eq!(
            not_ready(&look),
            ["listener 10.0.0.7:8883 does not serve: cannot listen: no such address"]
        );
        assert_eq!(restart_helps(&look), Vec::<String>::new());
    }

    #[test]
    fn a_gateway_without_its_cloud_is_ready_and_healthy() {
        let mut look = look();
        look.figures.cloud.as_mut().unwrap().status.state = forebay_bridge::State::Connecting;
        assert_eq!((not_ready(&look), restart_helps(&look)), (vec![], vec![]));
    }

    #[test]
    fn a_full_stream_is_not_ready_only_if_it_refuses() {
        let mut look = look();
        let stream = &mut look.figures.log.streams[0];
        (stream.waiting_bytes, stream.refuses) = (stream.max_bytes, false);
        assert!(not_ready(&look).is_empty());
        look.figures.log.streams[0].refuses = true;
        assert!(not_ready(&look)[0].contains("stream `alarms` is full"), "{:?}", not_ready(&look));
        assert!(restart_helps(&look).is_empty());
    }

    #[test]
    fn a_log_whose_writer_has_ended_needs_a_restart() {
        let mut look = look();
        look.figures.log.writer_ended = true;
        assert!(restart_helps(&look)[0].contains("writer has ended"));
    }

    #[test]
    fn a_stream_that_has_no_room_for_one_more_record_is_full() {
        let mut look = look();
        let stream = &mut look.figures.log.streams[0];
        (stream.refuses, stream.waiting, stream.max_bytes) = (true, 10, 10_500);
        stream.waiting_bytes = 9_000;
        assert!(not_ready(&look).is_empty());
        look.figures.log.streams[0].waiting_bytes = 10_000;
        assert!(not_ready(&look)[0].contains("is full"), "{:?}", not_ready(&look));
    }

    #[test]
    fn a_log_that_cannot_write_is_not_ready_but_no_restart_helps() {
        let mut look = look();
        look.figures.log.unavailable = Some("the disk is at its bound".to_owned());
        assert_eq!(not_ready(&look), ["the log cannot be written: the disk is at its bound"]);
        assert!(restart_helps(&look).is_empty());
    }

    #[test]
    fn a_dead_fanout_and_a_dead_writer_want_a_restart() {
        let mut look = look();
        look.figures.front.fanout_alive = false;
        look.log_stalled = Some(Duration::from_secs(75));
        assert_eq!(restart_helps(&look).len(), 2);
        assert_eq!(not_ready(&look).len(), 2);
    }
}
