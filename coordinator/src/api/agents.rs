//! What agents ask: to join, to renew leases and certificates, and to hold their streams.

use super::Api;
use super::certify::{Shown, shown};
use super::gate::Who;
use super::refusal::Refusal;
use crate::sessions::{control, dial_back};
use std::sync::Arc;
use tonic::{Code, Request, Response, Status, Streaming};
use yard_common::id::NodeId;
use yard_core::command::{Actor, Command, Inventory, NodeCommand, Reply};
use yard_core::lease::Renewal;
use yard_proto::convert;
use yard_proto::internal::agent_service_server::AgentService;
use yard_proto::internal::{self, renew_response};
use yard_proto::wire::Payload;
use yard_runtime::identity::Principal;

#[tonic::async_trait]
impl AgentService for Api {
    type ControlStream = crate::sessions::Answers<internal::CoordinatorMessage>;
    type DataStream = crate::sessions::Answers<internal::MemberData>;

    async fn join(
        &self,
        request: Request<internal::JoinRequest>,
    ) -> Result<Response<internal::JoinResponse>, Status> {
        Ok(Response::new(self.join_node(request.into_inner()).await?))
    }

    async fn renew(
        &self,
        request: Request<internal::RenewRequest>,
    ) -> Result<Response<internal::RenewResponse>, Status> {
        let who = Who::of(&request);
        Ok(Response::new(self.renew_lease(&who, &request.into_inner())?))
    }

    async fn control(
        &self,
        request: Request<Streaming<internal::AgentMessage>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let who = Who::of(&request);
        let (node, peer) = (who.node()?, who.peer()?);
        Ok(Response::new(control(Arc::clone(self), node, peer, request.into_inner())))
    }

    async fn data(
        &self,
        request: Request<Streaming<internal::AgentData>>,
    ) -> Result<Response<Self::DataStream>, Status> {
        let node = Who::of(&request).node()?;
        Ok(Response::new(dial_back(self, node, request.into_inner()).await?))
    }

    async fn renew_certificate(
        &self,
        request: Request<internal::RenewAgentCertificateRequest>,
    ) -> Result<Response<internal::AgentCertificate>, Status> {
        let node = Who::of(&request).node()?;
        Ok(Response::new(self.renew_agent(node, &request.into_inner().csr_der)?))
    }

    async fn copy_logs(
        &self,
        request: Request<internal::CopyLogsRequest>,
    ) -> Result<Response<internal::CopyLogsResponse>, Status> {
        let node = Who::of(&request).node()?;
        Ok(Response::new(self.take_copies(node, request.into_inner()).await?))
    }
}

impl Api {
    /// A machine joins a pool with a token.
    async fn join_node(
        &self,
        request: internal::JoinRequest,
    ) -> Result<internal::JoinResponse, Refusal> {
        let shown = shown(&request.token_id, request.token_secret.as_ref())?;
        self.check_token(&shown, &request.request_id).await?;
        let Shown { token, secret_sha256 } = shown;
        let inventory = Inventory::from_payload(&request.inventory)?;
        let names = names(&inventory);
        // A request that cannot be signed must not cost the token.
        self.issue(&request.csr_der, Principal::Node(NodeId(u32::MAX)), &names)?;
        let name = request.name;
        let join = NodeCommand::Join { token, secret_sha256, name, inventory };
        let written = self.write(Actor::Bearer, &request.request_id, Command::Node(join)).await?;
        let Reply::Node { node, lease, generation } = written.reply else {
            tracing::error!(reply = ?written.reply, "a join was answered with something else");
            return Err(Refusal::plain(Code::Internal, "the answer names no node"));
        };
        let issued = self.issue(&request.csr_der, Principal::Node(node), &names)?;
        let (_, state) = self.raft.state();
        let pool = state.nodes.get(node).map(|node| node.pool);
        Ok(internal::JoinResponse {
            certificate: Some(self.agent_certificate(issued)?),
            node_id: node.0,
            lease_id: lease.0,
            generation: generation.0,
            cluster_id: convert::cluster_id_bytes(self.cluster),
            incarnation: state.incarnation.0,
            members: Some(self.members(&state)),
            lease_ms: pool.map_or(0, |pool| state.lease_ms(pool)),
        })
    }

    fn renew_lease(
        &self,
        who: &Who,
        request: &internal::RenewRequest,
    ) -> Result<internal::RenewResponse, Refusal> {
        let renewal = Renewal::from_payload(&request.renewal)?;
        if renewal.node != who.node()? {
            return Err(Refusal::plain(Code::PermissionDenied, "a lease of another node"));
        }
        let answer = match self.leases.renew(&renewal) {
            Ok(ack) => renew_response::Answer::Ack(ack.to_payload()?),
            Err(refusal) => renew_response::Answer::Refusal(refusal.to_payload()?),
        };
        Ok(internal::RenewResponse { answer: Some(answer) })
    }

    fn renew_agent(&self, node: NodeId, csr: &[u8]) -> Result<internal::AgentCertificate, Refusal> {
        let (_, state) = self.raft.state();
        let record = state.nodes.get(node).ok_or_else(|| Refusal::no_such("node", node))?;
        let issued = self.issue(csr, Principal::Node(node), &names(&record.facts))?;
        self.agent_certificate(issued)
    }
}

/// The names of an agent's server: where other nodes reach it.
fn names(inventory: &Inventory) -> Vec<String> {
    let address = inventory.address.as_str();
    if address.is_empty() { Vec::new() } else { vec![address.to_string()] }
}
