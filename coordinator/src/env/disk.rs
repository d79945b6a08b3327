//! Files of a real disk, below the descriptor of their folder.
//!
//! Everything goes by the descriptor that was opened first, so a folder that is renamed or mounted
//! over while the process runs cannot split its files over two places.

use super::{File, Folder, Guard};
use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// A folder of a disk.
#[derive(Debug)]
pub(super) struct DiskFolder(OwnedFd);

/// A file of a disk.
#[derive(Debug)]
struct DiskFile(OwnedFd);

/// A lock on a file; the kernel drops it with the descriptor, also when the process dies.
#[derive(Debug)]
struct DiskGuard(#[allow(dead_code)] OwnedFd);

impl DiskFolder {
    /// Opens the folder, and makes it if need be, for its owner alone.
    pub(super) fn open(path: &Path) -> io::Result<DiskFolder> {
        std::fs::create_dir_all(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = DiskFolder(fs::open(path, flags, Mode::empty())?);
        fs::fchmod(&folder.0, Mode::RWXU)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // Else the folder itself may be gone after a power cut.
            fs::fsync(fs::open(parent, flags, Mode::empty())?)?;
        }
        Ok(folder)
    }

    fn open_file(&self, name: &str, more: OFlags) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | more;
        Ok(fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?)
    }
}

impl Guard for DiskGuard {}

impl Folder for DiskFolder {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(DiskFile(self.open_file(name, OFlags::CREATE | OFlags::EXCL)?)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(DiskFile(self.open_file(name, OFlags::empty())?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(fs::renameat(&self.0, from, &self.0, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            // A name that is not ours is of no interest.
            if let Ok(name) = entry.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_string());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.0)?)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let room = fs::fstatvfs(&self.0)?;
        // Without inodes there is no room for another file, however many bytes are free.
        let blocks = if room.f_files > 0 && room.f_favail == 0 { 0 } else { room.f_bavail };
        Ok(blocks.saturating_mul(room.f_frsize))
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn Guard>> {
        let file = self.open_file(name, OFlags::CREATE)?;
        match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Box::new(DiskGuard(file))),
            Err(Errno::WOULDBLOCK) => Err(io::ErrorKind::WouldBlock.into()),
            Err(other) => Err(other.into()),
        }
    }
}

impl File for DiskFile {
    fn size(&self) -> io::Result<u64> {
        let size = fs::fstat(&self.0)?.st_size;
        u64::try_from(size).map_err(io::Error::other)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match rustix::io::pread(&self.0, &mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(Errno::INTR) => (),
                Err(other) => return Err(other.into()),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match rustix::io::pwrite(&self.0, &bytes[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => done += len,
                Err(Errno::INTR) => (),
                Err(other) => return Err(other.into()),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fs::fdatasync(&self.0)?)
    }
}
