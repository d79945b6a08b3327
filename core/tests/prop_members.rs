//! Random lives of the members: machines join, die, come back and are removed, and leaders take the
//! steps that `voters` names. No step asks for voters of which no majority answers, nobody votes
//! without the log, and once all are well everything comes to rest as it is wanted.

#![allow(clippy::unwrap_used)]

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;
use support::*;
use yard_common::id::*;
use yard_core::command::*;
use yard_core::voters::{Standing, Step};

const SECRET: [u8; 32] = [3; 32];

/// One thing that happens; numbers pick among the members that exist.
#[derive(Clone, Debug)]
enum Op {
    Join,
    Add(u8),
    Remove(u8),
    Die(u8),
    Return(u8),
    Lag(u8),
    /// The leader takes a step; or is lost in the middle of a change.
    Step {
        lost: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::Join),
        1 => any::<u8>().prop_map(Op::Add),
        2 => any::<u8>().prop_map(Op::Remove),
        2 => any::<u8>().prop_map(Op::Die),
        3 => any::<u8>().prop_map(Op::Return),
        1 => any::<u8>().prop_map(Op::Lag),
        12 => (0..8u8).prop_map(|lost| Op::Step { lost: lost == 0 }),
    ]
}

struct World {
    lab: Lab,
    leader: MemberId,
    voters: BTreeSet<MemberId>,
    joint: Option<BTreeSet<MemberId>>,
    learners: BTreeSet<MemberId>,
    dead: BTreeSet<MemberId>,
    behind: BTreeSet<MemberId>,
    joined: u128,
    /// Whether somebody asked for an even number.
    asked: bool,
}

impl World {
    fn new() -> World {
        let mut lab = Lab::new();
        let voters = BTreeSet::from([MemberId(1)]);
        let members = Cluster::Members { voters: voters.clone(), joint: None };
        lab.ok(Actor::Leader, Command::Cluster(members));
        let none = BTreeSet::new;
        World {
            lab,
            leader: MemberId(1),
            voters,
            joint: None,
            learners: none(),
            dead: none(),
            behind: none(),
            joined: 0,
            asked: false,
        }
    }

    fn all(&self) -> Vec<MemberId> {
        let joint = self.joint.iter().flatten();
        let all: BTreeSet<_> = self.voters.iter().chain(joint).chain(&self.learners).collect();
        all.into_iter().copied().collect()
    }

    fn pick(&self, number: u8) -> MemberId {
        let all = self.all();
        all[usize::from(number) % all.len()]
    }

    fn works(&self) -> bool {
        let alive = |half: &BTreeSet<MemberId>| {
            2 * half.iter().filter(|id| !self.dead.contains(id)).count() > half.len()
        };
        alive(&self.voters) && self.joint.as_ref().is_none_or(alive)
    }

    fn standing(&self) -> Standing {
        let alive = |id: &MemberId| !self.dead.contains(id);
        Standing {
            leader: self.leader,
            voters: self.joint.clone().unwrap_or_else(|| self.voters.clone()),
            changing: self.joint.is_some(),
            learners: self.learners.clone(),
            answers: self.all().into_iter().filter(alive).collect(),
            caught_up: self.all().into_iter().filter(|id| !self.behind.contains(id)).collect(),
        }
    }

    /// The entry of the log that says who votes.
    fn commit(&mut self) {
        let (voters, joint) = (self.voters.clone(), self.joint.clone());
        let members = Cluster::Members { voters, joint };
        self.lab.ok(Actor::Leader, Command::Cluster(members));
    }

    /// Elects one that is alive and votes.
    fn elect(&mut self) {
        let alive = self.voters.iter().find(|id| !self.dead.contains(id));
        self.leader = *alive.expect("a majority is alive");
    }

    fn change(&mut self, voters: BTreeSet<MemberId>, lost: bool) {
        self.learners.retain(|id| !voters.contains(id));
        if voters != self.voters {
            self.joint = Some(voters.clone());
            self.commit();
        }
        if lost && self.works() {
            // Whoever leads next finds a change under way.
            self.elect();
            return;
        }
        self.joint = None;
        self.voters = voters;
        self.commit();
        if !self.voters.contains(&self.leader) {
            self.elect();
        }
    }

    /// One step of the leader. False: there is nothing to do.
    fn step(&mut self, lost: bool) -> bool {
        let standing = self.standing();
        let before = standing.voters.clone();
        match standing.next(&self.lab.state.members) {
            Step::Nothing => return false,
            Step::Listen(id) => {
                assert!(self.learners.insert(id) && !self.voters.contains(&id));
                self.commit();
            }
            Step::Forget(id) => {
                assert!(self.learners.remove(&id));
                self.commit();
            }
            Step::Left(id) => {
                assert!(!self.all().contains(&id), "{id} is still there");
                self.lab.ok(Actor::Leader, Command::Cluster(Cluster::MemberLeft(id)));
            }
            Step::HandOver(to) => {
                let votes = self.lab.state.membership.is_voter(to);
                assert!(votes && !self.dead.contains(&to) && to != self.leader);
                self.leader = to;
            }
            Step::Vote(voters) => {
                let answer = voters.iter().filter(|id| !self.dead.contains(id)).count();
                assert!(2 * answer > voters.len(), "{voters:?} cannot work: {:?}", self.dead);
                assert!(voters.contains(&self.leader), "the leader hands over first");
                for new in voters.difference(&before) {
                    let is_ready = !self.behind.contains(new) && !self.dead.contains(new);
                    assert!(is_ready, "{new} is to vote");
                }
                for gone in before.difference(&voters) {
                    let record = self.lab.state.members.get(gone);
                    assert!(record.is_some_and(|it| it.leaves), "nobody said that {gone} leaves");
                }
                if !self.asked && voters.is_superset(&before) && voters != before {
                    assert_eq!(voters.len() % 2, 1, "from {before:?} to {voters:?}");
                }
                self.change(voters, lost);
            }
        }
        true
    }

    fn take(&mut self, op: &Op) {
        match *op {
            Op::Join => {
                self.joined += 1;
                let token = TokenId::from_u128(self.joined);
                let (secret_sha256, scope, life_ms) = (SECRET, Scope::Member, 60_000);
                let add = Access::AddToken { token, secret_sha256, scope, life_ms };
                self.lab.ok(self.lab.user(), Command::Access(add));
                let (key_sha256, address) = ([1; 32], format!("m{}:1", self.joined));
                let level_max = FeatureLevel(0);
                let join =
                    Access::JoinMember { token, secret_sha256, key_sha256, address, level_max };
                let before = self.lab.state.member_last;
                let reply = self.lab.apply(Actor::Bearer, None, Command::Access(join)).reply;
                if let Ok(reply) = reply {
                    assert_eq!(reply, Reply::Member(MemberId(before + 1)), "a new number");
                }
            }
            Op::Add(number) => {
                let add = Command::Cluster(Cluster::AddMember(self.pick(number)));
                let added = self.lab.apply(self.lab.user(), None, add).reply;
                self.asked |= added.is_ok();
            }
            Op::Remove(number) => {
                // As the call does it: not if the rest could not work.
                let id = self.pick(number);
                let standing = self.standing();
                let rest = standing.without(id, &self.lab.state.members);
                if !standing.voters.contains(&id) || standing.works(&rest) {
                    let remove = Command::Cluster(Cluster::RemoveMember(id));
                    let _ = self.lab.apply(self.lab.user(), None, remove);
                }
            }
            Op::Die(number) => {
                let id = self.pick(number);
                self.dead.insert(id);
                if !self.works() {
                    self.dead.remove(&id);
                } else if id == self.leader {
                    self.elect();
                }
            }
            Op::Return(number) => {
                let id = self.pick(number);
                self.dead.remove(&id);
                self.behind.remove(&id);
            }
            Op::Lag(number) => {
                let id = self.pick(number);
                if id != self.leader {
                    self.behind.insert(id);
                }
            }
            Op::Step { lost } => drop(self.step(lost)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn members_come_and_go_and_the_cluster_works_on(ops in vec(op(), 1..120)) {
        let mut world = World::new();
        for op in &ops {
            world.take(op);
            prop_assert!(world.works());
        }
        // All is well again: what is wanted comes about, in as many steps as there are members.
        (world.dead, world.behind) = (BTreeSet::new(), BTreeSet::new());
        let mut steps = 0;
        while world.step(false) {
            steps += 1;
            prop_assert!(steps < 200, "it never comes to rest");
        }
        prop_assert!(world.joint.is_none());
        for (id, member) in world.lab.state.members.iter() {
            prop_assert!(!member.leaves, "{id} has not left");
            prop_assert!(world.voters.contains(id) || world.learners.contains(id));
        }
    }
}
