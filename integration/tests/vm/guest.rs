//! One life of the machine.

use crate::image::{Image, run};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No story takes this long.
const PATIENCE: Duration = Duration::from_secs(900);
/// Lines of a story that are shown when it went wrong.
const TAIL_LINES: usize = 60;
/// What the machine says last.
const END: &str = "story: exit ";

/// A machine that is switched off.
pub(crate) struct Guest {
    image: &'static Image,
    work: TempDir,
}

/// How a story ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code; none: the machine did not come to its end.
    pub(crate) code: Option<i32>,
    lines: Vec<String>,
    console: String,
}

/// A process that does not outlive the test.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // One that has ended needs neither.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Guest {
    pub(crate) fn new(image: &'static Image) -> Guest {
        let work = tempfile::tempdir().expect("a folder can be made");
        fs::create_dir_all(work.path().join("files/story")).expect("one's own folder");
        Guest { image, work }
    }

    /// Gives it a program, without what debuggers need.
    pub(crate) fn give_program(&mut self, from: &Path, to: &Path) {
        let at = self.work.path().join("files").join(to.strip_prefix("/").expect("a whole path"));
        fs::create_dir_all(at.parent().expect("a file lies in a folder"))
            .expect("one's own folder");
        run(Command::new("strip").arg("-o").arg(&at).arg(from));
        fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).expect("one's own file");
    }

    /// Switches it on, has it tell a story, and waits until it has switched itself off.
    pub(crate) fn run(self, story: &str) -> Ended {
        let files = self.work.path().join("files");
        fs::write(files.join("story/story.sh"), story).expect("one's own file");
        let (disk, console) = (self.work.path().join("disk"), self.work.path().join("console"));
        run(Command::new("tar").arg("-cf").arg(&disk).arg("-C").arg(&files).arg("."));
        let mut machine = Machine(self.start(&disk, &console));
        let output = machine.0.stdout.take().expect("it was piped");
        let (sender, receiver) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            for line in lines.map(|line| line.trim_end_matches('\r').to_string()) {
                println!("    | {line}");
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let end = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        // The last line comes before the machine is off, and it need not be waited for.
        while !lines.last().is_some_and(|line: &String| line.starts_with(END)) {
            let left = end.saturating_duration_since(Instant::now());
            match receiver.recv_timeout(left) {
                Ok(line) => lines.push(line),
                Err(_) => break,
            }
        }
        drop(machine);
        let _ = reader.join();
        let code = lines.last().and_then(|line| line.strip_prefix(END)?.parse().ok());
        let console = fs::read(&console).unwrap_or_default();
        Ended { code, lines, console: String::from_utf8_lossy(&console).into_owned() }
    }

    fn start(&self, disk: &Path, console: &Path) -> Child {
        let image = self.image;
        // Emulated unless asked otherwise: it is there everywhere.
        let accel = std::env::var("YARD_VM_ACCEL").unwrap_or_else(|_| "tcg,thread=multi".into());
        let words = "console=ttyS0 quiet panic=-1 mitigations=off net.ifnames=0 \
                     systemd.show_status=false";
        // Its clock is that of this machine, and what it does takes ten times as long: it goes
        // before other work, or deadlines pass in it that no real machine would miss.
        Command::new("nice")
            .args(["-n", "-5", "qemu-system-x86_64"])
            .args(["-M", "q35", "-accel", &accel, "-cpu", "max", "-smp", "2", "-m", "1536"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args(["-serial", "stdio"])
            .arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&image.initrd)
            .args(["-append", words])
            .arg("-drive")
            // What it writes is gone when it is off.
            .arg(format!(
                "file={},format=raw,if=virtio,snapshot=on,cache=unsafe",
                image.disk.display()
            ))
            .arg("-drive")
            .arg(format!("file={},format=raw,if=virtio,readonly=on", disk.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("qemu: {error}; run scripts/test-vm"))
    }
}

impl Ended {
    /// The last that was heard.
    pub(crate) fn tail(&self) -> String {
        let last = |lines: &[&str]| lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        let said: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        let console: Vec<&str> = self.console.lines().collect();
        format!("--- story\n{}\n--- console\n{}", last(&said), last(&console))
    }
}
