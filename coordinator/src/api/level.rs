//! The feature level: what every member understands, and so what may be written to the log.

use super::Api;
use super::about::Told;
use super::gate::Who;
use super::refusal::Refusal;
use std::collections::BTreeSet;
use tonic::Code;
use yard_common::ErrorCode;
use yard_common::id::{FeatureLevel, MemberId, RequestId};
use yard_core::command::{Actor, Cluster, Command, Raise};
use yard_proto::{convert, v1};

/// How often members are asked until all have answered.
const ASKED_MAX: u32 = 4;

impl Api {
    /// Raises the level, if every member says now that it understands it.
    pub(super) async fn raise_level(
        &self,
        _: &Who,
        request: v1::RaiseFeatureLevelRequest,
    ) -> Result<v1::Changed, Refusal> {
        if !self.leads() {
            return Err(self.not_leading());
        }
        let level = FeatureLevel(request.level);
        let (index, state) = self.raft.state();
        // Done twice it is as done once.
        if level <= state.feature_level {
            return Ok(v1::Changed { applied_index: index.0 });
        }
        let mut told = self.ask_members(false).await;
        // A busy machine may be late once.
        for _ in 1..ASKED_MAX {
            if told.values().all(Result::is_ok) {
                break;
            }
            told = self.ask_members(false).await;
        }
        let known = told.keys().copied().chain(state.must_understand());
        let leaves = |id: &MemberId| state.members.get(id).is_some_and(|member| member.leaves);
        let wanted: BTreeSet<MemberId> = known.filter(|id| !leaves(id)).collect();
        let missing: Vec<String> =
            wanted.iter().filter_map(|id| why_not(level, *id, &told)).collect();
        if !missing.is_empty() {
            let message = format!("the level cannot rise to {level} yet: {}", missing.join("; "));
            return Err(too_old(message));
        }
        // Apply looks again: one that has joined meanwhile was not asked.
        let version = self.build.version.into();
        let raise = Raise { level, version, understood_by: wanted };
        let command = Command::Cluster(Cluster::RaiseFeatureLevel(raise));
        // The gate has made sure that an admin asks; in the log it is the leader's own doing. Who
        // was asked is part of it, so a retry is another request.
        let bits = u128::from(self.env.random()) << 64 | u128::from(self.env.random());
        let id = convert::request_id_bytes(RequestId::from_u128(bits));
        let written = self.write(Actor::Leader, &id, command).await?;
        Ok(v1::Changed { applied_index: written.index.0 })
    }

    /// Refuses a member whose program would stop at what is in the log already, before anything is
    /// spent on it.
    pub(super) fn check_version(&self, version: &str, max: FeatureLevel) -> Result<(), Refusal> {
        let (_, state) = self.raft.state();
        let level = state.feature_level;
        if max >= level {
            return Ok(());
        }
        Err(too_old(format!(
            "the cluster is at feature level {level}, and version {version} understands levels up \
             to {max}; install version {} or a later one. The token is as good as before",
            state.level_version
        )))
    }
}

fn too_old(message: String) -> Refusal {
    Refusal::new(Code::FailedPrecondition, ErrorCode::VersionTooOld, message)
}

/// Why a member holds a level up, if it does.
fn why_not(level: FeatureLevel, id: MemberId, told: &Told) -> Option<String> {
    match told.get(&id) {
        Some(Ok(about)) if about.feature_level_max >= level.0 => None,
        Some(Ok(about)) => {
            let (version, max) = (&about.version, about.feature_level_max);
            Some(format!("member {id} (version {version}) understands levels up to {max}"))
        }
        Some(Err(why)) => Some(format!("member {id} does not answer: {why}")),
        None => Some(format!("member {id} has joined, and does not run yet")),
    }
}
