//! Directories of a job, copied here with all that they hold.
//!
//! **Invariant:** the machine is believed its bytes, and not its names: what is written lies in the
//! directory that was named here.

use super::files::{entries, fetch};
use crate::failure::{Failure, exit};
use crate::output::say;
use crate::session::Session;
use crate::text;
use std::io;
use std::path::Path;
use yard_common::limits::{FILES_COPIED_MAX, FILES_DEPTH_MAX};
use yard_proto::v1;

/// Whether a place is a directory. What is neither that nor a file is told when it is read.
pub(super) async fn is_directory(
    session: &Session,
    place: &v1::FilePlace,
) -> Result<bool, Failure> {
    if place.path.is_empty() {
        return Ok(true);
    }
    let page = Some(v1::Page { size: 1, ..v1::Page::default() });
    let request = v1::ListFilesRequest { place: Some(place.clone()), page };
    match session.client.list_files(request).await.map_err(Failure::from) {
        Ok(_) => Ok(true),
        // A file is none, and neither is what is not there.
        Err(failure) if failure.exit == exit::NOT_FOUND => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// What was copied.
#[derive(Debug, Default)]
struct Count {
    files: usize,
    folders: usize,
    bytes: u64,
    /// Links, and what is neither file nor directory.
    left_out: usize,
    failed: usize,
}

/// Copies a directory. Links are left out: they lead wherever the job likes.
pub(super) async fn get(session: &Session, place: v1::FilePlace, to: &Path) -> Result<u8, Failure> {
    let mut count = Count::default();
    let mut open = vec![(place, to.to_path_buf(), 0)];
    while let Some((place, to, depth)) = open.pop() {
        let local =
            |error: io::Error| Failure::local(&error, format!("can {} be written?", to.display()));
        std::fs::create_dir_all(&to).map_err(local)?;
        count.folders += 1;
        let Some(entries) = unless_lost(entries(session, &place).await, &place, &mut count)? else {
            continue;
        };
        for entry in entries {
            if !is_name(&entry.name) {
                count.left_out += 1;
                continue;
            }
            if count.files + count.folders + open.len() >= FILES_COPIED_MAX {
                let message = format!("more than {FILES_COPIED_MAX} files and directories");
                return Err(Failure::usage(message, "copy its directories one by one"));
            }
            let (below, to) = (inside(&place, &entry.name), to.join(&entry.name));
            match entry.kind() {
                v1::FileKind::Directory if depth >= FILES_DEPTH_MAX => count.left_out += 1,
                v1::FileKind::Directory => open.push((below, to, depth + 1)),
                v1::FileKind::File => copy(session, below, &to, &mut count).await?,
                v1::FileKind::Link | v1::FileKind::Other | v1::FileKind::Unspecified => {
                    count.left_out += 1;
                }
            }
        }
    }
    tell(to, &count);
    Ok(if count.failed > 0 { exit::REFUSED } else { 0 })
}

async fn copy(
    session: &Session,
    place: v1::FilePlace,
    to: &Path,
    count: &mut Count,
) -> Result<(), Failure> {
    let fetched = fetch(session, place.clone(), to).await;
    if let Some(len) = unless_lost(fetched, &place, count)? {
        count.files += 1;
        count.bytes = count.bytes.saturating_add(len);
    }
    Ok(())
}

/// What cannot be had of one file is no reason to leave the others: it went meanwhile, or its user
/// may not read it.
fn unless_lost<T>(
    outcome: Result<T, Failure>,
    place: &v1::FilePlace,
    count: &mut Count,
) -> Result<Option<T>, Failure> {
    match outcome {
        Ok(had) => Ok(Some(had)),
        Err(failure) if matches!(failure.exit, exit::NOT_FOUND | exit::DENIED) => {
            count.failed += 1;
            let path = text::harmless(&place.path);
            say(&format!("note: {path} is not copied: {}", failure.message));
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

fn tell(to: &Path, count: &Count) {
    let Count { files, bytes, left_out, .. } = count;
    let noun = if *files == 1 { "file" } else { "files" };
    say(&format!("{}: {files} {noun}, {}", to.display(), text::bytes(*bytes)));
    if *left_out > 0 {
        say(&format!("note: links, sockets and the like are left out: {left_out}"));
    }
}

/// A place in a directory.
fn inside(place: &v1::FilePlace, name: &str) -> v1::FilePlace {
    let path = match place.path.trim_end_matches('/') {
        "" => name.to_string(),
        path => format!("{path}/{name}"),
    };
    v1::FilePlace { path, ..place.clone() }
}

/// Whether a name is one, and no way to somewhere else.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        for name in ["a", "..a", "a b", "-"] {
            assert!(is_name(name), "{name:?}");
        }
        for name in ["", ".", "..", "/a", "a/b", "a\0"] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test]
    fn places_are_below_their_directory() {
        for (path, expected) in [("", "f"), ("d", "d/f"), ("d/e/", "d/e/f")] {
            let place = v1::FilePlace { path: path.into(), ..v1::FilePlace::default() };
            assert_eq!(inside(&place, "f").path, expected);
        }
    }
}
