//! What an installation does to a machine, as a list of steps: shown, or carried out.
//!
//! **Invariants.** A step that was carried out before changes nothing. A file that people edit is
//! written once and then left alone. A file is whole or not there.

use super::account;
use crate::failure::Failure;
use crate::output::say;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use yard_runtime::files;

/// The mode of what everybody may run.
const RUN: u32 = 0o755;
/// Bytes that are compared or copied at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// One step. Paths are those of the machine that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A system account for a daemon.
    Account {
        /// Its name.
        name: String,
        /// Its home directory, which is not made.
        home: PathBuf,
    },
    /// A directory.
    Directory {
        /// Where.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A directory that is there is the account's, with all that is in it.
    Owner {
        /// Where.
        path: PathBuf,
        /// The account.
        name: String,
    },
    /// This program.
    Program(PathBuf),
    /// A file.
    File {
        /// Where.
        path: PathBuf,
        /// What is in it.
        text: String,
        /// Whether one that is there stays as it is.
        keeps: bool,
    },
    /// A link, for what starts with the machine.
    Link {
        /// Where.
        path: PathBuf,
        /// Where it leads.
        to: PathBuf,
    },
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It is as it was.
    Same,
    /// It was not there, or is another now.
    Changed,
    /// It differs, and stays: somebody may have edited it.
    Kept,
}

/// Steps for the machine whose files lie below `root`.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) root: PathBuf,
    pub(super) steps: Vec<Step>,
}

impl Plan {
    /// Where a path of that machine is on this one.
    pub(super) fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// All that would be done, with every file.
    pub(super) fn show(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            // A string takes everything, so writing cannot fail.
            let _ = match step {
                Step::Account { name, home } => {
                    writeln!(text, "account {name}, of the system, with home {}", home.display())
                }
                Step::Directory { path, mode } => {
                    writeln!(text, "directory {}, mode {mode:04o}", path.display())
                }
                Step::Owner { path, name } => {
                    writeln!(text, "owner of {}, if it is there: {name}", path.display())
                }
                Step::Program(path) => {
                    writeln!(text, "program {}: a copy of this one", path.display())
                }
                Step::Link { path, to } => {
                    writeln!(text, "link {} to {}", path.display(), to.display())
                }
                Step::File { path, text: inner, keeps } => {
                    let there = *keeps && self.at(path).exists();
                    let stays = if there { ": is there, and stays as it is" } else { "" };
                    let _ = writeln!(text, "file {}{stays}", path.display());
                    let shown = if there { "" } else { inner.as_str() };
                    shown.lines().try_for_each(|line| writeln!(text, "    {line}"))
                }
            };
        }
        text
    }

    /// Carries all steps out, and says what each did. Returns what came of them.
    pub(super) fn carry_out(&self) -> Result<Vec<Came>, Failure> {
        self.steps.iter().map(|step| self.step(step)).collect()
    }

    fn step(&self, step: &Step) -> Result<Came, Failure> {
        let (came, what) = match step {
            Step::Account { name, home } => {
                (account::make(&self.root, name, home)?, format!("account {name}"))
            }
            Step::Directory { path, mode } => {
                (directory(&self.at(path), *mode)?, path.display().to_string())
            }
            Step::Owner { path, name } => {
                (self.give(path, name)?, format!("owner of {}", path.display()))
            }
            Step::Program(path) => (program(&self.at(path))?, path.display().to_string()),
            Step::File { path, text, keeps } => {
                (file(&self.at(path), text, *keeps)?, path.display().to_string())
            }
            Step::Link { path, to } => (link(&self.at(path), to)?, path.display().to_string()),
        };
        say(&match came {
            Came::Same => format!("  as it was  {what}"),
            Came::Changed => format!("  done       {what}"),
            Came::Kept => format!("  kept       {what}, which somebody may have edited"),
        });
        Ok(came)
    }
}

impl Plan {
    /// Gives a directory of this machine to an account; an image has none yet.
    fn give(&self, path: &Path, name: &str) -> Result<Came, Failure> {
        if self.root != Path::new("/") || !path.exists() {
            return Ok(Came::Same);
        }
        let Some(account) = account::find(name)? else { return Ok(Came::Same) };
        let own = fs::metadata(path).map_err(|error| failed("look at", path, &error))?.uid();
        if own == account.uid {
            return Ok(Came::Same);
        }
        let given = account::hand_over(path, account);
        given.map_err(|error| failed("hand over", path, &error))?;
        Ok(Came::Changed)
    }
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => "run it as root",
        _ => "",
    };
    Failure::local(&io::Error::other(format!("cannot {what} {}: {error}", path.display())), hint)
}

fn directory(path: &Path, mode: u32) -> Result<Came, Failure> {
    if path.is_dir() {
        // Whoever made it may have had a reason for its mode.
        return Ok(Came::Same);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| failed("make", parent, &error))?;
    }
    let made = fs::DirBuilder::new().mode(mode).create(path);
    made.map_err(|error| failed("make", path, &error))?;
    // The umask may have taken bits away that were asked for.
    let set = fs::set_permissions(path, fs::Permissions::from_mode(mode));
    set.map_err(|error| failed("set the mode of", path, &error))?;
    Ok(Came::Changed)
}

fn file(path: &Path, text: &str, keeps: bool) -> Result<Came, Failure> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| failed("make", parent, &error))?;
    }
    match fs::read(path) {
        Ok(found) if found == text.as_bytes() => return Ok(Came::Same),
        Ok(_) if keeps => return Ok(Came::Kept),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("read", path, &error)),
    }
    let written = files::write_durably(path, text.as_bytes(), files::PUBLIC);
    written.map_err(|error| Failure::local(&error, ""))?;
    Ok(Came::Changed)
}

fn link(path: &Path, to: &Path) -> Result<Came, Failure> {
    if fs::read_link(path).is_ok_and(|found| found == to) {
        return Ok(Came::Same);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| failed("make", parent, &error))?;
    }
    std::os::unix::fs::symlink(to, path).map_err(|error| failed("make", path, &error))?;
    Ok(Came::Changed)
}

/// Puts the program that runs in its place. It is renamed into it, so that a process that runs the
/// one before goes on with that.
fn program(path: &Path) -> Result<Came, Failure> {
    // The file of this process, even if another has taken its name since.
    let own = Path::new("/proc/self/exe");
    let source = File::open(own).map_err(|error| failed("read", own, &error))?;
    if is_same(&source, path).map_err(|error| failed("read", path, &error))? {
        return Ok(Came::Same);
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(|error| failed("make", parent, &error))?;
    let beside = parent.join(format!(".yard.{}", std::process::id()));
    let placed = copy(&source, &beside).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = placed {
        // Nothing is left of what failed.
        let _ = fs::remove_file(&beside);
        return Err(failed("write", path, &error));
    }
    files::flush_folder(parent).map_err(|error| Failure::local(&error, ""))?;
    Ok(Came::Changed)
}

/// Whether a file has the bytes of another.
fn is_same(source: &File, path: &Path) -> io::Result<bool> {
    let mut found = match File::open(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let (a, b) = (source.metadata()?, found.metadata()?);
    if (a.dev(), a.ino()) == (b.dev(), b.ino()) {
        return Ok(true);
    }
    if a.len() != b.len() {
        return Ok(false);
    }
    let mut source = File::open("/proc/self/exe")?;
    let (mut left, mut right) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    loop {
        let count = source.read(&mut left)?;
        if count == 0 {
            return Ok(true);
        }
        found.read_exact(&mut right[..count])?;
        if left[..count] != right[..count] {
            return Ok(false);
        }
    }
}

fn copy(mut source: &File, to: &Path) -> io::Result<()> {
    let mut target = File::create(to)?;
    io::copy(&mut source, &mut target)?;
    target.set_permissions(fs::Permissions::from_mode(RUN))?;
    target.sync_all()
}
