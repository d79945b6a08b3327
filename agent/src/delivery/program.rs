//! The process that writes, and the one that looks whether it could.
//!
//! **Invariant:** what it says to be written is on the share, and not in the memory of this
//! machine: a share may take bytes and refuse them later, some of them and not what follows. So the
//! size of a file counts nothing that is not there, and of what a share that hangs does not take,
//! one piece for each directory at most is in the memory that ranks need.

use super::Target;
use super::message::{Answer, ToWriter, read_frame, write_frame};
use super::place::Place;
use crate::sys::{Identity, become_user};
use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, getppid};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use yard_common::limits::DELIVERY_FILES_MAX;

/// Runs it with the arguments after its name.
#[must_use]
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    let words: Vec<String> = arguments.collect();
    match words.as_slice() {
        [] => write(),
        [dir, folder, node] => look(dir, folder, node),
        _ => {
            eprintln!("usage: deliver [DIR FOLDER NODE]");
            ExitCode::from(64)
        }
    }
}

/// Makes the folder, and says what is wrong. What may pass is no reason to start nothing: the
/// output is on the node meanwhile.
fn look(dir: &str, folder: &str, node: &str) -> ExitCode {
    let made = Place::open(Path::new(dir)).and_then(|place| place.folder(folder).map(drop));
    let Err(error) = made else { return ExitCode::SUCCESS };
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
    let passes = matches!(errno, Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS);
    eprintln!("logs.dir: {dir}/{folder} cannot be made on node {node}: {}", errno.desc());
    if passes {
        eprintln!("the output stays on the node, and is delivered when that can be done");
        return ExitCode::SUCCESS;
    }
    let uid = nix::unistd::geteuid();
    eprintln!("make {dir} on every node, writable for user {uid}, or name another directory");
    ExitCode::FAILURE
}

/// Writes what it is sent until there is nothing more.
fn write() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("output is not delivered: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let mut input = io::stdin().lock();
    let mut output = io::stdout().lock();
    let agent = getppid();
    let Some(target) = read_frame::<Target>(&mut input)? else { return Ok(()) };
    if let Some((uid, gid, groups)) = target.who {
        become_user(&Identity { uid, gid, groups })?;
    }
    umask(Mode::from_bits_truncate(target.umask));
    let mut files = Files { agent, dir: target.dir, place: None, open: BTreeMap::new(), uses: 0 };
    while let Some(message) = read_frame::<ToWriter>(&mut input)? {
        let answer = files.obey(&message).unwrap_or_else(|error| {
            // What was open may be of a share that is there no more.
            files.place = None;
            Answer::Failed(error.raw_os_error().unwrap_or(nix::libc::EIO))
        });
        write_frame(&mut output, &answer)?;
    }
    Ok(())
}

/// Whether the agent that started this process is still there. If not, another one may have gone on
/// where it was while this process stood still: what is written is the same, but nothing that the
/// other one has written may be taken away.
fn mine(agent: Pid) -> io::Result<()> {
    match getppid() == agent {
        true => Ok(()),
        false => Err(Errno::ESRCH.into()),
    }
}

/// Takes away what is beyond.
fn cut_off(file: &File, len: u64, agent: Pid) -> io::Result<()> {
    mine(agent)?;
    file.set_len(len)?;
    file.sync_all()
}

/// Files that are being written; those that were used last are open.
struct Files {
    /// Whose process this is.
    agent: Pid,
    dir: String,
    place: Option<Place>,
    open: BTreeMap<String, (u64, File)>,
    uses: u64,
}

impl Files {
    fn obey(&mut self, message: &ToWriter) -> io::Result<Answer> {
        match message {
            ToWriter::Open { path, len_max } => {
                self.open.remove(path);
                let agent = self.agent;
                let file = self.file(path)?;
                let len = file.metadata()?.len();
                let len_max = len_max.unwrap_or(len);
                if len > len_max {
                    cut_off(file, len_max, agent)?;
                }
                Ok(Answer::Size(len.min(len_max)))
            }
            ToWriter::Write { path, offset, data } => {
                let agent = self.agent;
                let file = self.file(path)?;
                mine(agent)?;
                let written = file.write_all_at(data, *offset).and_then(|()| file.sync_data());
                if let Err(error) = written {
                    // Some of it may be there, and not what comes before. If that cannot be undone
                    // now, it is when the file is opened again.
                    let _ = cut_off(file, *offset, agent);
                    return Err(error);
                }
                Ok(Answer::Done)
            }
            ToWriter::Close(path) => {
                let file = match self.open.remove(path) {
                    Some((_, file)) => file,
                    None => self.place()?.file(path)?,
                };
                file.sync_all()?;
                Ok(Answer::Done)
            }
        }
    }

    fn place(&mut self) -> io::Result<&Place> {
        if self.place.is_none() {
            self.place = Some(Place::open(Path::new(&self.dir))?);
        }
        self.place.as_ref().ok_or_else(|| Errno::ENOENT.into())
    }

    fn file(&mut self, path: &str) -> io::Result<&File> {
        self.uses += 1;
        if !self.open.contains_key(path) {
            let file = self.place()?.file(path)?;
            self.open.insert(path.to_string(), (0, file));
        }
        let uses = self.uses;
        if let Some((used, _)) = self.open.get_mut(path) {
            *used = uses;
        }
        while self.open.len() > DELIVERY_FILES_MAX {
            let oldest = self.open.iter().min_by_key(|(_, (used, _))| *used);
            let Some(oldest) = oldest.map(|(path, _)| path.clone()) else { break };
            self.open.remove(&oldest);
        }
        let found = self.open.get(path).map(|(_, file)| file);
        found.ok_or_else(|| Errno::ENOENT.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path, agent: Pid) -> Files {
        let dir = dir.display().to_string();
        Files { agent, dir, place: None, open: BTreeMap::new(), uses: 0 }
    }

    fn write(offset: u64, data: &[u8]) -> ToWriter {
        ToWriter::Write { path: "8/0.out".into(), offset, data: data.into() }
    }

    fn open(len_max: Option<u64>) -> ToWriter {
        ToWriter::Open { path: "8/0.out".into(), len_max }
    }

    #[test]
    fn what_was_never_said_to_be_there_is_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = files(directory.path(), getppid());
        assert_eq!(files.obey(&open(None)).unwrap(), Answer::Size(0));
        assert_eq!(files.obey(&write(0, b"abc")).unwrap(), Answer::Done);
        // A piece of which the end was taken and the beginning was not.
        let path = directory.path().join("8/0.out");
        std::fs::write(&path, b"abc\0\0\0gh").unwrap();
        assert_eq!(files.obey(&open(Some(3))).unwrap(), Answer::Size(3));
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        // One that somebody made shorter stays so.
        assert_eq!(files.obey(&open(Some(9))).unwrap(), Answer::Size(3));
        assert_eq!(files.obey(&open(None)).unwrap(), Answer::Size(3));
    }

    #[test]
    fn who_has_lost_its_agent_takes_nothing_from_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = files(directory.path(), getppid());
        files.obey(&write(0, b"abcdef")).unwrap();
        files.agent = nix::unistd::getpid();
        for message in [write(2, b"xx"), open(Some(2))] {
            let error = files.obey(&message).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(nix::libc::ESRCH), "{message:?}");
        }
        assert_eq!(std::fs::read(directory.path().join("8/0.out")).unwrap(), b"abcdef");
    }
}
