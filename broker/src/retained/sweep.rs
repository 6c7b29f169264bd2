//! Removes expired messages, so that they do not count for the bounds for ever.

use std::sync::Arc;
use std::time::Duration;

use forebay_wal::{Clock, Log, Timestamp};
use tokio_util::sync::CancellationToken;

use super::Retained;
use super::lookup::LookupError;
use crate::local_state;
use crate::observe::add;

/// How often expired messages are removed while no bound is reached.
const EVERY: Duration = Duration::from_secs(60);
/// The shortest time between two searches.
const PAUSE: Duration = Duration::from_secs(1);

/// Removes expired messages until `shutdown`. Only those that the checkpoint has: it gets the others soon.
pub(crate) async fn sweep(retained: Arc<Retained>, log: Log, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
    let mut since = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = retained.over_quota.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
        if retained.lock().quota.expiring() > 0 {
            let mut from = Some(String::new());
            while let Some(place) = from
                && !shutdown.is_cancelled()
            {
                from = match page(&retained, &log, &clock, place, &mut since).await {
                    Ok(next) => next,
                    Err(error) => {
                        tracing::warn!(%error, "expired retained messages could not be looked up");
                        None
                    }
                };
            }
        }
        if tokio::time::timeout(PAUSE, shutdown.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// Removes what has expired of one page; `since` becomes the first trusted moment.
async fn page(
    retained: &Arc<Retained>,
    log: &Log,
    clock: &Arc<dyn Clock>,
    from: String,
    since: &mut Option<Timestamp>,
) -> Result<Option<String>, LookupError> {
    let now = clock.now();
    *since = since.or(Some(now).filter(|now| now.trusted));
    let (retained, log, since) = (Arc::clone(retained), log.clone(), *since);
    let work = move || {
        let page = retained.read_expired(&from, &now, since.as_ref())?;
        let mut producer = log.producer(Arc::clone(&retained) as _);
        for topic in page.topics {
            let state = retained.lock();
            // It was replaced since then, or is about to be.
            if state.overlay.generation() != page.generation || state.overlay.contains(&topic) || state.quota.of(&topic).is_none() {
                continue;
            }
            let pending = retained.removal(state, &topic);
            let record = local_state::record(now, "", pending.entry());
            let Ok(ticket) = producer.append(&[record]) else {
                // The log cannot append now; the next search tries again.
                return Ok(None);
            };
            pending.appended(ticket.batch);
            add(&retained.stats.retained_expired, 1);
        }
        Ok(page.next)
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| LookupError::Closed)?
}
