//! What breaks, when, and for how long. Each seed draws some kinds of faults and leaves the others
//! out, so that rare combinations come up (swarm testing: Groce et al. 2012).

use crate::clock::{MS, Us};
use crate::machine::Power;
use crate::member::{Member, Role};
use crate::message::{Event, Fault, Message, Party};
use crate::world::{Phase, World};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A member dies, its page cache lives.
    MemberCrash,
    /// A member loses its power.
    MemberPower,
    /// A member is cut off from everybody.
    MemberCut,
    /// A direction of one link is cut.
    OneWay,
    /// Parties fall into two halves.
    Halves,
    /// One machine is cut off from members.
    MachineCut,
    /// Many machines are cut off at once.
    MassCut,
    /// Messages are lost, late and repeated.
    Storm,
    /// A disk becomes slow.
    SlowDisk,
    /// Two members campaign at the same time.
    Campaigns,
    /// An agent dies.
    AgentCrash,
    /// An agent dies between two actions.
    AgentCrashSoon,
    /// An agent stops on purpose.
    AgentLeave,
    /// A machine loses its power.
    MachinePower,
    /// A machine stands still.
    Freeze,
    /// A shim dies.
    ShimCrash,
    /// A wall clock jumps.
    WallJump,
    /// A member is replaced.
    Replace,
    /// A member writes a snapshot and drops its log.
    Compact,
    /// Nothing can be prepared on a machine for a while.
    BadMachine,
    /// All members are gone at once.
    Blackout,
}

/// All kinds.
pub const KINDS: [Kind; 21] = [
    Kind::MemberCrash,
    Kind::MemberPower,
    Kind::MemberCut,
    Kind::OneWay,
    Kind::Halves,
    Kind::MachineCut,
    Kind::MassCut,
    Kind::Storm,
    Kind::SlowDisk,
    Kind::Campaigns,
    Kind::AgentCrash,
    Kind::AgentCrashSoon,
    Kind::AgentLeave,
    Kind::MachinePower,
    Kind::Freeze,
    Kind::ShimCrash,
    Kind::WallJump,
    Kind::Replace,
    Kind::Compact,
    Kind::BadMachine,
    Kind::Blackout,
];

impl World {
    /// Something breaks or heals.
    pub fn on_fault(&mut self, fault: Fault) {
        match fault {
            Fault::Next => {
                if self.phase == Phase::Busy {
                    let kind = self.rng_faults.pick(&self.scenario.kinds);
                    self.stats.faults += 1;
                    self.note(|_| format!("fault: {kind:?}"));
                    self.inject(kind);
                    let wait_us = self.rng_faults.magnitude(300, self.scenario.calm_ms) * MS;
                    self.after(wait_us, Event::Fault(Fault::Next));
                }
            }
            Fault::Mend(number) => self.net.mend(number),
            Fault::MemberUp(at) => self.start_member(at),
            Fault::MachineUp(at) => self.boot_machine(at),
            Fault::Thaw(at) => self.thaw(at),
            Fault::AgentUp(at) => self.start_agent(at),
            Fault::Campaign(at) => self.campaign(at),
            Fault::DiskFast(at) => self.members[at].disk_factor = 1,
            Fault::Calm => {
                (self.net.loss, self.net.repeat) = (0, 0);
                self.net.delay_us = (200, 2 * MS);
            }
        }
    }

    fn lasting_us(&mut self, least_ms: u64, most_ms: u64) -> Us {
        self.rng_faults.magnitude(least_ms, most_ms) * MS
    }

    fn cut_for(&mut self, links: Vec<(Party, Party)>, most_ms: u64) {
        for (from, to) in &links {
            for party in [from, to] {
                if let Party::Machine(at) = party {
                    self.truth.broke(*at, self.now_us);
                }
            }
        }
        let number = self.net.cut(links);
        let wait_us = self.lasting_us(200, most_ms);
        self.after(wait_us, Event::Fault(Fault::Mend(number)));
    }

    fn some_member(&mut self) -> usize {
        let leader = self.members.iter().position(Member::leads_now);
        let any = self.rng_faults.below(self.members.len() as u64) as usize;
        if self.rng_faults.chance(500) { leader.unwrap_or(any) } else { any }
    }

    fn some_machine(&mut self) -> usize {
        let busy: Vec<usize> = self.truth.running().map(|run| run.machine).collect();
        if !busy.is_empty() && self.rng_faults.chance(600) {
            return self.rng_faults.pick(&busy);
        }
        self.rng_faults.below(self.machines.len() as u64) as usize
    }

    // One arm for each kind of fault.
    #[allow(clippy::too_many_lines)]
    fn inject(&mut self, kind: Kind) {
        let long_ms = self.scenario.outage_ms;
        match kind {
            Kind::MemberCrash | Kind::MemberPower => {
                let at = self.some_member();
                self.take_member_down(at, kind == Kind::MemberPower);
            }
            Kind::Blackout => {
                let power = self.rng_faults.chance(300);
                for at in 0..self.members.len() {
                    self.take_member_down(at, power);
                }
            }
            Kind::MemberCut => {
                let at = self.some_member();
                let others = self.parties().into_iter().filter(|party| *party != Party::Member(at));
                let links = both_ways(Party::Member(at), others);
                self.cut_for(links, long_ms);
            }
            Kind::OneWay => {
                let from = Party::Member(self.some_member());
                let all = self.parties();
                let to = self.rng_faults.pick(&all);
                let link = if self.rng_faults.chance(500) { (from, to) } else { (to, from) };
                self.cut_for(vec![link], long_ms);
            }
            Kind::Halves => {
                let (mut one, mut two) = (Vec::new(), Vec::new());
                for party in self.parties() {
                    if self.rng_faults.chance(500) { one.push(party) } else { two.push(party) }
                }
                let links = one.into_iter().flat_map(|a| both_ways(a, two.iter().copied()));
                let links = links.collect();
                self.cut_for(links, long_ms / 4);
            }
            Kind::MachineCut => {
                let at = self.some_machine();
                let some =
                    self.rng_faults.chance(if self.scenario.lease_trouble { 800 } else { 300 });
                let members = (0..self.members.len()).map(Party::Member);
                let members: Vec<_> =
                    members.filter(|_| !some || self.rng_faults.chance(600)).collect();
                let links = both_ways(Party::Machine(at), members.into_iter());
                self.cut_for(links, long_ms);
            }
            Kind::MassCut => {
                let share = self.rng_faults.between(300, 900);
                let mut links = Vec::new();
                for at in 0..self.machines.len() {
                    if self.rng_faults.chance(share) {
                        let members = (0..self.members.len()).map(Party::Member);
                        links.extend(both_ways(Party::Machine(at), members));
                    }
                }
                self.cut_for(links, long_ms / 2);
            }
            Kind::Storm => {
                self.net.loss = self.rng_faults.pick(&[0, 20, 150]);
                self.net.repeat = self.rng_faults.pick(&[0, 50, 200]);
                self.net.delay_us = (200, self.rng_faults.pick(&[20, 300, 2_500]) * MS);
                let wait_us = self.lasting_us(500, 12_000);
                self.after(wait_us, Event::Fault(Fault::Calm));
                for at in 0..self.machines.len() {
                    self.truth.broke(at, self.now_us);
                }
            }
            Kind::SlowDisk => {
                let at = self.some_member();
                self.members[at].disk_factor = self.rng_faults.pick(&[10, 60, 200]);
                let wait_us = self.lasting_us(500, 10_000);
                self.after(wait_us, Event::Fault(Fault::DiskFast(at)));
            }
            Kind::Campaigns => {
                // The second does not hear of the first, and so may win the same term.
                let (a, b) = (self.some_member(), self.some_member());
                if a != b {
                    self.cut_for(both_ways(Party::Member(a), [Party::Member(b)].into_iter()), 800);
                }
                self.campaign(a);
                let wait_us = self.lasting_us(5, 120);
                self.after(wait_us, Event::Fault(Fault::Campaign(b)));
            }
            Kind::AgentCrash => {
                let at = self.some_machine();
                self.truth.broke(at, self.now_us);
                self.crash_agent(at);
            }
            Kind::AgentCrashSoon => {
                let at = self.some_machine();
                let soon = self.rng_faults.below(6);
                self.truth.broke(at, self.now_us);
                if let Some(host) = &mut self.machines[at].agent {
                    host.crash_in = Some(soon);
                }
            }
            Kind::AgentLeave => {
                let at = self.some_machine();
                self.truth.broke(at, self.now_us);
                self.leave(at);
            }
            Kind::MachinePower => {
                let at = self.some_machine();
                self.truth.broke(at, self.now_us);
                if self.machines[at].power == Power::On {
                    self.cut_power(at);
                    let wait_us = self.lasting_us(1_500, long_ms);
                    self.after(wait_us, Event::Fault(Fault::MachineUp(at)));
                }
            }
            Kind::Freeze => {
                let at = self.some_machine();
                if self.machines[at].power == Power::On {
                    self.freeze(at);
                    let wait_us = self.lasting_us(300, long_ms);
                    self.after(wait_us, Event::Fault(Fault::Thaw(at)));
                }
            }
            Kind::ShimCrash => {
                let at = self.some_machine();
                self.truth.broke(at, self.now_us);
                let ids: Vec<_> = self.machines[at].shims.keys().copied().collect();
                if !ids.is_empty() && self.machines[at].power == Power::On {
                    let id = self.rng_faults.pick(&ids);
                    self.crash_shim(at, id);
                }
            }
            Kind::WallJump => {
                let at = self.some_member();
                let hour = 3_600_000;
                let errors = [-10 * 8_766 * hour, -hour, 0, 7_000, hour, 30 * 8_766 * hour];
                let error_ms = self.rng_faults.pick(&errors);
                self.members[at].clock.set_wall_error(error_ms);
                self.reached("wall clock jumped");
            }
            Kind::Replace => self.replace_member(),
            Kind::Compact => {
                let at = self.some_member();
                self.take_snapshot(at);
            }
            Kind::BadMachine => {
                let at = self.some_machine();
                if !self.truth.bad.remove(&at) {
                    self.truth.bad.insert(at);
                }
            }
        }
    }

    fn take_member_down(&mut self, at: usize, power: bool) {
        if self.members[at].up {
            self.stop_member(at, power);
            let long_ms = self.scenario.outage_ms;
            let wait_us = self.lasting_us(100, long_ms / 2);
            self.after(wait_us, Event::Fault(Fault::MemberUp(at)));
        }
    }

    /// A spare member takes the place of another.
    fn replace_member(&mut self) {
        let spare = self.members.iter().position(|member| !member.enrolled && member.life == 0);
        let (Some(new), None) = (spare, self.replacement) else { return };
        let old = self.rng_faults.below(self.members.len() as u64) as usize;
        if !self.members[old].enrolled {
            return;
        }
        self.members[new].enrolled = true;
        self.start_member(new);
        self.replacement = Some((new, old));
    }

    /// Everything is well again.
    pub fn heal(&mut self) {
        self.net.calm();
        self.truth.bad.clear();
        for at in 0..self.members.len() {
            self.members[at].disk_factor = 1;
            if self.members[at].enrolled {
                self.start_member(at);
            }
        }
        for at in 0..self.machines.len() {
            self.thaw(at);
            self.boot_machine(at);
            self.start_agent(at);
            if let Some(host) = &mut self.machines[at].agent {
                host.crash_in = None;
            }
        }
    }

    fn parties(&self) -> Vec<Party> {
        let members = (0..self.members.len()).map(Party::Member);
        let machines = (0..self.machines.len()).map(Party::Machine);
        members.chain(machines).chain((0..self.clients.len()).map(Party::Client)).collect()
    }

    /// A message arrives.
    pub fn on_arrive(&mut self, from: Party, to: Party, message: Message) {
        match to {
            Party::Member(at) => {
                if self.members[at].up {
                    self.member_hears(at, from, message);
                }
            }
            Party::Machine(at) => self.machine_hears(at, message),
            Party::Client(at) => {
                if let Message::Answer { request, answer, hint } = message {
                    self.on_answer(at, request, answer, hint);
                }
            }
        }
    }
}

impl Member {
    /// Whether it believes that it leads.
    fn leads_now(&self) -> bool {
        self.up && matches!(self.role, Role::Leader(_))
    }
}

fn both_ways(one: Party, others: impl Iterator<Item = Party>) -> Vec<(Party, Party)> {
    others.flat_map(|other| [(one, other), (other, one)]).collect()
}
