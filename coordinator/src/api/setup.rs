//! The setup of a pool: set by an admin, and what it wrote on a machine, from the machine's agent.

use super::Api;
use super::files::{PART, parts};
use super::gate::Who;
use super::refusal::Refusal;
use crate::sessions::{Answers, ask};
use yard_core::command::{Command, Holder};
use yard_proto::internal::agent_data::What;
use yard_proto::internal::{SetupLogWant, member_data};
use yard_proto::{convert, v1};

impl Api {
    /// Sets or removes what machines of a pool do before they take work.
    pub(super) async fn set_pool_setup(
        &self,
        who: &Who,
        request: v1::SetPoolSetupRequest,
    ) -> Result<v1::Changed, Refusal> {
        let view = self.view(who, None).await?;
        let id = convert::pool_id(&view.state, &request.pool)?;
        let command = Command::Holder(Holder::SetSetup(id, request.setup.map(Into::into)));
        self.changed(who, &request.request_id, command).await
    }

    /// What the last run on a node wrote, or the one before it.
    pub(super) async fn setup_log(
        &self,
        who: &Who,
        request: v1::SetupLogRequest,
    ) -> Result<Answers<v1::SetupLogResponse>, Refusal> {
        let view = self.view(who, None).await?;
        let node = convert::node_id(&view.state, &request.node)?;
        let want = SetupLogWant { back: u32::from(request.previous) };
        let answer = ask(self, node, member_data::What::SetupLog(want)).await?;
        let parts = parts(answer, Some(PART), |what| match what {
            What::SetupLog(log) => Some(v1::SetupLogResponse { data: log.data }),
            _ => None,
        });
        Ok(self.while_admitted(who, None, parts))
    }
}
