//! A disk that forgets what was not synced, tears what was being written, and fails when a seed says so.
//!
//! What is written stands in the page cache until it is synced, sector by sector; names stand in the cached directory until
//! that is synced. A power cut keeps any subset of the unsynced sectors and names. A sync that fails drops any subset of
//! the unsynced sectors *while reads keep returning them*, until the machine or the process ends.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::rng::Rng;
use crate::io::directory::{Directory, StorageFile};
use crate::io::lock_guard::LockGuard;
use crate::sync::lock;

const PAGE: u64 = 4096;
const SECTOR: usize = 512;

type Page = Box<[u8]>;

/// What goes wrong at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power goes.
    Cut,
    /// The operation fails with EIO.
    Error,
}

/// What the code under test leaves out, to see that the simulation finds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Omission {
    #[default]
    Nothing,
    /// Files are not synced.
    FileSync,
    /// The directory is not synced.
    DirectorySync,
}

#[derive(Debug)]
struct Inode {
    durable: BTreeMap<u64, Page>,
    durable_len: u64,
    cached: BTreeMap<u64, Page>,
    len: u64,
    /// Unsynced sectors of a page, a bit each.
    dirty: BTreeMap<u64, u8>,
}

#[derive(Clone, Debug)]
enum Naming {
    Create(String, usize),
    Remove(String),
    Rename(String, String, usize),
}

#[derive(Debug)]
struct Platter {
    inodes: Vec<Inode>,
    durable: BTreeMap<String, usize>,
    names: BTreeMap<String, usize>,
    unsynced: Vec<Naming>,
    /// Operations so far.
    operations: u64,
    /// What goes wrong, and at which operation.
    plan: Option<(u64, Fault)>,
    is_off: bool,
    /// Pages that fit.
    capacity: u64,
    omission: Omission,
    /// Which kinds of operations fail, and with which error, until that is over.
    failing: Option<(&'static [Kind], Errno)>,
    /// A page of a file that can be neither read nor written.
    bad: Option<(usize, u64)>,
    /// A page that is read wrongly until the cache was forgotten so often.
    flaky: Option<(usize, u64, u32)>,
    /// Only this one still runs.
    process: u64,
    rng: Rng,
    /// Hash of all operations, to see that a seed replays.
    trace: u64,
}

/// The disk as one process sees it; the disk itself outlives them all.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk {
    platter: Arc<Mutex<Platter>>,
    process: u64,
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: usize,
}

fn broken() -> io::Error {
    Errno::IO.into()
}

/// A kind of operation.
pub(crate) type Kind = u64;

pub(crate) const CREATE: Kind = 2;
pub(crate) const RENAME: Kind = 4;
pub(crate) const REMOVE: Kind = 5;
pub(crate) const SYNC_DIRECTORY: Kind = 6;
pub(crate) const READ: Kind = 7;
pub(crate) const WRITE: Kind = 8;
pub(crate) const SET_LENGTH: Kind = 9;
pub(crate) const SYNC: Kind = 10;
pub(crate) const OPEN_TO_WRITE: Kind = 11;

impl Platter {
    fn operation(&mut self, process: u64, kind: u64, what: u64) -> io::Result<()> {
        if process != self.process {
            return Err(io::Error::other("this process was killed"));
        }
        if self.is_off {
            return Err(io::Error::other("the power is off"));
        }
        self.operations += 1;
        self.trace = (self.trace ^ (kind << 56) ^ what).wrapping_mul(0x0100_0000_01b3);
        if let Some((_, error)) = self.failing.filter(|(kinds, _)| kinds.contains(&kind)) {
            return Err(error.into());
        }
        match self.plan.filter(|(at, _)| *at <= self.operations) {
            Some((_, Fault::Cut)) => {
                self.is_off = true;
                Err(io::Error::other("the power went"))
            }
            Some((_, Fault::Error)) => {
                self.plan = None;
                Err(broken())
            }
            None => Ok(()),
        }
    }

    /// Pages that may still be written.
    fn room(&self) -> u64 {
        if self.capacity == u64::MAX {
            return u64::MAX;
        }
        self.capacity.saturating_sub(self.used())
    }

    fn used(&self) -> u64 {
        let named = self.names.values().map(|inode| &self.inodes[*inode]);
        named.map(Inode::pages).sum()
    }
}

impl Inode {
    fn new() -> Self {
        Self {
            durable: BTreeMap::new(),
            durable_len: 0,
            cached: BTreeMap::new(),
            len: 0,
            dirty: BTreeMap::new(),
        }
    }

    fn pages(&self) -> u64 {
        let only_cached = self.cached.keys().filter(|page| !self.durable.contains_key(page)).count();
        (self.durable.len() + only_cached) as u64
    }

    fn page(&self, page: u64) -> Option<&Page> {
        self.cached.get(&page).or_else(|| self.durable.get(&page))
    }

    /// Makes sectors durable for which `keep` says so.
    fn write_back(&mut self, mut keep: impl FnMut() -> bool) {
        for (page, dirty) in std::mem::take(&mut self.dirty) {
            let Some(cached) = self.cached.get(&page) else { continue };
            for sector in 0..(PAGE as usize / SECTOR) {
                if dirty & (1 << sector) != 0 && keep() {
                    let durable = self.durable.entry(page).or_insert_with(|| vec![0; PAGE as usize].into());
                    let range = sector * SECTOR..(sector + 1) * SECTOR;
                    durable[range.clone()].copy_from_slice(&cached[range]);
                }
            }
        }
    }

    fn cut(&mut self, len: u64) {
        let keep = len.div_ceil(PAGE);
        self.cached.split_off(&keep);
        self.dirty.split_off(&keep);
        // What lay there is gone for readers at once.
        for page in self.durable.keys().copied().filter(|page| *page >= keep) {
            self.cached.insert(page, vec![0; PAGE as usize].into());
            self.dirty.insert(page, u8::MAX);
        }
        self.len = len;
    }

    /// What is left when the cache goes.
    fn forget_cache(&mut self) {
        self.cached.clear();
        self.dirty.clear();
        self.len = self.durable_len;
        self.durable.split_off(&self.len.div_ceil(PAGE));
    }
}

impl SimDisk {
    pub(crate) fn new(seed: u64, omission: Omission) -> Self {
        let platter = Arc::new(Mutex::new(Platter {
            inodes: Vec::new(),
            durable: BTreeMap::new(),
            names: BTreeMap::new(),
            unsynced: Vec::new(),
            operations: 0,
            plan: None,
            is_off: false,
            failing: None,
            bad: None,
            flaky: None,
            capacity: u64::MAX,
            omission,
            process: 0,
            rng: Rng::new(seed ^ 0xd15c),
            trace: 0,
        }));
        Self { platter, process: 0 }
    }

    /// A new process; whatever the one before still tries has no effect.
    pub(crate) fn next_process(&mut self) {
        let mut platter = lock(&self.platter);
        platter.process += 1;
        self.process = platter.process;
    }

    /// Lets something go wrong `after` so many operations.
    pub(crate) fn plan(&self, after: u64, fault: Fault) {
        let mut platter = lock(&self.platter);
        platter.plan = Some((platter.operations + after, fault));
    }

    /// Lets some kinds of operations fail until told otherwise.
    pub(crate) fn set_failing(&self, failing: Option<(&'static [Kind], Errno)>) {
        lock(&self.platter).failing = failing;
    }

    /// Makes a page of a file bad for ever.
    pub(crate) fn set_bad(&self, name: &str, page: u64) {
        let mut platter = lock(&self.platter);
        platter.bad = platter.names.get(name).map(|inode| (*inode, page));
    }

    /// Reads a page of a file wrongly until its cache was forgotten `times` times.
    pub(crate) fn set_flaky(&self, name: &str, page: u64, times: u32) {
        let mut platter = lock(&self.platter);
        platter.flaky = platter.names.get(name).map(|inode| (*inode, page, times));
    }

    /// The pages of a file that hold anything.
    pub(crate) fn pages_of(&self, name: &str) -> Vec<u64> {
        let platter = lock(&self.platter);
        let inode = platter.names.get(name).map(|inode| &platter.inodes[*inode]);
        inode.map_or_else(Vec::new, |inode| inode.durable.keys().copied().collect())
    }

    pub(crate) fn forget_plan(&self) {
        lock(&self.platter).plan = None;
    }

    pub(crate) fn is_off(&self) -> bool {
        lock(&self.platter).is_off
    }

    pub(crate) fn operations(&self) -> u64 {
        lock(&self.platter).operations
    }

    pub(crate) fn trace(&self) -> u64 {
        lock(&self.platter).trace
    }

    /// Leaves room for `pages` more, or as many as anybody wants.
    pub(crate) fn set_free(&self, pages: Option<u64>) {
        let mut platter = lock(&self.platter);
        platter.capacity = pages.map_or(u64::MAX, |pages| platter.used() + pages);
    }

    /// The machine stops without warning and starts again.
    pub(crate) fn power_cut(&self) {
        let mut platter = lock(&self.platter);
        let Platter {
            inodes,
            durable,
            names,
            unsynced,
            rng,
            ..
        } = &mut *platter;
        // Sometimes nothing more arrives, sometimes all, mostly some.
        let odds = rng.below(5);
        let keep = |rng: &mut Rng| match odds {
            0 => false,
            1 => true,
            _ => rng.one_in(2),
        };
        for inode in inodes.iter_mut() {
            if inode.len != inode.durable_len && keep(rng) {
                inode.durable_len = inode.len;
            }
            inode.write_back(|| keep(rng));
            inode.forget_cache();
        }
        for naming in std::mem::take(unsynced) {
            if keep(rng) {
                match naming {
                    Naming::Create(name, inode) => drop(durable.insert(name, inode)),
                    Naming::Remove(name) => drop(durable.remove(&name)),
                    Naming::Rename(from, to, inode) => {
                        durable.remove(&from);
                        durable.insert(to, inode);
                    }
                }
            }
        }
        names.clone_from(durable);
        platter.is_off = false;
        platter.plan = None;
    }

    /// The process ended, the machine goes on; under pressure it drops what it believes to be clean.
    pub(crate) fn drop_clean_pages(&self) {
        let mut platter = lock(&self.platter);
        for inode in &mut platter.inodes {
            let Inode { cached, dirty, .. } = inode;
            cached.retain(|page, _| dirty.contains_key(page));
        }
    }

    fn log_files(&self) -> Vec<(String, usize)> {
        let platter = lock(&self.platter);
        let names = platter.names.iter().filter(|(name, _)| name.ends_with(".redb"));
        names.map(|(name, inode)| (name.clone(), *inode)).collect()
    }

    /// Flips a bit of a segment; false = there is none.
    pub(crate) fn flip(&self, rng: &mut Rng) -> bool {
        let files = self.log_files();
        let Some((_, inode)) = rng.pick(&files) else { return false };
        let mut platter = lock(&self.platter);
        let inode = &mut platter.inodes[*inode];
        let pages: Vec<u64> = inode.durable.keys().copied().collect();
        let Some(page) = rng.pick(&pages) else { return false };
        let (at, bit) = (rng.below(PAGE) as usize, rng.below(8));
        let Inode { durable, cached, .. } = inode;
        for content in [durable.get_mut(page), cached.get_mut(page)].into_iter().flatten() {
            content[at] ^= 1 << bit;
        }
        true
    }

    /// Flips a bit in each sector of a page of a file.
    pub(crate) fn flip_page(&self, name: &str, page: u64) {
        let mut platter = lock(&self.platter);
        let Some(inode) = platter.names.get(name).copied() else { return };
        let Inode { durable, cached, .. } = &mut platter.inodes[inode];
        for content in [durable.get_mut(&page), cached.get_mut(&page)].into_iter().flatten() {
            content.iter_mut().skip(100).step_by(SECTOR).for_each(|byte| *byte ^= 0x10);
        }
    }

    /// A segment vanishes; whether it was the newest. `None` if there is none.
    pub(crate) fn lose_file(&self, rng: &mut Rng) -> Option<bool> {
        let files = self.log_files();
        let (name, _) = rng.pick(&files)?;
        let mut platter = lock(&self.platter);
        platter.names.remove(name);
        platter.durable.remove(name);
        Some(files.last().is_some_and(|(newest, _)| newest == name))
    }

    fn file(&self, inode: usize) -> Arc<dyn StorageFile> {
        Arc::new(SimFile { disk: self.clone(), inode })
    }
}

impl Directory for SimDisk {
    fn path(&self) -> &Path {
        Path::new("simulated")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut platter = lock(&self.platter);
        platter.operation(self.process, 1, 0)?;
        Ok(platter.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let mut platter = lock(&self.platter);
        platter.operation(self.process, CREATE, 0)?;
        let inode = platter.inodes.len();
        platter.inodes.push(Inode::new());
        platter.names.insert(name.into(), inode);
        platter.unsynced.push(Naming::Create(name.into(), inode));
        drop(platter);
        Ok(self.file(inode))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let mut platter = lock(&self.platter);
        platter.operation(self.process, 3, 0)?;
        let inode = platter.names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        drop(platter);
        Ok(self.file(inode))
    }

    fn open_to_write(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        lock(&self.platter).operation(self.process, OPEN_TO_WRITE, 0)?;
        Directory::open(self, name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut platter = lock(&self.platter);
        platter.operation(self.process, RENAME, 0)?;
        let inode = platter.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        platter.names.insert(to.into(), inode);
        platter.unsynced.push(Naming::Rename(from.into(), to.into(), inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut platter = lock(&self.platter);
        platter.operation(self.process, REMOVE, 0)?;
        platter.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        platter.unsynced.push(Naming::Remove(name.into()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut platter = lock(&self.platter);
        platter.operation(self.process, SYNC_DIRECTORY, 0)?;
        if platter.omission != Omission::DirectorySync {
            platter.durable = platter.names.clone();
            platter.unsynced.clear();
        }
        Ok(())
    }

    fn allocated(&self, name: &str) -> io::Result<u64> {
        let platter = lock(&self.platter);
        let inode = platter.names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(platter.inodes[inode].pages() * PAGE)
    }

    fn free(&self) -> io::Result<u64> {
        Ok(lock(&self.platter).room().saturating_mul(PAGE))
    }

    fn reserve(&self, name: &str, bytes: u64) -> io::Result<()> {
        let file = self.create(name)?;
        for page in 0..bytes / PAGE {
            file.write(page * PAGE, &[0])?;
        }
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Option<LockGuard>> {
        if !lock(&self.platter).names.contains_key(name) {
            self.create(name)?;
        }
        Ok(Some(LockGuard::of_nobody()))
    }

    fn note(&self, name: &str, at: u64, text: &str) -> io::Result<()> {
        let file = Directory::open(self, name)?;
        file.write(at, text.as_bytes())?;
        file.sync()
    }

    fn noted(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = Directory::open(self, name)?;
        let mut text = vec![0; file.len()? as usize];
        file.read(0, &mut text)?;
        Ok(text)
    }
}

impl StorageFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.disk.platter).inodes[self.inode].len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut platter = lock(&self.disk.platter);
        platter.operation(self.disk.process, READ, offset)?;
        let is_hit = |inode: usize, page: u64| inode == self.inode && page >= offset / PAGE && page * PAGE < offset + out.len() as u64;
        if platter.bad.is_some_and(|(inode, page)| is_hit(inode, page)) {
            return Err(broken());
        }
        let flipped = platter.flaky.filter(|(inode, page, times)| is_hit(*inode, *page) && *times > 0);
        let inode = &platter.inodes[self.inode];
        if offset + out.len() as u64 > inode.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let within = (at % PAGE) as usize;
            let count = (PAGE as usize - within).min(out.len() - done);
            let target = &mut out[done..done + count];
            match inode.page(at / PAGE) {
                Some(page) => target.copy_from_slice(&page[within..within + count]),
                None => target.fill(0),
            }
            if flipped.is_some_and(|(_, page, _)| page == at / PAGE) {
                target.iter_mut().for_each(|byte| *byte ^= 0x10);
            }
            done += count;
        }
        Ok(())
    }

    fn forget_cache(&self) -> io::Result<()> {
        let mut platter = lock(&self.disk.platter);
        if let Some((inode, _, times)) = &mut platter.flaky
            && *inode == self.inode
        {
            *times = times.saturating_sub(1);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = lock(&self.disk.platter);
        let is_bad = platter
            .bad
            .is_some_and(|(inode, page)| inode == self.inode && page >= offset / PAGE && page * PAGE < offset + data.len() as u64);
        let planned = platter.operation(self.disk.process, WRITE, offset);
        let planned = if is_bad { planned.and(Err(broken())) } else { planned };
        if self.disk.process != platter.process {
            return planned;
        }
        // Whatever goes wrong, the first part may have been written.
        let until = if planned.is_ok() {
            data.len() as u64
        } else {
            platter.rng.below(data.len() as u64 + 1)
        };
        let mut room = platter.room();
        let inode = &mut platter.inodes[self.inode];
        let mut done = 0;
        while done < until as usize {
            let at = offset + done as u64;
            let (page, within) = (at / PAGE, (at % PAGE) as usize);
            let count = (PAGE as usize - within).min(until as usize - done);
            if inode.page(page).is_none() {
                if room == 0 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                room -= 1;
            }
            let Inode {
                durable, cached, dirty, ..
            } = inode;
            let content = cached
                .entry(page)
                .or_insert_with(|| durable.get(&page).cloned().unwrap_or_else(|| vec![0; PAGE as usize].into()));
            content[within..within + count].copy_from_slice(&data[done..done + count]);
            let bits = (within / SECTOR..=(within + count - 1) / SECTOR).fold(0, |bits, sector| bits | 1 << sector);
            *dirty.entry(page).or_default() |= bits;
            done += count;
            inode.len = inode.len.max(at + count as u64);
        }
        planned
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = lock(&self.disk.platter);
        platter.operation(self.disk.process, SET_LENGTH, len)?;
        platter.inodes[self.inode].cut(len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut platter = lock(&self.disk.platter);
        let planned = platter.operation(self.disk.process, SYNC, 0);
        let Platter {
            inodes,
            rng,
            omission,
            is_off,
            process,
            ..
        } = &mut *platter;
        if self.disk.process != *process {
            return planned;
        }
        let inode = &mut inodes[self.inode];
        if *is_off || *omission == Omission::FileSync {
            // The power went: what of it arrives is decided when it comes back.
            return planned;
        }
        if planned.is_err() {
            // Pages are marked clean although they never arrived.
            inode.write_back(|| rng.one_in(2));
            if rng.one_in(2) {
                inode.durable_len = inode.len;
            }
            return planned;
        }
        inode.write_back(|| true);
        inode.durable_len = inode.len;
        Ok(())
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(lock(&self.disk.platter).inodes[self.inode].pages() * PAGE)
    }
}
