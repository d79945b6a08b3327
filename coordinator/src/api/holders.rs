//! The calls about what holds jobs and nodes: queues, pools, workspaces; limits, settings,
//! experiments.

use super::Api;
use super::gate::Who;
use super::read::page_of;
use super::refusal::Refusal;
use super::serve::serve;
use std::collections::BTreeMap;
use yard_common::id::PoolId;
use yard_core::command::{Command, Holder, HolderLimit, PoolChange, Role};
use yard_proto::convert::SetupCounts;
use yard_proto::convert::page;
use yard_proto::v1::holder_service_server::HolderService;
use yard_proto::{convert, v1};

serve!(HolderService [] {
    list_queues: v1::ListQueuesRequest => v1::ListQueuesResponse = queues;
    get_queue: v1::GetQueueRequest => v1::GetQueueResponse = queue;
    create_queue: v1::CreateQueueRequest => v1::Changed = add_queue;
    set_queue: v1::SetQueueRequest => v1::Changed = change_queue;
    remove_queue: v1::RemoveQueueRequest => v1::Changed = drop_queue;
    list_pools: v1::ListPoolsRequest => v1::ListPoolsResponse = pools;
    get_pool: v1::GetPoolRequest => v1::GetPoolResponse = pool;
    create_pool: v1::CreatePoolRequest => v1::Changed = add_pool;
    set_pool: v1::SetPoolRequest => v1::Changed = change_pool;
    remove_pool: v1::RemovePoolRequest => v1::Changed = drop_pool;
    set_pool_setup: v1::SetPoolSetupRequest => v1::Changed = set_pool_setup;
    list_workspaces: v1::ListWorkspacesRequest => v1::ListWorkspacesResponse = workspaces;
    get_workspace: v1::GetWorkspaceRequest => v1::GetWorkspaceResponse = workspace;
    create_workspace: v1::CreateWorkspaceRequest => v1::Changed = add_workspace;
    remove_workspace: v1::RemoveWorkspaceRequest => v1::Changed = drop_workspace;
    list_limits: v1::ListLimitsRequest => v1::ListLimitsResponse = limits;
    set_limit: v1::SetLimitRequest => v1::Changed = change_limit;
    list_settings: v1::ListSettingsRequest => v1::ListSettingsResponse = settings;
    set_setting: v1::SetSettingRequest => v1::Changed = change_setting;
    list_experiments: v1::ListExperimentsRequest => v1::ListExperimentsResponse = experiments;
});

fn count_of(counts: &BTreeMap<PoolId, SetupCounts>, id: PoolId) -> SetupCounts {
    counts.get(&id).copied().unwrap_or_default()
}

impl Api {
    async fn queues(
        &self,
        who: &Who,
        request: v1::ListQueuesRequest,
    ) -> Result<v1::ListQueuesResponse, Refusal> {
        let view = self.view(who, request.page.as_ref()).await?;
        let after = page::after_number::<u32>(request.page.as_ref())?;
        let queues = view.state.queues.iter();
        let behind = queues.filter(|(id, _)| after.is_none_or(|after| id.0 > after));
        let rows = behind.map(|(id, queue)| (id, convert::queue(&view.state, id, queue)));
        let (queues, next_key) = page_of(rows, request.page.as_ref());
        Ok(v1::ListQueuesResponse { queues, page: Some(view.page_info(next_key)) })
    }

    async fn queue(
        &self,
        who: &Who,
        request: v1::GetQueueRequest,
    ) -> Result<v1::GetQueueResponse, Refusal> {
        let view = self.view(who, None).await?;
        let id = convert::queue_id(&view.state, &request.queue)?;
        let queue = view.state.queues.get(id);
        let queue = queue.map(|queue| convert::queue(&view.state, id, queue));
        Ok(v1::GetQueueResponse { queue, applied_index: view.applied_index() })
    }

    async fn add_queue(
        &self,
        who: &Who,
        request: v1::CreateQueueRequest,
    ) -> Result<v1::Changed, Refusal> {
        let view = self.view(who, None).await?;
        let change = match &request.settings {
            Some(settings) => convert::queue_change(&view.state, settings)?,
            None => Default::default(),
        };
        let command = Command::Holder(Holder::AddQueue(request.queue, change));
        self.changed(who, &request.request_id, command).await
    }

    async fn change_queue(
        &self,
        who: &Who,
        request: v1::SetQueueRequest,
    ) -> Result<v1::Changed, Refusal> {
        let view = self.view(who, None).await?;
        let id = convert::queue_id(&view.state, &request.queue)?;
        let settings = request.settings.as_ref();
        let settings = settings.ok_or_else(|| Refusal::invalid("settings", "give all of them"))?;
        let change = convert::queue_change(&view.state, settings)?;
        let command = Command::Holder(Holder::SetQueue(id, change));
        self.changed(who, &request.request_id, command).await
    }

    async fn drop_queue(
        &self,
        who: &Who,
        request: v1::RemoveQueueRequest,
    ) -> Result<v1::Changed, Refusal> {
        let view = self.view(who, None).await?;
        let id = convert::queue_id(&view.state, &request.queue)?;
        let command = Command::Holder(Holder::RemoveQueue(id));
        self.changed(who, &request.request_id, command).await
    }

    async fn pools(
        &self,
        who: &Who,
        request: v1::ListPoolsRequest,
    ) -> Result<v1::ListPoolsResponse, Refusal> {
        let view = self.view(who, request.page.as_ref()).await?;
        let after = page::after_number::<u32>(request.page.as_ref())?;
        let pools = view.state.pools.iter();
        let behind = pools.filter(|(id, _)| after.is_none_or(|after| id.0 > after));
        let counts = convert::setup_counts(&view.state);
        let rows = behind.map(|(id, pool)| {
            let setup = convert::pool_setup(pool, count_of(&counts, id), false);
            (id, v1::Pool { setup, ..convert::pool(id, pool) })
        });
        let (pools, next_key) = page_of(rows, request.page.as_ref());
        Ok(v1::ListPoolsResponse { pools, page: Some(view.page_info(next_key)) })
    }

    async fn pool(
        &self,
        who: &Who,
        request: v1::GetPoolRequest,
    ) -> Result<v1::GetPoolResponse, Refusal> {
        let view = self.view(who, None).await?;
        let id = convert::pool_id(&view.state, &request.pool)?;
        // Nothing in it is a secret, and somebody may have put one there all the same.
        let whole = view.has_everywhere(Role::Operator);
        let counts = convert::setup_counts(&view.state);
        let pool = view.state.pools.get(id).map(|pool| {
            let setup = convert::pool_setup(pool, count_of(&counts, id), whole);
            v1::Pool { setup, ..convert::pool(id, pool) }
        });
        Ok(v1::GetPoolResponse { pool, applied_index: view.applied_index() })
    }

    /// The settings of a pool. A lease that members do not wait out would never be answered.
    fn pool_change(&self, settings: Option<&v1::PoolSettings>) -> Result<PoolChange, Refusal> {
        let change = settings.map(PoolChange::from).unwrap_or_default();
        let longest_ms = self.leases.longest().lease_ms();
        if change.lease_ms > longest_ms {
            let problem = format!(
                "{} ms; the members of this cluster wait for {longest_ms} ms at most",
                change.lease_ms
            );
            return Err(Refusal::invalid("settings.lease_ms", &problem));
        }
        Ok(change)
    }

    async fn add_pool(
        &self,
        who: &Who,
        request: v1::CreatePoolRequest,
    ) -> Result<v1::Changed, Refusal> {
        let change = self.pool_change(request.settings.as_ref())?;
        let command = Command::Holder(Holder::AddPool(request.pool, change));
        self.changed(who, &request.request_id, command).await
    }

    async fn change_pool(
        &self,
        who: &Who,
        request: v1::SetPoolRequest,
    ) -> Result<v1::Changed, Refusal> {
        let view = self.view(who, None).await?;
        let id = convert::pool_id(&view.state, &request.pool)?;
        let settings = request.settings.as_ref();
        let settings = settings.ok_or_else(|| Refusal::invalid("settings", "give all of them"))?;
        let change = self.pool_change(Some(settings))?;
        let command = Command::Holder(Holder::SetPool(id, change));
        self.changed(who, &request.request_id, command).await
    }

    async fn drop_pool(
        &self,
        who: &Who,
        request: v1::RemovePoolRequest,
    ) -> Result<v1::Changed, Refusal> {
        let view = self.view(who, None).await?;
        let id = convert::pool_id(&view.state, &request.pool)?;
        let command = Command::Holder(Holder::RemovePool(id));
        self.changed(who, &request.request_id, command).await
    }

    async fn workspaces(
        &self,
        who: &Who,
        request: v1::ListWorkspacesRequest,
    ) -> Result<v1::ListWorkspacesResponse, Refusal> {
        let view = self.view(who, request.page.as_ref()).await?;
        let after = page::after_number::<u32>(request.page.as_ref())?;
        let seen = view.state.workspaces.iter().filter(|(id, _)| view.sees(*id));
        let behind = seen.filter(|(id, _)| after.is_none_or(|after| id.0 > after));
        let rows = behind.map(|(id, found)| (id, convert::workspace(&view.state, id, found)));
        let (workspaces, next_key) = page_of(rows, request.page.as_ref());
        let page = Some(view.page_info(next_key));
        Ok(v1::ListWorkspacesResponse { workspaces, page })
    }

    async fn workspace(
        &self,
        who: &Who,
        request: v1::GetWorkspaceRequest,
    ) -> Result<v1::GetWorkspaceResponse, Refusal> {
        let view = self.view(who, None).await?;
        let id = view.workspace(&request.workspace)?;
        let workspace = view.state.workspaces.get(id);
        let workspace = workspace.map(|found| convert::workspace(&view.state, id, found));
        Ok(v1::GetWorkspaceResponse { workspace, applied_index: view.applied_index() })
    }

    async fn add_workspace(
        &self,
        who: &Who,
        request: v1::CreateWorkspaceRequest,
    ) -> Result<v1::Changed, Refusal> {
        let command = Command::Holder(Holder::AddWorkspace(request.workspace));
        self.changed(who, &request.request_id, command).await
    }

    async fn drop_workspace(
        &self,
        who: &Who,
        request: v1::RemoveWorkspaceRequest,
    ) -> Result<v1::Changed, Refusal> {
        let view = self.view(who, None).await?;
        let id = view.workspace(&request.workspace)?;
        let command = Command::Holder(Holder::RemoveWorkspace(id));
        self.changed(who, &request.request_id, command).await
    }

    async fn limits(
        &self,
        who: &Who,
        request: v1::ListLimitsRequest,
    ) -> Result<v1::ListLimitsResponse, Refusal> {
        let view = self.view(who, request.page.as_ref()).await?;
        // The key is the place in the order of scopes, as of the page's index.
        let from = page::after_number::<usize>(request.page.as_ref())?;
        let from = from.map_or(0, |after| after.saturating_add(1));
        let limits = view.state.holdings.limits().enumerate().skip(from);
        let rows = limits.map(|(at, (scope, limit))| {
            let scope = Some(convert::limit_scope(&view.state, *scope));
            (at, v1::Limit { scope, limit: Some(limit.into()) })
        });
        let (limits, next_key) = page_of(rows, request.page.as_ref());
        Ok(v1::ListLimitsResponse { limits, page: Some(view.page_info(next_key)) })
    }

    async fn change_limit(
        &self,
        who: &Who,
        request: v1::SetLimitRequest,
    ) -> Result<v1::Changed, Refusal> {
        let view = self.view(who, None).await?;
        let scope = convert::limit_scope_of(&view.state, request.scope.as_ref())?;
        let limit = request.limit.as_ref().map(HolderLimit::from);
        let command = Command::Holder(Holder::SetLimit(scope, limit));
        self.changed(who, &request.request_id, command).await
    }

    async fn settings(
        &self,
        who: &Who,
        request: v1::ListSettingsRequest,
    ) -> Result<v1::ListSettingsResponse, Refusal> {
        let view = self.view(who, request.page.as_ref()).await?;
        let after = page::after_name(request.page.as_ref());
        let settings = view.state.settings.iter().filter(|(name, _)| &***name > after);
        let rows = settings.map(|(name, value)| {
            (name, v1::Setting { name: name.to_string(), value: value.to_string() })
        });
        let (settings, next_key) = page_of(rows, request.page.as_ref());
        Ok(v1::ListSettingsResponse { settings, page: Some(view.page_info(next_key)) })
    }

    async fn change_setting(
        &self,
        who: &Who,
        request: v1::SetSettingRequest,
    ) -> Result<v1::Changed, Refusal> {
        let command = Command::Holder(Holder::SetSetting(request.name, request.value));
        self.changed(who, &request.request_id, command).await
    }

    async fn experiments(
        &self,
        who: &Who,
        request: v1::ListExperimentsRequest,
    ) -> Result<v1::ListExperimentsResponse, Refusal> {
        let view = self.view(who, request.page.as_ref()).await?;
        let after = page::after_number::<u32>(request.page.as_ref())?;
        let only = match request.workspace.as_str() {
            "" => None,
            name => Some(view.workspace(name)?),
        };
        let seen = view.state.experiments.iter().filter(|(id, found)| {
            after.is_none_or(|after| id.0 > after)
                && view.sees(found.workspace)
                && only.is_none_or(|only| only == found.workspace)
        });
        let rows = seen.map(|(id, found)| (id, convert::experiment(&view.state, id, found)));
        let (experiments, next_key) = page_of(rows, request.page.as_ref());
        let page = Some(view.page_info(next_key));
        Ok(v1::ListExperimentsResponse { experiments, page })
    }
}
