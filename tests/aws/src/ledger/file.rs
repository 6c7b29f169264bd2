//! The ledger as a file of JSON lines.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    path::Path,
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};

use super::Entry;

/// Bytes of payload shown in a line, for people.
const SHOWN: usize = 256;

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) order: u64,
    at_ms: u64,
    client: String,
    topic: String,
    pub(super) hash: u64,
    pub(super) identity: u64,
    bytes: usize,
    id: Option<String>,
    packet_id: Option<u16>,
    dup: bool,
    duplicate: bool,
    pub(super) device: Option<String>,
    pub(super) seq: Option<u64>,
    payload: String,
}

/// An open ledger file, positioned at its end.
#[derive(Debug)]
pub(super) struct LedgerFile {
    file: File,
}

impl LedgerFile {
    /// Opens or creates the file and returns the lines in it; a torn last line is cut off.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Line>)> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut lines = Vec::new();
        // A pipe or a device has nothing to read back, and may never end.
        if !file.metadata()?.is_file() {
            return Ok((Self { file }, lines));
        }
        let mut good = 0;
        let mut reader = BufReader::new(&file);
        let mut text = String::new();
        while reader.read_line(&mut text)? > 0 && text.ends_with('\n') {
            lines.push(serde_json::from_str(&text)?);
            good += text.len() as u64;
            text.clear();
        }
        file.set_len(good)?;
        file.seek(SeekFrom::End(0))?;
        Ok((Self { file }, lines))
    }

    /// Appends one line in one write, so that a killed process leaves whole lines and at most one torn.
    pub(super) fn append(&mut self, entry: &Entry, identity: u64) -> io::Result<()> {
        let shown = entry
            .payload
            .as_deref()
            .map_or(&[][..], |payload| &payload[..payload.len().min(SHOWN)]);
        let line = Line {
            order: entry.order,
            at_ms: entry
                .at
                .duration_since(UNIX_EPOCH)
                .map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            client: entry.client_id.clone(),
            topic: entry.topic.clone(),
            hash: entry.payload_hash,
            identity,
            bytes: entry.payload_len,
            id: entry.forebay_id.clone(),
            packet_id: entry.packet_id,
            dup: entry.dup,
            duplicate: entry.duplicate,
            device: entry.key.as_ref().map(|(device, _)| device.clone()),
            seq: entry.key.as_ref().map(|(_, seq)| *seq),
            payload: String::from_utf8_lossy(shown).into_owned(),
        };
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        self.file.write_all(&bytes)
    }
}
