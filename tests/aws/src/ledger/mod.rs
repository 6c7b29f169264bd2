//! The first verdict of a run: every publish the cloud has committed, in order.
//!
//! Entries with their payloads are kept up to a bound, oldest dropped first; what proves "nothing lost" is kept for
//! all of them as small keys: a hash of each payload, a hash of each identity, and the sequence numbers per device.

mod file;
mod sequence;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;

use crate::lock;
use file::LedgerFile;
pub use sequence::DeviceReport;
use sequence::Sequence;

/// Finds the device and sequence number in a publish (topic, payload), if it carries them.
pub type PayloadKey = fn(&str, &[u8]) -> Option<(String, u64)>;

/// A [`PayloadKey`] for JSON payloads with a text or number `device` and a whole number `seq`.
pub fn json_device_and_seq(_topic: &str, payload: &[u8]) -> Option<(String, u64)> {
    let value: serde_json::Value = serde_json::from_slice(payload).ok()?;
    let device = match value.get("device")? {
        serde_json::Value::String(name) => name.clone(),
        other => other.to_string(),
    };
    Some((device, value.get("seq")?.as_u64()?))
}

/// What a ledger keeps.
#[derive(Clone, Copy, Debug)]
pub struct LedgerConfig {
    /// Entries kept for [`Ledger::entries`]; older ones are dropped. Default 100,000.
    pub keep_entries: usize,
    /// Bytes of payload kept with them, in all; entries beyond have none. Default 32 MiB.
    pub keep_payload_bytes: usize,
    /// Where a publish carries its device and sequence number. Default [`json_device_and_seq`].
    pub key: PayloadKey,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            keep_entries: 100_000,
            keep_payload_bytes: 32 << 20,
            key: json_device_and_seq,
        }
    }
}

/// One committed publish.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its place in the order of commits, from 1.
    pub order: u64,
    /// Its topic, with an alias resolved.
    pub topic: String,
    /// Its payload, unless the bound was reached.
    pub payload: Option<Bytes>,
    /// Bytes of payload.
    pub payload_len: usize,
    /// A hash of the payload.
    pub payload_hash: u64,
    /// The user property `forebay-id`.
    pub forebay_id: Option<String>,
    /// All user properties.
    pub user_properties: Vec<(String, String)>,
    /// The client that sent it.
    pub client_id: String,
    /// Its packet id; `None` at QoS 0.
    pub packet_id: Option<u16>,
    /// The DUP flag.
    pub dup: bool,
    /// The RETAIN flag.
    pub retain: bool,
    /// When it was committed.
    pub at: SystemTime,
    /// Whether its identity (`forebay-id`, else topic and payload) had arrived before.
    pub duplicate: bool,
    /// Device and sequence number, where the extractor found them.
    pub key: Option<(String, u64)>,
}

/// What the server hands over to be committed.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Bytes,
    /// Its user properties.
    pub user_properties: Vec<(String, String)>,
    /// The client that sent it.
    pub client_id: String,
    /// Its packet id; `None` at QoS 0.
    pub packet_id: Option<u16>,
    /// The DUP flag.
    pub dup: bool,
    /// The RETAIN flag.
    pub retain: bool,
}

/// Sums over everything committed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LedgerReport {
    /// Publishes committed.
    pub count: u64,
    /// Different identities among them.
    pub unique: u64,
    /// Commits of an identity that had arrived before.
    pub duplicates: u64,
    /// Publishes in which a device and sequence number were found.
    pub keyed: u64,
    /// Different (device, sequence number) pairs.
    pub keyed_unique: u64,
    /// Sequence numbers that arrived first after a higher one of their device.
    pub out_of_order: u64,
    /// Sequence numbers missing between the lowest and the highest of their device.
    pub gaps: u64,
    /// Devices seen.
    pub devices: usize,
}

/// The ledger. Share it in an `Arc`; it outlives the stand-in that writes it.
#[derive(Debug)]
pub struct Ledger {
    config: LedgerConfig,
    inner: Mutex<Inner>,
    committed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    count: u64,
    entries: VecDeque<Entry>,
    kept_bytes: usize,
    identities: HashSet<u64>,
    payloads: HashMap<u64, u32>,
    devices: BTreeMap<String, Sequence>,
    keyed: u64,
    file: Option<LedgerFile>,
}

/// A condition did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("the ledger did not reach the awaited state within {waited:?}: {report:?}")]
pub struct WaitTimeout {
    /// How long was waited.
    pub waited: Duration,
    /// The ledger at that time.
    pub report: LedgerReport,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(LedgerConfig::default())
    }
}

impl Ledger {
    /// An empty ledger in memory.
    pub fn new(config: LedgerConfig) -> Self {
        Self {
            config,
            inner: Mutex::new(Inner::default()),
            committed: watch::Sender::new(0),
        }
    }

    /// A ledger that also appends one JSON line per publish to `path`, before the publish is acked. Lines that are there
    /// already are read back first, so a restarted process goes on with counts, identities and sequence numbers.
    ///
    /// # Errors
    /// When the file cannot be opened, read or parsed; a torn last line is cut off.
    pub fn open(config: LedgerConfig, path: &Path) -> std::io::Result<Self> {
        let ledger = Self::new(config);
        let (file, lines) = LedgerFile::open(path)?;
        {
            let mut inner = lock(&ledger.inner);
            for line in lines {
                inner.count = line.order;
                inner.note(line.identity, line.hash, line.device.zip(line.seq).as_ref());
            }
            inner.file = Some(file);
            ledger.committed.send_replace(inner.count);
        }
        Ok(ledger)
    }

    /// Commits a publish; the server does so before it acks. Returns its place in the order.
    ///
    /// # Errors
    /// When the ledger's file refuses the line; then the publish must not be acked.
    pub fn commit(&self, arrival: Arrival) -> std::io::Result<u64> {
        let payload_hash = hash(&arrival.payload[..]);
        let forebay_id = arrival
            .user_properties
            .iter()
            .find(|(name, _)| name == "forebay-id")
            .map(|(_, value)| value.clone());
        let identity = match &forebay_id {
            Some(id) => hash(id),
            None => hash(&(&arrival.topic, payload_hash)),
        };
        let key = (self.config.key)(&arrival.topic, &arrival.payload);

        let mut inner = lock(&self.inner);
        let mut entry = Entry {
            order: inner.count + 1,
            topic: arrival.topic,
            payload_len: arrival.payload.len(),
            payload: Some(arrival.payload),
            payload_hash,
            forebay_id,
            user_properties: arrival.user_properties,
            client_id: arrival.client_id,
            packet_id: arrival.packet_id,
            dup: arrival.dup,
            retain: arrival.retain,
            at: arrived_at(),
            duplicate: inner.identities.contains(&identity),
            key,
        };
        if let Some(file) = &mut inner.file {
            file.append(&entry, identity)?;
        }
        inner.count = entry.order;
        inner.note(identity, payload_hash, entry.key.as_ref());
        if inner.kept_bytes + entry.payload_len > self.config.keep_payload_bytes {
            entry.payload = None;
        }
        inner.kept_bytes += entry.payload.as_ref().map_or(0, Bytes::len);
        inner.entries.push_back(entry);
        while inner.entries.len() > self.config.keep_entries {
            let oldest = inner.entries.pop_front();
            inner.kept_bytes -= oldest.and_then(|entry| entry.payload).map_or(0, |payload| payload.len());
        }
        let count = inner.count;
        drop(inner);
        self.committed.send_replace(count);
        Ok(count)
    }

    /// Publishes committed.
    pub fn count(&self) -> u64 {
        lock(&self.inner).count
    }

    /// Different identities committed: by `forebay-id`, else by topic and payload.
    pub fn unique(&self) -> u64 {
        lock(&self.inner).identities.len() as u64
    }

    /// Commits of an identity that had arrived before.
    pub fn duplicates(&self) -> u64 {
        let inner = lock(&self.inner);
        inner.count - inner.identities.len() as u64
    }

    /// How often exactly this payload was committed, on any topic.
    pub fn times(&self, payload: &[u8]) -> u32 {
        lock(&self.inner).payloads.get(&hash(payload)).copied().unwrap_or_default()
    }

    /// Whether exactly this payload was committed, on any topic.
    pub fn contains(&self, payload: &[u8]) -> bool {
        self.times(payload) > 0
    }

    /// Whether this sequence number of this device was committed.
    pub fn contains_key(&self, device: &str, seq: u64) -> bool {
        lock(&self.inner).devices.get(device).is_some_and(|sequence| sequence.contains(seq))
    }

    /// The kept entries, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.inner).entries.iter().cloned().collect()
    }

    /// The kept payloads of a topic in order of commit, duplicates included.
    pub fn payloads(&self, topic: &str) -> Vec<Bytes> {
        let inner = lock(&self.inner);
        inner
            .entries
            .iter()
            .filter(|entry| entry.topic == topic)
            .filter_map(|entry| entry.payload.clone())
            .collect()
    }

    /// What arrived per device.
    pub fn devices(&self) -> BTreeMap<String, DeviceReport> {
        lock(&self.inner)
            .devices
            .iter()
            .map(|(device, sequence)| (device.clone(), sequence.report()))
            .collect()
    }

    /// The sums.
    pub fn report(&self) -> LedgerReport {
        let inner = lock(&self.inner);
        let mut report = LedgerReport {
            count: inner.count,
            unique: inner.identities.len() as u64,
            duplicates: inner.count - inner.identities.len() as u64,
            keyed: inner.keyed,
            devices: inner.devices.len(),
            ..LedgerReport::default()
        };
        for device in inner.devices.values().map(Sequence::report) {
            report.keyed_unique += device.unique;
            report.out_of_order += device.out_of_order;
            report.gaps += device.gaps;
        }
        report
    }

    /// Waits until `predicate` holds, looking again after every commit.
    ///
    /// # Errors
    /// When it does not hold within `deadline`.
    pub async fn wait_for(&self, deadline: Duration, predicate: impl Fn(&Self) -> bool) -> Result<(), WaitTimeout> {
        let mut committed = self.committed.subscribe();
        let wait = committed.wait_for(|_| predicate(self));
        match tokio::time::timeout(deadline, wait).await {
            Ok(_) => Ok(()),
            Err(_) => Err(WaitTimeout {
                waited: deadline,
                report: self.report(),
            }),
        }
    }
}

impl Inner {
    fn note(&mut self, identity: u64, payload_hash: u64, key: Option<&(String, u64)>) {
        self.identities.insert(identity);
        *self.payloads.entry(payload_hash).or_default() += 1;
        if let Some((device, seq)) = key {
            self.keyed += 1;
            match self.devices.get_mut(device) {
                Some(sequence) => sequence.arrive(*seq),
                None => self.devices.entry(device.clone()).or_default().arrive(*seq),
            };
        }
    }
}

/// SipHash with fixed keys: the same in every process of one build, so that a ledger file can be read back.
fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// By the machine's clock: what a person reads.
fn arrived_at() -> SystemTime {
    #[allow(clippy::disallowed_methods, reason = "nothing acts by it")]
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(topic: &str, payload: &str, id: Option<&str>) -> Arrival {
        Arrival {
            topic: topic.into(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            user_properties: id.map(|id| ("forebay-id".to_owned(), id.to_owned())).into_iter().collect(),
            ..Arrival::default()
        }
    }

    #[test]
    fn an_identity_that_returns_is_a_duplicate() {
        let ledger = Ledger::default();
        for (payload, id) in [("a", Some("g/1")), ("a", Some("g/2")), ("a", Some("g/1")), ("b", None), ("b", None)] {
            ledger.commit(arrival("t", payload, id)).unwrap();
        }
        assert_eq!((ledger.count(), ledger.unique(), ledger.duplicates()), (5, 3, 2));
        assert_eq!((ledger.times(b"a"), ledger.times(b"b"), ledger.contains(b"c")), (3, 2, false));
        let flags: Vec<_> = ledger.entries().iter().map(|entry| entry.duplicate).collect();
        assert_eq!(flags, [false, false, true, false, true]);
    }

    #[test]
    fn memory_is_bounded_while_the_proof_stays_complete() {
        let ledger = Ledger::new(LedgerConfig {
            keep_entries: 10,
            keep_payload_bytes: 100,
            ..LedgerConfig::default()
        });
        for seq in 0..1000 {
            ledger
                .commit(arrival("t", &format!(r#"{{"device":"d","seq":{seq}}}"#), None))
                .unwrap();
        }
        let inner = lock(&ledger.inner);
        assert_eq!(inner.entries.len(), 10);
        assert!(inner.kept_bytes <= 100);
        drop(inner);
        assert!(ledger.contains(br#"{"device":"d","seq":3}"#) && ledger.contains_key("d", 3));
        assert_eq!(ledger.devices()["d"].gaps, 0);
    }

    #[test]
    fn a_ledger_file_brings_back_the_proof_after_a_torn_last_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.jsonl");
        let ledger = Ledger::open(LedgerConfig::default(), &path).unwrap();
        for seq in [1, 2, 2] {
            ledger
                .commit(arrival("t", &format!(r#"{{"device":"d","seq":{seq}}}"#), None))
                .unwrap();
        }
        let before = ledger.report();
        drop(ledger);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"order\":4,\"top");
        std::fs::write(&path, bytes).unwrap();

        let ledger = Ledger::open(LedgerConfig::default(), &path).unwrap();
        assert_eq!(ledger.report(), before);
        ledger.commit(arrival("t", r#"{"device":"d","seq":3}"#, None)).unwrap();
        drop(ledger);
        assert_eq!(Ledger::open(LedgerConfig::default(), &path).unwrap().count(), 4);
    }
}
