//! The calls about nodes.

use super::Api;
use super::gate::Who;
use super::read::{View, page_of};
use super::refusal::Refusal;
use super::serve::serve;
use crate::sessions::Answers;
use std::collections::BTreeSet;
use tonic::Code;
use yard_common::ErrorCode;
use yard_common::id::{LogIndex, NodeId};
use yard_common::state::NodeState;
use yard_core::command::{Actor, Command, DrainPlan, NodeCommand, Scope};
use yard_proto::convert::page;
use yard_proto::v1::node_service_server::NodeService;
use yard_proto::{convert, v1};
use yard_runtime::identity::TokenKind;

serve!(NodeService [SetupLogStream = v1::SetupLogResponse] {
    list: v1::ListNodesRequest => v1::ListNodesResponse = list_nodes;
    get: v1::GetNodeRequest => v1::GetNodeResponse = get_node;
    drain: v1::DrainRequest => v1::Changed = drain_node;
    undrain: v1::UndrainRequest => v1::Changed = undrain_node;
    confirm_dead: v1::ConfirmDeadRequest => v1::Changed = confirm_dead;
    remove: v1::RemoveNodeRequest => v1::Changed = remove_node;
    maintenance: v1::MaintenanceRequest => v1::Changed = maintain_node;
    check: v1::CheckNodeRequest => v1::Changed = check_node;
    setup_log: v1::SetupLogRequest => Answers<v1::SetupLogResponse> = setup_log;
    create_join_token: v1::CreateJoinTokenRequest => v1::CreateJoinTokenResponse = join_token;
});

/// Leaves out what belongs to jobs that the user may not know of.
fn hide(view: &View, mut node: v1::Node) -> v1::Node {
    let numbers = node.job_ids.iter().copied();
    let numbers = numbers.chain(node.leftovers.iter().map(|left| left.job_id));
    let seen: BTreeSet<u64> =
        numbers.filter(|number| view.sees_job(yard_common::id::JobId(*number))).collect();
    node.job_ids.retain(|number| seen.contains(number));
    node.shares.retain(|share| seen.contains(&share.job_id));
    node.leftovers.retain(|left| seen.contains(&left.job_id));
    node
}

impl Api {
    async fn list_nodes(
        &self,
        who: &Who,
        request: v1::ListNodesRequest,
    ) -> Result<v1::ListNodesResponse, Refusal> {
        let view = self.view(who, request.page.as_ref()).await?;
        let state = &view.state;
        let after = page::after_number::<u32>(request.page.as_ref())?;
        let pool = match request.pool.as_str() {
            "" => None,
            name => Some(convert::pool_id(state, name)?),
        };
        let states = convert::known_all::<v1::NodeState, NodeState>("states", &request.states)?;
        let nodes = state.nodes.iter().filter(|(id, node)| {
            after.is_none_or(|after| id.0 > after)
                && pool.is_none_or(|pool| pool == node.pool)
                && (states.is_empty() || states.contains(&node.state))
        });
        let rows = nodes.map(|(id, node)| {
            let silent_ms = Some(self.leases.silent_ms(id));
            (id, hide(&view, convert::node_row(state, id, node, silent_ms)))
        });
        let (nodes, next_key) = page_of(rows, request.page.as_ref());
        Ok(v1::ListNodesResponse { nodes, page: Some(view.page_info(next_key)) })
    }

    async fn get_node(
        &self,
        who: &Who,
        request: v1::GetNodeRequest,
    ) -> Result<v1::GetNodeResponse, Refusal> {
        let view = self.view(who, None).await?;
        let id = convert::node_id(&view.state, &request.node)?;
        let node = view.state.nodes.get(id).map(|node| {
            let silent_ms = Some(self.leases.silent_ms(id));
            hide(&view, convert::node(&view.state, id, node, silent_ms))
        });
        let mut facts = node.as_ref().and_then(|_| self.sessions.facts(id));
        if let Some(facts) = &mut facts {
            let sees = |job| view.sees_job(yard_common::id::JobId(job));
            facts.stuck.retain(|one| sees(one.job_id));
            facts.late.retain(|one| sees(one.job_id));
        }
        let (applied_index, now) = (view.applied_index(), view.now());
        Ok(v1::GetNodeResponse { node, applied_index, now, facts })
    }

    async fn node_named(&self, who: &Who, name: &str) -> Result<NodeId, Refusal> {
        let view = self.view(who, None).await?;
        Ok(convert::node_id(&view.state, name)?)
    }

    async fn drain_node(
        &self,
        who: &Who,
        request: v1::DrainRequest,
    ) -> Result<v1::Changed, Refusal> {
        let node = self.node_named(who, &request.node).await?;
        let v1::DrainRequest { in_ms, deadline_ms, reason, gpu, request_id, .. } = request;
        let command = match gpu.is_empty() {
            true => NodeCommand::Drain { node, plan: DrainPlan { in_ms, deadline_ms, reason } },
            false if in_ms > 0 || deadline_ms.is_some() => {
                return Err(Refusal::not_yet("in_ms and deadline_ms of one GPU"));
            }
            false => NodeCommand::DrainGpu { node, gpu, reason },
        };
        self.changed(who, &request_id, Command::Node(command)).await
    }

    async fn undrain_node(
        &self,
        who: &Who,
        request: v1::UndrainRequest,
    ) -> Result<v1::Changed, Refusal> {
        let node = self.node_named(who, &request.node).await?;
        let command = match request.gpu.is_empty() {
            true => NodeCommand::Undrain(node),
            false => NodeCommand::UndrainGpu { node, gpu: request.gpu },
        };
        self.changed(who, &request.request_id, Command::Node(command)).await
    }

    async fn check_node(
        &self,
        who: &Who,
        request: v1::CheckNodeRequest,
    ) -> Result<v1::Changed, Refusal> {
        let node = self.node_named(who, &request.node).await?;
        let command = Command::Node(NodeCommand::Check(node));
        self.changed(who, &request.request_id, command).await
    }

    async fn confirm_dead(
        &self,
        who: &Who,
        request: v1::ConfirmDeadRequest,
    ) -> Result<v1::Changed, Refusal> {
        let node = self.node_named(who, &request.node).await?;
        let command = Command::Node(NodeCommand::ConfirmDead(node));
        self.changed(who, &request.request_id, command).await
    }

    async fn remove_node(
        &self,
        who: &Who,
        request: v1::RemoveNodeRequest,
    ) -> Result<v1::Changed, Refusal> {
        let node = self.node_named(who, &request.node).await?;
        let command = Command::Node(NodeCommand::Remove(node));
        self.changed(who, &request.request_id, command).await
    }

    async fn maintain_node(
        &self,
        who: &Who,
        request: v1::MaintenanceRequest,
    ) -> Result<v1::Changed, Refusal> {
        let state = self.fresh(LogIndex(0)).await?;
        let named = state.nodes.find(&request.node);
        let (actor, node) = match who.node() {
            Ok(own) if named == Some(own) => (Actor::Node(own), own),
            // Whether there is another node of this name is no business of an agent.
            Ok(_) => {
                let message = "an agent asks for its own node alone";
                return Err(Refusal::new(Code::PermissionDenied, ErrorCode::NotAllowed, message));
            }
            Err(_) => (Actor::User(who.user()?), convert::node_id(&state, &request.node)?),
        };
        let command = match (request.back, request.for_ms) {
            (false, for_ms) => NodeCommand::Maintenance { node, for_ms },
            (true, 0) => NodeCommand::Back(node),
            (true, _) => return Err(Refusal::invalid("for_ms", "not with `back`")),
        };
        let written = self.write(actor, &request.request_id, Command::Node(command)).await?;
        Ok(v1::Changed { applied_index: written.index.0 })
    }

    async fn join_token(
        &self,
        who: &Who,
        request: v1::CreateJoinTokenRequest,
    ) -> Result<v1::CreateJoinTokenResponse, Refusal> {
        if !request.renew_node.is_empty() {
            return Err(Refusal::not_yet("renew_node"));
        }
        let view = self.view(who, None).await?;
        let pool = convert::pool_id(&view.state, &request.pool)?;
        let what = (TokenKind::Join, Scope::Join(pool));
        let minted = self.mint(who, &request.request_id, what, request.life_ms).await?;
        Ok(v1::CreateJoinTokenResponse {
            token: Some(minted.text),
            token_id: convert::token_id_bytes(minted.id),
            expires_wall_ms: minted.expires_wall_ms,
        })
    }
}
