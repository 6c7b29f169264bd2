//! What every benchmark's command has: a directory on a disk, JSON per run, a table in `README.md`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;
use tempfile::TempDir;

use crate::{image, machine};

/// The arguments that all benchmarks share.
#[derive(Debug, Args)]
pub struct Bench {
    /// Where the data goes; a disk, unless the benchmark says otherwise. Left out: beside this program.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Print a JSON line per run as well.
    #[arg(long)]
    json: bool,
    /// Put the table into benches/README.md.
    #[arg(long)]
    write: bool,
}

impl Bench {
    /// A directory for one run of the benchmark `name`, removed when dropped and by Ctrl-C: it may hold gigabytes.
    ///
    /// # Errors
    ///
    /// It would be in memory, or cannot be made.
    pub fn work(&self, name: &str) -> anyhow::Result<TempDir> {
        let base = self.base()?;
        if machine::is_in_memory(&base)? {
            bail!(
                "{} is in memory: durability would cost nothing there; name a directory on a disk with --directory",
                base.display()
            );
        }
        self.work_anywhere(name)
    }

    /// As [`Bench::work`], in memory as well: for a benchmark that says itself what a sync costs.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn work_anywhere(&self, name: &str) -> anyhow::Result<TempDir> {
        let base = self.base()?;
        let work = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(&base)
            .with_context(|| format!("making a directory in {}", base.display()))?;
        remove_on_interrupt(work.path().to_owned())?;
        Ok(work)
    }

    fn base(&self) -> anyhow::Result<PathBuf> {
        if let Some(directory) = &self.directory {
            return Ok(directory.clone());
        }
        let program = std::env::current_exe()?;
        Ok(program.parent().context("a program lies in a directory")?.to_owned())
    }

    /// Prints a run as a JSON line, if that is wanted.
    ///
    /// # Errors
    ///
    /// It cannot be JSON.
    pub fn run_done(&self, run: &impl Serialize) -> anyhow::Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(run)?);
        }
        Ok(())
    }

    /// Prints the table, and puts it into `README.md` if that is wanted.
    ///
    /// # Errors
    ///
    /// `README.md` has no place for it.
    pub fn table(&self, name: &str, text: &str) -> anyhow::Result<()> {
        println!("{text}");
        if self.write {
            write_between_markers(&Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"), name, text)?;
        }
        Ok(())
    }
}

fn remove_on_interrupt(path: PathBuf) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            eprintln!("interrupted; removing {}", path.display());
            image::unmount_below(&path);
            if let Err(error) = std::fs::remove_dir_all(&path) {
                eprintln!("{} is left: {error}", path.display());
            }
            std::process::exit(130);
        }
    });
    Ok(())
}

/// Puts `text` between the markers of a benchmark.
fn write_between_markers(path: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let (begin, end) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
    let old = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let (Some((before, _)), Some((_, after))) = (old.split_once(&begin), old.split_once(&end)) else {
        bail!("{} lacks the markers {begin} and {end}", path.display());
    };
    let new = format!("{before}{begin}\n{}\n{end}{after}", text.trim_end());
    std::fs::write(path, new).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_takes_the_place_of_the_one_before() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("README.md");
        std::fs::write(&path, "a\n<!-- log:begin -->\nold\n<!-- log:end -->\nb\n").expect("written");
        write_between_markers(&path, "log", "new\n\n").expect("replaced");
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(text, "a\n<!-- log:begin -->\nnew\n<!-- log:end -->\nb\n");
        assert!(write_between_markers(&path, "wear", "").is_err(), "a missing marker is said");
    }
}
