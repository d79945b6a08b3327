//! A function for each verb.

pub(crate) mod backup;
mod change;
mod cluster;
mod events;
mod files;
mod holders;
mod inspect;
mod local;
mod logs;
mod nodes;
mod printer;
mod run;
mod setup;
mod submit;
mod top;
mod tree;
mod users;
mod visit;
mod wait;

use crate::args::{
    AgentVerb, Cli, ClusterVerb, CoordinatorVerb, RunArgs, SnapshotVerb, SubmitArgs, Verb,
};
use crate::daemon;
use crate::dev;
use crate::failure::Failure;
use crate::install;
use crate::session::Session;
use yard_coordinator::Build;

/// Runs what the command line asks for; `Ok` is the exit code.
pub(crate) async fn run(cli: Cli, build: Build) -> Result<u8, Failure> {
    let global = cli.global;
    // What needs no cluster.
    match &cli.verb {
        Verb::Login(login) => return local::login(login).await,
        Verb::Doctor => return local::doctor(&global).await,
        Verb::Init(init) => return local::init(&init.file),
        Verb::Dev(args) => return dev::dev(args, &global, build).await,
        Verb::Coordinator(verb) => return of_coordinator(verb, build).await,
        Verb::Agent(verb) => return of_agent(verb, build).await,
        Verb::Cluster(ClusterVerb::Snapshot(SnapshotVerb::Show { file })) => {
            return backup::show(&global, file);
        }
        Verb::Schema => return local::schema(),
        Verb::Explain { code } => return local::explain(code),
        Verb::Completion(completion) => return local::completion(completion.shell),
        Verb::Config(crate::args::ConfigVerb::Contexts) => return local::contexts(&global),
        Verb::Config(crate::args::ConfigVerb::Use { context }) => {
            return local::use_context(context);
        }
        Verb::Run(RunArgs { submit, .. }) | Verb::Submit(SubmitArgs { submit, .. })
            if submit.dry_run =>
        {
            return submit::dry_run(&global, submit).await;
        }
        Verb::Run(RunArgs { submit, pty: true }) => {
            return visit::run_on_terminal(&global, submit).await;
        }
        // The job first: what is wrong with it can be told wherever it is written.
        Verb::Run(args) => {
            let prepared = submit::prepare(&global, &args.submit).await?;
            let session = Session::open(&global).await?;
            let code = run::run(&session, args, &prepared).await;
            session.remember_members();
            return code;
        }
        Verb::Submit(args) => {
            let prepared = submit::prepare(&global, &args.submit).await?;
            let session = Session::open(&global).await?;
            let code = submit::submit(&session, args, &prepared).await;
            session.remember_members();
            return code;
        }
        _ => {}
    }
    let session = Session::open(&global).await?;
    let code = ask(&session, &cli.verb).await;
    session.remember_members();
    code
}

/// The life of a coordinator on this machine.
async fn of_coordinator(verb: &CoordinatorVerb, build: Build) -> Result<u8, Failure> {
    match verb {
        CoordinatorVerb::Init(args) => daemon::coordinator::init(args).await,
        CoordinatorVerb::Run(args) => daemon::coordinator::run(args, build).await,
        CoordinatorVerb::Join(args) => daemon::coordinator::join(args, build).await,
        CoordinatorVerb::Restore(args) => daemon::restore::restore(args, build).await,
        CoordinatorVerb::Reset(args) => daemon::coordinator::reset(args),
        CoordinatorVerb::Install(args) => install::coordinator(&args.install, args.user.as_deref()),
        CoordinatorVerb::Uninstall(args) => install::uninstall_coordinator(args),
    }
}

/// The life of an agent on this machine.
async fn of_agent(verb: &AgentVerb, build: Build) -> Result<u8, Failure> {
    match verb {
        AgentVerb::Join(args) => daemon::agent::join(args).await,
        AgentVerb::Run(args) => daemon::agent::run(args, build).await,
        AgentVerb::Install(args) => install::agent(args),
        AgentVerb::Uninstall(args) => install::uninstall_agent(&args.uninstall, args.force),
    }
}

/// Runs a verb that asks a cluster.
async fn ask(session: &Session, verb: &Verb) -> Result<u8, Failure> {
    match verb {
        Verb::Ls(args) => inspect::ls(session, args).await,
        Verb::Show(args) => inspect::show(session, args).await,
        Verb::Why(args) => inspect::why(session, args).await,
        Verb::Results(args) => inspect::results(session, args).await,
        Verb::Logs(args) => logs::logs(session, args).await,
        Verb::Files(verb) => files::files(session, verb).await,
        Verb::Top(args) => top::top(session, args).await,
        Verb::Exec(args) => visit::exec(session, args).await,
        Verb::Forward(args) => visit::forward(session, args).await,
        Verb::Events(args) => events::events(session, args).await,
        Verb::Checkpoint(args) => change::checkpoint(session, args).await,
        Verb::Cancel(args) => change::cancel(session, args).await,
        Verb::Hold(args) => change::hold(session, args).await,
        Verb::Release(args) => change::release(session, args).await,
        Verb::Set(args) => change::set(session, args).await,
        Verb::Wait(args) => wait::wait(session, args).await,
        Verb::Node(verb) => nodes::node(session, verb).await,
        Verb::Pool(verb) => holders::pool(session, verb).await,
        Verb::Queue(verb) => holders::queue(session, verb).await,
        Verb::Config(verb) => holders::config(session, verb).await,
        Verb::User(verb) => users::user(session, verb).await,
        Verb::Cluster(verb) => cluster::cluster(session, verb).await,
        // Answered above.
        Verb::Run(_)
        | Verb::Submit(_)
        | Verb::Login(_)
        | Verb::Dev(_)
        | Verb::Coordinator(_)
        | Verb::Agent(_)
        | Verb::Doctor
        | Verb::Init(_)
        | Verb::Schema
        | Verb::Explain { .. }
        | Verb::Completion(_) => Ok(0),
    }
}
