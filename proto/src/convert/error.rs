//! Refusals: from the domain's errors to the status of a call, and back at the client.
//!
//! A status carries, beside code and message, an `ErrorInfo` with the stable code (`Y2001`) as its
//! reason, and, for a job file, every problem as a `ProblemList`. A client raises
//! its limit on response headers to four times `STATUS_DETAILS_BYTES_MAX`, as details travel there
//! in Base64.

use super::ConvertError;
use crate::v1;
use prost::Message;
use std::collections::BTreeMap;
use tonic::{Code, Status};
use tonic_types::pb;
use yard_common::ErrorCode;
use yard_common::limits::STATUS_DETAILS_BYTES_MAX;
use yard_common::spec::Problems;
use yard_core::command::Rejection;

/// Whose reasons these are.
pub const DOMAIN: &str = "trainyard";

const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
const PROBLEM_LIST: &str = "type.googleapis.com/yard.v1.ProblemList";

/// Why a call was refused, as plain data.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// The class of the refusal.
    pub code: Code,
    /// The stable code, such as `Y2001`; empty where there is none.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Facts for programs.
    pub metadata: BTreeMap<String, String>,
    /// What is wrong with a job file.
    pub problems: Option<v1::ProblemList>,
    /// When to ask again, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl Refused {
    /// A refusal with a stable code.
    #[must_use]
    pub fn new(code: Code, error: ErrorCode, message: impl Into<String>) -> Refused {
        Refused { reason: error.to_string(), ..Refused::plain(code, message) }
    }

    /// A refusal without a stable code.
    #[must_use]
    pub fn plain(code: Code, message: impl Into<String>) -> Refused {
        Refused {
            code,
            reason: String::new(),
            message: message.into(),
            metadata: BTreeMap::new(),
            problems: None,
            retry_after_ms: None,
        }
    }

    /// With a fact for programs.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl ToString) -> Refused {
        self.metadata.insert(key.to_string(), value.to_string());
        self
    }

    /// With a time after which to ask again, in milliseconds.
    #[must_use]
    pub fn retry_after(mut self, retry_after_ms: u64) -> Refused {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }

    /// What a status tells. Details that do not read, or come from somebody else, are left out.
    #[must_use]
    pub fn read(status: &Status) -> Refused {
        let mut refused = Refused::plain(status.code(), status.message());
        let details = pb::Status::decode(status.details()).unwrap_or_default().details;
        for detail in &details {
            match detail.type_url.as_str() {
                ERROR_INFO => {
                    let info = pb::ErrorInfo::decode(&*detail.value).unwrap_or_default();
                    if info.domain == DOMAIN {
                        refused.reason = info.reason;
                        refused.metadata = info.metadata.into_iter().collect();
                    }
                }
                RETRY_INFO => {
                    let info = pb::RetryInfo::decode(&*detail.value).unwrap_or_default();
                    refused.retry_after_ms = info.retry_delay.map(|delay| millis(&delay));
                }
                PROBLEM_LIST => {
                    refused.problems = v1::ProblemList::decode(&*detail.value).ok();
                }
                _ => (),
            }
        }
        refused
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Status {
        let mut details = Vec::new();
        let mut add = |type_url: &str, value: Vec<u8>| {
            details.push(prost_types::Any { type_url: type_url.to_string(), value });
        };
        if !refused.reason.is_empty() {
            let info = pb::ErrorInfo {
                reason: refused.reason,
                domain: DOMAIN.to_string(),
                metadata: refused.metadata.into_iter().collect(),
            };
            add(ERROR_INFO, info.encode_to_vec());
        }
        if let Some(after_ms) = refused.retry_after_ms {
            let delay = duration(after_ms);
            add(RETRY_INFO, pb::RetryInfo { retry_delay: Some(delay) }.encode_to_vec());
        }
        if let Some(problems) = &refused.problems {
            add(PROBLEM_LIST, problems.encode_to_vec());
        }
        let (code, message) = (refused.code as i32, refused.message.clone());
        let bytes = pb::Status { code, message, details }.encode_to_vec();
        if bytes.len() > STATUS_DETAILS_BYTES_MAX {
            // Better no details than a response that no client takes.
            return Status::new(refused.code, refused.message);
        }
        Status::with_details(refused.code, refused.message, bytes.into())
    }
}

fn duration(ms: u64) -> prost_types::Duration {
    let nanos = i32::try_from(ms % 1_000 * 1_000_000).unwrap_or(0);
    prost_types::Duration { seconds: i64::try_from(ms / 1_000).unwrap_or(i64::MAX), nanos }
}

fn millis(delay: &prost_types::Duration) -> u64 {
    let seconds = u64::try_from(delay.seconds).unwrap_or(0);
    seconds
        .saturating_mul(1_000)
        .saturating_add(u64::try_from(delay.nanos / 1_000_000).unwrap_or(0))
}

/// The class that the refusals of a command fall into.
fn class(rejection: &Rejection) -> Code {
    match rejection {
        Rejection::NotFound(_) => Code::NotFound,
        Rejection::AlreadyExists(_) => Code::AlreadyExists,
        Rejection::NotAllowed(_) | Rejection::Revoked(_) => Code::PermissionDenied,
        Rejection::WrongState(..)
        | Rejection::InUse(..)
        | Rejection::FeatureLevelTooLow { .. }
        | Rejection::QueueClosed(_) => Code::FailedPrecondition,
        Rejection::LimitReached { .. } => Code::ResourceExhausted,
        Rejection::InvalidArgument { .. } => Code::InvalidArgument,
        // Read again, and decide again.
        Rejection::Changed(_) | Rejection::Stale(_) | Rejection::DoesNotFit(_) => Code::Aborted,
        // The same request finds the next leader.
        Rejection::StaleLeader => Code::Unavailable,
        Rejection::BadToken => Code::Unauthenticated,
    }
}

impl From<&Rejection> for Refused {
    fn from(rejection: &Rejection) -> Refused {
        let refused = Refused::new(class(rejection), rejection.code(), rejection.to_string());
        match rejection {
            Rejection::NotFound(object)
            | Rejection::AlreadyExists(object)
            | Rejection::Changed(object)
            | Rejection::Stale(object)
            | Rejection::QueueClosed(object)
            | Rejection::Revoked(object)
            | Rejection::WrongState(object, _)
            | Rejection::InUse(object, _) => refused.with("object", object),
            Rejection::LimitReached { what, limit } => {
                refused.with("what", what).with("limit", limit)
            }
            Rejection::InvalidArgument { field, .. } => refused.with("field", field),
            Rejection::FeatureLevelTooLow { needed, have } => {
                refused.with("needed", needed).with("have", have)
            }
            Rejection::StaleLeader => refused.retry_after(0),
            Rejection::NotAllowed(_) | Rejection::DoesNotFit(_) | Rejection::BadToken => refused,
        }
    }
}

impl From<&ConvertError> for Refused {
    fn from(error: &ConvertError) -> Refused {
        let refused = |code| Refused::new(code, error.code(), error.to_string());
        match error {
            ConvertError::NoSuch { what, name } => {
                refused(Code::NotFound).with("object", format!("{what} {name}"))
            }
            ConvertError::Length { field, .. }
            | ConvertError::Missing { field }
            | ConvertError::Unknown { field, .. }
            | ConvertError::OutOfRange { field, .. } => {
                refused(Code::InvalidArgument).with("field", field)
            }
            ConvertError::BadKey => refused(Code::InvalidArgument).with("field", "page.after_key"),
        }
    }
}

impl From<&Problems> for Refused {
    /// The message counts; the details tell.
    fn from(problems: &Problems) -> Refused {
        let code = problems.list().first().map_or(ErrorCode::InvalidArgument, |first| first.code);
        let text = problems.to_string();
        let message = text.lines().next().unwrap_or_default();
        let refused = Refused::new(Code::InvalidArgument, code, message);
        Refused { problems: Some(problems.into()), ..refused }
    }
}
