//! One method for each call that `yard` makes.

use crate::{Client, ClientError, FileBytes, Logs, Watch, new_request_id};
use bytes::Bytes;
use tonic::{Request, Streaming};
use yard_proto::convert;
use yard_proto::v1::{self, cluster_service_client, holder_service_client, job_service_client};
use yard_proto::v1::{interactive_service_client, node_service_client};
use yard_proto::v1::{sample_service_client, user_service_client};

/// Largest answer that is taken, in bytes: a page of jobs with all that belongs to them.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Gives a request that changes something its id, once for all tries.
fn fill(request_id: &mut Bytes) {
    if request_id.is_empty() {
        *request_id = convert::request_id_bytes(new_request_id());
    }
}

/// Declares calls. `change` marks those with a request id, which is made when it is empty.
macro_rules! calls {
    ($module:ident :: $service:ident {
        $($(#[$doc:meta])*
        $kind:ident $name:ident = $rpc:ident($request:ident) -> $response:ident;)+
    }) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// See [`ClientError`].
                pub async fn $name(
                    &self,
                    request: v1::$request,
                ) -> Result<v1::$response, ClientError> {
                    calls!(@id $kind request);
                    self.attempt(|channel| {
                        let mut request = Request::new(request.clone());
                        // So that the server stops when nobody waits any more.
                        request.set_timeout(self.try_timeout());
                        async move {
                            let mut client = $module::$service::new(channel)
                                .max_decoding_message_size(ANSWER_BYTES_MAX);
                            client.$rpc(request).await
                        }
                    })
                    .await
                }
            )+
        }
    };
    (@id read $request:ident) => {};
    (@id change $request:ident) => {
        let mut $request = $request;
        fill(&mut $request.request_id);
    };
}

calls! {
    job_service_client::JobServiceClient {
        /// Takes a job, or only checks it.
        change submit = submit(SubmitRequest) -> SubmitResponse;
        /// One job.
        read job = get(GetJobRequest) -> GetJobResponse;
        /// A page of jobs.
        read jobs = list(ListJobsRequest) -> ListJobsResponse;
        /// A page of the tasks of a job.
        read tasks = list_tasks(ListTasksRequest) -> ListTasksResponse;
        /// A page of the attempts of a job.
        read attempts = attempts(AttemptsRequest) -> AttemptsResponse;
        /// Why a job is as it is.
        read explain = explain(ExplainRequest) -> ExplainResponse;
        /// A page of a directory of a job.
        read list_files = list_files(ListFilesRequest) -> ListFilesResponse;
        /// Ends tasks.
        change cancel = cancel(CancelRequest) -> JobChanged;
        /// Starts nothing more of a job until it is released.
        change hold = hold(HoldRequest) -> JobChanged;
        /// Ends a hold.
        change release = release(ReleaseRequest) -> JobChanged;
        /// Changes what may change at any time.
        change adjust = adjust(AdjustRequest) -> AdjustResponse;
    }
}

calls! {
    node_service_client::NodeServiceClient {
        /// A page of nodes.
        read nodes = list(ListNodesRequest) -> ListNodesResponse;
        /// One node.
        read node = get(GetNodeRequest) -> GetNodeResponse;
        /// Places nothing new on a node.
        change drain = drain(DrainRequest) -> Changed;
        /// Ends a drain or a cordon.
        change undrain = undrain(UndrainRequest) -> Changed;
        /// Lets a node look at itself anew.
        change check_node = check(CheckNodeRequest) -> Changed;
        /// Says that a machine is off.
        change confirm_dead = confirm_dead(ConfirmDeadRequest) -> Changed;
        /// Takes a node out for good.
        change remove_node = remove(RemoveNodeRequest) -> Changed;
        /// A token with which a machine joins.
        change join_token = create_join_token(CreateJoinTokenRequest) -> CreateJoinTokenResponse;
    }
}

calls! {
    interactive_service_client::InteractiveServiceClient {
        /// Asks a job for a checkpoint.
        read checkpoint = checkpoint(CheckpointRequest) -> CheckpointResponse;
    }
}

calls! {
    sample_service_client::SampleServiceClient {
        /// What running jobs use.
        read samples = latest(LatestSamplesRequest) -> LatestSamplesResponse;
    }
}

calls! {
    holder_service_client::HolderServiceClient {
        /// A page of queues.
        read queues = list_queues(ListQueuesRequest) -> ListQueuesResponse;
        /// One queue.
        read queue = get_queue(GetQueueRequest) -> GetQueueResponse;
        /// Adds a queue.
        change create_queue = create_queue(CreateQueueRequest) -> Changed;
        /// Changes a queue.
        change set_queue = set_queue(SetQueueRequest) -> Changed;
        /// Removes a queue.
        change remove_queue = remove_queue(RemoveQueueRequest) -> Changed;
        /// A page of pools.
        read pools = list_pools(ListPoolsRequest) -> ListPoolsResponse;
        /// One pool.
        read pool = get_pool(GetPoolRequest) -> GetPoolResponse;
        /// Adds a pool.
        change create_pool = create_pool(CreatePoolRequest) -> Changed;
        /// Changes a pool.
        change set_pool = set_pool(SetPoolRequest) -> Changed;
        /// Changes or removes what machines of a pool do before they take work.
        change set_pool_setup = set_pool_setup(SetPoolSetupRequest) -> Changed;
        /// Removes a pool.
        change remove_pool = remove_pool(RemovePoolRequest) -> Changed;
        /// A page of settings.
        read settings = list_settings(ListSettingsRequest) -> ListSettingsResponse;
        /// Changes or removes a setting.
        change set_setting = set_setting(SetSettingRequest) -> Changed;
    }
}

calls! {
    user_service_client::UserServiceClient {
        /// Who the caller is.
        read who_am_i = who_am_i(WhoAmIRequest) -> WhoAmIResponse;
        /// A page of users.
        read users = list(ListUsersRequest) -> ListUsersResponse;
        /// One user.
        read user = get(GetUserRequest) -> GetUserResponse;
        /// Adds a user.
        change add_user = add(AddUserRequest) -> Changed;
        /// Replaces what a user may do.
        change set_user = set(SetUserRequest) -> Changed;
        /// Disables or enables a user.
        change disable_user = disable(DisableUserRequest) -> Changed;
        /// A token with which a user logs in.
        change login_token =
            create_login_token(CreateLoginTokenRequest) -> CreateLoginTokenResponse;
        /// A new certificate for the caller.
        read renew_certificate = renew_certificate(RenewCertificateRequest) -> CertificateResponse;
    }
}

calls! {
    cluster_service_client::ClusterServiceClient {
        /// How the cluster is.
        read status = status(StatusRequest) -> StatusResponse;
        /// A token with which a machine joins as a member.
        change member_token =
            create_member_token(CreateMemberTokenRequest) -> CreateMemberTokenResponse;
        /// Lets a member vote. Done twice it is as done once.
        read add_member = add_member(AddMemberRequest) -> MembersResponse;
        /// Takes a member out. Done twice it is as done once.
        read remove_member = remove_member(RemoveMemberRequest) -> MembersResponse;
        /// Another member is to lead. Done twice it is as done once.
        read transfer_leader = transfer_leader(TransferLeaderRequest) -> TransferLeaderResponse;
        /// Raises the feature level by one. Done twice it is as done once.
        change raise_level = raise_feature_level(RaiseFeatureLevelRequest) -> Changed;
    }
}

impl Client {
    /// A backup, in pieces. One that breaks off is begun anew: another member's is another one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn save_snapshot(&self) -> Result<Streaming<v1::SnapshotPiece>, ClientError> {
        let open = |channel| async move {
            let mut client = cluster_service_client::ClusterServiceClient::new(channel);
            client.save_snapshot(v1::SaveSnapshotRequest {}).await
        };
        self.attempt(open).await
    }

    /// What the setup of its pool wrote on a node, in pieces. One that breaks off is begun anew.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn setup_log(
        &self,
        request: v1::SetupLogRequest,
    ) -> Result<Streaming<v1::SetupLogResponse>, ClientError> {
        let open = |channel| {
            let mut client = node_service_client::NodeServiceClient::new(channel);
            let request = request.clone();
            async move { client.setup_log(request).await }
        };
        self.attempt(open).await
    }

    /// Events of jobs, from an index on.
    #[must_use]
    pub fn watch_jobs(&self, request: v1::WatchJobsRequest) -> Watch {
        Watch::of_jobs(self.clone(), request)
    }

    /// Everything that happens, from an index on.
    #[must_use]
    pub fn events(&self, request: v1::EventsRequest) -> Watch {
        Watch::of_all(self.clone(), request)
    }

    /// A file of a job.
    #[must_use]
    pub fn read_file(&self, request: v1::ReadFileRequest) -> FileBytes {
        FileBytes::new(self.clone(), request)
    }

    /// What ranks wrote.
    #[must_use]
    pub fn logs(&self, request: v1::LogsRequest) -> Logs {
        Logs::new(self.clone(), request)
    }
}
