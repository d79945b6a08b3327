//! The coordinators: how they are, who votes, who leads.

use crate::args::{ClusterVerb, SnapshotVerb};
use crate::failure::Failure;
use crate::input::confirm;
use crate::output::say;
use crate::session::Session;
use crate::view;
use yard_proto::v1;

/// Does what the command line says.
pub(crate) async fn cluster(session: &Session, verb: &ClusterVerb) -> Result<u8, Failure> {
    match verb {
        ClusterVerb::Status => {
            let status = session.client.status(v1::StatusRequest::default()).await?;
            let (row, text) = view::cluster::cluster(&status);
            session.one("Cluster", &row, &text)?;
        }
        ClusterVerb::Token { life } => {
            let request = v1::CreateMemberTokenRequest { life_ms: life.ms(), ..Default::default() };
            let answer = session.client.member_token(request).await?;
            super::users::tell_token(session, answer.token, answer.expires_wall_ms)?;
        }
        ClusterVerb::Add { member } => {
            let request = v1::AddMemberRequest { member_id: *member };
            session.client.add_member(request).await?;
            say(&format!("member {member} votes"));
        }
        ClusterVerb::Remove { member, yes } => {
            let question = format!("Member {member} cannot come back. Remove it for good?");
            confirm(&question, *yes)?;
            let request = v1::RemoveMemberRequest { member_id: *member };
            session.client.remove_member(request).await?;
            say(&format!("member {member} is removed"));
            say("on its machine: stop it, and `yard coordinator reset` removes what it kept");
        }
        ClusterVerb::Snapshot(SnapshotVerb::Save { file }) => {
            return super::backup::save(session, file).await;
        }
        // Answered without a cluster.
        ClusterVerb::Snapshot(SnapshotVerb::Show { .. }) => {}
        ClusterVerb::TransferLeader { member } => {
            let request = v1::TransferLeaderRequest { member_id: member.unwrap_or(0) };
            let answer = session.client.transfer_leader(request).await?;
            say(&format!("member {} leads", answer.leader.unwrap_or_default().member_id));
        }
        ClusterVerb::RaiseLevel { level, yes } => raise_level(session, *level, *yes).await?,
    }
    Ok(0)
}

/// Raises the feature level by one.
async fn raise_level(session: &Session, level: Option<u32>, yes: bool) -> Result<(), Failure> {
    let level = match level {
        Some(level) => level,
        None => {
            let status = session.client.status(v1::StatusRequest { brief: true }).await?;
            status.feature_level.saturating_add(1)
        }
    };
    let question = format!(
        "At feature level {level} no coordinator can go back to an earlier version. Raise it?"
    );
    confirm(&question, yes)?;
    let request = v1::RaiseFeatureLevelRequest { level, ..Default::default() };
    session.client.raise_level(request).await?;
    say(&format!("the cluster is at feature level {level}"));
    Ok(())
}
