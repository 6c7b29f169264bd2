//! One thread that plays many producers.

use std::time::{Duration, Instant};

use crate::Histogram;
use crate::engine::{Acks, Service};

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Played {
    /// Records acked.
    pub acked: u64,
    /// From the first append to the last ack.
    pub took: Duration,
    /// Ack latencies: since the append, or where records are paced since they were due.
    pub latency: Histogram,
}

/// Each of `producers` has one record in flight and appends the next when it is acked, for `duration`; then the last acks are waited for.
///
/// # Errors
///
/// A record was not stored.
pub fn closed(service: &mut impl Service, acks: &Acks, producers: u32, duration: Duration, played: &mut Played) -> anyhow::Result<()> {
    let began = Instant::now();
    let until = began + duration;
    let mut since = vec![began; producers as usize];
    for producer in 0..producers {
        since[producer as usize] = Instant::now();
        service.append(producer)?;
    }
    let mut in_flight = producers;
    let mut taken = Vec::new();
    while in_flight > 0 {
        acks.take(&mut taken, None)?;
        let now = Instant::now();
        for producer in taken.drain(..) {
            played.latency.record(now - since[producer as usize]);
            played.acked += 1;
            if now < until {
                since[producer as usize] = now;
                service.append(producer)?;
            } else {
                in_flight -= 1;
            }
        }
    }
    played.took += began.elapsed();
    Ok(())
}

/// `rate` records per second for `duration`, each from a producer that has none in flight; what is due while all have one waits, and its
/// latency counts from when it was due.
///
/// # Errors
///
/// A record was not stored.
pub fn paced(
    service: &mut impl Service,
    acks: &Acks,
    producers: u32,
    rate: f64,
    duration: Duration,
    played: &mut Played,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let records = (duration.as_secs_f64() * rate) as u64;
    let due = |record: u64| began + Duration::from_secs_f64(record as f64 / rate);
    let mut since = vec![began; producers as usize];
    let mut free: Vec<u32> = (0..producers).collect();
    let mut taken = Vec::new();
    let mut next = 0;
    let mut acked = 0;
    while acked < records {
        while next < records && due(next) <= Instant::now() {
            let Some(producer) = free.pop() else { break };
            since[producer as usize] = due(next);
            service.append(producer)?;
            next += 1;
        }
        // Without a free producer only an ack helps.
        let deadline = (next < records && !free.is_empty()).then(|| due(next));
        acks.take(&mut taken, deadline)?;
        let now = Instant::now();
        for producer in taken.drain(..) {
            played.latency.record(now.saturating_duration_since(since[producer as usize]));
            free.push(producer);
            acked += 1;
        }
    }
    played.acked += acked;
    played.took += began.elapsed();
    Ok(())
}
