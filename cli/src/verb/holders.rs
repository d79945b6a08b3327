//! Queues, pools, and settings of the cluster.

use super::setup;
use crate::args::{ConfigVerb, PoolArgs, PoolVerb, QueueArgs, QueueVerb};
use crate::failure::Failure;
use crate::output::{Format, Listing, say};
use crate::session::{Session, all_pages};
use crate::view;
use yard_common::spec::time::DurationMs;
use yard_proto::v1;

/// Shows the one thing of a list.
pub(super) fn show_one(session: &Session, listing: Listing) -> Result<(), Failure> {
    let text = listing.render(Format::Wide);
    let kind = listing.kind;
    let row = listing.rows.into_iter().next().unwrap_or_default();
    session.one(kind, &row, &text)
}

/// Does what the command line says.
pub(crate) async fn pool(session: &Session, verb: &PoolVerb) -> Result<u8, Failure> {
    match verb {
        PoolVerb::Ls => {
            let (pools, _) = all_pages(|page| async move {
                let request = v1::ListPoolsRequest { page: Some(page) };
                let answer = session.client.pools(request).await?;
                Ok((answer.pools, answer.page))
            })
            .await?;
            session.list(&view::holder::pools(&pools))?;
        }
        PoolVerb::Show { pool } => {
            let found = get_pool(session, pool).await?;
            let listing = view::holder::pools(std::slice::from_ref(&found));
            let text = listing.render(Format::Wide) + &view::setup::describe(&found);
            let row = listing.rows.into_iter().next().unwrap_or_default();
            session.one(listing.kind, &row, &text)?;
        }
        PoolVerb::Create(args) => {
            let settings = pool_settings(v1::PoolSettings::default(), args);
            let request = v1::CreatePoolRequest {
                pool: args.pool.clone(),
                settings: Some(settings),
                ..v1::CreatePoolRequest::default()
            };
            session.client.create_pool(request).await?;
            setup::change(session, args).await?;
            say(&format!("pool {} is added", args.pool));
        }
        PoolVerb::Set(args) => {
            let present = get_pool(session, &args.pool).await?.settings.unwrap_or_default();
            let settings = pool_settings(present.clone(), args);
            // Who changes the setup alone need not be asked for the rest.
            if settings != present || !setup::is_named(&args.setup) {
                let request = v1::SetPoolRequest {
                    pool: args.pool.clone(),
                    settings: Some(settings),
                    ..v1::SetPoolRequest::default()
                };
                session.client.set_pool(request).await?;
            }
            setup::change(session, args).await?;
            say(&format!("pool {} is changed", args.pool));
        }
        PoolVerb::Rm { pool } => {
            let request = v1::RemovePoolRequest { pool: pool.clone(), ..Default::default() };
            session.client.remove_pool(request).await?;
            say(&format!("pool {pool} is removed"));
        }
    }
    Ok(0)
}

pub(super) async fn get_pool(session: &Session, name: &str) -> Result<v1::Pool, Failure> {
    let answer = session.client.pool(v1::GetPoolRequest { pool: name.to_string() }).await?;
    Ok(answer.pool.unwrap_or_default())
}

/// What a pool has, with what the command line names.
fn pool_settings(present: v1::PoolSettings, args: &PoolArgs) -> v1::PoolSettings {
    v1::PoolSettings {
        description: args.description.clone().unwrap_or(present.description),
        lease_ms: args.lease.map_or(present.lease_ms, |lease| lease.ms()),
    }
}

/// Does what the command line says.
pub(crate) async fn queue(session: &Session, verb: &QueueVerb) -> Result<u8, Failure> {
    match verb {
        QueueVerb::Ls => {
            let (queues, _) = all_pages(|page| async move {
                let request = v1::ListQueuesRequest { page: Some(page) };
                let answer = session.client.queues(request).await?;
                Ok((answer.queues, answer.page))
            })
            .await?;
            session.list(&view::holder::queues(&queues))?;
        }
        QueueVerb::Show { queue } => {
            let found = get_queue(session, queue).await?;
            show_one(session, view::holder::queues(&[found]))?;
        }
        QueueVerb::Create(args) => {
            let request = v1::CreateQueueRequest {
                queue: args.queue.clone(),
                settings: Some(queue_settings(open_queue(), args)?),
                ..v1::CreateQueueRequest::default()
            };
            session.client.create_queue(request).await?;
            say(&format!("queue {} is added", args.queue));
        }
        QueueVerb::Set(args) => {
            let present = get_queue(session, &args.queue).await?.settings.unwrap_or_default();
            let request = v1::SetQueueRequest {
                queue: args.queue.clone(),
                settings: Some(queue_settings(present, args)?),
                ..v1::SetQueueRequest::default()
            };
            session.client.set_queue(request).await?;
            say(&format!("queue {} is changed", args.queue));
        }
        QueueVerb::Rm { queue } => {
            let request = v1::RemoveQueueRequest { queue: queue.clone(), ..Default::default() };
            session.client.remove_queue(request).await?;
            say(&format!("queue {queue} is removed"));
        }
    }
    Ok(0)
}

async fn get_queue(session: &Session, name: &str) -> Result<v1::Queue, Failure> {
    let answer = session.client.queue(v1::GetQueueRequest { queue: name.to_string() }).await?;
    Ok(answer.queue.unwrap_or_default())
}

/// A queue without bounds.
fn open_queue() -> v1::QueueSettings {
    v1::QueueSettings {
        accepts: true,
        starts: true,
        job_priority_max: yard_common::limits::PRIORITY_ABS_MAX,
        ..v1::QueueSettings::default()
    }
}

/// What a queue has, with what the command line names.
fn queue_settings(
    present: v1::QueueSettings,
    args: &QueueArgs,
) -> Result<v1::QueueSettings, Failure> {
    let pools = match &args.pools {
        None => present.pools,
        Some(pools) if pools.iter().any(|pool| pool == "any") => Vec::new(),
        Some(pools) => pools.clone(),
    };
    let (default, max) = (&args.time_limit_default, &args.time_limit_max);
    Ok(v1::QueueSettings {
        priority: args.priority.unwrap_or(present.priority),
        pools,
        accepts: args.accepts.unwrap_or(present.accepts),
        starts: args.starts.unwrap_or(present.starts),
        job_priority_max: args.job_priority_max.unwrap_or(present.job_priority_max),
        time_limit_default_ms: limit(default.as_deref(), present.time_limit_default_ms)?,
        time_limit_max_ms: limit(max.as_deref(), present.time_limit_max_ms)?,
        // Nothing is preempted in this version, so there is no flag for it.
        preemptible: present.preemptible,
    })
}

/// A limit that is given, `none`, or as it was.
fn limit(text: Option<&str>, present: Option<u64>) -> Result<Option<u64>, Failure> {
    match text {
        None => Ok(present),
        Some("none") => Ok(None),
        Some(text) => match text.parse::<DurationMs>() {
            Ok(limit) => Ok(Some(limit.ms())),
            Err(why) => Err(Failure::usage(format!("{text:?}: {why}"), "or write none")),
        },
    }
}

/// Settings of the cluster.
pub(crate) async fn config(session: &Session, verb: &ConfigVerb) -> Result<u8, Failure> {
    match verb {
        ConfigVerb::Ls => {
            let (settings, _) = all_pages(|page| async move {
                let request = v1::ListSettingsRequest { page: Some(page) };
                let answer = session.client.settings(request).await?;
                Ok((answer.settings, answer.page))
            })
            .await?;
            session.list(&view::holder::settings(&settings))?;
        }
        ConfigVerb::Set { name, value } => {
            set_setting(session, name, Some(value.clone())).await?;
            say(&format!("{name} = {value}"));
        }
        ConfigVerb::Unset { name } => {
            set_setting(session, name, None).await?;
            say(&format!("{name} has its default"));
        }
        // Of this machine; answered before a cluster is asked.
        ConfigVerb::Contexts | ConfigVerb::Use { .. } => {}
    }
    Ok(0)
}

async fn set_setting(session: &Session, name: &str, value: Option<String>) -> Result<(), Failure> {
    let request = v1::SetSettingRequest { name: name.to_string(), value, ..Default::default() };
    session.client.set_setting(request).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Verb};
    use clap::Parser;

    fn args(line: &str) -> QueueArgs {
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        match cli.verb {
            Verb::Queue(QueueVerb::Set(args) | QueueVerb::Create(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_named_stays() {
        let present = v1::QueueSettings {
            priority: 3,
            pools: vec!["a100".into()],
            time_limit_max_ms: Some(5),
            ..open_queue()
        };
        let nothing = args("yard queue set gpu");
        assert_eq!(queue_settings(present.clone(), &nothing).unwrap(), present);
        let some = args("yard queue set gpu --starts false --pools a,b --time-limit-max none");
        let changed = queue_settings(present.clone(), &some).unwrap();
        assert_eq!((changed.starts, changed.accepts, changed.priority), (false, true, 3));
        assert_eq!((changed.pools.len(), changed.time_limit_max_ms), (2, None));
        let any = queue_settings(present.clone(), &args("yard queue set gpu --pools any"));
        assert!(any.unwrap().pools.is_empty());
        let bad = args("yard queue create gpu --time-limit-default soon");
        assert_eq!(queue_settings(present, &bad).unwrap_err().exit, 64);
    }
}
