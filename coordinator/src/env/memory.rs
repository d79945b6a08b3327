//! A disk in memory that forgets what was not flushed, and can fail at any step.
//!
//! It is as bad as the standards allow: bytes are durable after the file was synced, names after
//! the folder was. Of what was written since, a crash keeps whatever it likes, by sectors.

use super::{File, Folder, Guard};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// What a crash leaves of what was not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Everything: the process died, the machine went on.
    Process,
    /// Nothing.
    Nothing,
    /// Sectors and names by chance, from this seed.
    Some(u64),
}

/// A disk with one folder. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    /// Files that are open or have a name, by number.
    files: BTreeMap<u64, Bytes>,
    next: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since the folder was synced.
    renames: Vec<Rename>,
    locked: BTreeMap<String, u64>,
    /// Which life of the process this is: what an earlier one opened is closed.
    life: u64,
    steps: u64,
    fail_at: Option<u64>,
    /// Bytes that fit; none: as many as one likes.
    capacity: Option<u64>,
    /// After a failure everything fails.
    breaks: bool,
    broken: bool,
    /// Whether syncs only seem to work.
    lies: bool,
}

#[derive(Clone, Debug, Default)]
struct Bytes {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Where they can differ, beyond their lengths.
    changed: Range<usize>,
}

#[derive(Clone, Debug)]
struct Rename {
    name: String,
    file: Option<u64>,
}

struct MemoryFolder {
    disk: MemoryDisk,
    life: u64,
}

struct MemoryFile {
    disk: MemoryDisk,
    life: u64,
    file: u64,
}

struct MemoryGuard {
    disk: MemoryDisk,
    life: u64,
    name: String,
}

/// Mixes the bits of a number (the finaliser of splitmix64).
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl MemoryDisk {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder, for a process of the present life.
    #[must_use]
    pub fn folder(&self) -> Arc<dyn Folder> {
        Arc::new(MemoryFolder { disk: self.clone(), life: self.lock().life })
    }

    /// How many steps (changes and syncs) there have been.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// The step with this number, and all after it, fail until the next crash.
    pub fn fail_at(&self, step: u64) {
        let mut disk = self.lock();
        (disk.fail_at, disk.breaks) = (Some(step), true);
    }

    /// The step with this number fails, and the next ones seem to work again.
    pub fn fail_once_at(&self, step: u64) {
        let mut disk = self.lock();
        (disk.fail_at, disk.breaks) = (Some(step), false);
    }

    /// From now on only so many bytes fit, or any number. What is there stays.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Bytes of all files.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    /// From now on syncs seem to work and do nothing. For tests of tests: no promise holds then.
    pub fn lie(&self) {
        self.lock().lies = true;
    }

    /// The process or the machine dies; what it had open is closed, and the disk works again.
    pub fn crash(&self, crash: Crash) {
        let mut disk = self.lock();
        let disk = &mut *disk;
        (disk.life, disk.broken, disk.fail_at) = (disk.life + 1, false, None);
        disk.locked.clear();
        let mut chance = match crash {
            Crash::Process => return,
            Crash::Nothing => None,
            Crash::Some(seed) => Some(seed),
        };
        let mut keeps = || match &mut chance {
            None => false,
            Some(seed) => {
                *seed = mix(*seed);
                *seed & 1 == 0
            }
        };
        for bytes in disk.files.values_mut() {
            bytes.lose(&mut keeps);
        }
        // A file system keeps the order of names.
        for Rename { name, file } in disk.renames.drain(..) {
            if !keeps() {
                break;
            }
            match file {
                Some(file) => disk.durable_names.insert(name, file),
                None => disk.durable_names.remove(&name),
            };
        }
        disk.renames.clear();
        disk.names = disk.durable_names.clone();
        let named: Vec<u64> = disk.names.values().copied().collect();
        disk.files.retain(|file, _| named.contains(file));
    }

    /// The bytes of a file.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.lock();
        Some(disk.files[disk.names.get(name)?].now.clone())
    }

    /// Puts other bytes in the place of a file's, or makes the file: damage.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        let mut disk = self.lock();
        let disk = &mut *disk;
        let next = &mut disk.next;
        let file = *disk.names.entry(name.into()).or_insert_with(|| {
            *next += 1;
            *next
        });
        disk.durable_names.insert(name.into(), file);
        disk.files.insert(file, Bytes { now: bytes.into(), durable: bytes.into(), changed: 0..0 });
    }

    /// Removes a file for good: damage.
    pub fn remove(&self, name: &str) {
        let mut disk = self.lock();
        disk.names.remove(name);
        disk.durable_names.remove(name);
    }

    /// The names of all files.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    /// A disk of its own with the same content.
    #[must_use]
    pub fn copy(&self) -> MemoryDisk {
        let disk = self.lock();
        let copy = Disk {
            files: disk.files.clone(),
            next: disk.next,
            names: disk.names.clone(),
            durable_names: disk.durable_names.clone(),
            capacity: disk.capacity,
            renames: disk.renames.clone(),
            life: disk.life + 1,
            ..Disk::default()
        };
        MemoryDisk(Arc::new(Mutex::new(copy)))
    }

    /// Access of a process of this life.
    fn enter(&self, life: u64) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.lock();
        if disk.life != life || disk.broken {
            return Err(io::Error::other("the disk is gone"));
        }
        Ok(disk)
    }

    /// Takes a step, which may be the one that fails.
    fn step(&self, life: u64) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = self.enter(life)?;
        disk.steps += 1;
        if disk.fail_at.is_some_and(|step| step <= disk.steps) {
            (disk.broken, disk.fail_at) = (disk.breaks, None);
            return Err(io::Error::other("the disk fails, as the test asked"));
        }
        Ok(disk)
    }
}

impl Disk {
    fn used_bytes(&self) -> u64 {
        let named = self.names.values().filter_map(|file| self.files.get(file));
        named.map(|bytes| bytes.now.len() as u64).sum()
    }

    fn free_bytes(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used_bytes()))
    }
}

impl Bytes {
    /// Loses what is not durable, sector by sector.
    fn lose(&mut self, keeps: &mut impl FnMut() -> bool) {
        let (old, new) = (&self.durable, &self.now);
        // A length is kept or lost as a whole, and what it uncovers is zeros.
        let len = if old.len() == new.len() || keeps() { new.len() } else { old.len() };
        let mut left = vec![0; len];
        for at in (0..len).step_by(SECTOR) {
            let end = len.min(at + SECTOR);
            let part = |bytes: &[u8]| {
                let from = at.min(bytes.len());
                bytes[from..end.min(bytes.len())].to_vec()
            };
            let (before, after) = (part(old), part(new));
            let kept = if before == after || keeps() { after } else { before };
            left[at..at + kept.len()].copy_from_slice(&kept);
        }
        (self.durable, self.now, self.changed) = (left.clone(), left, 0..0);
    }

    fn write(&mut self, from: usize, new: &[u8]) {
        let end = from + new.len();
        if self.now.len() < end {
            self.now.resize(end, 0);
        }
        self.now[from..end].copy_from_slice(new);
        self.changed = match self.changed.is_empty() {
            true => from..end,
            false => self.changed.start.min(from)..self.changed.end.max(end),
        };
    }

    fn sync(&mut self) {
        self.durable.resize(self.now.len(), 0);
        let end = self.changed.end.min(self.now.len());
        let changed = self.changed.start.min(end)..end;
        self.durable[changed.clone()].copy_from_slice(&self.now[changed]);
        self.changed = 0..0;
    }
}

impl Folder for MemoryFolder {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk.step(self.life)?;
        if disk.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.next += 1;
        let file = disk.next;
        disk.files.insert(file, Bytes::default());
        disk.names.insert(name.into(), file);
        disk.renames.push(Rename { name: name.into(), file: Some(file) });
        Ok(Arc::new(MemoryFile { disk: self.disk.clone(), life: self.life, file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let disk = self.disk.enter(self.life)?;
        let file = *disk.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemoryFile { disk: self.disk.clone(), life: self.life, file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk.step(self.life)?;
        let file = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(to.into(), file);
        disk.renames.push(Rename { name: to.into(), file: Some(file) });
        disk.renames.push(Rename { name: from.into(), file: None });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk.step(self.life)?;
        disk.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        disk.renames.push(Rename { name: name.into(), file: None });
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disk.enter(self.life)?.names.keys().cloned().collect())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.step(self.life)?;
        if disk.lies {
            return Ok(());
        }
        disk.durable_names = disk.names.clone();
        disk.renames.clear();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.disk.enter(self.life)?.free_bytes())
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn Guard>> {
        let mut disk = self.disk.enter(self.life)?;
        if disk.locked.contains_key(name) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let life = self.life;
        disk.locked.insert(name.into(), life);
        Ok(Box::new(MemoryGuard { disk: self.disk.clone(), life, name: name.into() }))
    }
}

impl Guard for MemoryGuard {}

impl Drop for MemoryGuard {
    fn drop(&mut self) {
        let mut disk = self.disk.lock();
        if disk.locked.get(&self.name) == Some(&self.life) {
            disk.locked.remove(&self.name);
        }
    }
}

impl MemoryFile {
    fn change<T>(&self, change: impl FnOnce(&mut Bytes) -> T) -> io::Result<T> {
        let mut disk = self.disk.step(self.life)?;
        let bytes = disk.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        Ok(change(bytes))
    }

    fn look<T>(&self, look: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let disk = self.disk.enter(self.life)?;
        let bytes = disk.files.get(&self.file).ok_or(io::ErrorKind::NotFound)?;
        Ok(look(&bytes.now))
    }
}

impl File for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        self.look(|bytes| bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.look(|bytes| {
            let from = bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
            let len = buffer.len().min(bytes.len() - from);
            buffer[..len].copy_from_slice(&bytes[from..from + len]);
            len
        })
    }

    fn write_at(&self, offset: u64, new: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.step(self.life)?;
        let free = disk.free_bytes();
        let bytes = disk.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        let end = offset.saturating_add(new.len() as u64);
        if end.saturating_sub(bytes.now.len() as u64) > free {
            return Err(io::ErrorKind::StorageFull.into());
        }
        bytes.write(usize::try_from(offset).unwrap_or(usize::MAX), new);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let lies = self.disk.lock().lies;
        self.change(|bytes| {
            if !lies {
                bytes.sync()
            }
        })
    }
}
