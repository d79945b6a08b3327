//! What went wrong, as the user reads it, and the exit code that scripts read.

use crate::text::harmless;
use std::fmt::Write;
use yard_client::ClientError;

/// Exit codes of verbs. `run` and `wait` give the job's own.
pub(crate) mod exit {
    /// Refused by the server.
    pub(crate) const REFUSED: u8 = 1;
    /// Usage, or a bad job file.
    pub(crate) const USAGE: u8 = 64;
    /// There is no such thing.
    pub(crate) const NOT_FOUND: u8 = 66;
    /// No coordinator is reachable.
    pub(crate) const UNREACHABLE: u8 = 69;
    /// Not allowed.
    pub(crate) const DENIED: u8 = 77;
    /// A time limit, of a job or of `--timeout`.
    pub(crate) const TIMED_OUT: u8 = 124;
    /// The job has no exit status: cancelled, lost, not prepared.
    pub(crate) const NO_STATUS: u8 = 125;
}

/// A failure of a verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: u8,
    /// What is wrong; may have several lines.
    pub(crate) message: String,
    /// What to do; empty: nothing is known.
    pub(crate) hint: String,
    /// The stable code, such as `Y2003`.
    pub(crate) code: Option<String>,
}

impl Failure {
    /// A failure without a code.
    pub(crate) fn new(exit: u8, message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), hint: hint.into(), code: None }
    }

    /// Something on the command line that cannot be.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure::new(exit::USAGE, message, hint)
    }

    /// Something of this machine that failed, with every cause.
    pub(crate) fn local(error: &dyn std::error::Error, hint: impl Into<String>) -> Failure {
        Failure::new(exit::REFUSED, chain(error), hint)
    }

    /// The lines for standard error.
    pub(crate) fn render(&self) -> String {
        let mut text = String::from("error");
        if let Some(code) = &self.code {
            let _ = write!(text, "[{code}]");
        }
        let _ = write!(text, ": {}", harmless(self.message.trim_end()));
        if !self.hint.is_empty() {
            let _ = write!(text, "\n  fix: {}", harmless(&self.hint));
        }
        if let Some(code) = &self.code {
            let _ = write!(text, "\n  more: yard explain {code}");
        }
        text.push('\n');
        text
    }
}

/// An error with everything that caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let message = chain(&error);
        match error {
            ClientError::Unreachable(_) | ClientError::NoAddress => {
                let hint = "is the coordinator running? `yard dev` starts your own; \
                            `yard doctor` looks closer";
                Failure::new(exit::UNREACHABLE, message, hint)
            }
            ClientError::Distrusted(_) => {
                let hint = "is the address right? Tokens are good at their own cluster alone: \
                            an administrator there makes one with `yard user invite`";
                Failure::new(exit::DENIED, message, hint)
            }
            ClientError::TimedOut(_) => {
                let hint = "the coordinators may be electing a leader; `yard cluster status`";
                Failure::new(exit::UNREACHABLE, message, hint)
            }
            ClientError::Denied(refusal) => {
                let hint = "`yard user show` says who you are and what you may do";
                let failure = Failure::new(exit::DENIED, message, hint);
                Failure { code: refusal.code, ..failure }
            }
            ClientError::Refused(refusal) => {
                let missing = refusal.status == yard_client::NOT_FOUND;
                let exit = if missing { exit::NOT_FOUND } else { exit::REFUSED };
                Failure { code: refusal.code, ..Failure::new(exit, message, "") }
            }
            ClientError::Problems { message, problems } => {
                let list = crate::problems::of_server(&problems);
                let text = crate::problems::render(&list, None, None);
                Failure::usage(format!("{message}\n\n{text}"), "")
            }
            ClientError::Token(_) => Failure::usage(message, "ask for a new token"),
            ClientError::Address(_) => Failure::usage(message, "write HOST:PORT"),
            ClientError::Tls(_) => {
                let hint = "log in again: an administrator makes a token with `yard user invite`";
                Failure::new(exit::DENIED, message, hint)
            }
            ClientError::Identity(_) | ClientError::Incomplete(_) => {
                Failure::new(exit::REFUSED, message, "")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_client::Refusal;

    #[test]
    fn a_failure_says_what_and_what_next() {
        let refusal = Refusal {
            status: yard_client::NOT_FOUND,
            code: Some("Y2001".into()),
            message: "there is no job 812".into(),
        };
        let failure = Failure::from(ClientError::Refused(refusal));
        assert_eq!(failure.exit, 66);
        assert_eq!(
            failure.render(),
            "error[Y2001]: there is no job 812\n  more: yard explain Y2001\n"
        );
        let tried = vec![("10.0.0.1:7100".into(), "Connection refused".into())];
        let failure = Failure::from(ClientError::Unreachable(tried));
        assert_eq!(failure.exit, 69);
        assert_eq!(
            failure.render(),
            "error: no coordinator is reachable: 10.0.0.1:7100: Connection refused\n  \
             fix: is the coordinator running? `yard dev` starts your own; \
             `yard doctor` looks closer\n"
        );
    }
}
