//! Programs that people run beside the ranks: `yard exec`.
//!
//! The agent connects to `visit.sock`, sends the program's files and then what it wants. The shim
//! starts the program as it starts a rank: as the job's user, in the groups and the directory of
//! the assignment. So it ends with the assignment, and whatever counts or limits the ranks counts
//! it too. When the connection ends, the program is hung up.

use super::message::{VisitProgram, VisitReply, VisitRequest};
use super::run::Shim;
use super::task::start_on;
use crate::lease_file::LeaseFile;
use crate::process;
use crate::sys::{self, Standing, WaitStatus};
use crate::wire::{Wire, is_trusted};
use nix::libc;
use nix::poll::{PollFd, PollFlags};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use yard_common::limits::{VISIT_WORDS_MAX, VISITS_MAX};

/// How long a program has to end after it was hung up.
const HANG_UP_MS: u64 = 2_000;

/// Who visits.
#[derive(Default)]
pub(super) struct Visits {
    listener: Option<UnixListener>,
    visitors: Vec<Visitor>,
    /// Sessions of programs that were started: what they leave behind is in them.
    sessions: BTreeSet<i32>,
}

/// One connection, or what is left of it.
enum Visitor {
    /// The files have not come.
    Comes(UnixStream),
    /// It has not said what it wants.
    Asks(Wire, Vec<OwnedFd>),
    /// Its program runs.
    Runs(Wire, i32),
    /// It is gone, and its program was hung up: killed at this time, if it is still there.
    Leaves(i32, Option<u64>),
    /// It has heard all.
    Done(Wire),
}

impl Visits {
    /// Those that come through this listener.
    pub(super) fn new(listener: UnixListener) -> Visits {
        Visits { listener: Some(listener), ..Visits::default() }
    }

    /// Adds what to poll.
    pub(super) fn add_to<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let mut add = |fd, flags| fds.push(PollFd::new(fd, flags));
        if let Some(listener) = &self.listener {
            add(listener.as_fd(), PollFlags::POLLIN);
        }
        for visitor in &self.visitors {
            match visitor {
                Visitor::Comes(stream) => add(stream.as_fd(), PollFlags::POLLIN),
                Visitor::Asks(wire, _) | Visitor::Runs(wire, _) | Visitor::Done(wire) => {
                    let waits = wire.is_waiting();
                    let out = if waits { PollFlags::POLLOUT } else { PollFlags::empty() };
                    add(wire.fd(), PollFlags::POLLIN | out);
                }
                Visitor::Leaves(..) => {}
            }
        }
    }

    /// When a program that was hung up is to be killed.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let due = self.visitors.iter().filter_map(|visitor| match visitor {
            Visitor::Leaves(_, kill_at_ms) => *kill_at_ms,
            _ => None,
        });
        due.min()
    }

    /// Whether a session is that of a visitor's program.
    pub(super) fn has_session(&self, session: i32) -> bool {
        self.sessions.contains(&session)
    }

    /// A process has ended; if it was a visitor's program, the visitor hears how.
    pub(super) fn on_ended(&mut self, pid: i32, status: WaitStatus) {
        let is = |visitor: &Visitor| match visitor {
            Visitor::Runs(_, of) | Visitor::Leaves(of, _) => *of == pid,
            Visitor::Comes(_) | Visitor::Asks(..) | Visitor::Done(_) => false,
        };
        let Some(at) = self.visitors.iter().position(is) else { return };
        let code = match status {
            WaitStatus::Exited(code) => code,
            WaitStatus::Signaled(signal) => 128 + signal,
        };
        if let Visitor::Runs(mut wire, _) = self.visitors.swap_remove(at) {
            // Whoever has gone does not need it.
            let _ = wire.send(&VisitReply::Ended(code));
            self.visitors.push(Visitor::Done(wire));
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok((stream, _)) = listener.accept() {
            let is_welcome = is_trusted(&stream, None) && stream.set_nonblocking(true).is_ok();
            if is_welcome && self.visitors.len() < VISITS_MAX {
                self.visitors.push(Visitor::Comes(stream));
            }
        }
    }
}

impl Shim {
    /// Hears who visits.
    pub(super) fn listen_to_visitors(&mut self) {
        self.visits.accept();
        for visitor in std::mem::take(&mut self.visits.visitors) {
            let visitor = self.hear_visitor(visitor);
            self.visits.visitors.extend(visitor);
        }
    }

    /// What becomes of a visitor.
    fn hear_visitor(&mut self, visitor: Visitor) -> Option<Visitor> {
        match visitor {
            Visitor::Comes(stream) => {
                let mut byte = [0];
                match sys::receive_files(stream.as_fd(), &mut byte) {
                    Ok((1, files)) => {
                        self.hear_visitor(Visitor::Asks(Wire::new(stream).ok()?, files))
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        Some(Visitor::Comes(stream))
                    }
                    Ok(_) | Err(_) => None,
                }
            }
            Visitor::Asks(mut wire, files) => {
                match wire.receive::<VisitRequest>().ok()?.into_iter().next() {
                    Some(request) => Some(self.receive_visitor(wire, files, &request)),
                    None => Some(Visitor::Asks(wire, files)),
                }
            }
            Visitor::Runs(mut wire, pid) => {
                let heard = wire.flush().and_then(|()| wire.receive::<VisitRequest>());
                if heard.is_ok() {
                    return Some(Visitor::Runs(wire, pid));
                }
                // The program leads a session, and so a group: what it started hears it too.
                process::send(-pid, libc::SIGHUP);
                Some(Visitor::Leaves(pid, Some(sys::boot_ms() + HANG_UP_MS)))
            }
            Visitor::Leaves(pid, Some(at_ms)) if sys::boot_ms() >= at_ms => {
                process::send(-pid, libc::SIGKILL);
                Some(Visitor::Leaves(pid, None))
            }
            Visitor::Done(mut wire) => {
                let heard = wire.flush().and_then(|()| wire.receive::<VisitRequest>());
                heard.is_ok().then_some(Visitor::Done(wire))
            }
            leaves @ Visitor::Leaves(..) => Some(leaves),
        }
    }

    fn receive_visitor(
        &mut self,
        mut wire: Wire,
        files: Vec<OwnedFd>,
        request: &VisitRequest,
    ) -> Visitor {
        let (reply, pid) = match request {
            VisitRequest::Members => (VisitReply::Members(self.members()), None),
            VisitRequest::Run(program) => match self.run_beside(program, files) {
                Ok(pid) => (VisitReply::Started, Some(pid)),
                Err(problem) => (VisitReply::Refused(problem), None),
            },
            VisitRequest::Checkpoint(tasks) => match self.ask_for_checkpoint(*tasks, "user") {
                Ok(count) => (VisitReply::Asked(count), None),
                Err(problem) => (VisitReply::Refused(problem), None),
            },
        };
        // One that has gone is noticed at the next look.
        let _ = wire.send(&reply);
        match pid {
            Some(pid) => Visitor::Runs(wire, pid),
            None => Visitor::Done(wire),
        }
    }

    /// Every process of the assignment.
    fn members(&self) -> Vec<i32> {
        let group = self.work.as_ref().map(|work| work.plan.group.members());
        let all = process::descendants(std::process::id() as i32);
        all.into_iter()
            .chain(group.unwrap_or_default())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    fn run_beside(&mut self, program: &VisitProgram, files: Vec<OwnedFd>) -> Result<i32, String> {
        let files = <[OwnedFd; 3]>::try_from(files)
            .map_err(|files| format!("{} files came instead of three", files.len()))?;
        if program.words.len() > VISIT_WORDS_MAX {
            return Err(format!("{} words; at most {VISIT_WORDS_MAX}", program.words.len()));
        }
        let (Some(running), Some(work)) = (&self.running, &self.work) else {
            return Err("its ranks do not run at present".into());
        };
        let now = work.orders.chain.tasks().nth(running.position as usize);
        if now != Some((program.task, program.attempt)) {
            return Err("this attempt of the task does not run at present".into());
        }
        if self.history.signalled || self.history.killing.is_some() || self.is_killing {
            return Err("the attempt is being stopped on this node".into());
        }
        let term = program.term.as_deref();
        let process = running.plan.visitor(&work.plan, program.local_rank, &program.words, term);
        let process = process.map_err(|error| error.to_string())?;
        let strict_ms = self.lease.as_ref().and_then(LeaseFile::read).map_or(0, |l| l.strict_ms);
        let standing = match program.on_terminal {
            true => Standing::Terminal,
            false => Standing::Session,
        };
        let [input, output, errors] = &files;
        let stdio = [input.as_fd(), output.as_fd(), errors.as_fd()];
        let started = start_on(&work.plan, &process, stdio, standing, strict_ms);
        let name = process.words.first().map(|word| word.to_string_lossy().into_owned());
        let pid = started.map_err(|error| {
            let why = io::Error::from_raw_os_error(error.errno);
            format!("{} did not start ({:?}): {why}", name.unwrap_or_default(), error.step)
        })?;
        let living: BTreeSet<i32> =
            self.living().into_iter().filter_map(|pid| Some(process::fact(pid)?.session)).collect();
        self.visits.sessions.retain(|session| living.contains(session));
        self.visits.sessions.insert(pid);
        Ok(pid)
    }
}
