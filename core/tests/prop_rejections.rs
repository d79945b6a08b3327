//! Random commands of administration by random actors: what is refused leaves no trace, what is
//! accepted keeps all books, and no command makes the state panic.

mod support;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use support::*;
use yard_common::id::*;
use yard_core::command::*;
use yard_core::state::State;

/// Ids of which some exist, some not, and some are far out.
fn id() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0..4u32, 1 => Just(u32::MAX)]
}

fn name() -> impl Strategy<Value = String> {
    let legal = prop_oneof![Just("a"), Just("b"), Just("default"), Just("root-admin")];
    let illegal = prop_oneof![Just(""), Just("A"), Just("a\0"), Just("../a")];
    prop_oneof![8 => legal, 1 => illegal].prop_map(String::from)
}

fn unix() -> impl Strategy<Value = Option<String>> {
    option::of(prop_oneof![Just("ada"), Just("root"), Just("0"), Just("a b")].prop_map(Into::into))
}

fn grants() -> impl Strategy<Value = Vec<Grant>> {
    let role = prop_oneof![
        1 => Just(Role::Viewer),
        1 => Just(Role::User),
        1 => Just(Role::Operator),
        2 => Just(Role::Admin),
    ];
    let grant = (option::of(id().prop_map(WorkspaceId)), role)
        .prop_map(|(workspace, role)| Grant { workspace, role });
    vec(grant, 0..3)
}

fn token() -> impl Strategy<Value = TokenId> {
    (0..6u128).prop_map(TokenId::from_u128)
}

fn secret_sha256() -> impl Strategy<Value = [u8; 32]> {
    prop_oneof![4 => Just([1; 32]), 1 => Just([2; 32])]
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        id().prop_map(|id| Scope::Join(PoolId(id))),
        id().prop_map(|id| Scope::Login(PrincipalId(id))),
        Just(Scope::Member),
        id().prop_map(|id| Scope::Renew(NodeId(id))),
    ]
}

fn access() -> impl Strategy<Value = Command> {
    let user = || id().prop_map(PrincipalId);
    let workspace = || id().prop_map(WorkspaceId);
    let life_ms = prop_oneof![Just(0), 1..5_000u64, Just(u64::MAX)];
    prop_oneof![
        3 => (name(), unix(), grants())
            .prop_map(|(name, unix, grants)| Access::AddUser { name, unix, grants }),
        3 => (user(), unix(), grants())
            .prop_map(|(user, unix, grants)| Access::SetUser { user, unix, grants }),
        2 => (user(), any::<bool>())
            .prop_map(|(user, disabled)| Access::DisableUser { user, disabled }),
        4 => (token(), secret_sha256(), scope(), life_ms).prop_map(
            |(token, secret_sha256, scope, life_ms)| {
                Access::AddToken { token, secret_sha256, scope, life_ms }
            }
        ),
        1 => token().prop_map(Access::DropToken),
        2 => (token(), secret_sha256())
            .prop_map(|(token, secret_sha256)| Access::RedeemLogin { token, secret_sha256 }),
        1 => (vec(0..3u8, 0..2), any::<u64>()).prop_map(|(serial, expires_wall_ms)| {
            Access::Revoke { serial, reason: "lost".into(), expires_wall_ms }
        }),
        2 => (workspace(), name(), vec(any::<u8>(), 0..3), 0..4u32).prop_map(
            |(workspace, name, ciphertext, version)| {
                Access::PutSecret { workspace, name, ciphertext, version }
            }
        ),
        1 => (workspace(), name())
            .prop_map(|(workspace, name)| Access::DropSecret { workspace, name }),
        2 => (token(), secret_sha256(), 0..3u8, name(), 0..2u32).prop_map(
            |(token, secret_sha256, key, address, level)| {
                let (key_sha256, level_max) = ([key; 32], FeatureLevel(level));
                Access::JoinMember { token, secret_sha256, key_sha256, address, level_max }
            }
        ),
    ]
    .prop_map(Command::Access)
}

fn queue_change() -> impl Strategy<Value = QueueChange> {
    let limit_ms = || option::of(prop_oneof![0..3u64, Just(u64::MAX)]);
    let pools = vec(id().prop_map(PoolId), 0..2);
    (-1_100..1_100i32, pools, -1_100..1_100i32, limit_ms(), limit_ms()).prop_map(
        |(priority, pools, job_priority_max, default_ms, max_ms)| QueueChange {
            priority,
            pools,
            job_priority_max,
            time_limit_default_ms: default_ms,
            time_limit_max_ms: max_ms,
            ..QueueChange::default()
        },
    )
}

fn pool_change() -> impl Strategy<Value = PoolChange> {
    let lease_ms = prop_oneof![Just(0), Just(1), Just(3_000), Just(u64::MAX)];
    lease_ms.prop_map(|lease_ms| PoolChange { description: String::new(), lease_ms })
}

fn setup() -> impl Strategy<Value = Setup> {
    let command = prop_oneof![Just(""), Just("true")];
    let variables = prop_oneof![Just(vec![]), Just(vec![("A".to_string(), String::new()); 2])];
    (command, variables, 999..1_002u64).prop_map(|(command, variables, timeout_ms)| Setup {
        command: command.into(),
        variables,
        timeout_ms,
    })
}

fn limit() -> impl Strategy<Value = (LimitScope, Option<HolderLimit>)> {
    let scope = (id(), 0..4u8).prop_map(|(id, kind)| match kind {
        0 => LimitScope::Queue(QueueId(id)),
        1 => LimitScope::Workspace(WorkspaceId(id)),
        2 => LimitScope::Owner(PrincipalId(id)),
        _ => LimitScope::EachOwner(QueueId(id)),
    });
    let jobs = option::of(0..3u64).prop_map(|jobs| HolderLimit { jobs, ..HolderLimit::default() });
    (scope, option::of(jobs))
}

fn holder() -> impl Strategy<Value = Command> {
    let (workspace, mount) = (|| id().prop_map(WorkspaceId), || id().prop_map(MountId));
    let (pool, queue) = (|| id().prop_map(PoolId), || id().prop_map(QueueId));
    let text = || Just("nfs".to_string());
    prop_oneof![
        name().prop_map(Holder::AddWorkspace),
        workspace().prop_map(Holder::RemoveWorkspace),
        (name(), pool_change()).prop_map(|(name, set)| Holder::AddPool(name, set)),
        (pool(), pool_change()).prop_map(|(id, set)| Holder::SetPool(id, set)),
        pool().prop_map(Holder::RemovePool),
        (name(), queue_change()).prop_map(|(name, set)| Holder::AddQueue(name, set)),
        (queue(), queue_change()).prop_map(|(id, set)| Holder::SetQueue(id, set)),
        queue().prop_map(Holder::RemoveQueue),
        limit().prop_map(|(scope, limit)| Holder::SetLimit(scope, limit)),
        (name(), option::of(text())).prop_map(|(name, value)| Holder::SetSetting(name, value)),
        (workspace(), name(), text()).prop_map(|(workspace, name, definition)| {
            Holder::AddMount { workspace, name, definition }
        }),
        (mount(), text()).prop_map(|(id, definition)| Holder::SetMount(id, definition)),
        mount().prop_map(Holder::RemoveMount),
        (pool(), option::of(setup())).prop_map(|(id, setup)| Holder::SetSetup(id, setup)),
    ]
    .prop_map(Command::Holder)
}

fn cluster() -> impl Strategy<Value = Command> {
    let members = || btree_set((0..12u64).prop_map(MemberId), 0..11);
    prop_oneof![
        (name(), unix()).prop_map(|(admin, unix)| {
            Cluster::Initialise { cluster: ClusterId::from_u128(9), admin, unix }
        }),
        Just(Cluster::LeaderStarted),
        (0..4u32, 0..5_000u64).prop_map(|(life, after_ms)| {
            Cluster::Restored { incarnation: Incarnation(life), after_ms }
        }),
        (0..4u32, members()).prop_map(|(level, understood_by)| {
            Cluster::RaiseFeatureLevel(Raise { understood_by, ..raise_to(level) })
        }),
        (members(), option::of(members()))
            .prop_map(|(voters, joint)| Cluster::Members { voters, joint }),
        (0..12u64).prop_map(|id| Cluster::MemberLeft(MemberId(id))),
        (0..12u64).prop_map(|id| Cluster::AddMember(MemberId(id))),
        (0..12u64).prop_map(|id| Cluster::RemoveMember(MemberId(id))),
    ]
    .prop_map(Command::Cluster)
}

fn node() -> impl Strategy<Value = Command> {
    let node = || id().prop_map(NodeId);
    prop_oneof![
        2 => (token(), secret_sha256(), name()).prop_map(|(token, secret_sha256, name)| {
            let inventory = inventory(&name, 2, &["h100"], 1);
            NodeCommand::Join { token, secret_sha256, name, inventory }
        }),
        1 => (node(), any::<u64>()).prop_map(|(node, in_ms)| {
            let plan = DrainPlan { in_ms: in_ms >> 40, deadline_ms: None, reason: String::new() };
            NodeCommand::Drain { node, plan }
        }),
        1 => node().prop_map(NodeCommand::Undrain),
        1 => node().prop_map(NodeCommand::ConfirmDead),
        1 => node().prop_map(NodeCommand::Remove),
        1 => (node(), 0..900_000u64)
            .prop_map(|(node, for_ms)| NodeCommand::Maintenance { node, for_ms }),
        1 => node().prop_map(NodeCommand::Back),
    ]
    .prop_map(Command::Node)
}

fn job() -> impl Strategy<Value = Command> {
    let job = || id().prop_map(|id| JobId(id.into()));
    let submit = (id(), id(), option::of(name()), option::of(id())).prop_map(
        |(workspace, queue, experiment, pool)| {
            let mut plan = single();
            plan.shape.pool = pool.map(PoolId);
            let (workspace, queue) = (WorkspaceId(workspace), QueueId(queue));
            let submit = Submit { workspace, queue, experiment, plan, spec: "{}".into() };
            JobCommand::Submit(Box::new(submit))
        },
    );
    prop_oneof![
        2 => submit,
        1 => job().prop_map(|job| JobCommand::Cancel { job, tasks: None, reason: String::new() }),
        1 => job().prop_map(JobCommand::Release),
    ]
    .prop_map(Command::Job)
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![4 => access(), 4 => holder(), 1 => cluster(), 2 => node(), 2 => job()]
}

/// Mostly whoever may do it, so that enough is accepted.
fn actor() -> impl Strategy<Value = Option<Actor>> {
    let other = prop_oneof![
        Just(Actor::Leader),
        Just(Actor::Bearer),
        id().prop_map(|id| Actor::User(PrincipalId(id))),
        id().prop_map(|id| Actor::Node(NodeId(id))),
    ];
    prop_oneof![3 => Just(None), 1 => other.prop_map(Some)]
}

fn fitting(command: &Command) -> Actor {
    match command {
        Command::Cluster(Cluster::AddMember(_) | Cluster::RemoveMember(_)) => {
            Actor::User(PrincipalId(0))
        }
        Command::Cluster(_) => Actor::Leader,
        Command::Access(Access::RedeemLogin { .. } | Access::JoinMember { .. }) => Actor::Bearer,
        Command::Node(NodeCommand::Join { .. }) => Actor::Bearer,
        _ => Actor::User(PrincipalId(0)),
    }
}

/// The state without position, time and hashes.
fn tables(state: &State) -> Vec<u8> {
    let blank = State::default();
    let mut state = state.clone();
    (state.applied, state.clock, state.digest) = (blank.applied, blank.clock, blank.digest);
    state.history_hash = 0;
    state.to_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_refused_command_leaves_no_trace(
        steps in vec((actor(), command(), any::<bool>(), 0..2_000u64), 1..60),
    ) {
        let mut lab = Lab::new();
        for (actor, command, with_request, ms) in steps {
            // Due timers fire with any command; here only the command itself is looked at.
            lab.wait(ms);
            let before = tables(&lab.state);
            let actor = actor.unwrap_or_else(|| fitting(&command));
            let request = with_request.then(|| lab.request());
            let applied = lab.apply(actor, request, command.clone());
            if let Err(why) = applied.reply {
                prop_assert!(tables(&lab.state) == before, "{:?} by {:?}: {}", command, actor, why);
                prop_assert!(applied.events.is_empty(), "{:?}: {:?}", command, applied.events);
            }
        }
    }
}
