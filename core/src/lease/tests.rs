//! Holder and keeper, case by case.

use super::holder::MEMBERSHIPS_KEPT_MAX;
use super::*;
use std::collections::BTreeSet;
use yard_common::id::{LeaseId, LogIndex, MemberId, NodeId};

const NODE: NodeId = NodeId(5);
const LEASE: LeaseId = LeaseId(2);
const WAIT_MS: u64 = LeaseTimes::DEFAULT.promise_wait_ms();

fn membership(id: u64, voters: &[u64]) -> Membership {
    Membership::of(MembershipId(LogIndex(id)), voters.iter().copied().map(MemberId))
}

fn joint(id: u64, old: &[u64], new: &[u64]) -> Membership {
    let new: BTreeSet<_> = new.iter().copied().map(MemberId).collect();
    Membership { joint: Some(new), ..membership(id, old) }
}

fn ack(member: u64, sent_ms: u64, membership: &Membership) -> Ack {
    let membership = membership.clone();
    Ack { member: MemberId(member), node: NODE, lease: LEASE, sent_ms, membership }
}

fn holder(sends: &[u64]) -> Holder {
    let mut holder = Holder::new(NODE, LEASE, LeaseTimes::DEFAULT);
    for &at in sends {
        let _ = holder.renewal(at);
    }
    holder
}

fn renewal(sent_ms: u64) -> Renewal {
    Renewal { node: NODE, lease: LEASE, sent_ms, lease_ms: 3_000 }
}

/// Member 1 of three, up since 0, that knows the node.
fn keeper() -> Keeper {
    let mut keeper = Keeper::new(MemberId(1), membership(1, &[1, 2, 3]), LeaseTimes::DEFAULT, 0);
    keeper.lease_applied(NODE, LEASE);
    keeper
}

fn intent(judgement: Judgement) -> Intent {
    match judgement {
        Judgement::Persist(intent) => intent,
        other => panic!("no intent: {other:?}"),
    }
}

#[test]
fn a_deadline_is_the_majority_th_largest_sending_time_plus_the_lease() {
    let three = membership(1, &[1, 2, 3]);
    let mut holder = holder(&[1_000, 1_500, 2_000]);
    assert_eq!(holder.state(2_100), LeaseState::Expired);
    assert!(holder.on_ack(&ack(1, 2_000, &three), 2_100));
    assert!(!holder.may_start(2_100), "one of three");
    assert!(holder.on_ack(&ack(2, 1_000, &three), 2_100));
    assert_eq!(holder.state(2_100), LeaseState::Held { until_ms: 4_000 });
    assert!(holder.on_ack(&ack(3, 1_500, &three), 2_100));
    assert_eq!(holder.deadline_ms(Deadline::Strict), Some(4_500));
    assert!(holder.on_ack(&ack(3, 1_000, &three), 2_100));
    assert_eq!(holder.deadline_ms(Deadline::Strict), Some(4_500), "a late answer takes nothing");
    assert!(holder.may_start(4_499) && !holder.may_start(4_500));
}

#[test]
fn self_kill_times_follow_the_membership() {
    let (one, three) = (membership(1, &[1]), membership(2, &[1, 2, 3]));
    let mut alone = holder(&[1_000]);
    alone.on_ack(&ack(1, 1_000, &one), 1_000);
    assert_eq!(alone.deadline_ms(Deadline::Fenced), Some(3_601_000));
    let mut many = holder(&[1_000]);
    many.on_ack(&ack(1, 1_000, &three), 1_000);
    many.on_ack(&ack(2, 1_000, &three), 1_000);
    assert_eq!(many.deadline_ms(Deadline::Fenced), Some(61_000));
    assert_eq!(many.deadline_ms(Deadline::Tolerant), Some(1_000 + 6 * 3_600_000));
}

#[test]
fn answers_to_what_was_never_sent_do_not_count() {
    let one = membership(1, &[1]);
    let mut holder = holder(&[1_000]);
    let good = ack(1, 1_000, &one);
    for bad in [
        ack(1, 1_001, &one),
        ack(1, u64::MAX, &one),
        ack(2, 1_000, &one),
        Ack { node: NodeId(6), ..good.clone() },
        Ack { lease: LeaseId(3), ..good.clone() },
        Ack { lease: LeaseId(1), ..good.clone() },
        ack(1, 1_000, &membership(1, &[])),
    ] {
        assert!(!holder.on_ack(&bad, 1_000), "{bad:?}");
    }
    assert!(!holder.on_ack(&good, 4_000), "a lease after it was sent");
    assert_eq!(holder.deadline_ms(Deadline::Tolerant), None);
}

#[test]
fn majorities_do_not_mix_memberships() {
    let (old, change, new) =
        (membership(1, &[1, 2, 3]), joint(2, &[1, 2, 3], &[3, 4, 5]), membership(3, &[3, 4, 5]));
    let mut holder = holder(&[1_000, 1_500]);
    holder.on_ack(&ack(1, 1_000, &old), 1_500);
    holder.on_ack(&ack(2, 1_000, &change), 1_500);
    holder.on_ack(&ack(4, 1_000, &new), 1_500);
    assert!(!holder.may_start(1_500));
    holder.on_ack(&ack(3, 1_500, &change), 1_500);
    assert!(!holder.may_start(1_500), "two of the old half, one of the new");
    holder.on_ack(&ack(5, 1_500, &change), 1_500);
    assert_eq!(holder.deadline_ms(Deadline::Strict), Some(4_000));
}

#[test]
fn another_membership_of_the_same_name_is_ignored() {
    let mut holder = holder(&[1_000]);
    holder.on_ack(&ack(1, 1_000, &membership(1, &[1, 2, 3])), 1_000);
    assert!(!holder.on_ack(&ack(2, 1_000, &membership(1, &[2])), 1_000));
    assert!(!holder.may_start(1_000));
}

#[test]
fn a_flood_of_memberships_is_bounded_and_takes_no_deadline() {
    let mut holder = holder(&[1_000]);
    holder.on_ack(&ack(1, 1_000, &membership(1, &[1])), 1_000);
    for id in 2..50 {
        assert!(holder.on_ack(&ack(1, 1_000, &membership(id, &[1, 2, 3])), 1_000));
    }
    assert_eq!(holder.deadline_ms(Deadline::Strict), Some(4_000));
    assert!(!holder.on_ack(&ack(1, 1_000, &membership(1, &[1])), 1_000), "no longer kept");
    let oldest_kept = 50 - MEMBERSHIPS_KEPT_MAX as u64;
    assert!(holder.on_ack(&ack(2, 1_000, &membership(oldest_kept, &[1, 2, 3])), 1_000));
}

#[test]
fn the_next_lease_keeps_reached_deadlines_and_needs_new_answers() {
    let one = membership(1, &[1]);
    let mut holder = holder(&[1_000]);
    holder.on_ack(&ack(1, 1_000, &one), 1_000);
    let longer = LeaseTimes::new(40_000, 1_000, 200).unwrap();
    holder.succeed(LeaseId(3), longer);
    assert_eq!(holder.deadline_ms(Deadline::Strict), Some(4_000), "not 41,000");
    assert!(!holder.on_ack(&ack(1, 1_000, &one), 1_100), "an answer to the old lease");
    let sent = holder.renewal(1_200);
    assert_eq!((sent.lease, sent.lease_ms), (LeaseId(3), 40_000));
    assert!(holder.on_ack(&Ack { lease: LeaseId(3), ..ack(1, 1_200, &one) }, 1_300));
    assert_eq!(holder.deadline_ms(Deadline::Strict), Some(41_200));
    holder.succeed(LeaseId(2), LeaseTimes::DEFAULT);
    assert_eq!(holder.lease(), LeaseId(3), "late news");
}

#[test]
fn a_member_promises_only_after_its_wait() {
    let mut keeper = keeper();
    let answered = keeper.on_renewal(&renewal(77), 10_000).unwrap();
    assert_eq!((answered.sent_ms, answered.member), (77, MemberId(1)));
    let early = keeper.ask(NODE, LEASE, 10_000 + WAIT_MS);
    assert_eq!(early, Judgement::Heard { silent_ms: WAIT_MS, left_ms: 1 });
    let intent = intent(keeper.ask(NODE, LEASE, 10_001 + WAIT_MS));
    assert_eq!(intent.record(), PromiseRecord { node: NODE, lease: LEASE });
}

#[test]
fn a_lease_is_refused_from_the_intent_on() {
    let mut keeper = keeper();
    let intent = intent(keeper.ask(NODE, LEASE, 10_000));
    assert_eq!(keeper.on_renewal(&renewal(1), 10_001), Err(Refusal::Promised));
    assert_eq!(keeper.ask(NODE, LEASE, 10_002), Judgement::Pending);
    let promise = keeper.confirm(intent);
    assert_eq!(promise.lease, LEASE);
    assert_eq!(keeper.ask(NODE, LEASE, 10_003), Judgement::Promised(promise));
    assert_eq!(keeper.on_renewal(&renewal(1), 10_004), Err(Refusal::Promised));
    assert_eq!(keeper.silent_ms(NODE, 10_005), 1, "refused, but heard");
}

#[test]
fn a_committed_lease_lifts_a_promise() {
    let mut keeper = keeper();
    let intent = intent(keeper.ask(NODE, LEASE, 10_000));
    let _ = keeper.confirm(intent);
    let next = Renewal { lease: LeaseId(3), ..renewal(1) };
    let known = Refusal::OtherLease { current: LEASE };
    assert_eq!(keeper.on_renewal(&next, 10_001), Err(known), "not committed here yet");
    keeper.lease_applied(NODE, LeaseId(3));
    assert!(keeper.on_renewal(&next, 10_002).is_ok());
    let old = Refusal::OtherLease { current: LeaseId(3) };
    assert_eq!(keeper.on_renewal(&renewal(1), 10_003), Err(old));
    let late = keeper.ask(NODE, LEASE, 20_000);
    assert_eq!(late, Judgement::OtherLease { current: Some(LeaseId(3)) });
}

#[test]
fn a_restart_keeps_promises_and_waits_for_what_it_forgot() {
    let mut keeper = keeper();
    let records = [
        PromiseRecord { node: NODE, lease: LEASE },
        PromiseRecord { node: NODE, lease: LeaseId(1) },
    ];
    keeper.restore(records);
    assert_eq!(keeper.on_renewal(&renewal(1), 1), Err(Refusal::Promised));
    let early = keeper.ask(NODE, LEASE, WAIT_MS);
    assert_eq!(early, Judgement::Heard { silent_ms: WAIT_MS - 1, left_ms: 1 });
    assert!(matches!(keeper.ask(NODE, LEASE, WAIT_MS + 1), Judgement::Promised(_)));
}

#[test]
fn a_restored_promise_waits_for_its_node_to_be_applied() {
    let mut keeper = Keeper::new(MemberId(1), membership(1, &[1]), LeaseTimes::DEFAULT, 0);
    keeper.restore([PromiseRecord { node: NODE, lease: LEASE }]);
    assert_eq!(keeper.on_renewal(&renewal(1), 1), Err(Refusal::UnknownNode));
    assert_eq!(keeper.ask(NODE, LEASE, 9_000), Judgement::OtherLease { current: None });
    keeper.lease_applied(NODE, LEASE);
    assert_eq!(keeper.on_renewal(&renewal(1), 1), Err(Refusal::Promised));
}

#[test]
fn nothing_is_answered_or_promised_while_the_membership_changes() {
    let (old, new) = (membership(1, &[1, 2, 3]), membership(9, &[1, 2]));
    let mut keeper = keeper();
    keeper.membership_appended(new.id);
    assert_eq!(keeper.on_renewal(&renewal(1), 10_000), Err(Refusal::Unsettled));
    assert!(matches!(keeper.ask(NODE, LEASE, 10_000), Judgement::Heard { .. }));
    keeper.membership_appended(old.id);
    assert!(keeper.on_renewal(&renewal(1), 10_001).is_ok(), "the entry was cut off");
    keeper.membership_appended(new.id);
    keeper.membership_applied(new.clone(), 20_000);
    assert_eq!(keeper.on_renewal(&renewal(1), 10_002).unwrap().membership, new);
    let early = keeper.ask(NODE, LEASE, 20_000 + WAIT_MS);
    assert!(matches!(early, Judgement::Heard { left_ms: 1, .. }), "{early:?}");
    let promise = intent(keeper.ask(NODE, LEASE, 20_001 + WAIT_MS));
    assert_eq!(keeper.confirm(promise).membership, new.id);
}

#[test]
fn the_wait_follows_the_length_that_the_holder_counts_on() {
    let longest = LeaseTimes::new(40_000, 1_000, 200).unwrap();
    let mut keeper = Keeper::new(MemberId(1), membership(1, &[1]), longest, 0);
    keeper.lease_applied(NODE, LEASE);
    let long = Renewal { lease_ms: 40_000, ..renewal(1) };
    assert!(keeper.on_renewal(&long, 100_000).is_ok());
    assert!(keeper.on_renewal(&renewal(1), 100_500).is_ok());
    let still = keeper.ask(NODE, LEASE, 100_000 + longest.promise_wait_ms());
    assert!(matches!(still, Judgement::Heard { left_ms: 1, .. }), "{still:?}");
    let endless = Renewal { lease_ms: 40_001, ..renewal(1) };
    let refusal = Refusal::TooLong { longest_ms: 40_000 };
    assert_eq!(keeper.on_renewal(&endless, 100_000), Err(refusal));
}

#[test]
fn a_new_lease_is_not_promised_away_before_the_node_can_renew_it() {
    let mut keeper = keeper();
    let promise = intent(keeper.ask(NODE, LEASE, WAIT_MS + 1));
    keeper.confirm(promise);
    assert_eq!(keeper.on_renewal(&renewal(9_000), 9_000), Err(Refusal::Promised));
    keeper.lease_applied(NODE, LeaseId(3));
    let early = keeper.ask(NODE, LeaseId(3), 12_000);
    assert_eq!(early, Judgement::Heard { silent_ms: 3_000, left_ms: 1 });
    assert!(matches!(keeper.ask(NODE, LeaseId(3), 12_001), Judgement::Persist(_)), "it is silent");
}

#[test]
fn a_node_that_left_is_unknown() {
    let mut keeper = keeper();
    keeper.forget(NODE);
    assert_eq!(keeper.on_renewal(&renewal(1), 1), Err(Refusal::UnknownNode));
}

#[test]
#[should_panic(expected = "the committed lease of node 5 fell")]
fn a_committed_lease_never_falls() {
    keeper().lease_applied(NODE, LeaseId(1));
}

#[test]
fn hostile_times_do_not_wrap() {
    let mut keeper = keeper();
    let far = Renewal { sent_ms: u64::MAX, ..renewal(1) };
    assert!(keeper.on_renewal(&far, u64::MAX).is_ok());
    assert!(matches!(keeper.ask(NODE, LEASE, u64::MAX), Judgement::Heard { .. }));
    let mut holder = holder(&[u64::MAX - 1]);
    holder.on_ack(&ack(1, u64::MAX - 1, &membership(1, &[1])), u64::MAX - 1);
    assert_eq!(holder.deadline_ms(Deadline::Strict), Some(u64::MAX));
}

#[test]
fn a_member_that_stood_still_does_not_take_it_for_the_silence_of_nodes() {
    let mut keeper = keeper();
    for now_ms in (0..=10_000).step_by(250) {
        keeper.lives(now_ms);
        assert!(keeper.on_renewal(&renewal(now_ms), now_ms).is_ok());
    }
    // Its process was stopped for a minute, in which nobody read what the node went on to say.
    let woke_ms = 70_000;
    keeper.lives(woke_ms);
    assert_eq!(keeper.silent_ms(NODE, woke_ms), 0);
    let heard = |judgement| matches!(judgement, Judgement::Heard { .. });
    assert!(heard(keeper.ask(NODE, LEASE, woke_ms)));
    for now_ms in (woke_ms..=woke_ms + WAIT_MS).step_by(250) {
        keeper.lives(now_ms);
        assert!(heard(keeper.ask(NODE, LEASE, now_ms)), "at {now_ms}");
    }
    // A node that says nothing from then on is silent.
    let over_ms = woke_ms + WAIT_MS + 1;
    keeper.lives(over_ms);
    assert_eq!(keeper.silent_ms(NODE, over_ms), WAIT_MS + 1);
    let _ = intent(keeper.ask(NODE, LEASE, over_ms));
}

#[test]
fn short_pauses_of_a_member_hide_no_silence() {
    let mut keeper = keeper();
    assert!(keeper.on_renewal(&renewal(0), 0).is_ok());
    for now_ms in (0..=WAIT_MS + 1).step_by(keeper::STILL_MS as usize) {
        keeper.lives(now_ms);
    }
    keeper.lives(WAIT_MS + 1);
    let _ = intent(keeper.ask(NODE, LEASE, WAIT_MS + 1));
}

#[test]
fn a_member_that_stood_still_waits_for_the_lease_of_each_node() {
    let longest = LeaseTimes::new(60_000, 10_000, 200).unwrap();
    let mut keeper = Keeper::new(MemberId(1), membership(1, &[1, 2, 3]), longest, 0);
    keeper.lease_applied(NODE, LEASE);
    for now_ms in (0..=70_000).step_by(500) {
        keeper.lives(now_ms);
        assert!(keeper.on_renewal(&renewal(now_ms), now_ms).is_ok());
    }
    // Of this lease, and not of the longest that any node may have.
    let woke_ms = 80_000;
    keeper.lives(woke_ms);
    let over_ms = woke_ms + longest.promise_wait_of(3_000);
    let early = keeper.ask(NODE, LEASE, over_ms);
    assert!(matches!(early, Judgement::Heard { left_ms: 1, .. }), "{early:?}");
    let _ = intent(keeper.ask(NODE, LEASE, over_ms + 1));
}

#[test]
fn a_pause_of_a_member_makes_nobody_heard_who_was_silent() {
    let mut keeper = keeper();
    assert!(keeper.on_renewal(&renewal(0), 0).is_ok());
    for now_ms in (0..=2_000).step_by(250) {
        keeper.lives(now_ms);
    }
    assert_eq!(keeper.silent_ms(NODE, 2_000), 2_000);
    // It was silent before, so it stays that; nothing is promised for it before it had its time.
    keeper.lives(9_000);
    assert_eq!(keeper.silent_ms(NODE, 9_000), 9_000);
    assert!(matches!(keeper.ask(NODE, LEASE, 9_000), Judgement::Heard { .. }));
    assert!(keeper.on_renewal(&renewal(9_100), 9_100).is_ok());
    keeper.lives(9_100);
    // Twice in a row, with no time between in which the node could have been heard.
    keeper.lives(20_000);
    keeper.lives(20_100);
    keeper.lives(40_000);
    assert_eq!(keeper.silent_ms(NODE, 40_000), 0);
}
