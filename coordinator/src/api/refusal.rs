//! Why a call is refused: every error of every part, as one status with a stable code.

use crate::member::barrier::BarrierError;
use crate::member::plays::TooManyPlays;
use crate::sessions::AskError;
use std::fmt;
use tonic::{Code, Status};
use yard_common::ErrorCode;
use yard_common::spec::Problems;
use yard_core::command::Rejection;
use yard_core::state::State;
use yard_proto::convert::ConvertError;
use yard_proto::convert::error::Refused;
use yard_proto::wire::PayloadError;
use yard_runtime::identity::IdentityError;

/// When to come back, in milliseconds, if nothing better is known.
const AGAIN_MS: u64 = 100;

/// A refusal. Small, since most calls are not refused.
pub(crate) struct Refusal(Box<Refused>);

impl Refusal {
    /// Whether another member may do what this one cannot.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.0.code == Code::Unavailable
    }

    /// A refusal with a stable code.
    pub(crate) fn new(code: Code, error: ErrorCode, message: impl Into<String>) -> Refusal {
        Refused::new(code, error, message).into()
    }

    /// A refusal without one.
    pub(crate) fn plain(code: Code, message: impl Into<String>) -> Refusal {
        Refused::plain(code, message).into()
    }

    /// This can be tried again soon.
    pub(crate) fn unavailable(message: impl Into<String>) -> Refusal {
        Refused::plain(Code::Unavailable, message).retry_after(AGAIN_MS).into()
    }

    /// What came of a command, in the names that people know.
    pub(crate) fn told(rejection: &Rejection, state: &State) -> Refusal {
        Refused { message: rejection.told(state), ..Refused::from(rejection) }.into()
    }

    /// There is no such thing, or none that the caller may see.
    pub(crate) fn no_such(what: &'static str, name: impl fmt::Display) -> Refusal {
        let name = name.to_string();
        (&ConvertError::NoSuch { what, name }).into()
    }

    /// What people are told.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// An argument that makes no sense.
    pub(crate) fn invalid(field: &str, problem: &str) -> Refusal {
        let message = format!("{field}: {problem}");
        let refused = Refused::new(Code::InvalidArgument, ErrorCode::InvalidArgument, message);
        refused.with("field", field).into()
    }

    /// Something that this version cannot do.
    pub(crate) fn not_yet(what: &str) -> Refusal {
        let message = format!("{what}: not in this version");
        Refusal::new(Code::Unimplemented, ErrorCode::NotInThisVersion, message)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        Refusal(Box::new(refused))
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        (*refusal.0).into()
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&ConvertError> for Refusal {
    fn from(error: &ConvertError) -> Refusal {
        Refused::from(error).into()
    }
}

impl From<ConvertError> for Refusal {
    fn from(error: ConvertError) -> Refusal {
        (&error).into()
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Refusal {
        Refused::from(&rejection).into()
    }
}

impl From<&Problems> for Refusal {
    fn from(problems: &Problems) -> Refusal {
        Refused::from(problems).into()
    }
}

impl From<PayloadError> for Refusal {
    fn from(error: PayloadError) -> Refusal {
        Refusal::new(Code::InvalidArgument, ErrorCode::InvalidArgument, error.to_string())
    }
}

impl From<BarrierError> for Refusal {
    fn from(error: BarrierError) -> Refusal {
        let code = match error {
            BarrierError::Overloaded => Code::ResourceExhausted,
            BarrierError::NoLeader | BarrierError::Stopped => Code::Unavailable,
        };
        Refused::plain(code, error.to_string()).retry_after(AGAIN_MS).into()
    }
}

impl From<TooManyPlays> for Refusal {
    fn from(error: TooManyPlays) -> Refusal {
        let refused = Refused::plain(Code::ResourceExhausted, error.to_string());
        refused.retry_after(AGAIN_MS).into()
    }
}

impl From<AskError> for Refusal {
    fn from(error: AskError) -> Refusal {
        let code = match error {
            AskError::TooMany => Code::ResourceExhausted,
            AskError::NotInTouch(_) | AskError::NoDial(_) | AskError::NoLeader => Code::Unavailable,
        };
        Refused::plain(code, error.to_string()).retry_after(AGAIN_MS).into()
    }
}

impl From<IdentityError> for Refusal {
    /// Faults of the request are told; those of this member are logged, and not told.
    fn from(error: IdentityError) -> Refusal {
        match error {
            IdentityError::LargeRequest(_)
            | IdentityError::ReadRequest(_)
            | IdentityError::WeakKey
            | IdentityError::BadName(..) => Refusal::invalid("csr_der", &error.to_string()),
            _ => {
                tracing::error!(?error, "a certificate could not be issued");
                Refusal::plain(Code::Internal, "the certificate could not be issued; see the log")
            }
        }
    }
}
