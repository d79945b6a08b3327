//! Payloads of internal messages: what goes out comes in, and nothing else does.

#![allow(missing_docs, clippy::unwrap_used)]

use proptest::prelude::*;
use prost::Message;
use yard_common::id::*;
use yard_common::limits::{AGENT_SENDS_MAX, NODES_MAX, SMALL_PAYLOAD_BYTES_MAX};
use yard_common::{Amounts, ExitCause};
use yard_core::agent::*;
use yard_core::command::{Actor, Cluster, Command, Inventory, Object, Rejection, Reply};
use yard_core::lease::{Ack, Membership, MembershipId, Promise, Refusal, Renewal, Said};
use yard_proto::wire::{Forward, Forwarded, Payload, PayloadError, Sweep, Swept};
use yard_proto::{internal, v1};

fn comes_back<T: Payload + PartialEq + std::fmt::Debug>(value: &T) {
    let bytes = value.to_payload().unwrap();
    assert_eq!(T::from_payload(&bytes).as_ref(), Ok(value));
    let mut longer = bytes.to_vec();
    longer.push(0);
    let trailing = PayloadError::Trailing { what: T::NAME, extra: 1 };
    assert_eq!(T::from_payload(&longer), Err(trailing));
    for cut in 0..bytes.len() {
        assert!(T::from_payload(&bytes[..cut]).is_err(), "{} cut at {cut}", T::NAME);
    }
}

fn desired(count: u64) -> Desired {
    let assignment = |allocation| DesiredAssignment {
        id: AssignmentId { allocation: AllocationId(allocation), group: 0 },
        job: JobId(1),
        chain: Chain::one(0, AttemptNumber(1)),
        keep: 1,
        phase: DesiredPhase::Stop { cause: ExitCause::Cancelled, grace_ms: 30_000 },
        isolation: Isolation::Fenced,
    };
    let fence = Fence { incarnation: Incarnation(1), generation: Generation(9) };
    let assignments = (0..count).map(assignment).collect();
    Desired { fence, lease: LeaseId(1), assignments, check: 0 }
}

fn report(sequence: u64) -> Report {
    let assignment = AssignmentId { allocation: AllocationId(7), group: 1 };
    Report { sequence: Sequence(sequence), assignment, what: ReportKind::Ready }
}

#[test]
fn every_payload_comes_back() {
    let (node, lease) = (NodeId(3), LeaseId(8));
    let membership = Membership::of(MembershipId(LogIndex(4)), [MemberId(1), MemberId(2)]);
    comes_back(&Renewal { node, lease, sent_ms: 99, lease_ms: 3_000 });
    comes_back(&Ack { member: MemberId(1), node, lease, sent_ms: 99, membership });
    comes_back(&Refusal::UnknownNode);
    comes_back(&Refusal::OtherLease { current: lease });
    comes_back(&Refusal::Promised);
    comes_back(&Refusal::Unsettled);
    comes_back(&Refusal::TooLong { longest_ms: 5 });
    comes_back(&Fence::NONE);
    comes_back(&desired(3));
    comes_back(&vec![report(1), report(2)]);
    let inventory = Inventory {
        boot: BootId::from_u128(5),
        amounts: Amounts { cpu_milli: 8_000, memory_bytes: 1 << 30, disk_bytes: 0 },
        devices: Vec::new(),
        labels: vec![("rack".into(), "r1".into())],
        address: "n1".into(),
        version: "0.1.0".into(),
        conditions: Vec::new(),
        checked: 0,
        setup: None,
    };
    comes_back(&inventory);
    let command = Command::Cluster(Cluster::Tick);
    let request = Some(RequestId::from_u128(6));
    comes_back(&Forward { actor: Actor::User(PrincipalId(2)), request, command });
    let missing = Rejection::NotFound(Object::Job(JobId(9)));
    comes_back(&Forwarded { index: LogIndex(4), outcome: Err(missing) });
    comes_back(&Forwarded { index: LogIndex(5), outcome: Ok(Reply::Job(JobId(9))) });
    let leader = LeaderId { term: 2, member: MemberId(1) };
    comes_back(&Sweep { leader, asks: vec![(node, lease)] });
    let membership = MembershipId(LogIndex(4));
    let promise = Promise { member: MemberId(2), node, lease, membership };
    let said = vec![Said::Promised(promise), Said::Heard { node, silent_ms: 12 }];
    comes_back(&Swept { leader, member: MemberId(2), silent_ms: vec![(node, 12)], said });
}

#[test]
fn what_is_too_long_or_too_much_is_refused() {
    let long = vec![0; SMALL_PAYLOAD_BYTES_MAX + 1];
    let error = Renewal::from_payload(&long).unwrap_err();
    assert_eq!(error.to_string(), "renewal: 262145 bytes, at most 262144 are allowed");
    let reports: Vec<Report> = (1..=AGENT_SENDS_MAX + 1).map(report).collect();
    let bytes = reports.to_payload().unwrap();
    let error = Vec::<Report>::from_payload(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "reports: 257 reports, at most 256 are allowed");
    let mut twice = desired(2);
    twice.assignments[1].id = twice.assignments[0].id;
    let bytes = twice.to_payload().unwrap();
    assert!(matches!(Desired::from_payload(&bytes), Err(PayloadError::OutOfBounds { .. })));
    let leader = LeaderId { term: 2, member: MemberId(1) };
    let asks = vec![(NodeId(1), LeaseId(1)); NODES_MAX + 1];
    let bytes = Sweep { leader, asks }.to_payload().unwrap();
    assert!(matches!(Sweep::from_payload(&bytes), Err(PayloadError::OutOfBounds { .. })));
}

proptest! {
    /// Whatever comes from outside is read or refused.
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Renewal::from_payload(&bytes);
        let _ = Ack::from_payload(&bytes);
        let _ = Refusal::from_payload(&bytes);
        let _ = Fence::from_payload(&bytes);
        let _ = Inventory::from_payload(&bytes);
        let _ = Desired::from_payload(&bytes);
        let _ = Vec::<Report>::from_payload(&bytes);
        let _ = Forward::from_payload(&bytes);
        let _ = Forwarded::from_payload(&bytes);
        let _ = Sweep::from_payload(&bytes);
        let _ = Swept::from_payload(&bytes);
        let _ = internal::AgentMessage::decode(&*bytes);
        let _ = internal::CoordinatorMessage::decode(&*bytes);
        let _ = internal::AgentData::decode(&*bytes);
        let _ = internal::ForwardRequest::decode(&*bytes);
        let _ = v1::SubmitRequest::decode(&*bytes);
        let _ = v1::SetQueueRequest::decode(&*bytes);
        let status = tonic::Status::with_details(tonic::Code::Internal, "", bytes.into());
        let _ = yard_proto::convert::error::Refused::read(&status);
    }

    /// Bytes that are nearly right get further into the decoders.
    #[test]
    fn no_damaged_bytes_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = desired(4).to_payload().unwrap().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Desired::from_payload(&bytes);
        let mut bytes = vec![report(1), report(2)].to_payload().unwrap().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = Vec::<Report>::from_payload(&bytes);
    }
}
