//! A cluster that is right by construction: one thing at a time, no failures. Clients call it at
//! random, some of their answers get lost, and what they see becomes a history.

use yard_integration::history::{
    Answer, Begun, Call, History, Outcome, Phase, Recorder, Refusal, Shown,
};
use yard_integration::model::{End, Gpu, Input, Record};
use yard_integration::objects::{GpuStep, Sight};

/// Random numbers from a seed (splitmix64).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// What a run left.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) history: History,
    pub(crate) log: Vec<Record>,
    pub(crate) sights: Vec<Sight>,
}

/// A client, and the call that it waits for.
enum Client {
    Idle,
    Asked { begun: Begun, request: Option<u128>, call: Call },
    Answered { begun: Begun, outcome: Outcome },
}

struct Cluster {
    /// Phase and hold of each job, and its attempt.
    jobs: Vec<(Shown, Option<usize>)>,
    /// Which GPU an attempt has, while it has it.
    attempts: Vec<Option<u32>>,
    gpus: u32,
    answers: Vec<(u128, Call, Answer)>,
    log: Vec<Record>,
    index: u64,
    /// The last entry that somebody was told of.
    seen: u64,
}

impl Cluster {
    fn write(&mut self, chance: &mut Chance, input: Input) {
        // Some share an entry, as long as nobody has seen it; some entries hold nothing.
        self.index += chance.below(3);
        self.index = self.index.max(self.seen + 1);
        self.log.push(Record { index: self.index, input });
    }

    fn ask(&mut self, chance: &mut Chance, request: Option<u128>, call: Call) -> Answer {
        let Some(request) = request else { return self.answer(call) };
        let known = self.answers.iter().find(|(known, ..)| *known == request);
        let said = match known {
            Some((_, first, answer)) if *first == call => *answer,
            Some(_) => Answer::Refused(Refusal::Exists),
            None => {
                let answer = self.answer(call);
                if !matches!(answer, Answer::Refused(_)) {
                    self.answers.push((request, call, answer));
                }
                answer
            }
        };
        self.write(chance, Input::Asked { request, call, said });
        said
    }

    fn answer(&mut self, call: Call) -> Answer {
        let Some(number) = call.job() else {
            self.jobs.push((Shown { phase: Phase::Waiting, held: false }, None));
            return Answer::Job(self.jobs.len() as u64 - 1);
        };
        let Some((job, _)) = self.jobs.get_mut(number as usize) else {
            return Answer::Refused(Refusal::NotFound);
        };
        let waits = job.phase == Phase::Waiting;
        match call {
            Call::Show(_) => Answer::Shown(*job),
            _ if job.phase.is_over() => Answer::Refused(Refusal::WrongState),
            Call::Cancel(_) => {
                job.phase = if waits { Phase::Cancelled } else { Phase::Stopping };
                job.held &= !waits;
                Answer::Tasks(1)
            }
            Call::Hold(_) => {
                let tasks = u32::from(waits && !job.held);
                job.held = true;
                Answer::Tasks(tasks)
            }
            Call::Release(_) if !job.held => Answer::Refused(Refusal::WrongState),
            Call::Release(_) => {
                job.held = false;
                Answer::Tasks(u32::from(waits))
            }
            Call::Submit(_) => unreachable!("it names no job"),
        }
    }

    /// Whether an attempt, if there was one, has given back what it held.
    fn is_free(&self, attempt: Option<usize>) -> bool {
        attempt.is_none_or(|attempt| self.attempts[attempt].is_none())
    }

    /// Something happens by itself; what was seen of a GPU.
    fn happen(&mut self, chance: &mut Chance) -> Option<(Gpu, GpuStep)> {
        let number = chance.below(self.jobs.len().max(1) as u64) as usize;
        let (job, attempt) = *self.jobs.get(number)?;
        let gpu = |device| Gpu { node: 0, device };
        match (job.phase, attempt) {
            (Phase::Waiting, held) if !job.held && self.is_free(held) => {
                let free = (0..self.gpus).find(|gpu| !self.attempts.contains(&Some(*gpu)))?;
                let holder = self.attempts.len();
                self.attempts.push(Some(free));
                self.jobs[number] = (Shown { phase: Phase::Active, ..job }, Some(holder));
                let (job, holder) = (number as u64, holder as u64);
                self.write(chance, Input::Granted { job, holder, gpus: vec![gpu(free)] });
                Some((gpu(free), GpuStep::Granted(holder)))
            }
            (Phase::Active | Phase::Stopping, Some(holder)) => {
                let end = [End::Well, End::Badly, End::Again][chance.below(3) as usize];
                let phase = match (job.phase, end) {
                    (Phase::Stopping, _) => Phase::Cancelled,
                    (_, End::Well) => Phase::Succeeded,
                    (_, End::Badly) => Phase::Failed,
                    (_, End::Again) => Phase::Waiting,
                };
                self.jobs[number].0 = Shown { phase, held: job.held && !phase.is_over() };
                self.write(chance, Input::Exited { holder: holder as u64, end });
                None
            }
            (_, Some(holder)) => {
                let device = self.attempts[holder].take()?;
                self.write(chance, Input::Reaped(holder as u64));
                Some((gpu(device), GpuStep::Freed(holder as u64)))
            }
            _ => None,
        }
    }
}

/// A random run. `moves`: jobs start and end by themselves.
pub(crate) fn run(seed: u64, steps: u64, moves: bool) -> Run {
    let mut chance = Chance::new(seed);
    let recorder = Recorder::default();
    let mut cluster = Cluster {
        jobs: Vec::new(),
        attempts: Vec::new(),
        gpus: 2,
        answers: Vec::new(),
        log: Vec::new(),
        index: 0,
        seen: 0,
    };
    let mut clients: Vec<Client> = (0..4).map(|_| Client::Idle).collect();
    let mut numbers: Vec<u32> = (0..4).collect();
    let mut asked: Vec<(u128, Call)> = Vec::new();
    let mut sights = Vec::new();
    for step in 0..steps {
        if moves && chance.one_in(4) {
            let seen = cluster.happen(&mut chance);
            // It happened between the last moment and the next one.
            let (before, after) = (step * 1_000_000, step * 1_000_000 + 1);
            sights.extend(seen.map(|(gpu, step)| Sight {
                gpu,
                step,
                began: before,
                ended: Some(after),
            }));
        }
        let at = chance.below(clients.len() as u64) as usize;
        clients[at] = match std::mem::replace(&mut clients[at], Client::Idle) {
            Client::Idle => {
                let (request, call) = choose(&mut chance, &cluster, &mut asked);
                let begun = recorder.begin(numbers[at], request, call, step);
                Client::Asked { begun, request, call }
            }
            Client::Asked { request, call, begun } => {
                let answer = cluster.ask(&mut chance, request, call);
                cluster.seen = cluster.index;
                if chance.one_in(40) {
                    // Nobody learns of it, and the client goes on under another number.
                    numbers[at] = numbers.iter().max().unwrap() + 1;
                    Client::Idle
                } else {
                    let names_one = !matches!(answer, Answer::Refused(_));
                    let index = names_one.then_some(cluster.index);
                    Client::Answered { begun, outcome: Outcome::Answered { answer, index } }
                }
            }
            Client::Answered { begun, outcome } => {
                recorder.end(begun, outcome, step);
                Client::Idle
            }
        };
    }
    Run { history: recorder.history(), log: cluster.log, sights }
}

fn choose(
    chance: &mut Chance,
    cluster: &Cluster,
    asked: &mut Vec<(u128, Call)>,
) -> (Option<u128>, Call) {
    if !asked.is_empty() && chance.one_in(10) {
        let (request, call) = asked[chance.below(asked.len() as u64) as usize];
        return (Some(request), call);
    }
    let job = chance.below(cluster.jobs.len() as u64 + 1);
    let call = match chance.below(10) {
        0 | 1 => Call::Submit(chance.below(1_000)),
        2 => Call::Cancel(job),
        3 | 4 => Call::Hold(job),
        5 => Call::Release(job),
        _ => return (None, Call::Show(job)),
    };
    let request = asked.len() as u128 + 1;
    asked.push((request, call));
    (Some(request), call)
}
