//! Where the members are: learnt from any of them, kept on disk, and never replaced by an older
//! list.

use super::memory::{MembersFile, Memory, MemoryError};
use tokio::sync::watch;
use yard_common::id::MemberId;
use yard_common::limits::{LABEL_BYTES_MAX, MEMBERS_MAX};
use yard_proto::internal::Members;

/// A list of members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roster {
    /// Its log position.
    pub(crate) index: u64,
    /// Members and where they are, by number.
    pub(crate) members: Vec<(MemberId, String)>,
}

impl Roster {
    /// The list of a message; none if it has too many members, none at all, or addresses that
    /// cannot be any.
    pub(crate) fn read(message: &Members) -> Option<Roster> {
        let legal = |address: &str| !address.is_empty() && address.len() <= LABEL_BYTES_MAX + 6;
        let all = &message.members;
        if all.is_empty() || all.len() > MEMBERS_MAX || !all.iter().all(|one| legal(&one.address)) {
            return None;
        }
        let mut members: Vec<_> =
            all.iter().map(|one| (MemberId(one.member_id), one.address.clone())).collect();
        members.sort();
        members.dedup_by_key(|(id, _)| *id);
        Some(Roster { index: message.index, members })
    }

    pub(crate) fn to_file(&self) -> MembersFile {
        let members = self.members.iter().map(|(id, address)| (id.0, address.clone())).collect();
        MembersFile { index: self.index, members }
    }

    fn from_file(file: MembersFile) -> Roster {
        let members = file.members.into_iter().map(|(id, at)| (MemberId(id), at)).collect();
        Roster { index: file.index, members }
    }
}

/// The newest list, shared by all that speak to members.
#[derive(Debug)]
pub(crate) struct Rosters {
    newest: watch::Sender<Roster>,
    memory: Memory,
    /// Tried when no member of the list answers.
    seeds: Vec<String>,
}

impl Rosters {
    /// Begins with what is on disk.
    pub(crate) fn load(memory: Memory, seeds: Vec<String>) -> Result<Rosters, MemoryError> {
        let found = memory.members()?.map(Roster::from_file).unwrap_or_default();
        Ok(Rosters { newest: watch::Sender::new(found), memory, seeds })
    }

    /// The newest list, and news of later ones.
    pub(crate) fn watch(&self) -> watch::Receiver<Roster> {
        self.newest.subscribe()
    }

    /// Takes a list that a member sent.
    pub(crate) async fn learn(&self, message: &Members) -> Result<(), MemoryError> {
        let Some(new) = Roster::read(message) else {
            tracing::warn!(count = message.members.len(), "a list of members is refused");
            return Ok(());
        };
        let is_news = |old: &Roster| new.index > old.index || old.members.is_empty();
        if !is_news(&self.newest.borrow()) {
            return Ok(());
        }
        tracing::info!(index = new.index, members = new.members.len(), "a new list of members");
        let (memory, file) = (self.memory.clone(), new.to_file());
        self.newest.send_replace(new);
        let saved = tokio::task::spawn_blocking(move || memory.save_members(&file));
        saved.await.expect("writing a file does not panic")
    }

    /// Every address at which a member may be, members first.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let mut all: Vec<String> =
            self.newest.borrow().members.iter().map(|(_, address)| address.clone()).collect();
        for seed in &self.seeds {
            if !all.contains(seed) {
                all.push(seed.clone());
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_proto::internal::MemberAddress;

    fn message(index: u64, members: &[(u64, &str)]) -> Members {
        let one = |(member_id, at): &(u64, &str)| MemberAddress {
            member_id: *member_id,
            address: (*at).to_string(),
        };
        Members { index, members: members.iter().map(one).collect() }
    }

    #[tokio::test]
    async fn an_older_list_never_replaces_a_newer_one() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::create(directory.path()).unwrap();
        let seeds = vec!["a:1".to_string(), "s:9".to_string()];
        let rosters = Rosters::load(memory.clone(), seeds.clone()).unwrap();
        assert_eq!(rosters.addresses(), seeds);
        rosters.learn(&message(5, &[(2, "b:1"), (1, "a:1")])).await.unwrap();
        rosters.learn(&message(4, &[(9, "old:1")])).await.unwrap();
        rosters.learn(&message(6, &[])).await.unwrap();
        assert_eq!(rosters.addresses(), ["a:1", "b:1", "s:9"]);
        let again = Rosters::load(memory, Vec::new()).unwrap();
        assert_eq!(again.addresses(), ["a:1", "b:1"]);
        assert_eq!(again.watch().borrow().index, 5);
    }

    #[test]
    fn lists_that_cannot_be_any_are_refused() {
        let long = "x".repeat(LABEL_BYTES_MAX + 7);
        let many: Vec<(u64, &str)> = (0..=MEMBERS_MAX as u64).map(|id| (id, "a:1")).collect();
        for bad in [&[][..], &[(1, "")], &[(1, &long)], &many] {
            assert_eq!(Roster::read(&message(9, bad)), None);
        }
        assert!(Roster::read(&message(9, &many[1..])).is_some());
    }
}
