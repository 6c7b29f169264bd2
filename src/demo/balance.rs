//! The end of the story: three counts of the same messages, and whether they agree.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use forebay_aws_standin::Ledger;
use forebay_wal::{Audit, Log, SystemClock};
use serde::Serialize;

/// The result, in the fields of the contract (`--json`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Balance {
    pub(super) accepted: u64,
    pub(super) delivered: u64,
    pub(super) waiting: u64,
    pub(super) expired: u64,
    pub(super) evicted: u64,
    pub(super) dead: u64,
    pub(super) damaged: u64,
    pub(super) refused: u64,
    /// Publishes that a device saw acked and that the cloud does not have.
    pub(super) lost: u64,
    /// Arrivals in the cloud beyond the first of each message.
    pub(super) duplicates: u64,
    /// Messages that arrived first after a later one of their device.
    pub(super) out_of_order: u64,
}

/// What one device did. All that it measured and did not drop was acked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Samples, numbered from 1.
    pub(super) measured: u64,
    /// Samples that it dropped unsent because its flash was full.
    pub(super) evicted: u64,
    /// Publishes that were refused, and sent again.
    pub(super) refused: u64,
}

impl Balance {
    /// Compares the gateway's recount with what the devices measured and saw acked, and with what the cloud has.
    pub(super) fn of(audit: &Audit, sent: &BTreeMap<String, Sent>, cloud: &Ledger) -> Self {
        let lost = sent
            .iter()
            .map(|(device, sent)| {
                let missing = (1..=sent.measured).filter(|seq| !cloud.contains_key(device, *seq)).count() as u64;
                // What a device dropped itself, because its flash was full, was never acked.
                missing.saturating_sub(sent.evicted)
            })
            .sum();
        let refused = sent.values().map(|sent| sent.refused).sum();
        let report = cloud.report();
        Self {
            accepted: audit.accepted + audit.requeued,
            delivered: audit.delivered,
            waiting: audit.waiting,
            expired: audit.expired,
            evicted: audit.evicted,
            dead: audit.dead_lettered,
            damaged: audit.damaged,
            refused,
            lost,
            duplicates: report.keyed - report.keyed_unique,
            out_of_order: report.out_of_order,
        }
    }

    /// Whether the ledger balances and the contract was kept.
    pub(crate) fn is_well(&self) -> bool {
        self.balances() && self.lost == 0 && self.out_of_order == 0
    }

    fn balances(&self) -> bool {
        self.accepted == self.delivered + self.waiting + self.expired + self.evicted + self.dead + self.damaged
    }

    /// The ledger for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("accepted {:>10}   by the gateway, each on disk before its ack", self.accepted),
            format!("delivered {:>9}   acked by the cloud", self.delivered),
            format!("waiting {:>11}", self.waiting),
            format!("expired {:>11}", self.expired),
            format!("evicted {:>11}", self.evicted),
            format!("dead {:>14}", self.dead),
            format!("damaged {:>11}", self.damaged),
            format!("refused {:>11}   the device was told; never acked", self.refused),
            format!("lost {:>14}   acked to a device, and not in the cloud", self.lost),
            format!(
                "duplicates {:>8}   sent twice around the kill and the outage: at least once",
                self.duplicates
            ),
            format!("out of order {:>6}", self.out_of_order),
        ];
        lines.push(match (self.balances(), self.is_well()) {
            (_, true) => "the ledger balances; nothing that was acked is lost".to_owned(),
            (false, _) => "THE LEDGER DOES NOT BALANCE".to_owned(),
            (true, false) => "THE CONTRACT WAS BROKEN: see lost and out of order".to_owned(),
        });
        lines
    }
}

/// Recounts the log of a gateway that has stopped, by reading it.
pub(super) async fn recount(options: forebay_wal::Options) -> anyhow::Result<Audit> {
    let directory = options.directory.clone();
    tokio::task::spawn_blocking(move || {
        let opened = Log::open(options, Arc::new(SystemClock::new(0)), Arc::new(Unobserved), None)?;
        let audit = opened.log.audit()?;
        opened.log.close()?;
        anyhow::Ok(audit)
    })
    .await?
    .with_context(|| recount_failed(&directory))
}

fn recount_failed(directory: &Path) -> String {
    format!("the log in {} could not be recounted", directory.display())
}

struct Unobserved;

impl forebay_wal::Observer for Unobserved {
    fn committed(&self, _latency: Duration, _records: u64, _bytes: u64) {}
}
