//! The setup of a pool: what each of its machines does before it takes work, and how far it is.

use crate::encoding::hash_on;
use minicbor::{Decode, Encode};
use std::fmt;
use yard_common::limits::{
    SETUP_BYTES_MAX, SETUP_MS_MAX, SETUP_MS_MIN, SETUP_VARIABLE_BYTES_MAX, SETUP_VARIABLES_MAX,
};

/// What the machines of a pool run at join, once a boot, and when it changes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Setup {
    /// Text for `/bin/bash -c`.
    #[n(0)]
    pub command: String,
    /// Its own variables, sorted by name, each once. Not for secrets.
    #[n(1)]
    pub variables: Vec<(String, String)>,
    /// How long it may take in milliseconds.
    #[n(2)]
    pub timeout_ms: u64,
}

/// Which setup: told instead of the text.
///
/// The number alone would do, were it not for a restore of a backup: after that the numbers of
/// before come again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct SetupId {
    /// Raised by each change; 0: there never was one.
    #[n(0)]
    pub revision: u32,
    /// Of all of it; 0: there is none.
    #[n(1)]
    pub hash: u64,
}

/// How far a setup is on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum SetupStage {
    /// It runs for the first time.
    #[n(0)]
    Running,
    /// It failed, and is tried again.
    #[n(1)]
    Failed,
    /// It succeeded in this boot of the machine.
    #[n(2)]
    Done,
    /// The machine's owner does not allow it.
    #[n(3)]
    Refused,
}

/// What an agent tells of the setup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SetupReport {
    /// Which.
    #[n(0)]
    pub id: SetupId,
    /// How far it is.
    #[n(1)]
    pub stage: SetupStage,
    /// Since when, by the machine's clock, in milliseconds since 1970. For people.
    #[n(2)]
    pub since_wall_ms: u64,
}

impl SetupId {
    /// The one that comes after this one.
    #[must_use]
    pub fn next(self, setup: Option<&Setup>) -> SetupId {
        let revision = self.revision.saturating_add(1);
        let hash = setup.map_or(0, |setup| hash_on(u64::from(revision), setup).max(1));
        SetupId { revision, hash }
    }

    /// Whether there is something to do.
    #[must_use]
    pub fn is_some(self) -> bool {
        self.hash != 0
    }
}

impl fmt::Display for SetupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {}", self.revision)
    }
}

impl Setup {
    /// Whether it keeps its bounds.
    ///
    /// # Errors
    /// The field, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let text = &self.command;
        if text.len() > SETUP_BYTES_MAX {
            let problem = format!("{} bytes; at most {SETUP_BYTES_MAX}", text.len());
            return Err(("setup.command", problem));
        }
        if text.trim().is_empty() || text.contains('\0') {
            return Err(("setup.command", "a text for bash, without a zero byte".into()));
        }
        if !(SETUP_MS_MIN..=SETUP_MS_MAX).contains(&self.timeout_ms) {
            let found = self.timeout_ms;
            let problem = format!("{found} ms; {SETUP_MS_MIN} to {SETUP_MS_MAX}");
            return Err(("setup.timeout_ms", problem));
        }
        if self.variables.len() > SETUP_VARIABLES_MAX {
            let problem = format!("{}; at most {SETUP_VARIABLES_MAX}", self.variables.len());
            return Err(("setup.variables", problem));
        }
        let wrong = self.variables.iter().find_map(|(name, value)| wrong_with(name, value));
        if let Some(problem) = wrong {
            return Err(("setup.variables", problem));
        }
        if !self.variables.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(("setup.variables", "sorted by name, each once".into()));
        }
        Ok(())
    }
}

/// What is wrong with a variable.
fn wrong_with(name: &str, value: &str) -> Option<String> {
    let shown: String = name.chars().take(40).collect();
    let mut letters = name.bytes();
    let begins = letters.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !begins || !letters.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Some(format!("{shown:?} is no name of a variable"));
    }
    if name.starts_with("YARD_") {
        return Some(format!("{shown:?}: names that begin with YARD_ are Trainyard's own"));
    }
    if name.len() + value.len() > SETUP_VARIABLE_BYTES_MAX || value.contains('\0') {
        return Some(format!(
            "{shown:?}: at most {SETUP_VARIABLE_BYTES_MAX} bytes, and no zero byte"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> Setup {
        Setup { command: "true".into(), variables: Vec::new(), timeout_ms: 1_000 }
    }

    fn field(change: impl FnOnce(&mut Setup)) -> Option<&'static str> {
        let mut setup = setup();
        change(&mut setup);
        setup.check().err().map(|(field, _)| field)
    }

    #[test]
    fn bounds_are_kept() {
        let name = |name: &str| vec![(name.to_string(), "x".to_string())];
        assert_eq!(field(|_| ()), None);
        assert_eq!(field(|one| one.command = "x".repeat(SETUP_BYTES_MAX)), None);
        assert_eq!(field(|one| one.timeout_ms = SETUP_MS_MAX), None);
        assert_eq!(field(|one| one.variables = name("_A1")), None);
        let (command, time) = (Some("setup.command"), Some("setup.timeout_ms"));
        assert_eq!(field(|one| one.command = "x".repeat(SETUP_BYTES_MAX + 1)), command);
        assert_eq!(field(|one| one.command = " \n".into()), command);
        assert_eq!(field(|one| one.command = "a\0".into()), command);
        assert_eq!(field(|one| one.timeout_ms = SETUP_MS_MIN - 1), time);
        assert_eq!(field(|one| one.timeout_ms = SETUP_MS_MAX + 1), time);
        for bad in ["", "1A", "A-B", "YARD_X", "A=B"] {
            assert_eq!(field(|one| one.variables = name(bad)), Some("setup.variables"), "{bad}");
        }
        let many = |count: usize| {
            (0..count).map(|at| (format!("A{at:02}"), String::new())).collect::<Vec<_>>()
        };
        assert_eq!(field(|one| one.variables = many(SETUP_VARIABLES_MAX)), None);
        assert!(field(|one| one.variables = many(SETUP_VARIABLES_MAX + 1)).is_some());
        let long = |bytes: usize| vec![("A".to_string(), "x".repeat(bytes - 1))];
        assert_eq!(field(|one| one.variables = long(SETUP_VARIABLE_BYTES_MAX)), None);
        assert!(field(|one| one.variables = long(SETUP_VARIABLE_BYTES_MAX + 1)).is_some());
        assert!(field(|one| one.variables = [name("B"), name("A")].concat()).is_some());
        assert!(field(|one| one.variables = [name("A"), name("A")].concat()).is_some());
    }

    #[test]
    fn no_two_setups_are_taken_for_one() {
        let first = SetupId::default().next(Some(&setup()));
        assert_eq!((first.revision, first.is_some()), (1, true));
        let mut other = setup();
        other.timeout_ms += 1;
        assert_ne!(SetupId::default().next(Some(&other)), first, "after a restore");
        assert_ne!(first.next(Some(&setup())).hash, first.hash);
        let none = first.next(None);
        assert_eq!((none.revision, none.is_some()), (2, false));
        assert_eq!(none.to_string(), "revision 2");
    }
}
