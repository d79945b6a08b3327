//! One run of the setup.
//!
//! What it starts is in its process group, and, where there are control groups, in one of its
//! own. Its process group ends with it. After a failure all else that it started ends too; after a
//! success a daemon that left the process group stays.

use super::Site;
use super::output::Output;
use crate::driver::Remains;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, User, geteuid};
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use yard_common::limits::SETUP_KILL_MS;
use yard_core::command::Setup;

/// How long output is still taken after its end: a daemon may hold it open for ever.
const DRAIN: Duration = Duration::from_secs(1);
/// Between two looks at what is to end.
const LOOK: Duration = Duration::from_millis(10);
/// Waits to be let go, so that nothing of it is started before it is where it is found again.
const WORDS: &str = "read -r _ && exec /bin/bash -c \"$1\" setup </dev/null";

/// What is to be run.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) site: &'a Site,
    pub(super) number: u32,
    pub(super) setup: &'a Setup,
    pub(super) pool: &'a str,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Failed(Failure),
    /// It is not wanted any more.
    Cut,
}

/// How it failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// `exit code 3`.
    pub(super) how: String,
    /// Its last line, if it wrote any.
    pub(super) why: String,
}

impl Failure {
    fn of(how: impl Into<String>) -> Failure {
        Failure { how: how.into(), why: String::new() }
    }
}

/// The variable that all that it starts has in its environment.
fn mark(site: &Site, number: u32) -> String {
    format!("{MARK}={}", mark_value(site, number))
}

const MARK: &str = "YARD_SETUP_RUN";

fn mark_value(site: &Site, number: u32) -> String {
    format!("{}:{number}", site.paths.root().display())
}

fn tag(number: u32) -> String {
    format!("setup-{number}")
}

/// Ends all that a run has left.
pub(super) async fn end(site: &Site, number: u32) {
    let group = site.cgroups.find(&tag(number));
    let mut remains = Remains::new(group, mark(site, number), Vec::new());
    let late = Instant::now() + Duration::from_millis(SETUP_KILL_MS);
    loop {
        // It reads the environment of every process of the machine.
        let looked = tokio::task::spawn_blocking(move || {
            let ended = remains.kill();
            (remains, ended)
        });
        let (looked, ended) = looked.await.expect("looking at processes does not panic");
        if ended {
            return;
        }
        if Instant::now() >= late {
            tracing::warn!(run = number, "what a setup started does not end");
            return;
        }
        remains = looked;
        sleep(LOOK).await;
    }
}

impl Run<'_> {
    /// Runs to its end, or until `cut` is there.
    pub(super) async fn finish(self, cut: impl Future<Output = ()>) -> Outcome {
        let mut output = Output::begin(&self.site.paths, self.number).await;
        let (mut child, mut pipe) = match self.start().await {
            Ok(started) => started,
            Err(error) => return Outcome::Failed(Failure::of(format!("no start: {error}"))),
        };
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let time = Duration::from_millis(self.setup.timeout_ms);
        let ended = tokio::select! {
            ended = timeout(time, supervise(&mut child, &mut pipe, &mut output)) => Some(ended),
            () = cut => None,
        };
        // Unless it is gone already, and with it the number of its group.
        if let Some(group) = group.filter(|_| !matches!(ended, Some(Ok(Ok(_))))) {
            kill_group(group);
        }
        let failure = match ended {
            Some(Ok(Ok(status))) if status.success() => None,
            Some(Ok(Ok(status))) => Some(Failure { how: told(status), why: output.last_line() }),
            Some(Ok(Err(error))) => Some(Failure::of(format!("no end: {error}"))),
            Some(Err(_)) => {
                let how = format!("no end within {} s", self.setup.timeout_ms / 1_000);
                Some(Failure { how, why: output.last_line() })
            }
            None => {
                self.clear(&mut child).await;
                return Outcome::Cut;
            }
        };
        match failure {
            None => Outcome::Done,
            Some(failure) => {
                self.clear(&mut child).await;
                Outcome::Failed(failure)
            }
        }
    }

    /// Ends all of it.
    async fn clear(&self, child: &mut Child) {
        // It is killed: this does not take long.
        let _ = timeout(Duration::from_millis(SETUP_KILL_MS), child.wait()).await;
        end(self.site, self.number).await;
    }

    async fn start(&self) -> io::Result<(Child, pipe::Receiver)> {
        let (sender, receiver) = pipe::pipe()?;
        let out = sender.into_blocking_fd()?;
        let mut command = Command::new("/bin/bash");
        command.args(["-c", WORDS, "setup", &self.setup.command]);
        command.env_clear().envs(self.setup.variables.iter().map(|(name, value)| (name, value)));
        let own = [
            ("HOME", home()),
            ("PATH", self.site.options.path.clone()),
            ("LANG", "C.UTF-8".into()),
            ("YARD_NODE_NAME", self.site.node.clone()),
            ("YARD_POOL", self.pool.to_string()),
            (MARK, mark_value(self.site, self.number)),
        ];
        for (name, value) in own {
            // What the operator says of the first three wins; the others cannot be set.
            if !self.setup.variables.iter().any(|(set, _)| set == name) {
                command.env(name, value);
            }
        }
        command.current_dir("/").process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(out.try_clone()?).stderr(out);
        let mut child = command.spawn()?;
        // The command holds the writing end: output would never end.
        drop(command);
        if let Some(pid) = child.id() {
            self.settle(pid);
        }
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(b"go\n").await?;
        }
        Ok((child, receiver))
    }

    /// Puts the waiting process where all that it starts is found.
    fn settle(&self, pid: u32) {
        // The agent's own is low, and what it starts inherits that.
        let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), "0");
        self.site.cgroups.remove_empty(|name| name.starts_with("setup-"));
        let group = self.site.cgroups.find(&tag(self.number));
        let Some(at) = group.v2().or(group.v1().next()) else { return };
        let entered = fs::create_dir_all(at)
            .and_then(|()| fs::write(at.join("cgroup.procs"), pid.to_string()));
        if let Err(error) = entered {
            tracing::warn!(%error, group = %at.display(), "the setup has no control group");
        }
    }
}

/// The home of the agent's account.
fn home() -> String {
    let user = User::from_uid(geteuid()).ok().flatten();
    user.map_or_else(|| "/".to_string(), |user| user.dir.to_string_lossy().into_owned())
}

async fn supervise(
    child: &mut Child,
    pipe: &mut pipe::Receiver,
    output: &mut Output,
) -> io::Result<ExitStatus> {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let mut taking = Box::pin(output.take(pipe));
    let mut taken = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            () = &mut taking, if !taken => taken = true,
        }
    };
    // What is left of its process group ends with it, and its output with that.
    if let Some(group) = group {
        kill_group(group);
    }
    if !taken {
        let _ = timeout(DRAIN, taking).await;
    }
    Ok(status)
}

fn kill_group(group: Pid) {
    if let Err(errno) = killpg(group, Signal::SIGKILL)
        && errno != Errno::ESRCH
    {
        tracing::warn!(%errno, "processes of a setup are not killed");
    }
}

fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
