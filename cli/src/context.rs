//! Contexts: the clusters that this machine knows, and as whom it speaks to them.
//!
//! They stand in `~/.config/yard/config.toml`. Keys lie beside it in a folder of each context,
//! closed to others.

use crate::failure::{Failure, exit};
use crate::output::say;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use yard_client::Options;
use yard_common::limits::VOTERS_MAX;
use yard_common::name::is_name;
use yard_runtime::config::{self, ConfigError};
use yard_runtime::files;
use yard_runtime::identity::{IDENTITY_FILE, Identity, TRUST_FILE};

/// Clusters that one user knows.
const CONTEXTS_MAX: usize = 1_000;

/// What of the environment matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) home: Option<PathBuf>,
    pub(crate) config_home: Option<PathBuf>,
    pub(crate) data_home: Option<PathBuf>,
    pub(crate) context: Option<String>,
    pub(crate) address: Option<String>,
}

impl Environment {
    /// That of this process.
    pub(crate) fn of_process() -> Environment {
        let text = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        Environment {
            home: text("HOME").map(PathBuf::from),
            config_home: text("XDG_CONFIG_HOME").map(PathBuf::from),
            data_home: text("XDG_DATA_HOME").map(PathBuf::from),
            context: text("YARD_CONTEXT"),
            address: text("YARD_ADDR"),
        }
    }

    /// The folder with everything that `yard` keeps for its user.
    pub(crate) fn folder(&self) -> Result<PathBuf, Failure> {
        let base = self.config_home.clone();
        let base = base.or_else(|| self.home.as_ref().map(|home| home.join(".config")));
        let hint = "set HOME, or XDG_CONFIG_HOME";
        Ok(base.ok_or_else(|| Failure::usage("there is no home directory", hint))?.join("yard"))
    }
}

/// A cluster, and who the user is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Context {
    /// `HOST:PORT` of coordinators.
    pub(crate) addresses: Vec<String>,
    /// The CAs of the cluster.
    pub(crate) ca: PathBuf,
    /// Certificate and key of the user, in one file that is closed to others.
    pub(crate) identity: PathBuf,
}

/// Says that nobody answers yet, to people.
fn on_wait(why: &str) {
    if std::io::stderr().is_terminal() {
        say(&format!("note: waiting for a coordinator ({why})"));
    }
}

impl Context {
    /// Reads who the user is.
    pub(crate) fn load_identity(&self) -> Result<Identity, Failure> {
        let hint = "log in again: an administrator makes a token with `yard user invite`";
        Identity::load_files(&self.ca, &self.identity).map_err(|error| Failure::local(&error, hint))
    }

    /// Its cluster, as who the user is. Members that were learnt are asked before those that the
    /// file names; `given` ones alone.
    pub(crate) fn options(&self, identity: Identity, given: bool) -> Options {
        let roster = self.identity.parent().and_then(crate::members::load);
        // Whoever is named may be of a life that is over.
        let life = roster.as_ref().map_or(0, |roster| roster.life);
        let roster = roster.filter(|_| !given);
        let addresses = crate::members::merged(roster.as_ref(), &self.addresses);
        let members_index = roster.map_or(0, |roster| roster.index);
        Options { members_index, life, on_wait, ..Options::new(addresses, identity) }
    }
}

/// All contexts of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Contexts {
    /// The one that is used when nobody says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    pub(crate) contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// Reads the contexts below a folder; none when there is no file.
    pub(crate) fn load(folder: &Path) -> Result<Contexts, Failure> {
        let path = folder.join("config.toml");
        if !path.exists() {
            return Ok(Contexts::default());
        }
        let read = |text: &mut config::Section<'_>| {
            let current = text.optional("current", "the name of a context, in quotes");
            let contexts = text.named("contexts", CONTEXTS_MAX, |name, section| {
                let addresses = section.list("addresses", VOTERS_MAX, "\"HOST:PORT\"");
                let ca = section.required("ca", "the path of the CAs");
                let identity = section.required("identity", "the path of certificate and key");
                Some((name.to_string(), Context { addresses, ca: ca?, identity: identity? }))
            });
            let contexts: Option<BTreeMap<String, Context>> = contexts.into_iter().collect();
            Some(Contexts { current, contexts: contexts? })
        };
        config::read(&path, read).map_err(|error: ConfigError| {
            Failure::new(exit::USAGE, crate::failure::chain(&error), "edit the file, or remove it")
        })
    }

    /// Writes the contexts below a folder.
    pub(crate) fn save(&self, folder: &Path) -> Result<(), Failure> {
        let failed = |error: &dyn std::error::Error| Failure::local(error, "");
        files::private_folder(folder).map_err(|error| failed(&error))?;
        let text = toml::to_string(self).map_err(|error| failed(&error))?;
        let path = folder.join("config.toml");
        files::write_durably(&path, text.as_bytes(), files::PRIVATE).map_err(|error| failed(&error))
    }

    /// The context that flags and environment ask for, with its name. Addresses that are given
    /// replace its own.
    pub(crate) fn choose(
        &self,
        flag: Option<&str>,
        address_flag: Option<&str>,
        environment: &Environment,
    ) -> Result<(String, Context), Failure> {
        let name = flag.or(environment.context.as_deref()).or(self.current.as_deref());
        let hint = "log in with `yard login HOST:PORT TOKEN`, or start a cluster of your own with \
                    `yard dev`";
        let nowhere = || Failure::new(exit::UNREACHABLE, "this machine knows no cluster", hint);
        let name = name.ok_or_else(nowhere)?;
        let mut context = self.contexts.get(name).cloned().ok_or_else(|| self.unknown(name))?;
        if let Some(addresses) = address_flag.or(environment.address.as_deref()) {
            let listed = addresses.split(',').map(|one| one.trim().to_string());
            context.addresses = listed.filter(|one| !one.is_empty()).collect();
        }
        Ok((name.to_string(), context))
    }

    /// Adds or replaces a context, whose identity lies in its folder, and makes it the current
    /// one.
    pub(crate) fn add(&mut self, folder: &Path, name: &str, addresses: Vec<String>) -> PathBuf {
        let own = folder.join("contexts").join(name);
        crate::members::forget(&own);
        let (ca, identity) = (own.join(TRUST_FILE), own.join(IDENTITY_FILE));
        self.contexts.insert(name.to_string(), Context { addresses, ca, identity });
        self.current = Some(name.to_string());
        own
    }

    /// Forgets a context.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Context> {
        if self.current.as_deref() == Some(name) {
            self.current = None;
        }
        self.contexts.remove(name)
    }

    /// Makes a context the current one.
    pub(crate) fn switch(&mut self, name: &str) -> Result<(), Failure> {
        if !self.contexts.contains_key(name) {
            return Err(self.unknown(name));
        }
        self.current = Some(name.to_string());
        Ok(())
    }

    fn unknown(&self, name: &str) -> Failure {
        let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
        let nearest = yard_common::spec::nearest(name, known.iter().copied());
        let hint = match (nearest, known.is_empty()) {
            (Some(nearest), _) => format!("did you mean {nearest}?"),
            (None, false) => format!("there are {}", known.join(", ")),
            (None, true) => "log in with `yard login HOST:PORT TOKEN`".into(),
        };
        Failure::new(exit::NOT_FOUND, format!("there is no context {name:?}"), hint)
    }
}

/// Checks the name of a new context: it becomes a folder.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    if is_name(name) {
        return Ok(());
    }
    let hint = "use lower-case letters, digits and dashes, and begin with no dash";
    Err(Failure::usage(format!("{name:?} is no name of a context"), hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(home: &Path) -> Environment {
        Environment { home: Some(home.to_path_buf()), ..Environment::default() }
    }

    fn contexts(folder: &Path) -> Contexts {
        let mut contexts = Contexts::default();
        contexts.add(folder, "prod", vec!["10.0.0.1:7100".into(), "10.0.0.2:7100".into()]);
        contexts.add(folder, "dev", vec!["127.0.0.1:7100".into()]);
        contexts
    }

    #[test]
    fn contexts_read_back_and_are_private() {
        let home = tempfile::tempdir().unwrap();
        let folder = environment(home.path()).folder().unwrap();
        assert_eq!(Contexts::load(&folder).unwrap(), Contexts::default());
        let written = contexts(&folder);
        written.save(&folder).unwrap();
        assert_eq!(Contexts::load(&folder).unwrap(), written);
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(folder.join("config.toml")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn flags_go_before_environment_and_file() {
        let folder = Path::new("/x");
        let contexts = contexts(folder);
        let mut environment = Environment::default();
        let name =
            |flag, environment: &Environment| contexts.choose(flag, None, environment).unwrap().0;
        assert_eq!(name(None, &environment), "dev");
        environment.context = Some("prod".into());
        assert_eq!(name(None, &environment), "prod");
        assert_eq!(name(Some("dev"), &environment), "dev");
        environment.address = Some("a:1, b:2,".into());
        let (_, context) = contexts.choose(None, None, &environment).unwrap();
        assert_eq!(context.addresses, ["a:1", "b:2"]);
        assert_eq!(context.ca, folder.join("contexts/prod/ca.pem"));
        let (_, context) = contexts.choose(None, Some("c:3"), &environment).unwrap();
        assert_eq!(context.addresses, ["c:3"]);
    }

    #[test]
    fn what_is_not_there_gets_a_fix() {
        let contexts = contexts(Path::new("/x"));
        let failure = contexts.choose(Some("prd"), None, &Environment::default()).unwrap_err();
        assert_eq!((failure.exit, failure.hint.as_str()), (66, "did you mean prod?"));
        let none = Contexts::default().choose(None, None, &Environment::default()).unwrap_err();
        assert_eq!(none.exit, 69);
        assert!(none.hint.contains("yard login"), "{none:?}");
        assert!(check_name("../x").is_err() && check_name("prod").is_ok());
    }

    #[test]
    fn a_slip_in_the_file_is_told() {
        let home = tempfile::tempdir().unwrap();
        let text = "curent = \"a\"\n[contexts.a]\naddresses = [\"h:1\"]\nca = \"/c\"\n";
        std::fs::write(home.path().join("config.toml"), text).unwrap();
        let failure = Contexts::load(home.path()).unwrap_err();
        assert!(failure.message.contains("did you mean current?"), "{}", failure.message);
        assert!(failure.message.contains("contexts.a.identity"), "{}", failure.message);
    }
}
