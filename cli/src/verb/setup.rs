//! What machines of a pool do before they take work, and what that wrote.

use super::holders::get_pool;
use crate::args::{PoolArgs, SetupArgs};
use crate::failure::Failure;
use crate::output::say;
use crate::session::Session;
use std::io::{self, Read, Write};
use yard_common::limits::SETUP_BYTES_MAX;
use yard_proto::v1;

/// Changes the setup of a pool, if the command line says anything of it.
pub(super) async fn change(session: &Session, args: &PoolArgs) -> Result<(), Failure> {
    let (pool, wanted) = (&args.pool, &args.setup);
    if !is_named(wanted) {
        return Ok(());
    }
    let present = get_pool(session, pool).await?.setup;
    let was_there = present.is_some();
    let setup = changed(present.and_then(|one| one.setup), was_there, wanted)?;
    let is_there = setup.is_some();
    let request =
        v1::SetPoolSetupRequest { pool: pool.clone(), setup, ..v1::SetPoolSetupRequest::default() };
    session.client.set_pool_setup(request).await?;
    match (was_there, is_there) {
        (_, true) => say(&format!(
            "its machines take new work once they have done its setup; see `yard pool show {pool}`"
        )),
        (true, false) => say("its machines take work without a setup"),
        (false, false) => {}
    }
    Ok(())
}

/// Whether the command line says anything of the setup.
pub(super) fn is_named(args: &SetupArgs) -> bool {
    args.no_setup
        || args.setup.is_some()
        || args.setup_command.is_some()
        || args.setup_timeout.is_some()
        || !args.setup_env.is_empty()
}

/// What a pool has, with what the command line names; none: no setup.
fn changed(
    present: Option<v1::Setup>,
    was_there: bool,
    args: &SetupArgs,
) -> Result<Option<v1::Setup>, Failure> {
    if args.no_setup {
        return Ok(None);
    }
    let named = match (&args.setup, &args.setup_command) {
        (Some(file), _) => Some(read(file)?),
        (None, line) => line.clone(),
    };
    if named.as_ref().is_some_and(|text| text.trim().is_empty()) {
        return Ok(None);
    }
    let mut setup = match (present, &named) {
        (Some(setup), _) => setup,
        (None, Some(_)) => v1::Setup::default(),
        // Its text is shown to operators alone.
        (None, None) if was_there => {
            let message = "the present setup is not shown to you";
            return Err(Failure::usage(message, "name all of it, with --setup"));
        }
        (None, None) => {
            let message = "the pool has no setup yet";
            return Err(Failure::usage(message, "say what to run, with --setup"));
        }
    };
    setup.command = named.unwrap_or(setup.command);
    setup.timeout_ms = args.setup_timeout.map_or(setup.timeout_ms, |time| time.ms());
    if !args.setup_env.is_empty() {
        let variables = args.setup_env.iter().map(|text| variable(text));
        setup.variables = variables.collect::<Result<_, _>>()?;
    }
    Ok(Some(setup))
}

fn variable(text: &str) -> Result<v1::SetupVariable, Failure> {
    let (name, value) = text.split_once('=').ok_or_else(|| {
        Failure::usage(format!("{text:?} has no = in it"), "write --setup-env NAME=VALUE")
    })?;
    Ok(v1::SetupVariable { name: name.into(), value: value.into() })
}

fn read(file: &std::path::Path) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::local(&error, format!("is {} there?", file.display()));
    let opened = std::fs::File::open(file).map_err(failed)?;
    let mut bytes = Vec::new();
    // One more than is allowed: the coordinator says so then.
    opened.take(SETUP_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    String::from_utf8(bytes).map_err(|error| Failure::local(&error, "a setup is a text"))
}

/// Shows what the setup of its pool wrote on a node.
pub(super) async fn log(session: &Session, node: &str, previous: bool) -> Result<(), Failure> {
    let request = v1::SetupLogRequest { node: node.to_string(), previous };
    let mut pieces = session.client.setup_log(request).await?;
    while let Some(piece) = pieces.message().await.map_err(yard_client::ClientError::from)? {
        let mut out = io::stdout().lock();
        match out.write_all(&piece.data).and_then(|()| out.flush()) {
            Ok(()) => {}
            // Whoever read it has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(Failure::local(&error, "is the disk full?")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, PoolVerb, Verb};
    use clap::Parser;

    fn args(words: &[&str]) -> SetupArgs {
        let words = [&["yard", "pool", "set", "gpu"][..], words].concat();
        match Cli::try_parse_from(words).unwrap().verb {
            Verb::Pool(PoolVerb::Set(args)) => args.setup,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_named_stays() {
        let present = v1::Setup {
            command: "one".into(),
            variables: vec![v1::SetupVariable { name: "A".into(), value: "1".into() }],
            timeout_ms: 5_000,
        };
        assert!(!is_named(&args(&["--description", "x"])));
        let after = |words: &[&str]| changed(Some(present.clone()), true, &args(words));
        let two = after(&["--setup-command", "two"]).unwrap().unwrap();
        assert_eq!(two, v1::Setup { command: "two".into(), ..present.clone() });
        let timed = after(&["--setup-timeout", "1h", "--setup-env", "B=x=y"]).unwrap().unwrap();
        assert_eq!((timed.command.as_str(), timed.timeout_ms), ("one", 3_600_000));
        let [one] = &timed.variables[..] else { panic!("{timed:?}") };
        assert_eq!((one.name.as_str(), one.value.as_str()), ("B", "x=y"));
        assert_eq!(after(&["--no-setup"]).unwrap(), None);
        assert_eq!(after(&["--setup-command", " "]).unwrap(), None);
        assert!(after(&["--setup-env", "B"]).is_err());
        let alone = args(&["--setup-timeout", "1h"]);
        assert!(changed(None, false, &alone).is_err() && changed(None, true, &alone).is_err());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("setup.sh");
        std::fs::write(&file, "").unwrap();
        assert_eq!(after(&["--setup", file.to_str().unwrap()]).unwrap(), None);
        assert!(after(&["--setup", "/does/not/exist"]).is_err());
    }
}
