//! Real machines: Debian with systemd in a virtual machine, where the program is installed as the
//! documentation says, and then disturbed as machines are.
//!
//! The machine is emulated, so that nothing is asked of the one that runs the tests but root. It
//! takes minutes, and is therefore run by `scripts/test-vm` alone.
//!
//! | module | what it holds |
//! |---|---|
//! | `image` | the root file system of the machine, made once of Debian packages |
//! | `guest` | one life of the machine: what it is given, what it says, how it ends |
//! | `page` | the commands of the documentation |
//! | `scenes/` | what is done in the machine |

mod guest;
mod image;
mod page;

use guest::Guest;
use image::Image;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is done in the machine has these in common.
const COMMON: &str = include_str!("scenes/lib.sh");
/// The section of the page with which there is a cluster.
const COORDINATOR: &str = "The coordinator";
/// The section of the page with which machines come into play that must be heard in time.
const NODES: &str = "The nodes";
/// The section that undoes what stands before it.
const UNDO: &str = "Taking it away";

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate lies in the repository")
}

/// Where programs of this profile lie.
fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a process knows its program");
    let profile = own.parent().and_then(Path::parent).expect("tests lie in a folder of a profile");
    let program = profile.join(name);
    assert!(program.exists(), "{} is missing: run scripts/test-vm", program.display());
    program
}

/// The program of the agent's own tests, which `scripts/test-vm` has built.
fn machine_tests() -> PathBuf {
    let words = ["test", "--workspace", "--lib", "--bins", "--tests", "--no-run"];
    let ran = Command::new(env!("CARGO"))
        .args(words)
        .args(["--message-format", "json"])
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be run");
    let said = String::from_utf8_lossy(&ran.stdout);
    let found = said.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let named = message["target"]["name"] == "machine" && message["profile"]["test"] == true;
        message["executable"].as_str().filter(|_| named).map(PathBuf::from)
    });
    found.last().expect("cargo says where it put the tests")
}

#[test]
fn a_machine_is_installed_disturbed_and_cleaned_as_documented() {
    let page = page::read(&root().join("docs/install.md"));
    assert!(page.len() >= 6, "only {} blocks of commands were found", page.len());
    let at = |name: &str| {
        let found = page.iter().position(|block| block.section == name);
        found.unwrap_or_else(|| panic!("there is no section {name:?}"))
    };
    let (nodes, undo) = (at(NODES), at(UNDO));
    let story = [
        COMMON.to_string(),
        include_str!("scenes/machine.sh").to_string(),
        page::script(&page[..nodes]),
        include_str!("scenes/coordinator.sh").to_string(),
        page::script(&page[nodes..undo]),
        include_str!("scenes/supervision.sh").to_string(),
        page::script(&page[undo..]),
        include_str!("scenes/after.sh").to_string(),
    ];
    let mut guest = Guest::new(Image::made());
    guest.give_program(&built("yard"), Path::new("/story/yard"));
    let ended = guest.run(&story.join("\n"));
    assert_eq!(ended.code, Some(0), "{}", ended.tail());
}

#[test]
fn limits_of_version_2_hold() {
    let (tests, host) = (machine_tests(), built("yard-agent-host"));
    let mut guest = Guest::new(Image::made());
    guest.give_program(&tests, Path::new("/story/machine"));
    // Its place is compiled into the tests.
    guest.give_program(&host, &host);
    let story = [COMMON, include_str!("scenes/limits.sh")].join("\n");
    let ended = guest.run(&story);
    assert_eq!(ended.code, Some(0), "{}", ended.tail());
}

#[test]
fn output_arrives_on_a_share_whatever_becomes_of_its_server() {
    let page = page::read(&root().join("docs/install.md"));
    let section = |name: &str| {
        let found: Vec<_> = page.iter().filter(|block| block.section == name).cloned().collect();
        assert!(!found.is_empty(), "there is no section {name:?}");
        page::script(&found)
    };
    let story = [
        COMMON.to_string(),
        include_str!("scenes/machine.sh").to_string(),
        section(COORDINATOR),
        include_str!("scenes/coordinator.sh").to_string(),
        section(NODES),
        include_str!("scenes/share.sh").to_string(),
    ];
    let mut guest = Guest::new(Image::made());
    guest.give_program(&built("yard"), Path::new("/story/yard"));
    let ended = guest.run(&story.join("\n"));
    assert_eq!(ended.code, Some(0), "{}", ended.tail());
}
