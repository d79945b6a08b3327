//! What a job reads and writes: mounts, inputs, outputs, logs.

use super::declare::{record, words};
use super::json::Json;
use super::problem::Issue;
use super::scalar::Count;
use super::text::{AbsPath, AnyPath, Ident, Name, RelPath};
use super::time::DurationMs;
use super::tree::{Node, Value};
use super::walk::{Detail, MapView, Part, Scalar, Walk, long_form};
use crate::{Bytes, ErrorCode};
use std::collections::BTreeMap;

record! {
    /// A volume for this job: a named one of the workspace, or an NFS export.
    pub struct Mount check check_mount {
        /// The volume's name in the workspace.
        name: Option<Name> = None,
        /// An NFS export instead.
        nfs: Option<NfsExport> = None,
        /// Where it appears; relative: below `YARD_JOB_MOUNT_ROOT`.
        path: AnyPath,
        /// A directory of the volume instead of the whole.
        sub: Option<RelPath> = None,
        /// Whether writing is refused.
        read_only: bool = false,
        /// How it is mounted.
        options: NfsOptions = NfsOptions::NONE,
    }
}

/// Directories that nothing may be mounted over.
const SYSTEM_DIRECTORIES: [&str; 14] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys",
    "/tmp", "/usr", "/var",
];

fn check_mount(value: &Mount, map: &MapView<'_>, walk: &mut Walk<'_>) {
    let at = map.get("path").map_or(map.at, |node| &node.at);
    let issue = match (&value.name, &value.nfs) {
        (Some(_), Some(_)) => {
            let fix = "keep name or nfs";
            Some(Issue::new(ErrorCode::Conflict, "a mount has one source", fix))
        }
        (None, None) if !map.has("name") && !map.has("nfs") => {
            let fix = "add name: a volume of the workspace, or nfs: server:/export";
            Some(Issue::new(ErrorCode::FieldMissing, "the mount has no source", fix))
        }
        (Some(_), None) if value.options != NfsOptions::NONE => {
            let message = "a named volume has its options in its own definition";
            Some(Issue::new(ErrorCode::Conflict, message, "leave options out"))
        }
        _ => None,
    };
    if let Some(issue) = issue {
        walk.report(map.at, String::new(), issue);
    }
    let path = normal(value.path.as_str());
    let hides_system =
        path == "/" || SYSTEM_DIRECTORIES.iter().any(|dir| is_below(&path, dir) && !is_data(&path));
    if hides_system {
        let message = "this would hide a directory of the system";
        let issue = Issue::new(ErrorCode::BadPath, message, "mount below /mnt, or /data");
        walk.within("path", |walk| walk.report(at, value.path.to_string(), issue));
    }
}

/// Directories of data below those of the system.
fn is_data(path: &str) -> bool {
    ["/run/media/", "/tmp/", "/var/lib/", "/var/data/"].iter().any(|data| path.starts_with(data))
}

/// The path without empty parts and dots.
pub(crate) fn normal(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

/// Whether a path is a directory or lies below it. Both are normal.
pub(crate) fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Server and path of an NFS export: `10.0.0.4:/x`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NfsExport {
    /// A host name or an address, IPv6 in brackets.
    pub server: String,
    /// The exported path.
    pub path: AbsPath,
}

impl Scalar for NfsExport {
    const WHAT: &'static str = "an NFS export such as 10.0.0.4:/data";

    fn parse(text: &str) -> Result<NfsExport, Issue> {
        let issue = |message: &str| {
            Issue::new(ErrorCode::BadPath, message, "write server:/path, such as 10.0.0.4:/data")
        };
        let (server, path) = text.split_once(":/").ok_or_else(|| issue("this is no NFS export"))?;
        let address = server.strip_prefix('[').and_then(|s| s.strip_suffix(']'));
        let legal = match address {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
                (1..=253).contains(&server.len())
                    && server.bytes().all(inner)
                    && !server.starts_with(['-', '.'])
            }
        };
        if !legal {
            return Err(issue("this is no legal server"));
        }
        Ok(NfsExport { server: server.into(), path: AbsPath::parse(&format!("/{path}"))? })
    }

    fn print(&self) -> Json {
        Json::Text(format!("{}:{}", self.server, self.path))
    }
}

words! {
    /// A version of NFS.
    pub enum NfsVersion("a version of NFS") {
        /// Version 3.
        V3 = "3",
        /// Version 4.0.
        V4 = "4.0",
        /// Version 4.1.
        V41 = "4.1",
        /// Version 4.2.
        V42 = "4.2",
    }
}

record! {
    /// Options of an NFS mount. A closed list: `nosuid` and `nodev` always hold.
    pub struct NfsOptions {
        /// The version; none: the highest that both sides know.
        version: Option<NfsVersion> = None,
        /// Connections to the server; none: one.
        nconnect: Option<Count<1, 16>> = None,
    }
}

impl NfsOptions {
    /// None.
    pub const NONE: NfsOptions = NfsOptions { version: None, nconnect: None };
}

record! {
    /// A named input; its directory is in `YARD_INPUT_<ID>`.
    pub struct Input short "path" {
        /// Where it is; relative: below the workspace's default storage.
        path: AnyPath,
        /// Whether each node copies it to its own disk.
        cache: bool = false,
        /// Whether the job also runs without it.
        optional: bool = false,
    }
}

/// A named output; its directory is in `YARD_OUTPUT_<ID>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Below the workspace's default storage.
    Default,
    /// `under/<the job's segment>/suffix`, created for the job.
    Under {
        /// Relative: below the workspace's default storage.
        under: AnyPath,
        /// Below the job's segment.
        suffix: Option<RelPath>,
    },
    /// Exactly this directory, created when it is not there.
    Path(AnyPath),
}

record! {
    /// The mapping form of an [`Output`].
    pub struct OutputForm {
        /// See [`Output::Under`].
        under: Option<AnyPath> = None,
        /// See [`Output::Under`].
        suffix: Option<RelPath> = None,
        /// See [`Output::Path`].
        path: Option<AnyPath> = None,
    }
}

impl Part for Output {
    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<Output> {
        if matches!(node.value, Value::Scalar(..)) && !node.is_null() {
            let under = AnyPath::read(node, walk)?;
            return Some(Output::Under { under, suffix: None });
        }
        let OutputForm { under, suffix, path } = OutputForm::read(node, walk)?;
        let issue = match (under, suffix, path) {
            (None, None, None) => return Some(Output::Default),
            (None, None, Some(path)) => return Some(Output::Path(path)),
            (Some(under), suffix, None) => return Some(Output::Under { under, suffix }),
            (None, Some(_), None) => {
                let fix = "add under: the directory above the job's own";
                Issue::new(ErrorCode::FieldMissing, "suffix needs under", fix)
            }
            (_, _, Some(_)) => {
                let fix = "keep path, or under and suffix";
                Issue::new(ErrorCode::Conflict, "path is the whole path by itself", fix)
            }
        };
        walk.refuse(node, issue);
        None
    }

    fn write(&self, detail: Detail) -> Json {
        let form = |under: Option<&AnyPath>, suffix: &Option<RelPath>, path: Option<&AnyPath>| {
            let (under, path) = (under.cloned(), path.cloned());
            OutputForm { under, suffix: suffix.clone(), path }.write(Detail::Changed)
        };
        match self {
            Output::Default => form(None, &None, None),
            Output::Under { under, suffix: None } => under.write(detail),
            Output::Under { under, suffix } => form(Some(under), suffix, None),
            Output::Path(path) => form(None, &None, Some(path)),
        }
    }
}

/// The outputs of a job by id; a list of ids gives each the default place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outputs(pub BTreeMap<Ident, Output>);

impl Part for Outputs {
    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<Outputs> {
        if !matches!(node.value, Value::List(_)) {
            return BTreeMap::read(node, walk).map(Outputs);
        }
        let ids: Vec<Ident> = Vec::read(node, walk)?;
        Some(Outputs(ids.into_iter().map(|id| (id, Output::Default)).collect()))
    }

    fn write(&self, detail: Detail) -> Json {
        self.0.write(detail)
    }
}

record! {
    /// Where output of ranks is kept, and how much of it.
    pub struct Logs {
        /// A directory that gets a copy; none: on the nodes and with the cluster only.
        dir: Option<AbsPath> = None,
        /// Bytes of one rank; the middle is left out beyond it.
        max_per_rank: Bytes = Logs::DEFAULT.max_per_rank,
        /// How long they are kept after the end.
        keep: DurationMs = Logs::DEFAULT.keep,
    }
}

impl Logs {
    /// 1 GiB for each rank, for 14 days.
    pub const DEFAULT: Logs =
        Logs { dir: None, max_per_rank: Bytes(1 << 30), keep: DurationMs::days(14) };
}
