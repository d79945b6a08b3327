//! Pools with a setup, and machines that tell how they are.

use crate::agent::Agent;
use crate::cluster::{Cluster, request_id};
use tonic::Code;
use yard_core::command::{SetupId, SetupReport, SetupStage};
use yard_proto::convert::setup_told;
use yard_proto::internal::agent_message::What as Say;
use yard_proto::internal::coordinator_message::What;
use yard_proto::internal::{Facts, PoolSetup};
use yard_proto::v1;
use yard_proto::v1::holder_service_client::HolderServiceClient;

fn setup(command: &str) -> v1::SetPoolSetupRequest {
    v1::SetPoolSetupRequest {
        request_id: request_id(),
        pool: "default".into(),
        setup: Some(v1::Setup { command: command.into(), ..v1::Setup::default() }),
    }
}

/// What the next word about a setup says.
async fn told(stream: &mut crate::agent::Stream) -> PoolSetup {
    loop {
        match stream.next().await {
            Some(What::Setup(setup)) => return setup,
            Some(What::Goodbye(goodbye)) => panic!("{goodbye:?}"),
            Some(_) => {}
            None => panic!("the stream ended"),
        }
    }
}

#[tokio::test]
async fn a_node_is_told_of_the_setup_once_and_gets_work_when_it_has_done_it() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let mut holders = HolderServiceClient::new(admin.channel.clone());
    let mut agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    stream.welcome().await;
    holders.set_pool_setup(setup("true")).await.unwrap();
    let first = told(&mut stream).await;
    assert_eq!(first.pool, "default");
    let (id, text) = setup_told(first).unwrap();
    assert_eq!((id.revision, text.unwrap().command.as_str()), (1, "true"));

    let job = admin.submit("name: a\ncommand: 'true'\n").await.unwrap();
    let request = v1::ExplainRequest { job_id: job.job_id, task_index: None };
    let explained = admin.jobs.explain(request).await.unwrap().into_inner().explanation.unwrap();
    assert_eq!(explained.outlook(), v1::Outlook::Waits);
    let report = SetupReport { id, stage: SetupStage::Done, since_wall_ms: 1 };
    agent.inventory.setup = Some(report);
    stream.say(agent.hello(id)).await;
    let (desired, _) = stream.desired().await;
    assert_eq!(desired.assignments.len(), 1);
    stream.leave().await;

    // Who has the text is told that it still holds.
    let mut stream = agent.connect_with(&cluster, agent.hello(id)).await;
    stream.welcome().await;
    assert_eq!(setup_told(told(&mut stream).await).unwrap(), (id, None));
    holders.set_pool_setup(setup("false")).await.unwrap();
    let (next, text) = setup_told(told(&mut stream).await).unwrap();
    assert_eq!((next.revision, text.unwrap().command.as_str()), (2, "false"));
    let none = v1::SetPoolSetupRequest { setup: None, ..setup("") };
    holders.set_pool_setup(none).await.unwrap();
    let (none, text) = setup_told(told(&mut stream).await).unwrap();
    assert_eq!((none.revision, none.is_some(), text), (3, false, None));
    cluster.stop().await;
}

#[tokio::test]
async fn an_admin_sets_it_and_operators_see_its_text() {
    let cluster = Cluster::start().await;
    let role = |role: v1::Role| vec![v1::Grant { workspace: String::new(), role: role.into() }];
    let (operator, _) = cluster.add_user("olga", role(v1::Role::Operator)).await;
    let (viewer, _) = cluster.add_user("vera", role(v1::Role::Viewer)).await;
    let mut holders = HolderServiceClient::new(cluster.admin().channel);
    holders.set_pool_setup(setup("true")).await.unwrap();
    let bad = holders.set_pool_setup(setup(" ")).await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument, "{bad}");
    let mut operators = HolderServiceClient::new(operator.channel);
    let refused = operators.set_pool_setup(setup("false")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let get = || v1::GetPoolRequest { pool: "default".into() };
    let shown = operators.get_pool(get()).await.unwrap().into_inner().pool.unwrap();
    assert_eq!(shown.setup.unwrap().setup.unwrap().command, "true");
    let mut viewers = HolderServiceClient::new(viewer.channel);
    let shown = viewers.get_pool(get()).await.unwrap().into_inner().pool.unwrap();
    let seen = shown.setup.unwrap();
    assert_eq!((seen.revision, seen.setup), (1, None));
    let log = v1::SetupLogRequest { node: "n1".into(), previous: false };
    let mut nodes = viewer.nodes;
    assert_eq!(nodes.setup_log(log).await.unwrap_err().code(), Code::PermissionDenied);
    cluster.stop().await;
}

#[tokio::test]
async fn what_does_not_end_or_arrive_is_shown_with_the_node_and_the_job() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin();
    let mut agent = Agent::new(&cluster, "n1").await;
    let mut stream = agent.connect(&cluster).await;
    stream.welcome().await;
    let job = admin.submit("name: a\ncommand: 'true'\n").await.unwrap();
    let (desired, _) = stream.desired().await;
    agent.fence = desired.fence;
    let stuck = v1::StuckProcesses {
        job_id: job.job_id,
        allocation_id: desired.assignments[0].id.allocation.0,
        group: 0,
        text: "cat (7) in state D".into(),
        node: "n1".into(),
    };
    let late = |attempt| v1::LateOutput {
        job_id: job.job_id,
        task_index: 0,
        attempt,
        text: "/share: it does not answer".into(),
        node: "n1".into(),
    };
    let facts = v1::NodeFacts {
        stuck: vec![stuck.clone()],
        late: vec![late(1), late(2)],
        ..v1::NodeFacts::default()
    };
    stream.say(Say::Facts(Facts { facts: Some(facts) })).await;
    // What comes after it is heard after it.
    stream.say(agent.hello(SetupId::default())).await;
    stream.ping(&agent).await;
    let get = v1::GetNodeRequest { node: "n1".into() };
    let shown = admin.nodes.get(get).await.unwrap().into_inner().facts.unwrap();
    assert_eq!(shown.stuck, std::slice::from_ref(&stuck));
    assert_eq!(shown.late, [late(1), late(2)]);
    let request = v1::ExplainRequest { job_id: job.job_id, task_index: None };
    let explained = admin.jobs.explain(request).await.unwrap().into_inner().explanation.unwrap();
    let progress = explained.progress.unwrap();
    assert_eq!((progress.stuck, progress.late), (vec![stuck], vec![late(1)]));
    cluster.stop().await;
}
