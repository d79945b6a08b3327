//! Running `yard`: always with an end, and with all that it said in the failure of a test.

use super::{LOOK, PATIENCE};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Instant;

/// A later version of the program.
pub(crate) fn next() -> PathBuf {
    env!("CARGO_BIN_EXE_yard-next").into()
}

/// The program: beside the folder of this test's own, unless `YARD_BIN` says otherwise.
pub(crate) fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("YARD_BIN") {
        return named.into();
    }
    let own = std::env::current_exe().expect("a process knows its program");
    // target/<profile>/deps/cluster-<hash>
    let profile = own.parent().and_then(Path::parent).expect("tests lie in a folder of a profile");
    let program = profile.join("yard");
    assert!(
        program.exists(),
        "{} is missing, and these tests run it: cargo build -p yard",
        program.display()
    );
    program
}

/// A command line.
pub(crate) struct Yard {
    command: Command,
    shown: String,
    input: Vec<u8>,
}

impl Yard {
    pub(crate) fn new<S: AsRef<OsStr>>(program: &Path, words: &[S]) -> Yard {
        let mut command = Command::new(program);
        command.args(words);
        // The settings of whoever runs the tests are not the test's.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"YARD_") {
                command.env_remove(name);
            }
        }
        let words: Vec<String> =
            words.iter().map(|word| word.as_ref().to_string_lossy().into_owned()).collect();
        Yard { command, shown: format!("yard {}", words.join(" ")), input: Vec::new() }
    }

    pub(crate) fn env(mut self, name: &str, value: &Path) -> Yard {
        self.command.env(name, value);
        self
    }

    pub(crate) fn directory(mut self, path: &Path) -> Yard {
        self.command.current_dir(path);
        self
    }

    /// Runs it by another program, which gets it with its words behind these.
    pub(crate) fn within(mut self, words: &[&str]) -> Yard {
        let shown = self.shown.clone();
        let own = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        let own: Vec<OsString> = own.map(OsStr::to_os_string).collect();
        self = self.replaced(words);
        self.command.args(own);
        Yard { shown, ..self }
    }

    /// Runs this in its place, with all that is set for it.
    pub(crate) fn replaced(mut self, words: &[&str]) -> Yard {
        let mut other = Command::new(words[0]);
        other.args(&words[1..]);
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => other.env(name, value),
                None => other.env_remove(name),
            };
        }
        if let Some(directory) = self.command.get_current_dir() {
            other.current_dir(directory);
        }
        self.command = other;
        self.shown = words.join(" ");
        self
    }

    /// What it reads from standard input.
    pub(crate) fn input(mut self, input: &str) -> Yard {
        self.input = input.into();
        self
    }

    /// Starts it, and lets it run.
    pub(crate) fn spawn(mut self) -> Running {
        let input = std::mem::take(&mut self.input);
        let mut running = self.start();
        let mut stdin = running.child.stdin.take().expect("it was piped");
        // A program that does not read it may have ended; what it said counts.
        let _ = stdin.write_all(&input);
        running
    }

    fn start(mut self) -> Running {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("yard can be started");
        let out = gather(child.stdout.take().expect("it was piped"));
        let err = gather(child.stderr.take().expect("it was piped"));
        Running { child, out: Some(out), err: Some(err), shown: self.shown }
    }

    /// Starts it, and writes to it on a thread: it may not read.
    pub(crate) fn spawn_writing(mut self) -> Running {
        let input = std::mem::take(&mut self.input);
        let mut running = self.start();
        let mut stdin = running.child.stdin.take().expect("it was piped");
        std::thread::spawn(move || drop(stdin.write_all(&input)));
        running
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Ran {
        self.spawn().end()
    }

    /// Runs it; it must succeed.
    pub(crate) fn ok(self) -> Ran {
        self.exits(0)
    }

    /// Runs it; it must end with this code.
    pub(crate) fn exits(self, code: i32) -> Ran {
        let ran = self.run();
        assert_eq!(ran.code, code, "{ran}");
        ran
    }
}

/// Reads to the end, on a thread of its own: nobody may block on a full pipe.
fn gather(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is what there is to show.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// One that runs. It does not outlive the test.
pub(crate) struct Running {
    child: Child,
    out: Option<JoinHandle<String>>,
    err: Option<JoinHandle<String>>,
    shown: String,
}

impl Running {
    /// The id of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it takes too long.
    pub(crate) fn end(mut self) -> Ran {
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            if Instant::now() > end {
                let _ = self.child.kill();
                let (out, err) = self.said();
                panic!("{} takes longer than {PATIENCE:?}\n{out}{err}", self.shown);
            }
            std::thread::sleep(LOOK);
        };
        let (out, err) = self.said();
        // A signal has no code; no test expects one.
        Ran { code: status.code().unwrap_or(-1), out, err, shown: self.shown.clone() }
    }

    /// Its code, if it has ended.
    pub(crate) fn has_ended(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("a child can be waited for")?;
        Some(status.code().unwrap_or(-1))
    }

    fn said(&mut self) -> (String, String) {
        let text = |thread: &mut Option<JoinHandle<String>>| {
            thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
        };
        (text(&mut self.out), text(&mut self.err))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `end` it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    shown: String,
}

impl Ran {
    /// The document that it printed.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    /// Each of these is somewhere on its standard error.
    pub(crate) fn says(&self, parts: &[&str]) -> &Ran {
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not on the standard error of {self}");
        }
        self
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ran { code, out, err, shown } = self;
        write!(f, "{shown}\nended with {code}\n--- out\n{out}--- err\n{err}---")
    }
}
