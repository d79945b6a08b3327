//! Workspaces, pools, queues, limits, settings, volumes.
//!
//! What is named by something else stays until that is gone; those called `default` stay for
//! good. Limits and roles in something that goes, go with it.

use super::Context;
use super::bound::{at_most_bytes, between, legal_name, room};
use super::cluster::DEFAULT;
use crate::command::{
    Holder, HolderLimit, LimitScope, Object, PoolChange, QueueChange, Rejection, Reply, Scope,
    Setup, SetupId,
};
use crate::lease::{LEASE_MS_MAX, LEASE_MS_MIN};
use crate::state::{Mount, Pool, Queue, State, Workspace};
use yard_common::id::{MountId, PoolId, QueueId, WorkspaceId};
use yard_common::limits::{
    DEFINITION_BYTES_MAX, DEFINITIONS_MAX, DURATION_MS_MAX, HOLDERS_MAX, PRIORITY_ABS_MAX,
    REASON_BYTES_MAX,
};

impl State {
    pub(super) fn run_holder(
        &mut self,
        context: &mut Context,
        command: &Holder,
    ) -> Result<Reply, Rejection> {
        match command {
            Holder::AddWorkspace(name) => self.add_workspace(context, name),
            Holder::RemoveWorkspace(id) => self.remove_workspace(context, *id),
            Holder::AddPool(name, set) => self.add_pool(context, name, set),
            Holder::SetPool(id, set) => self.set_pool(context, *id, set),
            Holder::RemovePool(id) => self.remove_pool(context, *id),
            Holder::AddQueue(name, set) => self.add_queue(context, name, set),
            Holder::SetQueue(id, set) => self.set_queue(context, *id, set),
            Holder::RemoveQueue(id) => self.remove_queue(context, *id),
            Holder::SetLimit(scope, limit) => self.set_limit(context, *scope, *limit),
            Holder::SetSetting(name, value) => self.set_setting(context, name, value.as_deref()),
            Holder::AddMount { workspace, name, definition } => {
                self.add_mount(context, *workspace, name, definition)
            }
            Holder::SetMount(id, definition) => self.set_mount(context, *id, definition),
            Holder::RemoveMount(id) => self.remove_mount(context, *id),
            Holder::SetSetup(id, setup) => self.set_setup(context, *id, setup.as_ref()),
        }
    }

    pub(super) fn add_workspace(
        &mut self,
        context: &mut Context,
        name: &str,
    ) -> Result<Reply, Rejection> {
        legal_name("name", name)?;
        if let Some(taken) = self.workspaces.find(name) {
            return Err(Rejection::AlreadyExists(Object::Workspace(taken)));
        }
        room("workspaces", self.workspaces.len(), HOLDERS_MAX)?;
        let workspace = Workspace { name: name.into(), jobs: 0, holds: 0 };
        Ok(made(context, Object::Workspace(self.workspaces.push(name, workspace))))
    }

    fn remove_workspace(
        &mut self,
        context: &mut Context,
        id: WorkspaceId,
    ) -> Result<Reply, Rejection> {
        let object = Object::Workspace(id);
        let workspace = self.workspaces.get(id).ok_or(Rejection::NotFound(object))?;
        let Workspace { name, jobs, holds } = workspace.clone();
        not_default(object, &name)?;
        if jobs + holds > 0 {
            let what =
                format!("{jobs} jobs, and {holds} experiments, volumes and secrets are in it");
            return Err(Rejection::InUse(object, what));
        }
        self.workspaces.remove(id, &name);
        self.holdings.set_limit(LimitScope::Workspace(id), None);
        let has_role = self
            .principals
            .iter()
            .filter(|(_, user)| user.grants.iter().any(|grant| grant.workspace == Some(id)));
        let has_role: Vec<_> = has_role.map(|(user, _)| user).collect();
        for user in has_role {
            self.principals[user].grants.retain(|grant| grant.workspace != Some(id));
            context.changed(Object::User(user));
        }
        context.changed(object);
        Ok(Reply::Done)
    }

    pub(super) fn add_pool(
        &mut self,
        context: &mut Context,
        name: &str,
        set: &PoolChange,
    ) -> Result<Reply, Rejection> {
        legal_name("name", name)?;
        legal_pool(set)?;
        if let Some(taken) = self.pools.find(name) {
            return Err(Rejection::AlreadyExists(Object::Pool(taken)));
        }
        room("pools", self.pools.len(), HOLDERS_MAX)?;
        let pool = Pool {
            name: name.into(),
            set: set.clone(),
            nodes: 0,
            floor: None,
            setup: None,
            setup_id: SetupId::default(),
        };
        Ok(made(context, Object::Pool(self.pools.push(name, pool))))
    }

    fn set_pool(
        &mut self,
        context: &mut Context,
        id: PoolId,
        set: &PoolChange,
    ) -> Result<Reply, Rejection> {
        legal_pool(set)?;
        let pool = self.pools.get_mut(id).ok_or(Rejection::NotFound(Object::Pool(id)))?;
        pool.set = set.clone();
        context.changed(Object::Pool(id));
        Ok(Reply::Done)
    }

    /// What machines have not done keeps new work from them from this command on, whenever they
    /// hear of it. The same once more is no change: nothing is done again.
    fn set_setup(
        &mut self,
        context: &mut Context,
        id: PoolId,
        setup: Option<&Setup>,
    ) -> Result<Reply, Rejection> {
        if let Some(Err((field, problem))) = setup.map(Setup::check) {
            return Err(Rejection::invalid(field, problem));
        }
        let pool = self.pools.get_mut(id).ok_or(Rejection::NotFound(Object::Pool(id)))?;
        if pool.setup.as_ref() == setup {
            return Ok(Reply::Done);
        }
        pool.setup = setup.cloned();
        pool.setup_id = pool.setup_id.next(setup);
        let pool = pool.clone();
        let here = self.nodes.iter().filter(|(_, node)| node.pool == id);
        let due = here.map(|(id, node)| (id, node.setup_due, pool.is_setup_due(&node.facts)));
        let changed: Vec<_> = due.filter(|(_, before, after)| before != after).collect();
        for (node, _, due) in changed {
            self.nodes[node].setup_due = due;
            context.changed(Object::Node(node));
        }
        context.changed(Object::Pool(id));
        Ok(Reply::Done)
    }

    fn remove_pool(&mut self, context: &mut Context, id: PoolId) -> Result<Reply, Rejection> {
        let object = Object::Pool(id);
        let pool = self.pools.get(id).ok_or(Rejection::NotFound(object))?;
        let (name, nodes) = (pool.name.clone(), pool.nodes);
        not_default(object, &name)?;
        if nodes > 0 {
            return Err(Rejection::InUse(object, format!("{nodes} nodes are in it")));
        }
        if let Some(user) = self.user_of_pool(id) {
            let user = self.name_of(user);
            return Err(Rejection::InUse(object, format!("{user} names it")));
        }
        self.pools.remove(id, &name);
        self.drop_tokens(context, |token| token.scope == Scope::Join(id));
        context.changed(object);
        Ok(Reply::Done)
    }

    /// A queue, or a job that has not ended, that names a pool.
    fn user_of_pool(&self, id: PoolId) -> Option<Object> {
        let mut queues = self.queues.iter();
        if let Some((queue, _)) = queues.find(|(_, queue)| queue.set.pools.contains(&id)) {
            return Some(Object::Queue(queue));
        }
        let mut jobs = self.jobs.iter().filter(|(_, job)| !job.state.is_terminal());
        let job = jobs.find(|(_, job)| {
            let mut shapes = std::iter::once(&job.plan.shape).chain(&job.plan.any_of);
            shapes.any(|shape| shape.pool == Some(id))
        });
        job.map(|(id, _)| Object::Job(id))
    }

    pub(super) fn add_queue(
        &mut self,
        context: &mut Context,
        name: &str,
        set: &QueueChange,
    ) -> Result<Reply, Rejection> {
        legal_name("name", name)?;
        self.legal_queue(set)?;
        if let Some(taken) = self.queues.find(name) {
            return Err(Rejection::AlreadyExists(Object::Queue(taken)));
        }
        room("queues", self.queues.len(), HOLDERS_MAX)?;
        let queue = Queue { name: name.into(), set: set.clone(), jobs: 0 };
        Ok(made(context, Object::Queue(self.queues.push(name, queue))))
    }

    fn set_queue(
        &mut self,
        context: &mut Context,
        id: QueueId,
        set: &QueueChange,
    ) -> Result<Reply, Rejection> {
        self.legal_queue(set)?;
        let queue = self.queues.get_mut(id).ok_or(Rejection::NotFound(Object::Queue(id)))?;
        queue.set = set.clone();
        context.changed(Object::Queue(id));
        Ok(Reply::Done)
    }

    fn remove_queue(&mut self, context: &mut Context, id: QueueId) -> Result<Reply, Rejection> {
        let object = Object::Queue(id);
        let queue = self.queues.get(id).ok_or(Rejection::NotFound(object))?;
        let (name, jobs) = (queue.name.clone(), queue.jobs);
        not_default(object, &name)?;
        if jobs > 0 {
            let what = format!("{jobs} jobs are in it, ended ones included");
            return Err(Rejection::InUse(object, what));
        }
        self.queues.remove(id, &name);
        self.holdings.set_limit(LimitScope::Queue(id), None);
        self.holdings.set_limit(LimitScope::EachOwner(id), None);
        context.changed(object);
        Ok(Reply::Done)
    }

    /// Checks what operators set for a queue.
    fn legal_queue(&self, set: &QueueChange) -> Result<(), Rejection> {
        between("priority", set.priority, -PRIORITY_ABS_MAX, PRIORITY_ABS_MAX)?;
        let job_max = set.job_priority_max;
        between("job_priority_max", job_max, -PRIORITY_ABS_MAX, PRIORITY_ABS_MAX)?;
        let max_ms = set.time_limit_max_ms.unwrap_or(DURATION_MS_MAX);
        between("time_limit_max_ms", max_ms, 1, DURATION_MS_MAX)?;
        between("time_limit_default_ms", set.time_limit_default_ms.unwrap_or(1), 1, max_ms)?;
        between("pools", set.pools.len(), 0, HOLDERS_MAX)?;
        let mut pools = set.pools.clone();
        pools.sort_unstable();
        if pools.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Rejection::invalid("pools", "names a pool twice"));
        }
        let absent = pools.into_iter().find(|pool| self.pools.get(*pool).is_none());
        absent.map_or(Ok(()), |pool| Err(Rejection::NotFound(Object::Pool(pool))))
    }

    fn set_limit(
        &mut self,
        context: &mut Context,
        scope: LimitScope,
        limit: Option<HolderLimit>,
    ) -> Result<Reply, Rejection> {
        let (exists, object) = match scope {
            LimitScope::Queue(id) | LimitScope::EachOwner(id) => {
                (self.queues.get(id).is_some(), Object::Queue(id))
            }
            LimitScope::Workspace(id) => (self.workspaces.get(id).is_some(), Object::Workspace(id)),
            LimitScope::Owner(id) => (self.principals.get(id).is_some(), Object::User(id)),
        };
        if !exists {
            return Err(Rejection::NotFound(object));
        }
        self.holdings.set_limit(scope, limit);
        context.changed(object);
        Ok(Reply::Done)
    }

    fn set_setting(
        &mut self,
        context: &mut Context,
        name: &str,
        value: Option<&str>,
    ) -> Result<Reply, Rejection> {
        legal_name("name", name)?;
        let name = Box::from(name);
        match value {
            Some(value) => {
                at_most_bytes("value", value.as_bytes(), DEFINITION_BYTES_MAX)?;
                if !self.settings.contains(&name) {
                    room("settings", self.settings.len(), DEFINITIONS_MAX)?;
                }
                self.settings.insert(name, value.into());
            }
            None => {
                self.settings.remove(&name).ok_or(Rejection::NotFound(Object::Definition))?;
            }
        }
        context.changed(Object::Definition);
        Ok(Reply::Done)
    }

    fn add_mount(
        &mut self,
        context: &mut Context,
        workspace: WorkspaceId,
        name: &str,
        definition: &str,
    ) -> Result<Reply, Rejection> {
        self.existing_workspace(workspace)?;
        legal_name("name", name)?;
        at_most_bytes("definition", definition.as_bytes(), DEFINITION_BYTES_MAX)?;
        let key = (workspace, Box::from(name));
        if let Some(taken) = self.mount_names.get(&key) {
            return Err(Rejection::AlreadyExists(Object::Mount(*taken)));
        }
        room("volumes", self.mounts.len(), DEFINITIONS_MAX)?;
        let mount = Mount { workspace, name: name.into(), definition: definition.into() };
        let id = self.mounts.push(mount);
        self.mount_names.insert(key, id);
        self.workspaces[workspace].holds += 1;
        Ok(made(context, Object::Mount(id)))
    }

    fn set_mount(
        &mut self,
        context: &mut Context,
        id: MountId,
        definition: &str,
    ) -> Result<Reply, Rejection> {
        at_most_bytes("definition", definition.as_bytes(), DEFINITION_BYTES_MAX)?;
        let mount = self.mounts.get_mut(id).ok_or(Rejection::NotFound(Object::Mount(id)))?;
        mount.definition = definition.into();
        context.changed(Object::Mount(id));
        Ok(Reply::Done)
    }

    fn remove_mount(&mut self, context: &mut Context, id: MountId) -> Result<Reply, Rejection> {
        let mount = self.mounts.remove(id).ok_or(Rejection::NotFound(Object::Mount(id)))?;
        self.mount_names.remove(&(mount.workspace, mount.name));
        self.workspaces[mount.workspace].holds -= 1;
        context.changed(Object::Mount(id));
        Ok(Reply::Done)
    }
}

fn made(context: &mut Context, object: Object) -> Reply {
    context.changed(object);
    Reply::Made(object)
}

fn not_default(object: Object, name: &str) -> Result<(), Rejection> {
    if name == DEFAULT {
        return Err(Rejection::InUse(object, "what is called default stays".into()));
    }
    Ok(())
}

/// Checks what operators set for a pool.
fn legal_pool(set: &PoolChange) -> Result<(), Rejection> {
    at_most_bytes("description", set.description.as_bytes(), REASON_BYTES_MAX)?;
    if set.lease_ms == 0 {
        return Ok(());
    }
    between("lease_ms", set.lease_ms, LEASE_MS_MIN, LEASE_MS_MAX)
}
