//! Backups: the state of the cluster and the keys of its CAs in a file.

use crate::args::Global;
use crate::failure::{Failure, chain, exit};
use crate::output::{put, render_one, say};
use crate::session::Session;
use crate::view;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use yard_client::ClientError;
use yard_coordinator::backup::{self, BackupError, BackupHead, Reader};
use yard_runtime::files;
use yard_runtime::fresh::FreshFile;
use yard_runtime::shutdown::{Signal, Signals};

/// Writes a backup. It has its name when all of it is checked and on the disk.
pub(super) async fn save(session: &Session, file: &Path) -> Result<u8, Failure> {
    let hint = "name a file that is not there yet, in a folder that is";
    let failed = |error: files::FileError| Failure::local(&error, hint);
    if file.file_name().is_none() {
        return Err(Failure::usage("this names no file", hint));
    }
    if file.symlink_metadata().is_ok() {
        let message = format!("{} is there already", file.display());
        return Err(Failure::new(exit::REFUSED, message, hint));
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut fresh = FreshFile::create(folder, files::PRIVATE).map_err(failed)?;
    let named = fresh.has_a_name();
    let head = match named {
        false => receive(session, fresh.file()).await?,
        // It holds keys: a signal must not leave it behind.
        true => tokio::select! {
            head = receive(session, fresh.file()) => head?,
            stopped = stopped() => return Err(stopped),
        },
    };
    fresh.put(file).map_err(failed)?;
    say(&view::backup::line(&head, file));
    say("it holds the keys of the cluster's CAs: whoever can read it can be anybody there");
    Ok(0)
}

/// Waits for a signal that ends the process.
async fn stopped() -> Failure {
    let hint = "run it again; nothing was kept";
    let mut signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return Failure::local(&error, hint),
    };
    while signals.next().await != Signal::Stop {}
    Failure::new(exit::REFUSED, "it was stopped by a signal", hint)
}

async fn receive(session: &Session, written: &mut File) -> Result<BackupHead, Failure> {
    let hint = "run it again; nothing was kept";
    let failed = |error: &dyn std::error::Error| Failure::local(error, hint);
    let mut pieces = session.client.save_snapshot().await?;
    let mut reader = Reader::default();
    while let Some(piece) = pieces.message().await.map_err(ClientError::from)? {
        reader.take(&piece.data).map_err(|error| failed(&error))?;
        written.write_all(&piece.data).map_err(|error| failed(&error))?;
    }
    reader.finish().map_err(|error| failed(&error))
}

/// Checks a backup and shows what it is of.
pub(super) fn show(global: &Global, file: &Path) -> Result<u8, Failure> {
    let head = backup::show(file).map_err(|error| refused(&error))?;
    let (row, text) = view::backup::backup(&head);
    put(&render_one("Backup", &row, &text, global.output.unwrap_or_default()))?;
    Ok(0)
}

/// A backup that cannot be used.
pub(crate) fn refused(error: &BackupError) -> Failure {
    let hint = "take another backup; nothing was changed";
    let failure = Failure::new(exit::REFUSED, chain(error), hint);
    Failure { code: error.code().map(|code| code.to_string()), ..failure }
}
