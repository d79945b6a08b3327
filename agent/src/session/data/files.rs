//! Files of an attempt: lists of directories, and their bytes.

use super::beneath::{Maker, Root, path_of};
use super::place::Place;
use super::{Answers, Cut, DataError, Said, blocking};
use crate::session::Shared;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;
use yard_common::limits::{FILE_ENTRIES_MAX, FILE_ENTRIES_SCAN_MAX, LOG_READ_BYTES_MAX};
use yard_proto::internal::{FileData, FileList, FileListWant, FileWant};
use yard_proto::v1::{FileEntry, FileKind, FileRoot};

/// The directory that a root stands for, and who makes its entries.
fn root(place: &Place, root: FileRoot) -> Result<(PathBuf, Maker), DataError> {
    match root {
        FileRoot::Logs => Ok((place.logs(), Maker::Agent)),
        FileRoot::Temp => Ok((place.scratch(), Maker::Job)),
        // Both are where the job says. An agent that is root must not open what a job names.
        FileRoot::Unspecified | FileRoot::Output => Err(DataError::not_allowed(
            "this version reads the logs and the temporary directory of an attempt only",
        )),
    }
}

/// Lists a directory in the order of names.
pub(super) async fn list(
    shared: &Arc<Shared>,
    want: FileListWant,
    answers: &Answers,
) -> Result<(), Cut> {
    let (at, maker) = root(&Place::new(shared, want.assignment)?, want.root())?;
    let listed = blocking(move || {
        let directory = Root::open(&at, maker)?.directory(&want.path)?;
        let count_max = match want.entries_max as usize {
            0 => FILE_ENTRIES_MAX,
            count => count.min(FILE_ENTRIES_MAX),
        };
        entries(&directory, &want.after_name, count_max)
    });
    let listed = listed.await?;
    Ok(answers.send(Said::Files(listed)).await?)
}

/// The first entries behind a name. Names that are no text are not listed: no path can say them.
fn entries(directory: &File, after: &str, count_max: usize) -> Result<FileList, DataError> {
    let failed = |error: std::io::Error| DataError::io(format!("it cannot be listed: {error}"));
    let at = path_of(directory);
    let mut names = BTreeSet::new();
    for (count, entry) in std::fs::read_dir(&at).map_err(failed)?.enumerate() {
        if count >= FILE_ENTRIES_SCAN_MAX {
            return Err(DataError::limit(format!("more than {FILE_ENTRIES_SCAN_MAX} entries")));
        }
        let Ok(name) = entry.map_err(failed)?.file_name().into_string() else { continue };
        if name.as_str() > after {
            names.insert(name);
            if names.len() > count_max + 1 {
                names.pop_last();
            }
        }
    }
    let more = names.len() > count_max;
    // What was removed since is left out.
    let entries = names.into_iter().take(count_max);
    let entries = entries.filter_map(|name| entry(&at, name)).collect();
    Ok(FileList { entries, more })
}

fn entry(at: &std::path::Path, name: String) -> Option<FileEntry> {
    let found = at.join(&name).symlink_metadata().ok()?;
    let kind = match found.file_type() {
        kind if kind.is_file() => FileKind::File,
        kind if kind.is_dir() => FileKind::Directory,
        kind if kind.is_symlink() => FileKind::Link,
        _ => FileKind::Other,
    };
    let seconds = u64::try_from(found.mtime()).unwrap_or(0);
    let millis = u64::try_from(found.mtime_nsec()).unwrap_or(0) / 1_000_000;
    Some(FileEntry {
        name,
        kind: kind.into(),
        size_bytes: found.len(),
        modified_wall_ms: seconds.saturating_mul(1_000).saturating_add(millis),
    })
}

/// Sends the bytes of a file.
pub(super) async fn read(
    shared: &Arc<Shared>,
    want: FileWant,
    answers: &Answers,
) -> Result<(), Cut> {
    let (at, maker) = root(&Place::new(shared, want.assignment)?, want.root())?;
    let path = want.path;
    let file = Arc::new(blocking(move || Root::open(&at, maker)?.file(&path)).await?);
    let end = match want.len {
        0 => u64::MAX,
        len => want.offset.saturating_add(len),
    };
    let mut offset = want.offset;
    loop {
        let len = usize::try_from(end - offset).unwrap_or(usize::MAX).min(LOG_READ_BYTES_MAX);
        let file = file.clone();
        let (bytes, size_bytes) = blocking(move || piece(&file, offset, len)).await?;
        // An empty file is told too, with its size.
        let first = offset == want.offset;
        if bytes.is_empty() && !first {
            return Ok(());
        }
        let count = bytes.len() as u64;
        answers.send(Said::File(FileData { offset, data: bytes.into(), size_bytes })).await?;
        offset += count;
        if count == 0 || offset >= end {
            return Ok(());
        }
    }
}

fn piece(file: &File, offset: u64, len: usize) -> Result<(Vec<u8>, u64), DataError> {
    let failed = |error: std::io::Error| DataError::io(format!("it cannot be read: {error}"));
    let size = file.metadata().map_err(failed)?.len();
    let mut bytes = vec![0; len];
    let count = file.read_at(&mut bytes, offset).map_err(failed)?;
    bytes.truncate(count);
    Ok((bytes, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_listed_in_pages() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b", "a", "d"] {
            std::fs::write(directory.path().join(name), "12").unwrap();
        }
        std::fs::create_dir(directory.path().join("c")).unwrap();
        std::os::unix::fs::symlink("a", directory.path().join("e")).unwrap();
        let open = File::open(directory.path()).unwrap();
        let page = |after: &str| {
            let list = entries(&open, after, 2).unwrap();
            let names: Vec<_> = list.entries.iter().map(|e| (e.name.clone(), e.kind())).collect();
            (names, list.more)
        };
        let (file, folder, link) = (FileKind::File, FileKind::Directory, FileKind::Link);
        assert_eq!(page(""), (vec![("a".into(), file), ("b".into(), file)], true));
        assert_eq!(page("b"), (vec![("c".into(), folder), ("d".into(), file)], true));
        assert_eq!(page("d"), (vec![("e".into(), link)], false));
        assert_eq!(page("e"), (vec![], false));
        assert_eq!(entries(&open, "", 9).unwrap().entries[0].size_bytes, 2);
    }
}
