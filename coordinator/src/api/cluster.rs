//! The calls about the cluster itself.

use super::Api;
use super::gate::Who;
use super::read::View;
use super::refusal::Refusal;
use super::serve::serve;
use yard_common::id::{PrincipalId, QueueId};
use yard_core::command::Role;
use yard_core::state::UsageKey;
use yard_proto::convert::page;
use yard_proto::v1::cluster_service_server::ClusterService;
use yard_proto::{convert, v1};

serve!(ClusterService [
    EventsStream = v1::WatchResponse,
    SaveSnapshotStream = v1::SnapshotPiece
] {
    status: v1::StatusRequest => v1::StatusResponse = cluster_status;
    events: v1::EventsRequest => Self::EventsStream = watch_all;
    raise_feature_level: v1::RaiseFeatureLevelRequest => v1::Changed = raise_level;
    transfer_leader: v1::TransferLeaderRequest => v1::TransferLeaderResponse = hand_over;
    create_member_token: v1::CreateMemberTokenRequest => v1::CreateMemberTokenResponse
        = member_token;
    add_member: v1::AddMemberRequest => v1::MembersResponse = add_member;
    remove_member: v1::RemoveMemberRequest => v1::MembersResponse = remove_member;
    usage: v1::UsageRequest => v1::UsageResponse = usage;
    save_snapshot: v1::SaveSnapshotRequest => Self::SaveSnapshotStream = save_snapshot;
});

impl Api {
    async fn usage(
        &self,
        who: &Who,
        request: v1::UsageRequest,
    ) -> Result<v1::UsageResponse, Refusal> {
        let view = self.view(who, request.page.as_ref()).await?;
        let after = match page::after_name(request.page.as_ref()) {
            "" => None,
            key => Some(usage_key(key).ok_or(convert::ConvertError::BadKey)?),
        };
        let owner = match request.owner.as_str() {
            "" => None,
            // Whether there is such a user is nobody's business but an operator's.
            name => Some(convert::user_id(&view.state, name).ok()),
        };
        let queue = match request.queue.as_str() {
            "" => None,
            name => Some(convert::queue_id(&view.state, name)?),
        };
        let last_day = if request.last_day == 0 { u32::MAX } else { request.last_day };
        let rows = view.state.usage.iter().filter(|(key, _)| {
            after.as_ref().is_none_or(|after| *key > after)
                && (request.first_day..=last_day).contains(&key.day)
                && owner.is_none_or(|owner| owner == Some(key.owner))
                && queue.is_none_or(|queue| queue == key.queue)
                && sees_use(&view, key)
        });
        let told = rows.map(|(key, usage)| {
            let name = format!("{}/{}/{}/{}", key.day, key.owner, key.queue, key.model);
            (name, convert::usage_row(&view.state, key, usage))
        });
        let (rows, next_key) = super::read::page_of(told, request.page.as_ref());
        Ok(v1::UsageResponse { rows, page: Some(view.page_info(next_key)) })
    }
}

/// One's own, and everybody's for those who see the whole cluster.
fn sees_use(view: &View, key: &UsageKey) -> bool {
    key.owner == view.user || view.has_everywhere(Role::Viewer)
}

/// A row's key, as a page before has given it.
fn usage_key(text: &str) -> Option<UsageKey> {
    let mut parts = text.splitn(4, '/');
    let mut number = || parts.next()?.parse::<u32>().ok();
    let (day, owner, queue) = (number()?, PrincipalId(number()?), QueueId(number()?));
    Some(UsageKey { day, owner, queue, model: parts.next()?.into() })
}
