//! Whether a connection is accepted.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{Ending, Line, Shared};
use crate::{
    decode::{self, Connect, Version},
    encode,
    hub::End,
    stats::add,
};

/// Reads the first packet; one that is no CONNECT is answered as far as it can be, and is a violation.
pub(super) async fn read_connect<S: AsyncRead + AsyncWrite + Unpin>(shared: &Shared, line: &mut Line<S>) -> Result<Connect, Ending> {
    let refuse = |line: &mut Line<S>, version: Option<Version>, malformed: decode::Malformed| {
        shared.violations.add(format!("CONNECT: {}", malformed.text));
        add(&shared.counters.connects_refused);
        // A protocol level we do not know is told so in the oldest way, which every client reads.
        let answer = match version {
            Some(version) => encode::connack_refused(version, malformed.code),
            None => (malformed.code == 0x84).then(|| vec![0x20, 2, 0, 1]),
        };
        line.out.extend(answer.unwrap_or_default());
        Ending::FIN
    };
    loop {
        match decode::frame(&mut line.buffer, shared.config.limits.packet) {
            Ok(Some(frame)) => {
                return decode::connect(&frame).map_err(|error| refuse(line, error.version, error.malformed));
            }
            Ok(None) => line.read().await?,
            Err(malformed) => return Err(refuse(line, None, malformed)),
        }
    }
}

/// Why a CONNECT is not accepted.
pub(super) enum Refusal {
    /// CONNACK with this code on 5; 3.1.1 is closed, as AWS does.
    Code(u8),
    /// Read, never answered.
    Silence,
    Ending(Ending),
}

/// Checks a CONNECT against the rules and the script; true when it is to be closed right after its CONNACK.
pub(super) async fn admit<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    line: &mut Line<S>,
    connect: &Connect,
) -> Result<bool, Refusal> {
    let limits = &shared.config.limits;
    let refuse = |code, why: String| {
        shared.violations.add(format!("CONNECT of {:?}: {why}", connect.client_id));
        Err(Refusal::Code(code))
    };
    let since_last = shared.counters.since_last_connect(&connect.client_id);
    if connect.client_id.len() > limits.client_id {
        return refuse(
            0x85,
            format!("client id of {} bytes, the limit is {}", connect.client_id.len(), limits.client_id),
        );
    }
    if connect.client_id.starts_with('$') {
        return refuse(0x85, "client ids that start with $ are reserved".to_owned());
    }
    if connect.will.as_ref().is_some_and(|will| will.qos > 1) {
        return refuse(0x9B, "a will of QoS 2".to_owned());
    }
    if let (Some(interval), Some(since)) = (limits.connect_interval, since_last)
        && since < interval
    {
        return refuse(0x97, format!("{since:?} after the last, the limit is one in {interval:?}"));
    }
    if !shared.faults.policy().may_connect(&connect.client_id) {
        return Err(Refusal::Code(0x87));
    }
    let fault = shared.faults.on_connect();
    if let Some(code) = fault.refuse {
        return Err(Refusal::Code(code));
    }
    if fault.silent {
        return Err(Refusal::Silence);
    }
    if line.buffer.is_empty() {
        match timeout(fault.delay, line.read()).await {
            Err(_) => return Ok(fault.close),
            Ok(Err(ending)) => return Err(Refusal::Ending(ending)),
            Ok(Ok(())) => {}
        }
    }
    shared
        .violations
        .add(format!("client {:?} sent before it had the CONNACK", connect.client_id));
    Err(Refusal::Ending(Ending::Ours(End::Disconnect(0x82))))
}
