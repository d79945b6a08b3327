//! Files in the directories of a job, on the machine that it ran on.

use super::tree;
use crate::args::{FilesArgs, FilesCatArgs, FilesGetArgs, FilesSpot, FilesVerb};
use crate::failure::Failure;
use crate::output::say;
use crate::select::choose_one;
use crate::session::{Session, all_pages};
use crate::text;
use crate::view;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use yard_proto::v1;

/// Bytes at the end of a part of a file that are compared before it is gone on with.
const COMPARED_BYTES: u64 = 64 * 1024;

/// Does what the command line says.
pub(crate) async fn files(session: &Session, verb: &FilesVerb) -> Result<u8, Failure> {
    match verb {
        FilesVerb::Ls(args) => ls(session, args).await,
        FilesVerb::Get(args) => get(session, args).await,
        FilesVerb::Cat(args) => cat(session, args).await,
    }
}

/// The directory that the first part of a path names, and the path below it.
fn split(path: &str) -> Result<(v1::FileRoot, &str), Failure> {
    let path = path.trim_start_matches("./");
    let (root, rest) = path.split_once('/').unwrap_or((path, ""));
    let root = match root {
        "logs" => v1::FileRoot::Logs,
        "scratch" => v1::FileRoot::Temp,
        _ => {
            let message = format!("{path:?} is in no directory of a job");
            return Err(Failure::usage(message, "begin it with logs/ or scratch/"));
        }
    };
    Ok((root, rest))
}

async fn place(
    session: &Session,
    job: &str,
    path: &str,
    spot: &FilesSpot,
) -> Result<v1::FilePlace, Failure> {
    let (root, path) = split(path)?;
    let chosen = choose_one(session, job).await?;
    Ok(v1::FilePlace {
        job_id: chosen.job,
        task_index: chosen.only_task()?.unwrap_or(0),
        attempt: spot.attempt.unwrap_or(0),
        node: spot.node.clone().unwrap_or_default(),
        root: root.into(),
        path: path.into(),
    })
}

async fn ls(session: &Session, args: &FilesArgs) -> Result<u8, Failure> {
    if matches!(args.path.as_str(), "" | "." | "/") {
        session.list(&view::file::roots())?;
        return Ok(0);
    }
    let place = place(session, &args.job, &args.path, &args.spot).await?;
    session.list(&view::file::listing(&entries(session, &place).await?))?;
    Ok(0)
}

/// What a directory has.
pub(super) async fn entries(
    session: &Session,
    place: &v1::FilePlace,
) -> Result<Vec<v1::FileEntry>, Failure> {
    let (entries, _) = all_pages(|page| {
        let place = Some(place.clone());
        async move {
            let request = v1::ListFilesRequest { place, page: Some(page) };
            let answer = session.client.list_files(request).await?;
            Ok((answer.entries, answer.page))
        }
    })
    .await?;
    Ok(entries)
}

async fn cat(session: &Session, args: &FilesCatArgs) -> Result<u8, Failure> {
    if args.len == Some(0) {
        return Ok(0);
    }
    let place = place(session, &args.job, &args.path, &args.spot).await?;
    let (offset, len) = (args.offset, args.len.unwrap_or(0));
    let mut file =
        session.client.read_file(v1::ReadFileRequest { place: Some(place), offset, len });
    while let Some(piece) = file.next().await? {
        let mut out = io::stdout().lock();
        match out.write_all(&piece.data).and_then(|()| out.flush()) {
            Ok(()) => {}
            // Whoever read it has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
            Err(error) => return Err(Failure::local(&error, "is the disk full?")),
        }
    }
    Ok(0)
}

async fn get(session: &Session, args: &FilesGetArgs) -> Result<u8, Failure> {
    let place = place(session, &args.job, &args.path, &args.spot).await?;
    let path = args.path.trim_end_matches('/');
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_directory = tree::is_directory(session, &place).await?;
    let to = match &args.to {
        // One that is there already may be a copy that broke off.
        Some(to) if is_directory && !goes_into(to) => to.clone(),
        Some(to) if to.is_dir() || is_directory => to.join(name),
        Some(to) => to.clone(),
        None => PathBuf::from(name),
    };
    if is_directory {
        return tree::get(session, place, &to).await;
    }
    let len = fetch(session, place, &to).await?;
    say(&format!("{}: {}", to.display(), text::bytes(len)));
    Ok(0)
}

/// Whether a copy of a directory is to lie in this one: `copies/`, `.`, `..`.
fn goes_into(to: &Path) -> bool {
    let text = to.to_string_lossy();
    text.ends_with('/')
        || to
            .components()
            .next_back()
            .is_some_and(|last| matches!(last, Component::CurDir | Component::ParentDir))
}

/// Copies one file. Returns its length.
pub(super) async fn fetch(
    session: &Session,
    place: v1::FilePlace,
    to: &Path,
) -> Result<u64, Failure> {
    let hint = || format!("can {} be written?", to.display());
    let local = |error: io::Error| Failure::local(&error, hint());
    let part = beside(to);
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(false).open(&part);
    let mut file = opened.map_err(local)?;
    let offset = known(session, &place, &mut file).await?;
    file.set_len(offset).and_then(|()| file.seek(SeekFrom::Start(offset))).map_err(local)?;
    if offset > 0 {
        say(&format!("note: goes on behind {} that are there already", text::bytes(offset)));
    }
    let request = v1::ReadFileRequest { place: Some(place), offset, len: 0 };
    let mut bytes = session.client.read_file(request);
    let mut len = offset;
    while let Some(piece) = bytes.next().await? {
        file.write_all(&piece.data).map_err(local)?;
        len += piece.data.len() as u64;
    }
    file.sync_all().and_then(|()| std::fs::rename(&part, to)).map_err(local)?;
    Ok(len)
}

/// How much of a file is there of an earlier try. A part whose end is another than that of the file
/// is of something else.
async fn known(session: &Session, place: &v1::FilePlace, part: &mut File) -> Result<u64, Failure> {
    let local = |error: io::Error| Failure::local(&error, "");
    let len = part.metadata().map_err(local)?.len();
    if len == 0 {
        return Ok(0);
    }
    let compared = len.min(COMPARED_BYTES);
    let mut here = Vec::new();
    part.seek(SeekFrom::Start(len - compared)).map_err(local)?;
    part.read_to_end(&mut here).map_err(local)?;
    let place = Some(place.clone());
    let request = v1::ReadFileRequest { place, offset: len - compared, len: compared };
    let mut bytes = session.client.read_file(request);
    let mut there = Vec::new();
    while let Some(piece) = bytes.next().await? {
        there.extend_from_slice(&piece.data);
    }
    Ok(if there == here { len } else { 0 })
}

/// Where a file is until it is whole.
fn beside(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_os_string();
    name.push(".part");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_with_a_directory_of_the_job() {
        let (logs, scratch) = (v1::FileRoot::Logs, v1::FileRoot::Temp);
        for (path, expected) in [
            ("logs", (logs, "")),
            ("logs/0.out", (logs, "0.out")),
            ("./scratch/a/b", (scratch, "a/b")),
            ("scratch/", (scratch, "")),
            // Whether that leads anywhere, the machine says.
            ("scratch/../x", (scratch, "../x")),
        ] {
            assert_eq!(split(path).unwrap(), expected, "{path}");
        }
        for path in ["/etc/passwd", "output", "0.out", ""] {
            assert_eq!(split(path).unwrap_err().exit, 64, "{path}");
        }
    }
}
