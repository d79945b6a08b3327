//! The calls that a member serves: the public API, and what agents and other members ask.
//!
//! Every call goes through the gate first. Reads see all that was answered before them, on any
//! member; writes go to the leader, whoever was asked.

mod about;
mod admitted;
mod agents;
mod backup;
mod blame;
mod certify;
mod change;
mod checkpoint;
mod cluster;
mod copies;
mod data;
mod explain;
mod files;
mod gate;
mod holders;
mod interactive;
mod jobs;
mod joining;
mod level;
mod logs;
mod members;
mod nodes;
mod problems;
mod read;
mod refusal;
mod samples;
mod serve;
mod setup;
mod share;
mod strangers;
mod submit;
mod table;
mod tail;
mod users;
mod waiting;
mod watch;
mod write;

pub(crate) use gate::GateLayer;

use crate::member::Member;
use std::ops::Deref;
use std::sync::Arc;
use tonic::service::Routes;
use yard_common::limits::{INTERNAL_FRAME_BYTES_MAX, MEMBER_FRAME_BYTES_MAX, PUBLIC_BYTES_MAX};
use yard_proto::internal::agent_service_server::AgentServiceServer;
use yard_proto::internal::member_service_server::MemberServiceServer;
use yard_proto::v1::cluster_service_server::ClusterServiceServer;
use yard_proto::v1::holder_service_server::HolderServiceServer;
use yard_proto::v1::interactive_service_server::InteractiveServiceServer;
use yard_proto::v1::job_service_server::JobServiceServer;
use yard_proto::v1::node_service_server::NodeServiceServer;
use yard_proto::v1::sample_service_server::SampleServiceServer;
use yard_proto::v1::user_service_server::UserServiceServer;

/// Serves the calls of one member.
#[derive(Clone)]
pub(crate) struct Api(Arc<Member>);

impl Deref for Api {
    type Target = Arc<Member>;

    fn deref(&self) -> &Arc<Member> {
        &self.0
    }
}

/// All services of a member.
pub(crate) fn routes(member: &Arc<Member>) -> Routes {
    let api = Api(Arc::clone(member));
    // A request is a job file and a little more; answers are pages.
    macro_rules! public {
        ($server:ident) => {
            $server::new(api.clone()).max_decoding_message_size(PUBLIC_BYTES_MAX)
        };
    }
    let agents = AgentServiceServer::new(api.clone());
    let members = MemberServiceServer::new(api.clone());
    let mut routes = Routes::builder();
    routes
        .add_service(public!(JobServiceServer))
        .add_service(public!(InteractiveServiceServer))
        .add_service(public!(NodeServiceServer))
        .add_service(public!(SampleServiceServer))
        .add_service(public!(HolderServiceServer))
        .add_service(public!(UserServiceServer))
        .add_service(public!(ClusterServiceServer))
        .add_service(agents.max_decoding_message_size(INTERNAL_FRAME_BYTES_MAX))
        .add_service(members.max_decoding_message_size(MEMBER_FRAME_BYTES_MAX));
    routes.routes()
}
