//! What members compare must not change unless the feature level does: members of two versions
//! would take each other for broken. The state of a small story is hashed slice by slice, and held
//! against what was written down when the schema was made (docs/adr/0014).
//!
//! `UPDATE=1` writes down a schema that has no file yet. It never changes one that has.

// A test that cannot go on says so by failing, and reads what was written down.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::path::PathBuf;
use support::*;
use yard_common::ExitCause;
use yard_common::id::*;
use yard_core::agent::ReportKind;
use yard_core::command::*;
use yard_core::state::{Schema, State, slice_name};

/// A little of everything: what is in no record is hashed as nothing, and could change unseen.
fn story() -> State {
    let mut lab = Lab::new();
    let (voters, joint) = ([MemberId(1), MemberId(2)].into(), Some([MemberId(1)].into()));
    lab.ok(Actor::Leader, Command::Cluster(Cluster::Members { voters, joint }));
    holders(&mut lab);
    jobs(&mut lab);
    people(&mut lab);
    // Until the digest has seen all of it.
    for _ in 0..50 {
        lab.wait(100);
    }
    lab.state
}

fn people(lab: &mut Lab) {
    let (user, workspace) = (lab.user(), lab.workspace);
    let grant = Grant { workspace: Some(workspace), role: Role::User };
    lab.add_user("ann", vec![grant]);
    let (secret_sha256, life_ms) = ([5; 32], 60_000);
    let add = |number, scope| {
        let token = TokenId::from_u128(number);
        Command::Access(Access::AddToken { token, secret_sha256, scope, life_ms })
    };
    lab.ok(user, add(90, Scope::Login(PrincipalId(1))));
    lab.ok(user, add(91, Scope::Member));
    let join = Access::JoinMember {
        token: TokenId::from_u128(91),
        secret_sha256,
        key_sha256: [6; 32],
        address: "c:7100".into(),
        level_max: FeatureLevel(0),
    };
    lab.ok(Actor::Bearer, Command::Access(join));
    for command in [
        Access::Revoke { serial: vec![1, 2], reason: "lost".into(), expires_wall_ms: u64::MAX },
        Access::PutSecret { workspace, name: "key".into(), ciphertext: vec![7; 40], version: 1 },
    ] {
        lab.ok(user, Command::Access(command));
    }
}

fn holders(lab: &mut Lab) {
    let (user, queue) = (lab.user(), lab.queue);
    let variables = vec![("A".to_string(), "b".to_string())];
    let setup = Setup { command: "true".into(), variables, timeout_ms: 60_000 };
    let limit = HolderLimit { jobs: Some(100), ..HolderLimit::default() };
    for command in [
        Holder::AddPool("h100".into(), PoolChange::default()),
        Holder::AddQueue("night".into(), QueueChange::default()),
        Holder::SetSetting("a".into(), Some("b".into())),
        Holder::SetLimit(LimitScope::Queue(queue), Some(limit)),
        Holder::AddMount { workspace: lab.workspace, name: "data".into(), definition: "{}".into() },
        Holder::SetSetup(PoolId(lab.pool.0 + 1), Some(setup)),
    ] {
        lab.ok(user, Command::Holder(command));
    }
}

fn jobs(lab: &mut Lab) {
    let (a, b) = (lab.join("a", 4, &["H100", "H100"]), lab.join("b", 4, &[]));
    let done = lab.submit(single());
    let allocation = lab.place(done, TaskRange::one(0), &[a]);
    lab.run_to_end(a, allocation, ExitCause::Exited(0));
    let failed = lab.submit(single());
    let allocation = lab.place(failed, TaskRange::one(0), &[b]);
    lab.run_to_end(b, allocation, ExitCause::Exited(3));
    let running = lab.submit(gang(2, 1));
    let allocation = lab.place(running, TaskRange::one(0), &[a, b]);
    lab.report(a, allocation, ReportKind::Ready);
    let long = lab.submit(array(7));
    let trained = lab.submit(with_gpus(1));
    let share = ShareChoice { node: a, group: 0, gpus: devices([0]) };
    let placement = Placement { job: trained, tasks: vec![TaskRange::one(0)], shares: vec![share] };
    let allocation = lab.try_place(placement).unwrap();
    lab.wait(3_600_000);
    lab.run_to_end(a, allocation, ExitCause::Exited(0));
    let mut waits = single();
    waits.after.any = vec![running];
    lab.submit(waits);
    let promise = Promise { job: long, task: 0, nodes: vec![a], from_ms: 9_000 };
    let plan = Plan { promises: vec![promise], ..Plan::default() };
    lab.ok(Actor::Leader, Command::Plan(plan));
    let mut named = lab.submission(single());
    named.experiment = Some("sweep".into());
    let request = lab.request();
    let command = Command::Job(JobCommand::Submit(Box::new(named)));
    assert!(lab.apply(lab.user(), Some(request), command).reply.is_ok());
    lab.wait(5_000);
    let plan = DrainPlan { in_ms: 60_000, deadline_ms: Some(60_000), reason: "disk".into() };
    lab.ok(lab.user(), Command::Node(NodeCommand::Drain { node: b, plan }));
}

/// The story as one line for each slice.
fn lines() -> String {
    let state = story();
    let Schema { number, slices } = state.schema();
    let line = |slice| format!("{:016x} {}\n", state.slice_hash(slice), slice_name(slice));
    format!("schema {number}\n") + &(0..slices).map(line).collect::<String>()
}

#[test]
fn what_members_compare_is_as_it_was_written_down() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/schema");
    let file = folder.join(format!("{}.txt", story().schema().number));
    let now = lines();
    if std::env::var_os("UPDATE").is_some() && !file.exists() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&file, &now).unwrap();
    }
    let then = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = then.lines().zip(now.lines()).find(|(then, now)| then != now);
    assert!(
        then == now,
        "members of this version and of the one before would take each other for broken: \
         {differs:?} in {}. Make a schema of its own for a new feature level: docs/adr/0014",
        file.display()
    );
}

#[test]
fn the_story_leaves_no_slice_empty_that_it_could_fill() {
    let (state, empty) = (story(), State::default());
    let same = (64..state.schema().slices)
        .filter(|slice| state.slice_hash(*slice) == empty.slice_hash(*slice));
    let same: Vec<String> = same.map(slice_name).collect();
    // The story is one at the first level.
    assert_eq!(same.join(" "), "incarnation feature_level level_version");
}
