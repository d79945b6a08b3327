//! Machines.

use super::setup;
use crate::args::{DrainArgs, NodeVerb};
use crate::failure::Failure;
use crate::input::confirm;
use crate::output::{Row, say};
use crate::session::{Session, all_pages};
use crate::text;
use crate::view;
use serde_json::json;
use yard_proto::v1;

/// Does what the command line says.
pub(crate) async fn node(session: &Session, verb: &NodeVerb) -> Result<u8, Failure> {
    match verb {
        NodeVerb::Ls { pool } => ls(session, pool.as_deref()).await?,
        NodeVerb::Show { node } => show(session, node).await?,
        NodeVerb::Drain(args) => drain(session, args).await?,
        NodeVerb::Undrain { nodes, gpu } => {
            for node in nodes {
                let gpu = gpu.clone().unwrap_or_default();
                let what = if gpu.is_empty() { String::new() } else { format!(" on {gpu}") };
                let node = node.clone();
                let request = v1::UndrainRequest { node: node.clone(), gpu, ..Default::default() };
                session.client.undrain(request).await?;
                say(&format!("{node}: takes work again{what}"));
            }
        }
        NodeVerb::Check { nodes } => {
            for node in nodes {
                let request = v1::CheckNodeRequest { node: node.clone(), ..Default::default() };
                session.client.check_node(request).await?;
                say(&format!("{node}: looks at itself anew; see `yard node show {node}`"));
            }
        }
        NodeVerb::Logs { node, previous } => setup::log(session, node, *previous).await?,
        NodeVerb::ConfirmDead { nodes, yes } => {
            let what = "If one of them still runs, two attempts of a job may run at once. Are \
                        these machines off:";
            confirm(&format!("{what} {}?", nodes.join(", ")), *yes)?;
            for node in nodes {
                let request = v1::ConfirmDeadRequest { node: node.clone(), ..Default::default() };
                session.client.confirm_dead(request).await?;
                say(&format!("{node}: confirmed dead"));
            }
        }
        NodeVerb::Rm { nodes } => {
            for node in nodes {
                let request = v1::RemoveNodeRequest { node: node.clone(), ..Default::default() };
                session.client.remove_node(request).await?;
                say(&format!("{node}: removed"));
            }
        }
        NodeVerb::Invite { pool, life } => {
            let request = v1::CreateJoinTokenRequest {
                pool: pool.clone(),
                life_ms: life.ms(),
                ..v1::CreateJoinTokenRequest::default()
            };
            let answer = session.client.join_token(request).await?;
            super::users::tell_token(session, answer.token, answer.expires_wall_ms)?;
        }
    }
    Ok(0)
}

async fn ls(session: &Session, pool: Option<&str>) -> Result<(), Failure> {
    let pool = pool.unwrap_or_default();
    let (nodes, _) = all_pages(|page| async move {
        let request = v1::ListNodesRequest {
            page: Some(page),
            pool: pool.to_string(),
            ..v1::ListNodesRequest::default()
        };
        let answer = session.client.nodes(request).await?;
        Ok((answer.nodes, answer.page))
    })
    .await?;
    session.list(&view::node::listing(&nodes))
}

async fn show(session: &Session, name: &str) -> Result<(), Failure> {
    let answer = session.client.node(v1::GetNodeRequest { node: name.to_string() }).await?;
    let node = answer.node.unwrap_or_default();
    let facts = answer.facts.as_ref();
    let mut value = view::node::value(&node);
    value["facts"] = facts.map(view::machine::value).unwrap_or_default();
    let text =
        view::node::describe(&node) + &facts.map(view::machine::describe).unwrap_or_default();
    let row = Row { value, name: node.name.clone(), ..Row::default() };
    session.one("Node", &row, &text)
}

async fn drain(session: &Session, args: &DrainArgs) -> Result<(), Failure> {
    for node in &args.nodes {
        let request = v1::DrainRequest {
            node: node.clone(),
            in_ms: args.after.map_or(0, |after| after.ms()),
            deadline_ms: args.deadline.map(|deadline| deadline.ms()),
            reason: args.reason.clone(),
            gpu: args.gpu.clone().unwrap_or_default(),
            ..v1::DrainRequest::default()
        };
        session.client.drain(request).await?;
        if let Some(gpu) = &args.gpu {
            say(&format!("{node}: takes no new work on {gpu}"));
            continue;
        }
        let when =
            args.after.map_or("now".into(), |after| format!("in {}", text::duration(after.ms())));
        say(&format!("{node}: takes no new work, from {when} on"));
    }
    Ok(())
}

/// What machines read of a token.
pub(crate) fn token_row(token: &str, expires_wall_ms: u64) -> Row {
    let value = json!({ "token": token, "expires_wall_ms": expires_wall_ms });
    Row { value, name: token.to_string(), ..Row::default() }
}
