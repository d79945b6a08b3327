//! The client: one channel to each member, and the loop that every call goes through.

use crate::error::{ClientError, Verdict, cause_of, judge};
use crate::route::{Next, Route, Tries};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Response, Status};
use yard_common::limits::MEMBERS_MAX;
use yard_proto::convert::error::Refused;
use yard_proto::v1::StatusRequest;
use yard_proto::v1::cluster_service_client::ClusterServiceClient;
use yard_proto::{LIFE, MEMBERS_INDEX};
use yard_runtime::backoff::Backoff;
use yard_runtime::identity::{Identity, Tree};
use yard_runtime::tls::{self, ClientTls, Expect};

/// Waits between rounds over all members.
const BACKOFF: Backoff = Backoff::new(50, 1_000);
/// The least that one try gets, however little patience is left.
const TRY_LEAST: Duration = Duration::from_millis(100);
/// How long a call waits before that is told.
const QUIET: Duration = Duration::from_secs(1);
/// How long a member may take to tell the list of members.
const LEARN: Duration = Duration::from_secs(1);

/// Whom to call, as whom, and how patiently.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port` of members, the likeliest first.
    pub addresses: Vec<String>,
    /// Who calls.
    pub identity: Identity,
    /// How long a call goes on being tried while no member can do it.
    pub patience: Duration,
    /// How long one member may take to answer.
    pub try_timeout: Duration,
    /// Is told once, while a call waits, that no member could do it so far, and why.
    pub on_wait: fn(&str),
    /// The position of the list of members that `addresses` are from; 0: of none.
    pub members_index: u64,
    /// The latest life of the cluster that was heard of; 0: of none.
    pub life: u32,
}

/// The members, as one of them told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// The position of the list in the log: a later list replaces an earlier one.
    pub index: u64,
    /// `host:port` of each.
    pub addresses: Vec<String>,
    /// The life of the cluster that it is of: members of an earlier one are not believed.
    pub life: u32,
}

impl Options {
    /// With a patience that lasts over an election, and an answer within half a minute.
    #[must_use]
    pub fn new(addresses: Vec<String>, identity: Identity) -> Options {
        Options {
            addresses,
            identity,
            patience: Duration::from_secs(8),
            try_timeout: Duration::from_secs(30),
            on_wait: |_| {},
            members_index: 0,
            life: 0,
        }
    }
}

/// A client of one cluster. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    tls: Arc<ClientTls>,
    patience: Duration,
    try_timeout: Duration,
    on_wait: fn(&str),
    members: Mutex<Members>,
}

struct Members {
    route: Route,
    channels: BTreeMap<String, Channel>,
    /// The position of the newest list that is known.
    index: u64,
    /// The newest list, if it was learnt here.
    learnt: Option<Roster>,
    /// The latest life of the cluster that was heard of.
    life: u32,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({:?})", self.members().route)
    }
}

impl Client {
    /// A client that connects when it is used.
    ///
    /// # Errors
    /// If there is no address, one is no `host:port`, or the identity cannot be used now.
    pub fn connect(options: &Options) -> Result<Client, ClientError> {
        for address in &options.addresses {
            tls::endpoint(address).map_err(ClientError::Address)?;
        }
        if options.addresses.is_empty() {
            return Err(ClientError::NoAddress);
        }
        let (route, channels) = (Route::new(&options.addresses), BTreeMap::new());
        let (index, life) = (options.members_index, options.life);
        let members = Members { route, channels, index, learnt: None, life };
        Ok(Client {
            shared: Arc::new(Shared {
                tls: ClientTls::new(&options.identity)?,
                patience: options.patience,
                try_timeout: options.try_timeout,
                on_wait: options.on_wait,
                members: Mutex::new(members),
            }),
        })
    }

    /// Uses a renewed certificate for connections from now on.
    ///
    /// # Errors
    /// If the identity cannot be used now; the old one then stays.
    pub fn replace_identity(&self, identity: &Identity) -> Result<(), ClientError> {
        Ok(self.shared.tls.replace(identity)?)
    }

    /// The list of members, if a newer one than that of the options was learnt.
    #[must_use]
    pub fn learnt(&self) -> Option<Roster> {
        self.members().learnt.clone()
    }

    /// How long one member may take to answer.
    pub(crate) fn try_timeout(&self) -> Duration {
        self.shared.try_timeout
    }

    /// Tries a call until it is answered. `call` is made anew for each try, with the same request.
    pub(crate) async fn attempt<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let (began, mut told) = (Instant::now(), false);
        let until = began + self.shared.patience;
        let mut backoff = BACKOFF;
        let mut tries = Tries::default();
        loop {
            let (address, channel, members) = self.pick()?;
            let status = match timeout(self.shared.try_timeout, call(channel.clone())).await {
                Ok(Ok(response)) => match self.former(response.metadata()) {
                    Some(life) => former_life(life),
                    None => {
                        if self.is_news(&response) {
                            self.learn(channel).await;
                        }
                        return Ok(response.into_inner());
                    }
                },
                Ok(Err(status)) => match self.former(status.metadata()) {
                    Some(life) => former_life(life),
                    None => status,
                },
                Err(_) => Status::unavailable("no answer"),
            };
            let next = match judge(&status) {
                Verdict::Final => return Err(status.into()),
                // In the end hints are not followed: they may lead in a circle, past the others.
                Verdict::Ask(leader) if leader != address && Instant::now() < until => {
                    self.follow(&leader);
                    tries.hinted(&address)
                }
                Verdict::Ask(_) | Verdict::Again => {
                    self.members().route.leave(&address);
                    let answered = std::error::Error::source(&status).is_none();
                    tries.failed(&address, cause_of(&status), answered, members)
                }
            };
            let wait = match next {
                Next::Now => Duration::ZERO,
                Next::Wait => backoff.next(rand::random()).max(asked_to_wait(&status)),
            };
            // A member that hangs may take all of the patience: the others are asked all the same.
            if Instant::now() + wait + TRY_LEAST > until && tries.members() >= members {
                return Err(give_up(tries));
            }
            if !told && began.elapsed() >= QUIET {
                told = true;
                (self.shared.on_wait)(&cause_of(&status));
            }
            sleep(wait).await;
        }
    }

    /// The life of whoever answers, if a later one is known: a member of before a restore that
    /// still runs. What it says counts for nothing, and nobody obeys it.
    fn former(&self, answer: &MetadataMap) -> Option<u32> {
        // Absent if nobody answered.
        let told = answer.get(LIFE)?.to_str().ok()?.parse::<u32>().ok()?;
        let mut members = self.members();
        if told >= members.life {
            members.life = told;
            return None;
        }
        Some(told)
    }

    /// Whether whoever answers knows a newer list of members.
    fn is_news<T>(&self, response: &Response<T>) -> bool {
        let told = response.metadata().get(MEMBERS_INDEX);
        let told = told.and_then(|told| told.to_str().ok()?.parse::<u64>().ok());
        told.is_some_and(|told| told > self.members().index)
    }

    /// Asks for the list of members: while the one that answers still does.
    async fn learn(&self, channel: Channel) {
        let mut client = ClusterServiceClient::new(channel);
        let asked = client.status(StatusRequest { brief: true });
        let Ok(Ok(answer)) = timeout(LEARN, asked).await else { return };
        let status = answer.into_inner();
        let known = status.members.into_iter().map(|member| member.address);
        let addresses: Vec<String> =
            known.filter(|address| tls::endpoint(address).is_ok()).take(MEMBERS_MAX).collect();
        let mut members = self.members();
        if !addresses.is_empty() && status.members_index > members.index {
            members.route.learn(&addresses);
            members.index = status.members_index;
            let life = status.incarnation;
            members.learnt = Some(Roster { index: status.members_index, addresses, life });
        }
    }

    /// The member to ask, with its channel, and how many members are known.
    fn pick(&self) -> Result<(String, Channel, usize), ClientError> {
        let mut members = self.members();
        let address = members.route.current().ok_or(ClientError::NoAddress)?.to_string();
        let count = members.route.len();
        if let Some(channel) = members.channels.get(&address) {
            return Ok((address, channel.clone(), count));
        }
        let expect = Expect::Any(Tree::Member);
        let channel = tls::channel(&address, &self.shared.tls, expect);
        let channel = channel.map_err(ClientError::Address)?;
        members.channels.insert(address.clone(), channel.clone());
        Ok((address, channel, count))
    }

    /// Follows a hint. One that is no address is a fault of the server, not a reason to stop.
    fn follow(&self, leader: &str) {
        match tls::endpoint(leader) {
            Ok(_) => self.members().route.prefer(leader),
            Err(_) => tracing::debug!(leader, "a hint that is no address"),
        }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        // Nothing panics while it is held, and nothing is left half done.
        self.shared.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the server wants to be left alone.
fn asked_to_wait(status: &Status) -> Duration {
    let after = Refused::read(status).retry_after_ms;
    Duration::from_millis(after.unwrap_or(0))
}

fn former_life(life: u32) -> Status {
    Status::unavailable(format!("is of life {life} of the cluster, which was restored since"))
}

fn give_up(tries: Tries) -> ClientError {
    let answered = tries.answered();
    let list = tries.into_list();
    match list.last() {
        Some((at, why)) if answered => ClientError::TimedOut(format!("{at}: {why}")),
        Some(_) | None => ClientError::Unreachable(list),
    }
}
