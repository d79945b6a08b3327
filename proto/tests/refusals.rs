//! Refusals: every one has its class and code, and a client reads what the server meant.

#![allow(missing_docs, clippy::unwrap_used)]

use prost::Message;
use std::collections::BTreeSet;
use tonic::{Code, Status};
use yard_common::ErrorCode;
use yard_common::id::{FeatureLevel, JobId, QueueId};
use yard_common::limits::{JOB_FILE_PROBLEMS_MAX, STATUS_DETAILS_BYTES_MAX};
use yard_common::spec::{Draft, Features};
use yard_core::command::{Object, Rejection};
use yard_proto::convert::ConvertError;
use yard_proto::convert::error::{DOMAIN, Refused};

fn job() -> Object {
    Object::Job(JobId(812))
}

fn every_rejection() -> Vec<(Rejection, Code)> {
    vec![
        (Rejection::NotFound(job()), Code::NotFound),
        (Rejection::AlreadyExists(job()), Code::AlreadyExists),
        (Rejection::NotAllowed("the role operator".into()), Code::PermissionDenied),
        (Rejection::WrongState(job(), "ended".into()), Code::FailedPrecondition),
        (Rejection::LimitReached { what: "jobs".into(), limit: 7 }, Code::ResourceExhausted),
        (Rejection::invalid("plan.name", "give a name"), Code::InvalidArgument),
        (Rejection::Changed(job()), Code::Aborted),
        (Rejection::StaleLeader, Code::Unavailable),
        (Rejection::Stale(job()), Code::Aborted),
        (Rejection::DoesNotFit("no room".into()), Code::Aborted),
        (Rejection::InUse(job(), "3 jobs".into()), Code::FailedPrecondition),
        (Rejection::BadToken, Code::Unauthenticated),
        (
            Rejection::FeatureLevelTooLow { needed: FeatureLevel(2), have: FeatureLevel(1) },
            Code::FailedPrecondition,
        ),
        (Rejection::QueueClosed(Object::Queue(QueueId(1))), Code::FailedPrecondition),
        (Rejection::Revoked(job()), Code::PermissionDenied),
    ]
}

#[test]
fn every_rejection_reaches_the_client() {
    let mut codes = BTreeSet::new();
    for (rejection, code) in every_rejection() {
        let refused = Refused::from(&rejection);
        assert_eq!(refused.code, code, "{rejection:?}");
        assert_eq!(refused.reason, rejection.code().to_string());
        assert_eq!(refused.message, rejection.to_string());
        codes.insert(rejection.code());
        let status = Status::from(refused.clone());
        assert_eq!((status.code(), status.message()), (code, &*refused.message));
        assert_eq!(Refused::read(&status), refused);
    }
    assert_eq!(codes.len(), every_rejection().len(), "each has a code of its own");
    assert!(codes.contains(&ErrorCode::Revoked));
}

#[test]
fn facts_for_programs_travel_along() {
    let refused = Refused::from(&Rejection::LimitReached { what: "jobs".into(), limit: 7 });
    let read = Refused::read(&Status::from(refused.retry_after(1_500)));
    assert_eq!(read.metadata["what"], "jobs");
    assert_eq!(read.metadata["limit"], "7");
    assert_eq!(read.retry_after_ms, Some(1_500));
}

#[test]
fn a_message_that_does_not_convert_says_which_field() {
    let error = ConvertError::Missing { field: "scope" };
    let refused = Refused::from(&error);
    assert_eq!((refused.code, &*refused.reason), (Code::InvalidArgument, "Y2006"));
    assert_eq!(refused.metadata["field"], "scope");
    let error = ConvertError::NoSuch { what: "queue", name: "fast".into() };
    let refused = Refused::from(&error);
    assert_eq!((refused.code, &*refused.reason), (Code::NotFound, "Y2001"));
    assert_eq!(refused.message, "there is no queue \"fast\"");
}

#[test]
fn every_problem_of_a_job_file_reaches_the_client() {
    let text = b"nodez: 2\ncommand: 'true'\nresources: { gpus: many }\n";
    let problems = Draft::read(text, Some("job.yaml")).validate(&Features::all()).unwrap_err();
    assert!(problems.list().len() >= 2);
    let read = Refused::read(&Status::from(Refused::from(&problems)));
    assert_eq!(read.code, Code::InvalidArgument);
    assert_eq!(read.reason, problems.list()[0].code.to_string());
    assert_eq!(read.message, format!("{} problems in job.yaml", problems.list().len()));
    let list = read.problems.unwrap();
    assert_eq!(list.left_out, 0);
    let told: Vec<String> = list.problems.iter().map(ToString::to_string).collect();
    let meant: Vec<String> = problems.list().iter().map(ToString::to_string).collect();
    assert_eq!(told, meant);
}

#[test]
fn more_problems_than_a_trailer_holds_are_counted() {
    let wide = "x".repeat(200);
    let lines: String = (0..150).map(|at| format!("{wide}{at}: 1\n")).collect();
    let problems = Draft::read(lines.as_bytes(), None).validate(&Features::all()).unwrap_err();
    assert_eq!(problems.list().len(), JOB_FILE_PROBLEMS_MAX);
    let status = Status::from(Refused::from(&problems));
    assert!(status.details().len() <= STATUS_DETAILS_BYTES_MAX);
    let list = Refused::read(&status).problems.unwrap();
    assert!(!list.problems.is_empty());
    let all = problems.list().len() + problems.left_out();
    assert_eq!(list.problems.len() + list.left_out as usize, all);
}

#[test]
fn details_of_somebody_else_are_no_details_of_ours() {
    let info = tonic_types::pb::ErrorInfo {
        reason: "Y2001".into(),
        domain: "elsewhere".into(),
        metadata: Default::default(),
    };
    let detail = prost_types::Any {
        type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(),
        value: info.encode_to_vec(),
    };
    let details = tonic_types::Status { code: 5, message: String::new(), details: vec![detail] };
    let bytes = details.encode_to_vec().into();
    let read = Refused::read(&Status::with_details(Code::NotFound, "gone", bytes));
    assert_eq!(read, Refused::plain(Code::NotFound, "gone"));
    assert_ne!(DOMAIN, "elsewhere");
}
