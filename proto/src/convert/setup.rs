//! The setup of a pool: what it is, and how far its machines are.

use crate::{internal, v1};
use std::collections::BTreeMap;
use yard_common::id::PoolId;
use yard_common::limits::SETUP_MS;
use yard_core::command::{Setup, SetupId, SetupStage};
use yard_core::state::{Node, Pool, State};

/// How many machines of a pool are how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetupCounts {
    /// Have done it.
    pub done: u32,
    /// It failed there, or is not allowed.
    pub failed: u32,
    /// Have not done it yet.
    pub due: u32,
}

/// How far the machines of all pools are that have a setup.
#[must_use]
pub fn setup_counts(state: &State) -> BTreeMap<PoolId, SetupCounts> {
    let with = state.pools.iter().filter(|(_, pool)| pool.setup.is_some());
    let mut counts: BTreeMap<PoolId, SetupCounts> =
        with.map(|(id, _)| (id, SetupCounts::default())).collect();
    if counts.is_empty() {
        return counts;
    }
    for (_, node) in state.nodes.iter() {
        let Some(count) = counts.get_mut(&node.pool) else { continue };
        let id = state.pools[node.pool].setup_id;
        let stage = node.facts.setup.filter(|report| report.id == id).map(|report| report.stage);
        match stage {
            Some(SetupStage::Done) => count.done += 1,
            Some(SetupStage::Failed | SetupStage::Refused) => count.failed += 1,
            Some(SetupStage::Running) | None => count.due += 1,
        }
    }
    counts
}

/// The setup of a pool; none if it has none. `whole`: with its text.
#[must_use]
pub fn pool_setup(pool: &Pool, counts: SetupCounts, whole: bool) -> Option<v1::PoolSetup> {
    let setup = pool.setup.as_ref()?;
    Some(v1::PoolSetup {
        revision: pool.setup_id.revision,
        setup: whole.then(|| setup.into()),
        nodes_done: counts.done,
        nodes_failed: counts.failed,
        nodes_due: counts.due,
    })
}

/// How far the setup of its pool is on a node; none if the pool has none.
pub(super) fn node_setup(state: &State, node: &Node) -> Option<v1::NodeSetup> {
    let pool = state.pools.get(node.pool).filter(|pool| pool.setup.is_some())?;
    let mut told = v1::NodeSetup {
        revision: pool.setup_id.revision,
        due: node.setup_due,
        ..v1::NodeSetup::default()
    };
    if let Some(report) = node.facts.setup.filter(|report| report.id.is_some()) {
        told.told_revision = report.id.revision;
        told.since_wall_ms = report.since_wall_ms;
        told.set_stage(report.stage.into());
    }
    Some(told)
}

impl From<&Setup> for v1::Setup {
    fn from(setup: &Setup) -> Self {
        let variable = |(name, value): &(String, String)| v1::SetupVariable {
            name: name.clone(),
            value: value.clone(),
        };
        v1::Setup {
            command: setup.command.clone(),
            variables: setup.variables.iter().map(variable).collect(),
            timeout_ms: setup.timeout_ms,
        }
    }
}

/// Apply, and an agent that is told one, check its bounds.
impl From<v1::Setup> for Setup {
    fn from(told: v1::Setup) -> Self {
        let variables = told.variables.into_iter().map(|one| (one.name, one.value));
        let mut variables: Vec<_> = variables.collect();
        variables.sort();
        let timeout_ms = if told.timeout_ms == 0 { SETUP_MS } else { told.timeout_ms };
        Setup { command: told.command, variables, timeout_ms }
    }
}

impl From<SetupId> for internal::SetupId {
    fn from(id: SetupId) -> Self {
        internal::SetupId { revision: id.revision, hash: id.hash }
    }
}

impl From<internal::SetupId> for SetupId {
    fn from(told: internal::SetupId) -> Self {
        SetupId { revision: told.revision, hash: told.hash }
    }
}

/// What a node is told of the setup of its pool: the text only if it has another one.
#[must_use]
pub fn setup_for(pool: &Pool, held: SetupId) -> internal::PoolSetup {
    let other = held != pool.setup_id;
    internal::PoolSetup {
        id: Some(pool.setup_id.into()),
        setup: pool.setup.as_ref().filter(|_| other).map(Into::into),
        pool: pool.name.to_string(),
    }
}

/// What a node was told: which setup, and its text if it came along.
///
/// # Errors
/// If it has no id, or breaks a bound.
pub fn setup_told(told: internal::PoolSetup) -> Result<(SetupId, Option<Setup>), String> {
    let id = told.id.ok_or("setup.id is missing")?.into();
    let setup = told.setup.map(Setup::from);
    if let Some(Err((field, problem))) = setup.as_ref().map(Setup::check) {
        return Err(format!("{field}: {problem}"));
    }
    Ok((id, setup))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> Setup {
        let variables = vec![("A".to_string(), "1".to_string()), ("B".into(), String::new())];
        Setup { command: "true".into(), variables, timeout_ms: 5_000 }
    }

    #[test]
    fn a_setup_survives_the_wire_in_its_order() {
        let mut told = v1::Setup::from(&setup());
        told.variables.reverse();
        assert_eq!(Setup::from(told), setup());
        assert_eq!(Setup::from(v1::Setup::default()).timeout_ms, SETUP_MS);
    }

    #[test]
    fn the_text_goes_to_those_who_have_another_one() {
        let id = SetupId::default().next(Some(&setup()));
        let pool = Pool {
            name: "gpu".into(),
            set: Default::default(),
            nodes: 1,
            floor: None,
            setup: Some(setup()),
            setup_id: id,
        };
        let told = setup_told(setup_for(&pool, SetupId::default())).unwrap();
        assert_eq!(told, (id, Some(setup())));
        assert_eq!(setup_told(setup_for(&pool, id)).unwrap(), (id, None));
        let mut bad = setup_for(&pool, SetupId::default());
        bad.setup.as_mut().unwrap().timeout_ms = 1;
        assert!(setup_told(bad).is_err());
        assert!(setup_told(internal::PoolSetup::default()).is_err());
    }
}
