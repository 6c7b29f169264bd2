//! The record that the raw file and SQLite store.

/// Bytes of a record as stored, its header included.
pub const RECORD: usize = 256;

const PAYLOAD: [u8; RECORD - 24] = [b'x'; RECORD - 24];

/// Appends a record: CRC32C of the rest, length, sequence number, time, payload.
pub(crate) fn encode(sequence: u64, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(RECORD as u32).to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&0_u64.to_le_bytes());
    out.extend_from_slice(&PAYLOAD);
    let crc = crc32c::crc32c(&out[at + 4..]);
    out[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}
