//! The first certificate of a user, for a token.

use crate::{ClientError, new_request_id};
use std::time::Duration;
use tonic::{Request, Status};
use yard_proto::convert;
use yard_proto::v1::user_service_client::UserServiceClient;
use yard_proto::v1::{LoginRequest, Secret};
use yard_runtime::identity::{Identity, KeyRequest, Token, TokenKind, Tree};
use yard_runtime::tls::{self, ClientTls, ConnectError, Expect};

/// How long the server may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Who logged in.
#[derive(Debug)]
pub struct LoggedIn {
    /// Key, certificate, and the CAs of the cluster.
    pub identity: Identity,
    /// The user's name.
    pub name: String,
}

/// Logs in at `address` with a login token. The key is made here and stays here. The server must
/// show the CAs that the token names, in the handshake: the secret is sent after that or never.
///
/// # Errors
/// If the token is no login token, the server is another one, or refuses.
pub async fn login(address: &str, token: &str) -> Result<LoggedIn, ClientError> {
    let token = Token::parse_for(TokenKind::Login, token)?;
    let tls = ClientTls::pinned(token.fingerprint);
    let channel = tls::channel(address, &tls, Expect::Any(Tree::Member));
    let mut client = UserServiceClient::new(channel.map_err(ClientError::Address)?);
    let key = KeyRequest::new()?;
    let mut request = Request::new(LoginRequest {
        request_id: convert::request_id_bytes(new_request_id()),
        token_id: convert::token_id_bytes(token.id),
        token_secret: Some(Secret { text: token.secret.reveal().to_string() }),
        csr_der: key.der().to_vec().into(),
    });
    request.set_timeout(TIMEOUT);
    let failed = |status: Status| match std::error::Error::source(&status) {
        Some(_) => {
            let cause = crate::error::cause_of(&status);
            match is_distrust(&status) {
                true => ClientError::Distrusted(cause),
                false => ClientError::Unreachable(vec![(address.to_string(), cause)]),
            }
        }
        None => status.into(),
    };
    let answer = client.login(request).await.map_err(failed)?.into_inner();
    let leaf = answer.chain_der.first().ok_or(ClientError::Incomplete("certificate"))?;
    // The CAs of the handshake, whose fingerprint was checked; not whatever the answer says.
    let trust = tls.learned().ok_or(ClientError::Incomplete("CAs"))?;
    Ok(LoggedIn { identity: key.complete(leaf, trust)?, name: answer.name })
}

/// Whether somebody answered who is not of the token's cluster, or cannot prove it.
fn is_distrust(status: &Status) -> bool {
    let first = std::error::Error::source(status);
    let mut causes = std::iter::successors(first, |error| error.source());
    causes.any(|error| {
        let error = error.downcast_ref::<ConnectError>();
        matches!(error, Some(ConnectError::Distrusted(..) | ConnectError::OtherPeer { .. }))
    })
}
