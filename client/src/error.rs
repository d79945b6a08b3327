//! What can come of a call, in types that a caller can act on.

use tonic::{Code, Status};
use yard_proto::convert::error::Refused;
use yard_proto::v1::ProblemList;
use yard_runtime::identity::{IdentityError, TokenError};
use yard_runtime::tls::{ConnectError, TlsError};

/// The fact of a refusal that names the member that leads, as `host:port`. Facts travel only with
/// refusals that have a stable code.
pub(crate) const LEADER: &str = "leader";

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is nobody to ask.
    #[error("no address of a coordinator is known")]
    NoAddress,
    /// An address cannot be used.
    #[error("an address cannot be used")]
    Address(#[source] ConnectError),
    /// The identity cannot be used.
    #[error("the identity cannot be used")]
    Tls(#[from] TlsError),
    /// No member answered.
    #[error("no coordinator is reachable: {}", tried(.0))]
    Unreachable(Vec<(String, String)>),
    /// Somebody answered who cannot prove to be of the cluster that was meant.
    #[error("this is not the cluster that the token is for: {0}")]
    Distrusted(String),
    /// Members answered, but none could do it in time, as while there is no leader.
    #[error("no answer in time; last: {0}")]
    TimedOut(String),
    /// The caller may not do this.
    #[error("{0}")]
    Denied(Refusal),
    /// The cluster does not do this.
    #[error("{0}")]
    Refused(Refusal),
    /// The job file has problems.
    #[error("{message}")]
    Problems {
        /// One line.
        message: String,
        /// All of them.
        problems: ProblemList,
    },
    /// The token cannot be read.
    #[error("the token cannot be used")]
    Token(#[from] TokenError),
    /// What the server sent makes no identity.
    #[error("the certificate that the server sent cannot be used")]
    Identity(#[from] IdentityError),
    /// The answer is not complete.
    #[error("the answer lacks its {0}")]
    Incomplete(&'static str),
}

fn tried(list: &[(String, String)]) -> String {
    let lines: Vec<String> = list.iter().map(|(at, why)| format!("{at}: {why}")).collect();
    lines.join("; ")
}

/// A refusal, as the server gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code of gRPC.
    pub status: Code,
    /// The stable code, such as `Y2003`; none: the server gave none.
    pub code: Option<String>,
    /// For people.
    pub message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// What a failed try means for the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This member leads.
    Ask(String),
    /// Another member, or the same one later, may do it.
    Again,
    /// Nobody will do it.
    Final,
}

/// Judges a failed try. Every call may be repeated: those that change something carry an id.
pub(crate) fn judge(status: &Status) -> Verdict {
    let refused = Refused::read(status);
    if let Some(leader) = refused.metadata.get(LEADER) {
        return Verdict::Ask(leader.clone());
    }
    // A status that tonic made of a broken connection has its error as the source.
    let broken = std::error::Error::source(status).is_some();
    match status.code() {
        Code::Unavailable => Verdict::Again,
        Code::Unknown | Code::Internal | Code::Cancelled | Code::DeadlineExceeded if broken => {
            Verdict::Again
        }
        // The time for this try is over, by another clock than that of whoever waits for it: the
        // channel and the server have it too, and which of them is first is a matter of luck.
        Code::Cancelled | Code::DeadlineExceeded if refused.reason.is_empty() => Verdict::Again,
        _ => Verdict::Final,
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> ClientError {
        let refused = Refused::read(&status);
        let message = refused.message;
        if let Some(problems) = refused.problems {
            return ClientError::Problems { message, problems };
        }
        let code = (!refused.reason.is_empty()).then_some(refused.reason);
        let refusal = Refusal { status: refused.code, code, message };
        match refusal.status {
            Code::PermissionDenied | Code::Unauthenticated => ClientError::Denied(refusal),
            _ => ClientError::Refused(refusal),
        }
    }
}

/// The deepest cause of a status, which tells more than "transport error".
pub(crate) fn cause_of(status: &Status) -> String {
    let mut deepest: Option<&dyn std::error::Error> = std::error::Error::source(status);
    let mut texts = Vec::new();
    while let Some(error) = deepest {
        texts.push(error.to_string());
        deepest = error.source();
    }
    // "transport error" and the like say nothing that the rest does not say better.
    texts.retain(|text| text != "transport error" && text != "tcp connect error");
    // A wrapper shows what is in it, and what is in it comes next.
    texts.dedup();
    match texts.is_empty() {
        true => status.message().to_string(),
        false => texts.join(": "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::ErrorCode;
    use yard_proto::v1::Problem;

    #[test]
    fn tries_are_judged() {
        let refused = |code, error| Status::from(Refused::new(code, error, "no"));
        let hint = Refused::new(Code::Unavailable, ErrorCode::StaleLeader, "not the leader");
        let hint = Status::from(hint.with(LEADER, "10.0.0.2:7100"));
        assert_eq!(judge(&hint), Verdict::Ask("10.0.0.2:7100".into()));
        assert_eq!(judge(&Status::unavailable("no leader")), Verdict::Again);
        let stale = refused(Code::Unavailable, ErrorCode::StaleLeader);
        assert_eq!(judge(&stale), Verdict::Again);
        let changed = refused(Code::Aborted, ErrorCode::Changed);
        assert_eq!(judge(&changed), Verdict::Final, "to be read again by whoever asked");
        assert_eq!(judge(&Status::internal("bug")), Verdict::Final);
        assert_eq!(judge(&Status::not_found("no such job")), Verdict::Final);
        let broken = Status::from_error(Box::new(std::io::Error::other("reset")));
        assert_eq!(judge(&broken), Verdict::Again);
        let expired = Status::from_error(Box::new(tonic::TimeoutExpired(())));
        assert_eq!((expired.code(), judge(&expired)), (Code::Cancelled, Verdict::Again));
        assert_eq!(judge(&Status::deadline_exceeded("it took too long")), Verdict::Again);
    }

    #[test]
    fn refusals_have_types() {
        let denied = Refused::new(Code::PermissionDenied, ErrorCode::NotAllowed, "not yours");
        match ClientError::from(Status::from(denied)) {
            ClientError::Denied(refusal) => {
                assert_eq!(refusal.code.as_deref(), Some("Y2003"));
                assert_eq!(refusal.message, "not yours");
            }
            other => panic!("{other:?}"),
        }
        let problem = Problem { code: "Y1002".into(), ..Problem::default() };
        let list = ProblemList { problems: vec![problem], left_out: 0 };
        let bad = Refused::new(Code::InvalidArgument, ErrorCode::UnknownField, "1 problem");
        let bad = Status::from(Refused { problems: Some(list), ..bad });
        assert!(matches!(ClientError::from(bad), ClientError::Problems { .. }));
        let bare = Status::invalid_argument("no");
        match ClientError::from(bare) {
            ClientError::Refused(refusal) => assert_eq!(refusal.code, None),
            other => panic!("{other:?}"),
        }
    }
}
