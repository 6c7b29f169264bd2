//! The configuration: any text in place of the operator's file.

use std::path::Path;

use crate::config::{Overrides, parse};

/// 1. Nothing panics. 2. What is refused says why, with a text for each fault. 3. The same text gives the same result.
pub(crate) fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let overrides = Overrides {
        skip_files: true,
        ..Overrides::default()
    };
    let read = || parse(text, Path::new("/nonexistent"), &overrides);
    match (read(), read()) {
        (Ok(once), Ok(again)) => {
            assert_eq!(once, again);
            assert_eq!(once.fingerprint.len(), 16);
        }
        (Err(once), Err(again)) => {
            assert!(!once.faults.is_empty(), "refused for nothing");
            assert!(once.faults.iter().all(|fault| !fault.to_string().trim().is_empty()));
            assert_eq!(once.to_string(), again.to_string());
        }
        (once, again) => panic!("{once:?}, then {again:?}"),
    }
}
