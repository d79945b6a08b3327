//! Whether the file system of a directory makes holes in files.

use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The file that a hole is made in.
const NAME: &str = ".holes";
/// What a hole takes at the least.
const BLOCK: usize = 4_096;

/// Tries it.
///
/// # Errors
/// Those of the file system, but for the one that says no.
pub(crate) fn makes_holes(directory: &Path) -> io::Result<bool> {
    let path = directory.join(NAME);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
    let mut file = options.open(&path)?;
    let written = file.write_all(&[1; 2 * BLOCK]);
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let made = fallocate(&file, flags, 0, BLOCK as i64);
    fs::remove_file(&path)?;
    written?;
    Ok(made.is_ok())
}
