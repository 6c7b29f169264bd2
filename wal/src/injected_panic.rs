//! For tests of those who watch over threads and tasks: a panic in the one that a file names. Not in release builds.

/// Where a test writes the name of the task that is to panic next.
#[cfg(debug_assertions)]
fn wanted() -> Option<&'static std::path::Path> {
    static FILE: std::sync::OnceLock<Option<std::path::PathBuf>> = std::sync::OnceLock::new();
    FILE.get_or_init(|| std::env::var_os("FOREBAY_TEST_PANIC").map(Into::into))
        .as_deref()
}

/// Whether [`panic_if_asked`] may ever panic: in a debug build with `FOREBAY_TEST_PANIC` set.
#[must_use]
pub fn may_be_asked_to_panic() -> bool {
    #[cfg(debug_assertions)]
    return wanted().is_some();
    #[cfg(not(debug_assertions))]
    false
}

/// Panics, once, if the file that `FOREBAY_TEST_PANIC` names holds the name of this task. Does nothing in a release build.
///
/// # Panics
/// When it is asked to.
pub fn panic_if_asked(task: &str) {
    #[cfg(debug_assertions)]
    if let Some(file) = wanted()
        && std::fs::read_to_string(file).is_ok_and(|asked| asked.trim() == task)
        && std::fs::remove_file(file).is_ok()
    {
        panic!("a test asked for this panic of `{task}`");
    }
    #[cfg(not(debug_assertions))]
    let _ = task;
}
