//! Counts in the words that an operator reads.

/// `once`, `3 times`.
pub(crate) fn times(n: u64) -> String {
    if n == 1 { "once".to_owned() } else { format!("{n} times") }
}

/// `1 record`, `3 records`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    let end = match noun {
        _ if n == 1 => "",
        "publish" => "es",
        _ => "s",
    };
    format!("{n} {noun}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_time_is_once() {
        assert_eq!([0, 1, 2].map(times), ["0 times", "once", "2 times"]);
    }

    #[test]
    fn one_of_a_thing_is_one_thing() {
        assert_eq!([0, 1, 2].map(|n| count(n, "record")), ["0 records", "1 record", "2 records"]);
        assert_eq!([1, 2].map(|n| count(n, "publish")), ["1 publish", "2 publishes"]);
    }
}
