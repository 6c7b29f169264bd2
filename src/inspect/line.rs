//! One line of JSON for each thing that a command shows.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use forebay_wal::{
    Audit, Damage, DeadLetter, Finding, Kept, LedgerLine, Record, RecordState, Salvaged, SegmentCondition, SegmentReport, StreamId,
    Verified,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What a stream of lines consists of. Told apart by the fields that only one of them has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Line {
    /// A record or a dead letter.
    Record(Box<RecordLine>),
    /// Records that cannot be read.
    Damaged(DamageLine),
    /// A segment.
    Segment(SegmentLine),
    /// A fault that `verify` found.
    Finding(FindingLine),
    /// What `verify` checked; the last line.
    Verified(VerifiedLine),
    /// How far a search has come, each second while it goes on.
    Searched {
        /// Bytes of records passed so far.
        searched_bytes: u64,
    },
    /// The rest could not be given.
    Failed {
        /// Why.
        error: String,
    },
}

/// How a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// For the cloud.
    Waiting,
    /// Its route or pair is suspended.
    Suspended,
    /// Done with, but its segment is still there.
    Settled,
    /// It cannot be read.
    Damaged,
    /// Salvaged: the log no longer says.
    Unknown,
}

/// A record, a dead letter or a salvaged record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RecordLine {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) letter: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) detail: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) stream: String,
    pub(crate) offset: u64,
    pub(crate) state: State,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) found_by: Option<String>,
    pub(crate) received_at: String,
    pub(crate) clock_trusted: bool,
    pub(crate) identity: String,
    pub(crate) route: String,
    pub(crate) topic: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) expiry_seconds: Option<u32>,
    pub(crate) properties: Option<String>,
    pub(crate) payload_encoding: String,
    pub(crate) payload: String,
}

/// Records that cannot be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DamageLine {
    pub(crate) state: State,
    pub(crate) stream: String,
    pub(crate) first_offset: u64,
    pub(crate) end_offset: u64,
    pub(crate) segment: String,
    pub(crate) what: String,
}

/// A segment, or another file of the directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SegmentLine {
    pub(crate) segment: String,
    pub(crate) condition: String,
    pub(crate) epoch: Option<String>,
    pub(crate) bytes: u64,
    pub(crate) streams: Vec<PartLine>,
}

/// What a segment has of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PartLine {
    pub(crate) stream: String,
    pub(crate) first_offset: u64,
    pub(crate) end_offset: u64,
    pub(crate) waiting: u64,
    pub(crate) waiting_bytes: u64,
}

/// A fault that `verify` found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FindingLine {
    pub(crate) finding: String,
    pub(crate) segment: Option<String>,
    pub(crate) stream: Option<String>,
    pub(crate) offset: Option<u64>,
}

/// What `verify` checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VerifiedLine {
    pub(crate) verified: bool,
    pub(crate) findings: u64,
    pub(crate) segments: u64,
    pub(crate) rows: u64,
    pub(crate) blocks: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) outside: u64,
    pub(crate) balances: Option<bool>,
}

/// The ledger, recounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditLine {
    pub(crate) balances: bool,
    pub(crate) accepted: u64,
    pub(crate) requeued: u64,
    pub(crate) delivered: u64,
    pub(crate) waiting: u64,
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
    pub(crate) dead: u64,
    pub(crate) damaged: u64,
    pub(crate) devices: Vec<DeviceLine>,
}

/// One device's line in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceLine {
    pub(crate) identity: String,
    pub(crate) accepted: u64,
    pub(crate) requeued: u64,
    pub(crate) delivered: u64,
    pub(crate) waiting: u64,
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
    pub(crate) dead: u64,
    pub(crate) damaged: u64,
}

/// Names that lines are written with.
pub(crate) struct Names<'a> {
    pub(crate) gateway: &'a str,
    pub(crate) streams: &'a [forebay_wal::StreamReport],
}

impl Names<'_> {
    pub(crate) fn stream(&self, id: StreamId) -> String {
        let known = self.streams.iter().find(|stream| stream.id == id);
        known.map_or_else(|| id.0.to_string(), |stream| stream.name.clone())
    }

    fn id(&self, record: &Record) -> String {
        let id = record.id;
        format!("{}/{}/{}/{}", self.gateway, id.epoch, self.stream(id.stream), id.offset.0)
    }

    pub(crate) fn record(&self, kept: &Kept) -> RecordLine {
        let stream = self.stream(kept.record.id.stream);
        let state = match kept.state {
            RecordState::Waiting => State::Waiting,
            RecordState::Suspended => State::Suspended,
            RecordState::Settled => State::Settled,
        };
        line(&kept.record, Some(self.id(&kept.record)), stream, kept.offset.0, state)
    }

    pub(crate) fn letter(&self, kept: &Kept, letter: DeadLetter) -> RecordLine {
        let record = Record {
            id: letter.id,
            payload: letter.payload,
            ..kept.record.clone()
        };
        let stream = self.stream(letter.id.stream);
        RecordLine {
            letter: Some(kept.offset.0),
            reason: Some(letter.reason),
            detail: Some(letter.detail),
            ..line(&record, Some(self.id(&record)), stream, letter.id.offset.0, State::Settled)
        }
    }

    pub(crate) fn damage(&self, damage: &Damage) -> DamageLine {
        DamageLine {
            state: State::Damaged,
            stream: self.stream(damage.stream),
            first_offset: damage.offsets.start,
            end_offset: damage.offsets.end,
            segment: damage.segment.clone(),
            what: damage.what.clone(),
        }
    }

    pub(crate) fn segment(&self, file: SegmentReport) -> SegmentLine {
        let condition = match file.condition {
            SegmentCondition::Active => "active",
            SegmentCondition::Clean => "clean",
            SegmentCondition::Unclean => "unclean",
            SegmentCondition::Missing => "missing",
            SegmentCondition::Damaged => "damaged",
            SegmentCondition::Quarantined => "quarantined",
            SegmentCondition::Stray => "stray",
        };
        SegmentLine {
            segment: file.name,
            condition: condition.to_owned(),
            epoch: file.epoch.map(|epoch| epoch.to_string()),
            bytes: file.bytes,
            streams: file
                .parts
                .iter()
                .map(|part| PartLine {
                    stream: self.stream(part.stream),
                    first_offset: part.first.0,
                    end_offset: part.end.0,
                    waiting: part.waiting,
                    waiting_bytes: part.waiting_bytes,
                })
                .collect(),
        }
    }

    pub(crate) fn finding(&self, finding: Finding) -> FindingLine {
        FindingLine {
            finding: finding.what,
            segment: finding.segment,
            stream: finding.at.map(|(stream, _)| self.stream(stream)),
            offset: finding.at.map(|(_, offset)| offset),
        }
    }
}

impl From<&Verified> for VerifiedLine {
    fn from(verified: &Verified) -> Self {
        Self {
            verified: verified.findings == 0,
            findings: verified.findings,
            segments: verified.segments,
            rows: verified.rows,
            blocks: verified.blocks,
            records: verified.records,
            bytes: verified.bytes,
            outside: verified.outside,
            balances: verified.audit.map(|audit| audit.balances()),
        }
    }
}

impl AuditLine {
    pub(crate) fn new(audit: &Audit, lines: Vec<LedgerLine>) -> Self {
        let device = |line: LedgerLine| {
            let counts = line.counts;
            DeviceLine {
                identity: line.identity,
                accepted: counts.accepted,
                requeued: counts.requeued,
                delivered: counts.delivered,
                waiting: counts.waiting,
                expired: counts.expired,
                evicted: counts.evicted,
                dead: counts.dead_lettered,
                damaged: counts.damaged,
            }
        };
        Self {
            balances: audit.balances(),
            accepted: audit.accepted,
            requeued: audit.requeued,
            delivered: audit.delivered,
            waiting: audit.waiting,
            expired: audit.expired,
            evicted: audit.evicted,
            dead: audit.dead_lettered,
            damaged: audit.damaged,
            devices: lines.into_iter().map(device).collect(),
        }
    }
}

/// A salvaged record; its id is known as far as the file still says its epoch and its stream's name.
pub(crate) fn salvaged(gateway: &str, salvaged: &Salvaged) -> RecordLine {
    let record = &salvaged.record;
    let stream = salvaged.stream.clone().unwrap_or_else(|| record.id.stream.0.to_string());
    let is_known = salvaged.stream.is_some() && salvaged.epoch.is_some();
    let id = is_known.then(|| format!("{gateway}/{}/{stream}/{}", record.id.epoch, record.id.offset.0));
    RecordLine {
        found_by: Some(if salvaged.is_carved { "bytes" } else { "redb" }.to_owned()),
        ..line(record, id, stream, salvaged.offset, State::Unknown)
    }
}

fn line(record: &Record, id: Option<String>, stream: String, offset: u64, state: State) -> RecordLine {
    let (payload_encoding, payload) = match std::str::from_utf8(&record.payload) {
        Ok(text) => ("utf-8", text.to_owned()),
        Err(_) => ("base64", BASE64.encode(&record.payload)),
    };
    RecordLine {
        letter: None,
        reason: None,
        detail: None,
        id,
        stream,
        offset,
        state,
        found_by: None,
        received_at: wall(record.received.wall_ms),
        clock_trusted: record.received.trusted,
        identity: record.identity.clone(),
        route: record.route.clone(),
        topic: record.topic.clone(),
        qos: record.qos,
        retain: record.retain,
        expiry_seconds: record.expiry,
        properties: (!record.properties.is_empty()).then(|| BASE64.encode(&record.properties)),
        payload_encoding: payload_encoding.to_owned(),
        payload,
    }
}

/// A moment of the wall clock as RFC 3339 in UTC.
pub(crate) fn wall(milliseconds: u64) -> String {
    let moment = OffsetDateTime::UNIX_EPOCH.checked_add(time::Duration::try_from(Duration::from_millis(milliseconds)).unwrap_or_default());
    let text = moment.and_then(|moment| moment.format(&Rfc3339).ok());
    text.unwrap_or_else(|| format!("{milliseconds} ms since 1970"))
}

/// Text from devices, for a terminal: control characters could do anything there, and others hide or turn what stands beside them.
pub(crate) struct Printable<'a>(pub(crate) &'a str, pub(crate) usize);

impl std::fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use std::fmt::Write as _;
        for (nth, c) in self.0.chars().enumerate() {
            if nth == self.1 {
                return f.write_str("...");
            }
            f.write_char(if !forebay_topic::is_safe(c) { '\u{fffd}' } else { c })?;
        }
        Ok(())
    }
}
