//! The network between all parties: delay, loss, repeats, cuts of single directions.

use crate::clock::{MS, Us};
use crate::message::{Event, Message, Party};
use crate::world::World;

/// The state of the network.
#[derive(Debug)]
pub struct Net {
    parties: usize,
    members: usize,
    machines: usize,
    /// Number of cuts on each directed link.
    cut: Vec<u8>,
    /// Who is cut from whom, by the number of the cut.
    cuts: Vec<Vec<(usize, usize)>>,
    /// Messages lost and repeated, of a thousand.
    pub loss: u64,
    /// Repeated messages, of a thousand.
    pub repeat: u64,
    /// Shortest and longest delay.
    pub delay_us: (Us, Us),
}

impl Net {
    /// A calm network.
    #[must_use]
    pub fn new(members: usize, machines: usize, clients: usize) -> Net {
        let parties = members + machines + clients;
        Net {
            parties,
            members,
            machines,
            cut: vec![0; parties * parties],
            cuts: Vec::new(),
            loss: 0,
            repeat: 0,
            delay_us: (200, 2 * MS),
        }
    }

    fn index(&self, party: Party) -> usize {
        match party {
            Party::Member(at) => at,
            Party::Machine(at) => self.members + at,
            Party::Client(at) => self.members + self.machines + at,
        }
    }

    /// Cuts directed links; returns the number under which they heal.
    pub fn cut(&mut self, links: impl IntoIterator<Item = (Party, Party)>) -> u64 {
        let links: Vec<_> =
            links.into_iter().map(|(a, b)| (self.index(a), self.index(b))).collect();
        for (from, to) in &links {
            self.cut[from * self.parties + to] += 1;
        }
        self.cuts.push(links);
        self.cuts.len() as u64 - 1
    }

    /// Heals a cut.
    pub fn mend(&mut self, number: u64) {
        for (from, to) in std::mem::take(&mut self.cuts[number as usize]) {
            self.cut[from * self.parties + to] -= 1;
        }
    }

    /// Heals everything.
    pub fn calm(&mut self) {
        for number in 0..self.cuts.len() as u64 {
            self.mend(number);
        }
        (self.loss, self.repeat, self.delay_us) = (0, 0, (200, 2 * MS));
    }

    fn is_cut(&self, from: Party, to: Party) -> bool {
        self.cut[self.index(from) * self.parties + self.index(to)] > 0
    }
}

impl World {
    /// Sends a message, which may be lost, late, or come twice.
    pub fn send(&mut self, from: Party, to: Party, message: Message) {
        if from == to {
            return self.after(10, Event::Arrive { from, to, message: Box::new(message) });
        }
        if self.net.is_cut(from, to) || self.rng.chance(self.net.loss) {
            return;
        }
        if self.rng.chance(self.net.repeat) {
            let wait_us = self.delay_us();
            let message = Box::new(message.clone());
            self.after(wait_us, Event::Arrive { from, to, message });
        }
        let wait_us = self.delay_us();
        self.after(wait_us, Event::Arrive { from, to, message: Box::new(message) });
    }

    fn delay_us(&mut self) -> Us {
        let (least, most) = self.net.delay_us;
        self.rng.magnitude(least, most)
    }
}
