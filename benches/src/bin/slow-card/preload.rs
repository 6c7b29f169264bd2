//! Runs this program again with the library that makes syncs slow.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use forebay_benches::machine;

const LIBRARY: &str = "libforebay_slow_sync.so";
const PACKAGE: &str = "forebay-slow-sync";
const PRELOAD: &str = "LD_PRELOAD";

/// Goes on with slow syncs, here and in every program started from here. To be called before anything else.
///
/// # Errors
///
/// The library is not there and cannot be built.
pub(crate) fn slow_syncs(sync_ms: u64) -> anyhow::Result<()> {
    if std::env::var_os(PRELOAD).is_some_and(|libraries| libraries.to_string_lossy().contains(LIBRARY)) {
        return Ok(());
    }
    let program = std::env::current_exe()?;
    let library = program.with_file_name(LIBRARY);
    build(&library)?;
    let mut again = Command::new(&program);
    again
        .args(std::env::args_os().skip(1))
        .env(PRELOAD, &library)
        .env("FOREBAY_SYNC_MS", sync_ms.to_string());
    Err(again.exec()).with_context(|| format!("running {} again", program.display()))
}

/// Says how long a sync takes now.
///
/// # Errors
///
/// It is not slow.
pub(crate) fn sync_cost(directory: &Path, sync_ms: u64) -> anyhow::Result<(Duration, Duration)> {
    let cost = machine::sync_cost(directory)?;
    if cost.0 < Duration::from_millis(sync_ms) {
        bail!("a sync takes {:?} instead of {sync_ms} ms: {LIBRARY} had no effect", cost.0);
    }
    Ok(cost)
}

/// Builds the library when this program was started by cargo; else it must be there.
fn build(library: &Path) -> anyhow::Result<()> {
    let by_cargo = std::env::var_os("CARGO");
    if by_cargo.is_none() && library.is_file() {
        return Ok(());
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("slow-sync/Cargo.toml");
    let mut cargo = Command::new(by_cargo.unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--manifest-path"]).arg(manifest);
    // It lies beside this program only when it is built as this program was.
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let status = cargo.status();
    if !status.is_ok_and(|status| status.success()) || !library.is_file() {
        bail!(
            "{} is missing: build it with `cargo build --release -p {PACKAGE}`",
            library.display()
        );
    }
    Ok(())
}
