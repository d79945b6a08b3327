//! The members of a cluster, as one of them told: kept beside the key of a context.
//!
//! A file of its own: any command may write it, at the same time as others, and `config.toml` is
//! its user's. Losing it costs nothing but a question.

use crate::failure::Failure;
use std::path::Path;
use yard_client::Roster;
use yard_common::limits::MEMBERS_MAX;
use yard_runtime::{config, files};

/// The name of the file, in the folder of a context.
const FILE: &str = "members.toml";

/// The list that was learnt last; none if there is none that can be read.
pub(crate) fn load(folder: &Path) -> Option<Roster> {
    let path = folder.join(FILE);
    if !path.exists() {
        return None;
    }
    let read = |text: &mut config::Section<'_>| {
        let index = text.number("index", 0, 0..=u64::MAX);
        let addresses = text.list("addresses", MEMBERS_MAX, "\"HOST:PORT\"");
        let life = text.number("life", 0, 0..=u64::from(u32::MAX));
        let life = u32::try_from(life).unwrap_or(0);
        Some(Roster { index, addresses, life })
    };
    config::read(&path, read).ok().filter(|roster| !roster.addresses.is_empty())
}

/// Keeps a list.
pub(crate) fn save(folder: &Path, roster: &Roster) -> Result<(), Failure> {
    let list: Vec<String> = roster.addresses.iter().map(|address| format!("{address:?}")).collect();
    let Roster { index, life, .. } = roster;
    let text = format!("index = {index}\nlife = {life}\naddresses = [{}]\n", list.join(", "));
    files::write_durably(&folder.join(FILE), text.as_bytes(), files::PRIVATE)
        .map_err(|error| Failure::local(&error, ""))
}

/// Forgets the list: the context is that of another cluster now.
pub(crate) fn forget(folder: &Path) {
    // One that cannot be removed is replaced by the first list that is newer.
    let _ = std::fs::remove_file(folder.join(FILE));
}

/// The members that are known, and after them the addresses that the context names.
pub(crate) fn merged(roster: Option<&Roster>, named: &[String]) -> Vec<String> {
    let mut all = roster.map(|roster| roster.addresses.clone()).unwrap_or_default();
    for address in named {
        if !all.contains(address) {
            all.push(address.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_back_and_goes_before_what_was_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()), None);
        let addresses = vec!["b:1".to_string(), "[::1]:2".to_string()];
        let roster = Roster { index: 7, addresses, life: 3 };
        save(folder.path(), &roster).unwrap();
        assert_eq!(load(folder.path()), Some(roster.clone()));
        let named = vec!["a:1".to_string(), "b:1".to_string()];
        assert_eq!(merged(Some(&roster), &named), ["b:1", "[::1]:2", "a:1"]);
        assert_eq!(merged(None, &named), named);
        std::fs::write(folder.path().join(FILE), "rubbish").unwrap();
        assert_eq!(load(folder.path()), None);
        forget(folder.path());
        assert!(!folder.path().join(FILE).exists());
    }
}
