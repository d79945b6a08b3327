//! The root file system of the machine: Debian, made of its packages, kept for the next run.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The release; libraries must be no older than those that the program was linked with.
const SUITE: &str = "bookworm";
const PACKAGES: &str = "linux-image-cloud-amd64,systemd,systemd-sysv,dbus,kmod,iproute2,procps,\
                        passwd,nftables,python3,strace,nfs-kernel-server";
/// Drivers that it takes to find the disk.
const DRIVERS: [&str; 2] = ["virtio_pci", "virtio_blk"];
/// Services that take time to start, and that no story needs.
const MASKED: [&str; 20] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "getty-static.service",
    "nfs-blkmap.service",
    "nfs-client.target",
    "nfs-server.service",
    "rpc-statd-notify.service",
    "rpcbind.service",
    "rpcbind.socket",
    "serial-getty@ttyS0.service",
    "systemd-logind.service",
    "systemd-networkd-wait-online.service",
    "systemd-pstore.service",
    "systemd-timesyncd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd.service",
];
/// What starts the machine.
const INIT: &str = "\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for driver in $(/bin/busybox cat /drivers/order); do
  /bin/busybox insmod /drivers/$driver
done
until [ -b /dev/vda ]; do /bin/busybox usleep 50000; done
/bin/busybox mount -t ext4 /dev/vda /new
/bin/busybox mount --move /dev /new/dev
exec /bin/busybox switch_root /new /sbin/init
";
/// What tells the story, once the machine is up, and then switches it off.
const STORY: &str = "\
[Unit]
Description=The story
After=basic.target

[Service]
Type=oneshot
Environment=HOME=/root LANG=C.UTF-8
WorkingDirectory=/root
TimeoutStartSec=infinity
ExecStart=/bin/bash -c 'exec >/dev/ttyS1 2>&1; tar -xf /dev/vdb -C / && bash /story/story.sh; \
echo \"story: exit $?\"; sync; systemctl poweroff --force --force'
";

/// A file system with the kernel that goes with it.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(crate) disk: PathBuf,
}

impl Image {
    /// The image, which is made if this is the first time.
    pub(crate) fn made() -> &'static Image {
        static MADE: OnceLock<Image> = OnceLock::new();
        MADE.get_or_init(|| {
            let folder =
                Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("vm-{:016x}", recipe()));
            if !folder.exists() {
                make(&folder);
            }
            Image {
                kernel: folder.join("kernel"),
                initrd: folder.join("initrd"),
                disk: folder.join("disk"),
            }
        })
    }
}

/// Another recipe makes another image.
fn recipe() -> u64 {
    let mut hasher = DefaultHasher::new();
    (SUITE, PACKAGES, DRIVERS, MASKED, INIT, STORY).hash(&mut hasher);
    hasher.finish()
}

/// Makes the image beside its place, and puts it there when it is whole.
fn make(folder: &Path) {
    let parent = folder.parent().expect("it lies in a folder");
    let work = tempfile::tempdir_in(parent).expect("a folder can be made");
    let tree = work.path().join("tree");
    println!("making the image of the machine, once: {}", folder.display());
    run(Command::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase", "--include", PACKAGES])
        // The kernel's own start-up files are not used.
        .arg("--essential-hook=mkdir -p $1/etc/initramfs-tools/conf.d")
        .arg("--essential-hook=echo MODULES=list >$1/etc/initramfs-tools/conf.d/story")
        .arg("--customize-hook=rm -rf $1/var/cache/apt $1/var/lib/apt/lists $1/usr/share/doc")
        .arg(SUITE)
        .arg(&tree));
    let (made, version) = (work.path().join("made"), kernel_version(&tree));
    fs::create_dir(&made).expect("one's own folder");
    let kernel = tree.join(format!("boot/vmlinuz-{version}"));
    fs::copy(kernel, made.join("kernel")).expect("the package has a kernel");
    initrd(&tree, &version, work.path(), &made.join("initrd"));
    furnish(&tree);
    let size = run(Command::new("du").arg("-sm").arg(&tree));
    let size: u64 = size.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(1_024);
    run(Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"])
        .arg(&tree)
        .arg(made.join("disk"))
        .arg(format!("{}M", size * 13 / 10 + 1_024)));
    fs::rename(&made, folder).expect("both lie in one folder");
}

fn kernel_version(tree: &Path) -> String {
    let found = fs::read_dir(tree.join("lib/modules")).expect("the kernel has modules").flatten();
    let version = found.map(|entry| entry.file_name()).next().expect("there is one kernel");
    version.to_string_lossy().into_owned()
}

/// The small file system from which the kernel finds the disk.
fn initrd(tree: &Path, version: &str, work: &Path, to: &Path) {
    let at = work.join("initrd");
    for folder in ["bin", "dev", "new", "drivers"] {
        fs::create_dir_all(at.join(folder)).expect("one's own folder");
    }
    fs::copy("/bin/busybox", at.join("bin/busybox")).expect("busybox is installed");
    fs::write(at.join("init"), INIT).expect("one's own file");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(at.join("init"), mode).expect("one's own file");
    let mut order = Vec::new();
    for driver in DRIVERS {
        let needs = run(Command::new("modprobe").arg("-d").arg(tree).args([
            "-S",
            version,
            "--show-depends",
            driver,
        ]));
        let files = needs.lines().filter_map(|line| line.strip_prefix("insmod "));
        for file in files.map(|file| PathBuf::from(file.trim())) {
            let name = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
            if !order.contains(&name) {
                fs::copy(&file, at.join("drivers").join(&name)).expect("the module is there");
                order.push(name);
            }
        }
    }
    fs::write(at.join("drivers/order"), order.join("\n")).expect("one's own file");
    let pack = "find . | cpio -o -H newc --quiet | gzip -1 >\"$0\"";
    run(Command::new("sh").args(["-c", pack]).arg(to).current_dir(&at));
}

/// Puts in what makes a machine of it that tells a story.
fn furnish(tree: &Path) {
    let units = tree.join("etc/systemd/system");
    let wanted = units.join("multi-user.target.wants");
    fs::create_dir_all(&wanted).expect("one's own tree");
    let write = |path: &str, text: &str| fs::write(tree.join(path), text).expect("one's own tree");
    write("etc/systemd/system/story.service", STORY);
    write("etc/hostname", "head\n");
    write("etc/hosts", "127.0.0.1 localhost head\n");
    write("etc/fstab", "");
    // Without one the machine asks who it is.
    write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    let link = wanted.join("story.service");
    symlink("/etc/systemd/system/story.service", link).expect("one's own tree");
    for unit in MASKED {
        let at = units.join(unit);
        let _ = fs::remove_file(&at);
        symlink("/dev/null", at).expect("one's own tree");
    }
    for gone in ["boot", "dev"] {
        let _ = fs::remove_dir_all(tree.join(gone));
        fs::create_dir(tree.join(gone)).expect("one's own tree");
    }
}

/// Runs a program that must succeed, and returns what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let ran = command.stdin(Stdio::null()).output();
    let ran = ran.unwrap_or_else(|error| panic!("{shown}: {error}; run scripts/test-vm"));
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{shown}: {said}");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}
