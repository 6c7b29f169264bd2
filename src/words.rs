//! Counts in the words that an operator reads.

/// `once`, `3 times`.
pub(crate) fn times(n: u64) -> String {
    if n == 1 { "once".to_owned() } else { format!("{n} times") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_time_is_once() {
        assert_eq!([0, 1, 2].map(times), ["0 times", "once", "2 times"]);
    }
}
