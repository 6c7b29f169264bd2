//! Records of the stream `local`: lists of changed entries.
//!
//! A record's payload is a list: `key length (2) | key | value length + 1, or 0 for a removal (4) | value`, integers
//! little-endian. A key that is too long for its field has 0 there and its length in four bytes behind.

use forebay_wal::{NewRecord, StreamId, Timestamp};

/// A key and its new value; `None` if the key is removed.
pub(crate) type Entry = (Vec<u8>, Option<Vec<u8>>);

/// Appends one entry to a record's payload.
pub(crate) fn write_entry(key: &[u8], value: Option<&[u8]>, out: &mut Vec<u8>) {
    match u16::try_from(key.len()) {
        Ok(length) => out.extend(length.to_le_bytes()),
        Err(_) => {
            out.extend([0, 0]);
            out.extend(u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
    }
    out.extend(key);
    let length = value.map_or(0, |value| u32::try_from(value.len() + 1).unwrap_or(u32::MAX));
    out.extend(length.to_le_bytes());
    out.extend(value.unwrap_or_default());
}

/// The entries of a record's payload. Bytes that [`write_entry`] did not make end the list: the record's CRC has been
/// checked, so there are none.
pub(crate) fn read_entries(mut bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    while let Some((key, rest)) = key(bytes) {
        let Some((length, rest)) = rest.split_first_chunk::<4>() else {
            break;
        };
        let length = u32::from_le_bytes(*length) as usize;
        let Some((value, rest)) = rest.split_at_checked(length.saturating_sub(1)) else {
            break;
        };
        entries.push((key.to_vec(), (length > 0).then(|| value.to_vec())));
        bytes = rest;
    }
    entries
}

/// The `local` record that carries `payload`.
pub(crate) fn record<'a>(received: Timestamp, identity: &'a str, payload: &'a [u8]) -> NewRecord<'a> {
    NewRecord {
        stream: StreamId::LOCAL,
        received,
        identity,
        route: "",
        topic: "",
        payload,
        qos: 0,
        retain: false,
        expiry: None,
        properties: &[],
    }
}

/// Splits off the part in front: `length (2) | bytes`.
pub(crate) fn length_prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
}

fn key(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match bytes.split_first_chunk::<2>()? {
        ([0, 0], rest) => {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            rest.split_at_checked(u32::from_le_bytes(*length) as usize)
        }
        _ => length_prefixed(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_any_length_is_read_back() {
        let keys = [vec![b'x'; 1], vec![b'y'; 65_535], vec![b'z'; 65_536], vec![b'w'; 70_000]];
        let mut bytes = Vec::new();
        for key in &keys {
            write_entry(key, Some(b"v"), &mut bytes);
            write_entry(key, None, &mut bytes);
        }
        let expected: Vec<Entry> = keys
            .iter()
            .flat_map(|key| [(key.clone(), Some(b"v".to_vec())), (key.clone(), None)])
            .collect();
        assert_eq!(read_entries(&bytes), expected);
    }

    #[test]
    fn cut_bytes_never_panic() {
        let mut bytes = Vec::new();
        write_entry(&vec![b'k'; 70_000], Some(b"value"), &mut bytes);
        write_entry(b"k", Some(b"value"), &mut bytes);
        for end in 0..bytes.len() {
            read_entries(&bytes[..end]);
        }
    }
}
