//! The cluster itself: leaders, time, fences, replicas, the books.

use super::*;
use yard_core::agent::Fence;

planted! {
    "leader_fenced": a_leader_of_the_past_that_is_heard,
    "time_never_falls": time_that_runs_ahead,
    "time_never_falls": time_that_falls,
    "fences_rise": a_fence_that_falls,
    "replicas_agree": replicas_that_differ,
    "state_check": a_count_that_no_record_bears_out,
}

fn a_leader_of_the_past_that_is_heard() -> Found {
    let (mut shown, state) = (Shown::begun(), State::default());
    let rival = LeaderId { term: 1, member: MemberId(2) };
    let start = (rival, Command::Cluster(Cluster::LeaderStarted));
    assert_eq!(shown.command(start, Ok(Reply::Done), vec![], &state), None);
    shown.facts(vec![], &state)
}

#[test]
fn a_leader_of_the_past_that_is_refused() {
    let (mut shown, state) = (Shown::begun(), State::default());
    let rival = LeaderId { term: 1, member: MemberId(2) };
    let start = (rival, Command::Cluster(Cluster::LeaderStarted));
    assert_eq!(shown.command(start, Ok(Reply::Done), vec![], &state), None);
    assert_eq!(shown.command(tick(), Err(Rejection::StaleLeader), vec![], &state), None);
}

/// The cluster shows times, in seconds, when so many have passed.
fn times(passed: u64, shows: [u64; 2]) -> Found {
    let (mut shown, mut state) = (Shown::begun(), State::default());
    shown.truth.now_us = passed * 1_000_000;
    let mut found = None;
    for seconds in shows {
        assert_eq!(found, None);
        state.clock.cluster_ms = seconds * 1_000;
        found = shown.facts(vec![], &state);
    }
    found
}

fn time_that_runs_ahead() -> Found {
    times(10, [9, 12])
}

fn time_that_falls() -> Found {
    times(10, [9, 8])
}

#[test]
fn time_that_stands_still() {
    assert_eq!(times(10, [9, 9]), None);
}

fn a_fence_that_falls() -> Found {
    let mut shown = Shown::begun();
    let mut see = |machine, generation| {
        let fence = Fence { incarnation: Incarnation(1), generation: Generation(generation) };
        shown.see(&Seen::Obeyed { machine, fence })
    };
    assert_eq!((see(3, 4), see(3, 7), see(2, 6)), (None, None, None));
    see(3, 6)
}

fn replicas_that_differ() -> Found {
    let (mut shown, mut state) = (Shown::begun(), State::default());
    let mut see = |member, state: &State| shown.see(&Seen::Replica { member, index: 9, state });
    assert_eq!((see(0, &state), see(2, &state)), (None, None));
    state.history_hash = 77;
    see(1, &state)
}

fn a_count_that_no_record_bears_out() -> Found {
    let mut lab = Lab::new();
    let job = lab.submit(1, |_| ());
    let mut shown = Shown::begun();
    assert_eq!(shown.audit(&lab.state), None);
    lab.state.jobs.get_mut(job).expect("it was submitted").allocations = 1;
    shown.audit(&lab.state)
}
