//! How often the connection to the cloud failed in a row for the same reason.

#[derive(Debug, Default)]
pub(crate) struct InARow {
    last: Option<String>,
    times: u64,
}

impl InARow {
    /// Notes a failure; how often it came in a row.
    pub(crate) fn note(&mut self, text: &str) -> u64 {
        if self.last.as_deref() != Some(text) {
            *self = Self {
                last: Some(text.to_owned()),
                times: 0,
            };
        }
        self.times += 1;
        self.times
    }

    /// It is over.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_failure_begins_another_row() {
        let mut row = InARow::default();
        assert_eq!(
            ["down", "down", "down", "other", "down"].map(|text| row.note(text)),
            [1, 2, 3, 1, 1]
        );
        row.clear();
        assert_eq!(row.note("down"), 1);
    }
}
