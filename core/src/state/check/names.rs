//! Names, counts of holders, and whether what is named exists.

use super::{Findings, Rule};
use crate::command::{LimitScope, Role, Scope};
use crate::state::State;
use crate::table::Named;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use yard_common::id::{Dense, WorkspaceId};

pub(super) fn check(state: &State, findings: &mut Findings) {
    check_named("workspace", &state.workspaces, |it| &it.name, findings);
    check_named("user", &state.principals, |it| &it.name, findings);
    check_named("pool", &state.pools, |it| &it.name, findings);
    check_named("queue", &state.queues, |it| &it.name, findings);
    check_named("node", &state.nodes, |it| &it.name, findings);
    let kept: BTreeMap<_, _> = state.experiment_names.iter().map(|(k, id)| (k, *id)).collect();
    let experiments: Vec<_> = state.experiments.iter().collect();
    let names = experiments.iter().map(|(id, it)| ((it.workspace, it.name.clone()), *id));
    let names: Vec<_> = names.collect();
    let found = names.iter().map(|(key, id)| (key, *id)).collect();
    findings.same(Rule::Names, || "experiments".into(), &kept, &found);
    let kept: BTreeMap<_, _> = state.mount_names.iter().map(|(k, id)| (k, *id)).collect();
    let names = state.mounts.iter().map(|(id, it)| ((it.workspace, it.name.clone()), id));
    let names: Vec<_> = names.collect();
    let found = names.iter().map(|(key, id)| (key, *id)).collect();
    findings.same(Rule::Names, || "volumes".into(), &kept, &found);
    check_counts(state, findings);
    check_users(state, findings);
    check_references(state, findings);
    for (id, _) in state.members.iter() {
        let given = id.0 <= state.member_last;
        let last = state.member_last;
        findings.expect(Rule::Members, given, || format!("member {id}, and the last was {last}"));
    }
}

/// Each name leads to the one record that has it.
fn check_named<K: Dense + Debug, T: Clone>(
    what: &str,
    table: &Named<K, T>,
    name_of: impl Fn(&T) -> &str,
    findings: &mut Findings,
) {
    let kept: BTreeMap<&str, K> = table.names().collect();
    let found: BTreeMap<&str, K> = table.iter().map(|(id, it)| (name_of(it), id)).collect();
    findings.same(Rule::Names, || format!("{what}s by name"), &kept, &found);
    let what = || format!("names of {what}s");
    findings.same(Rule::Names, what, &found.len(), &table.len());
}

fn check_counts(state: &State, findings: &mut Findings) {
    let rule = Rule::HolderCounts;
    for (id, workspace) in state.workspaces.iter() {
        let jobs = state.jobs.iter().filter(|(_, job)| job.workspace == id).count() as u64;
        findings.same(rule, || format!("workspace {id}, jobs"), &workspace.jobs, &jobs);
        let experiments = state.experiments.iter().filter(|(_, it)| it.workspace == id).count();
        let mounts = state.mounts.iter().filter(|(_, it)| it.workspace == id).count();
        let secrets = state.secrets.iter().filter(|(key, _)| key.workspace == id).count();
        let holds = (experiments + mounts + secrets) as u64;
        findings.same(rule, || format!("workspace {id}, holds"), &workspace.holds, &holds);
    }
    for (id, queue) in state.queues.iter() {
        let jobs = state.jobs.iter().filter(|(_, job)| job.queue == id).count() as u64;
        findings.same(rule, || format!("queue {id}, jobs"), &queue.jobs, &jobs);
    }
    for (id, experiment) in state.experiments.iter() {
        let jobs = state.jobs.iter().filter(|(_, job)| job.experiment == Some(id)).count() as u64;
        findings.same(rule, || format!("experiment {id}, jobs"), &experiment.jobs, &jobs);
        findings.expect(rule, jobs > 0, || format!("experiment {id} is empty, but here"));
    }
}

fn check_users(state: &State, findings: &mut Findings) {
    let mut admins = state.principals.iter().filter(|(_, user)| user.has(Role::Admin, None));
    let has_admin = admins.next().is_some();
    findings.expect(Rule::Admin, state.cluster.is_none() || has_admin, || "none is left".into());
    for (id, user) in state.principals.iter() {
        let places: BTreeSet<_> = user.grants.iter().map(|grant| grant.workspace).collect();
        findings.expect(Rule::References, places.len() == user.grants.len(), || {
            format!("user {id} has two roles in one place")
        });
        for workspace in places.into_iter().flatten() {
            expect_workspace(state, workspace, || format!("a role of user {id}"), findings);
        }
    }
}

fn expect_workspace(
    state: &State,
    id: WorkspaceId,
    what: impl FnOnce() -> String,
    findings: &mut Findings,
) {
    let exists = state.workspaces.get(id).is_some();
    findings.expect(Rule::References, exists, || format!("{}: workspace {id} is gone", what()));
}

fn check_references(state: &State, findings: &mut Findings) {
    let rule = Rule::References;
    for (id, job) in state.jobs.iter() {
        expect_workspace(state, job.workspace, || format!("job {id}"), findings);
        let queue = state.queues.get(job.queue).is_some();
        findings.expect(rule, queue, || format!("job {id}: queue {} is gone", job.queue));
        let owner = state.principals.get(job.owner).is_some();
        findings.expect(rule, owner, || format!("job {id}: owner {} is gone", job.owner));
        let workspace = |experiment| state.experiments.get(experiment).map(|it| it.workspace);
        let same = job.experiment.is_none_or(|it| workspace(it) == Some(job.workspace));
        findings.expect(rule, same, || format!("job {id}: experiment of another workspace"));
        let mut shapes = std::iter::once(&job.plan.shape).chain(&job.plan.any_of);
        let gone = |pool| state.pools.get(pool).is_none();
        let lost = shapes.any(|shape| shape.pool.is_some_and(gone)) && !job.state.is_terminal();
        findings.expect(rule, !lost, || format!("job {id} names a pool that is gone"));
    }
    for (id, queue) in state.queues.iter() {
        let gone = queue.set.pools.iter().find(|pool| state.pools.get(**pool).is_none());
        findings.expect(rule, gone.is_none(), || format!("queue {id} names {gone:?}: gone"));
    }
    for (scope, _) in state.holdings.limits() {
        let exists = match *scope {
            LimitScope::Queue(id) | LimitScope::EachOwner(id) => state.queues.get(id).is_some(),
            LimitScope::Workspace(id) => state.workspaces.get(id).is_some(),
            LimitScope::Owner(id) => state.principals.get(id).is_some(),
        };
        findings.expect(rule, exists, || format!("a limit on {scope:?}, which is gone"));
    }
    for (id, token) in state.tokens.iter() {
        let exists = match token.scope {
            Scope::Join(pool) => state.pools.get(pool).is_some(),
            Scope::Login(user) => state.principals.get(user).is_some(),
            Scope::Renew(node) => state.nodes.get(node).is_some(),
            Scope::Member => true,
        };
        findings.expect(rule, exists, || format!("token {id} is for {:?}: gone", token.scope));
    }
    for (key, _) in state.secrets.iter() {
        expect_workspace(state, key.workspace, || format!("secret {}", key.name), findings);
    }
    for (id, mount) in state.mounts.iter() {
        expect_workspace(state, mount.workspace, || format!("volume {id}"), findings);
    }
}
