//! What runs of the setup wrote: of each the last part, of the last few runs.
//!
//! ```text
//! setup/7.log    what run 7 writes now
//! setup/7.old    what it wrote before that, once that was half of what is kept
//! ```

use crate::paths::Paths;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use yard_common::limits::{SETUP_LOG_BYTES_MAX, SETUP_LOGS_MAX};

/// Half of what is kept of a run.
const PART_BYTES_MAX: u64 = SETUP_LOG_BYTES_MAX / 2;
/// What is read at once.
const READ_BYTES: usize = 16 * 1024;
/// Bytes at the end in which the last line is looked for.
const TAIL_BYTES: usize = 1_024;
/// Letters of the last line that are told.
const LINE_CHARS_MAX: usize = 150;

/// Where a run writes to.
#[derive(Debug)]
pub(super) struct Output {
    folder: PathBuf,
    number: u32,
    /// None: it cannot be written, and is lost.
    file: Option<tokio::fs::File>,
    len: u64,
    tail: Vec<u8>,
}

fn now_of(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number}.log"))
}

fn old_of(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number}.old"))
}

impl Output {
    /// Begins the output of a run, and drops that of runs long ago.
    pub(super) async fn begin(paths: &Paths, number: u32) -> Output {
        let folder = paths.setup();
        let cleared = folder.clone();
        let made = tokio::task::spawn_blocking(move || clear(&cleared, number)).await;
        let made = made.unwrap_or_else(|error| Err(io::Error::other(error)));
        let file = match made {
            Ok(()) => open(&folder, number).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &file {
            tracing::warn!(%error, "what the setup writes is lost");
        }
        Output { folder, number, file: file.ok(), len: 0, tail: Vec::new() }
    }

    /// Takes what is written until nobody is left to write.
    pub(super) async fn take(&mut self, from: &mut (impl AsyncRead + Unpin)) {
        let mut buffer = vec![0; READ_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let bytes = &buffer[..count];
            self.tail.extend_from_slice(&bytes[count.saturating_sub(TAIL_BYTES)..]);
            self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
            if let Err(error) = self.write(bytes).await {
                tracing::warn!(%error, "what the setup writes is lost from here on");
                self.file = None;
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).await?;
        file.flush().await?;
        self.len += bytes.len() as u64;
        if self.len < PART_BYTES_MAX {
            return Ok(());
        }
        let (now, old) = (now_of(&self.folder, self.number), old_of(&self.folder, self.number));
        tokio::fs::rename(now, old).await?;
        self.file = Some(open(&self.folder, self.number).await?);
        self.len = 0;
        Ok(())
    }

    /// The last line that is not empty, for people; empty if there is none.
    pub(super) fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
        line.chars().filter(|letter| !letter.is_control()).take(LINE_CHARS_MAX).collect()
    }
}

async fn open(folder: &Path, number: u32) -> io::Result<tokio::fs::File> {
    let mut options = tokio::fs::OpenOptions::new();
    let options = options.create(true).write(true).truncate(true).mode(0o600);
    options.open(now_of(folder, number)).await
}

/// Makes the folder, and removes what is of no run that is kept beside the one that begins.
fn clear(folder: &Path, number: u32) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for entry in fs::read_dir(folder)?.take(1_000) {
        let path = entry?.path();
        let run = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u32>().ok());
        if run.is_none_or(|run| run >= number || number - run >= SETUP_LOGS_MAX) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// What a run wrote, the last part of it. `back`: 0 for the last run, 1 for the one before it.
///
/// # Errors
/// If it cannot be read; there may be no such run.
pub(crate) fn read(paths: &Paths, back: u32) -> io::Result<Vec<u8>> {
    let folder = paths.setup();
    let mut runs = Vec::new();
    for entry in fs::read_dir(&folder)?.take(1_000) {
        let path = entry?.path();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        let stem = path.file_stem().filter(|_| is_log);
        runs.extend(stem.and_then(|stem| stem.to_str()?.parse::<u32>().ok()));
    }
    runs.sort_unstable_by(|a, b| b.cmp(a));
    let number = usize::try_from(back).ok().and_then(|back| runs.get(back));
    let number = *number.ok_or(io::ErrorKind::NotFound)?;
    let mut bytes = Vec::new();
    for path in [old_of(&folder, number), now_of(&folder, number)] {
        match File::open(path) {
            Ok(file) => drop(file.take(2 * PART_BYTES_MAX).read_to_end(&mut bytes)?),
            // One of the two may just be renamed, or not be there yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn wrote(paths: &Paths, number: u32, mut text: &[u8]) -> String {
        let mut output = Output::begin(paths, number).await;
        output.take(&mut text).await;
        output.last_line()
    }

    #[tokio::test]
    async fn the_last_part_of_the_last_runs_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        assert_eq!(read(&paths, 0).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(wrote(&paths, 1, b"one\n\n").await, "one");
        assert_eq!(wrote(&paths, 2, b"").await, "");
        assert_eq!(
            (read(&paths, 0).unwrap(), read(&paths, 1).unwrap()),
            (vec![], b"one\n\n".into())
        );
        let mut long: Vec<u8> =
            (0..300_000u32).flat_map(|at| format!("{at}\n").into_bytes()).collect();
        long.extend(b"the \x1bend");
        assert_eq!(wrote(&paths, 3, &long).await, "the end");
        let kept = read(&paths, 0).unwrap();
        assert!(long.ends_with(&kept), "nothing of the end is lost");
        let bounds = PART_BYTES_MAX as usize..=SETUP_LOG_BYTES_MAX as usize + 2 * READ_BYTES;
        assert!(long.len() > SETUP_LOG_BYTES_MAX as usize && bounds.contains(&kept.len()));
        for number in 4..9 {
            wrote(&paths, number, b"x").await;
        }
        assert_eq!(fs::read_dir(paths.setup()).unwrap().count(), SETUP_LOGS_MAX as usize);
        assert!(read(&paths, SETUP_LOGS_MAX - 1).is_ok() && read(&paths, SETUP_LOGS_MAX).is_err());
    }
}
