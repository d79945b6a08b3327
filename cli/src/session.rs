//! What every verb that asks a cluster has at hand.

use crate::args::Global;
use crate::context::{Contexts, Environment};
use crate::failure::Failure;
use crate::members;
use crate::output::{Format, Listing, Row, put, render_one, say};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use yard_client::{Client, ClientError};
use yard_proto::v1;
use yard_runtime::identity::{Identity, KeyRequest};

/// Rows of one page.
const PAGE_SIZE: u32 = 1_000;
/// Rows of one list.
const ROWS_MAX: usize = 200_000;

/// A cluster to ask, and how to answer.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) format: Format,
    /// Where members that are learnt are kept; none: the addresses were given for this once.
    members: Option<PathBuf>,
}

impl Session {
    /// Opens the cluster that flags and environment ask for.
    pub(crate) async fn open(global: &Global) -> Result<Session, Failure> {
        let environment = Environment::of_process();
        let folder = environment.folder()?;
        let contexts = Contexts::load(&folder)?;
        let (flag, address) = (global.context.as_deref(), global.address.as_deref());
        let (_, context) = contexts.choose(flag, address, &environment)?;
        let identity = context.load_identity()?;
        let given = address.is_some() || environment.address.is_some();
        let client = Client::connect(&context.options(identity.clone(), given))?;
        let own_folder = context.identity.parent();
        if identity.peer().renew_at_wall_ms(0) <= now_wall_ms()
            && let Some(folder) = own_folder
            && let Err(failure) = renew(&client, &identity, folder).await
        {
            // The old one is still good, or the verb itself will say that it is not.
            say(&format!("note: the certificate could not be renewed: {}", failure.message));
        }
        let members = own_folder.filter(|_| !given).map(Path::to_path_buf);
        Ok(Session { client, format: global.output.unwrap_or_default(), members })
    }

    /// Keeps the members that were learnt meanwhile, for the next command.
    pub(crate) fn remember_members(&self) {
        let (Some(folder), Some(roster)) = (&self.members, self.client.learnt()) else { return };
        if let Err(failure) = members::save(folder, &roster) {
            say(&format!("note: the members cannot be kept: {}", failure.message));
        }
    }

    /// Writes a list.
    pub(crate) fn list(&self, listing: &Listing) -> Result<(), Failure> {
        put(&listing.render(self.format))
    }

    /// Writes one thing: `text` for people.
    pub(crate) fn one(&self, kind: &'static str, row: &Row, text: &str) -> Result<(), Failure> {
        put(&render_one(kind, row, text, self.format))
    }
}

/// Gets a new certificate, for a new key, and puts it in the place of the old one.
async fn renew(client: &Client, identity: &Identity, folder: &Path) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::local(error, "");
    let key = KeyRequest::new().map_err(|error| failed(&error))?;
    let request = v1::RenewCertificateRequest { csr_der: key.der().to_vec().into() };
    let answer = client.renew_certificate(request).await?;
    let leaf = answer.chain_der.first().ok_or(ClientError::Incomplete("certificate"))?;
    let renewed = key.complete(leaf, identity.trust().clone()).map_err(|error| failed(&error))?;
    renewed.save(folder).map_err(|error| failed(&error))?;
    client.replace_identity(&renewed)?;
    Ok(())
}

/// The wall clock of this machine.
pub(crate) fn now_wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// All rows of a list that comes in pages. `page` asks for one; the rows stop at a bound.
pub(crate) async fn all_pages<T, F>(
    mut page: impl FnMut(v1::Page) -> F,
) -> Result<(Vec<T>, v1::Stamp), Failure>
where
    F: Future<Output = Result<(Vec<T>, Option<v1::PageInfo>), ClientError>>,
{
    let mut rows = Vec::new();
    let mut next = v1::Page { size: PAGE_SIZE, ..v1::Page::default() };
    loop {
        let (more, info) = page(next.clone()).await?;
        rows.extend(more);
        let info = info.unwrap_or_default();
        let now = info.now.unwrap_or_default();
        if info.next_key.is_empty() {
            return Ok((rows, now));
        }
        if rows.len() >= ROWS_MAX {
            say(&format!("note: only the first {} rows are shown", rows.len()));
            return Ok((rows, now));
        }
        next.after_key = info.next_key;
        next.applied_index = info.applied_index;
    }
}
