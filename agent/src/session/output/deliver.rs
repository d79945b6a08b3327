//! Delivers output to directories of users: one line for each directory and user, so that one that
//! stands still is in nobody else's way.
//!
//! What is to be delivered is noted beside the output until it is. So an agent that starts anew
//! finds what an earlier one left.

use super::Done;
use super::keeper::Attempt;
use super::line::{Item, Line, Rounded};
use super::progress::Progress;
use crate::delivery::{Delivery, Target};
use crate::launch::open_stream;
use crate::logs::{AttemptLogs, Kind, Retention, Writer};
use crate::paths::Paths;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use yard_common::limits::{DELIVERY_ENDING_MAX, DELIVERY_STILL_MS};

/// Pause of a line after something went wrong.
const PAUSE: Duration = Duration::from_secs(5);

/// All deliveries of the node.
pub(super) struct Deliverer {
    paths: Paths,
    program: PathBuf,
    progress: Progress,
    lines: BTreeMap<Target, State>,
    /// Attempts that have ended, and are not delivered whole.
    ending: BTreeMap<Attempt, Delivery>,
    /// There was no room for some of them.
    is_overfull: bool,
    /// Attempts of which people were told that something is wrong.
    told: BTreeSet<Attempt>,
    /// What is wrong now.
    late: BTreeMap<Attempt, String>,
}

/// A line, and when it works.
struct State {
    /// None: it is on its round.
    line: Option<Line>,
    /// When the round began.
    since: Instant,
    /// The next round begins no sooner.
    next: Instant,
}

impl Deliverer {
    pub(super) fn new(paths: &Paths, program: PathBuf, progress: Progress) -> Deliverer {
        Deliverer {
            paths: paths.clone(),
            program,
            progress,
            lines: BTreeMap::new(),
            ending: BTreeMap::new(),
            is_overfull: false,
            told: BTreeSet::new(),
            late: BTreeMap::new(),
        }
    }

    /// Attempts whose output is late, and why.
    pub(super) fn late(&self) -> &BTreeMap<Attempt, String> {
        &self.late
    }

    /// Attempts that an earlier agent left, or that there was no room for.
    pub(super) fn found(&mut self, left: Vec<(Attempt, Delivery)>) {
        for (attempt, delivery) in left {
            self.ends(attempt, delivery);
        }
    }

    fn ends(&mut self, attempt: Attempt, delivery: Delivery) {
        match self.ending.len() < DELIVERY_ENDING_MAX {
            true => drop(self.ending.insert(attempt, delivery)),
            false => self.is_overfull = true,
        }
    }

    /// Whether those are to be looked for that there was no room for, as there is some now.
    pub(super) fn has_room_again(&mut self) -> bool {
        let has = self.is_overfull && self.ending.len() < DELIVERY_ENDING_MAX / 2;
        self.is_overfull &= !has;
        has
    }

    /// Begins a round of each line that has something to do. Returns attempts about which people
    /// are to be told.
    pub(super) fn go_on(
        &mut self,
        looked: Vec<(Attempt, Delivery, bool)>,
        work: &mut JoinSet<Done>,
    ) -> Vec<(Attempt, String)> {
        let now = Instant::now();
        let mut items: BTreeMap<Target, Vec<Item>> = BTreeMap::new();
        let mut push = |attempt, delivery: &Delivery, over| {
            let item = Item { attempt, delivery: delivery.clone(), over };
            items.entry(delivery.target.clone()).or_default().push(item);
        };
        for (attempt, delivery, over) in looked {
            match over {
                true => self.ends(attempt, delivery),
                false => push(attempt, &delivery, false),
            }
        }
        for (attempt, delivery) in &self.ending {
            push(*attempt, delivery, true);
        }
        let delivered: BTreeSet<Attempt> =
            items.values().flatten().map(|item| item.attempt).collect();
        let news = self.standing_still(&items);
        // One that has nothing to do ends its process.
        self.lines.retain(|target, state| state.line.is_none() || items.contains_key(target));
        for (target, items) in items {
            let state = self.lines.entry(target).or_insert_with_key(|target| State {
                line: Some(Line::new(target, self.program.clone(), &self.paths, &self.progress)),
                since: now,
                next: now,
            });
            if state.next > now {
                continue;
            }
            if let Some(line) = state.line.take() {
                state.since = now;
                work.spawn(async move { Done::Delivered(Box::new(line.round(items).await)) });
            }
        }
        self.late.extend(news.iter().cloned());
        self.late.retain(|attempt, _| delivered.contains(attempt));
        self.news(news)
    }

    /// Attempts that wait for a line which does not move, whenever they came.
    fn standing_still(&self, items: &BTreeMap<Target, Vec<Item>>) -> Vec<(Attempt, String)> {
        let is_still = |state: &State| {
            state.line.is_none() && state.since.elapsed().as_millis() > DELIVERY_STILL_MS.into()
        };
        let still = self.lines.iter().filter(|(_, state)| is_still(state));
        let waiting = still.flat_map(|(target, _)| {
            let why = format!("{}: it does not answer", target.dir);
            let items = items.get(target).into_iter().flatten();
            items.map(move |item| (item.attempt, why.clone()))
        });
        waiting.collect()
    }

    /// A round is over. Returns attempts about which people are to be told.
    pub(super) fn back(&mut self, rounded: Rounded) -> Vec<(Attempt, String)> {
        let Rounded { line, moved, whole, failed } = rounded;
        for attempt in moved {
            self.late.remove(&attempt);
        }
        for attempt in whole {
            self.ending.remove(&attempt);
            self.told.remove(&attempt);
        }
        self.late.extend(failed.iter().cloned());
        if let Some(state) = self.lines.get_mut(line.target()) {
            if !failed.is_empty() {
                state.next = Instant::now() + PAUSE;
            }
            state.line = Some(line);
        }
        self.news(failed)
    }

    /// Rounds were cut off: their lines begin anew.
    pub(super) fn cut_off(&mut self) {
        self.lines.retain(|_, state| state.line.is_some());
    }

    /// Attempts about which nothing was said before.
    fn news(&mut self, failed: Vec<(Attempt, String)>) -> Vec<(Attempt, String)> {
        if self.told.len() > 2 * DELIVERY_ENDING_MAX {
            self.told.clear();
        }
        failed.into_iter().filter(|(attempt, _)| self.told.insert(*attempt)).collect()
    }
}

/// Attempts with output that is not delivered, of jobs that hold nothing here any more.
pub(super) fn left(paths: &Paths) -> Vec<(Attempt, Delivery)> {
    let attempts = Retention::new(paths).ended_attempts().unwrap_or_default();
    let noted = attempts.into_iter().filter_map(|(job, task, attempt)| {
        let attempt = Attempt { job, task, attempt };
        Some((attempt, attempt.delivery(paths)?))
    });
    // One more than there is room for says that there are more.
    noted.take(DELIVERY_ENDING_MAX + 1).collect()
}

/// Says in the output of attempts that it is not delivered.
pub(super) fn tell(paths: &Paths, news: Vec<(Attempt, String)>) {
    for (attempt, why) in news {
        let Attempt { job, task, .. } = attempt;
        tracing::warn!(%job, task, why, "output is not delivered to the directory of its job");
        let logs = AttemptLogs::new(paths, attempt.job, attempt.task, attempt.attempt);
        let file = open_stream(&logs.path(Writer::Prepare, Kind::Err));
        let text = format!(
            "logs.dir: output is not delivered to {why}; it stays on the node, and is delivered \
             when that can be done\n"
        );
        // Without it, it is in the agent's log.
        let _ = file.and_then(|mut file| file.write_all(text.as_bytes()));
    }
}
