//! How many bytes were written, and who says so.

use std::path::{Path, PathBuf};

use forebay_benches::image::Image;
use forebay_benches::machine;

/// A place whose writes are counted.
#[derive(Debug)]
pub(crate) enum Meter {
    /// A file system of its own: everything that reaches its block device, journal and metadata included.
    Block(Image),
    /// What the kernel counts for a process: pages sent towards storage, without the file system's own.
    Process(PathBuf),
}

impl Meter {
    /// An image where they can be mounted; else a directory, whose writes must be the only ones of its process.
    pub(crate) fn new(work: &Path, name: &str, can_mount: bool) -> anyhow::Result<Meter> {
        if can_mount {
            return Ok(Meter::Block(Image::mount(work, name, 1024)?));
        }
        let directory = work.join(name);
        std::fs::create_dir(&directory)?;
        Ok(Meter::Process(directory))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Meter::Block(image) => image.path(),
            Meter::Process(directory) => directory,
        }
    }

    /// Bytes written so far; `pid` is who writes, none = this process.
    pub(crate) fn written(&self, pid: Option<u32>) -> anyhow::Result<u64> {
        match (self, pid) {
            (Meter::Block(image), _) => image.written(),
            (Meter::Process(_), Some(pid)) => Ok(machine::usage(pid)?.written),
            (Meter::Process(_), None) => Ok(machine::own_written()?.stored),
        }
    }
}
