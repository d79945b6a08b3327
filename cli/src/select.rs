//! How jobs are named on the command line: `812`, `812[3-7]`, `last`, `@2`, a name, `-`.

use crate::failure::{Failure, exit};
use crate::session::Session;
use std::fmt;
use yard_common::id::TaskRange;
use yard_common::limits::{ARRAY_TASKS_MAX, SPEC_ENTRIES_MAX};
use yard_common::name::is_name;
use yard_proto::v1;

/// Jobs that one command line may name.
const JOBS_MAX: usize = 10_000;
/// How far back `@2` and names reach.
const RECENT_MAX: u32 = 1_000;

/// Which job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// By id.
    Id(u64),
    /// The user's last one is 1, the one before it 2.
    Recent(u32),
    /// The user's newest one of this name.
    Name(String),
}

/// A job, or tasks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) which: Which,
    /// Empty: all tasks.
    pub(crate) tasks: Vec<TaskRange>,
}

/// A job that exists, or tasks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) job: u64,
    /// Empty: all tasks.
    pub(crate) tasks: Vec<TaskRange>,
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.job)?;
        if !self.tasks.is_empty() {
            let ranges: Vec<String> = self.tasks.iter().map(TaskRange::to_string).collect();
            write!(f, "[{}]", ranges.join(","))?;
        }
        Ok(())
    }
}

impl Chosen {
    /// The job, for verbs that know whole jobs only.
    pub(crate) fn whole(&self, verb: &str) -> Result<u64, Failure> {
        match self.tasks.is_empty() {
            true => Ok(self.job),
            false => {
                let message = format!("{verb} takes whole jobs, not {self}");
                Err(Failure::usage(message, format!("yard {verb} {}", self.job)))
            }
        }
    }

    /// The one task that is meant; `None`: the job as a whole.
    pub(crate) fn only_task(&self) -> Result<Option<u32>, Failure> {
        match self.tasks.as_slice() {
            [] => Ok(None),
            [range] if range.len == 1 => Ok(Some(range.first)),
            _ => Err(Failure::usage(format!("{self} are many tasks"), "name one of them")),
        }
    }
}

/// Reads a selector.
pub(crate) fn parse(text: &str) -> Result<Selector, Failure> {
    let bad = || {
        let hint = "write an id (812), tasks (812[3-7]), `last`, `@2`, or a name";
        Failure::usage(format!("{text:?} names no job"), hint)
    };
    let (head, tasks) = match text.split_once('[') {
        Some((head, rest)) => {
            let list = rest.strip_suffix(']').ok_or_else(bad)?;
            (head, ranges(list).ok_or_else(bad)?)
        }
        None => (text, Vec::new()),
    };
    let digits = !head.is_empty() && head.bytes().all(|b| b.is_ascii_digit());
    let which = if digits {
        Which::Id(head.parse().map_err(|_| bad())?)
    } else if head == "last" {
        Which::Recent(1)
    } else if let Some(count) = head.strip_prefix('@') {
        let count = count.parse().ok().filter(|count| (1..=RECENT_MAX).contains(count));
        Which::Recent(count.ok_or_else(bad)?)
    } else if is_name(head) {
        Which::Name(head.into())
    } else {
        return Err(bad());
    };
    Ok(Selector { which, tasks })
}

/// Reads `3`, `3-7`, `0,3-7`.
fn ranges(text: &str) -> Option<Vec<TaskRange>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u32>().ok().filter(|number| plain && *number < ARRAY_TASKS_MAX)
        };
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then(|| TaskRange::between(first, last + 1))
    };
    let found: Option<Vec<TaskRange>> = text.split(',').take(SPEC_ENTRIES_MAX).map(range).collect();
    found.filter(|_| text.split(',').count() <= SPEC_ENTRIES_MAX)
}

/// Reads what a command line names; `-` stands for what standard input says, one on each line.
pub(crate) fn parse_all(
    texts: &[String],
    standard_input: impl FnOnce() -> Result<String, Failure>,
) -> Result<Vec<Selector>, Failure> {
    let listed = match texts.iter().any(|text| text == "-") {
        true => standard_input()?,
        false => String::new(),
    };
    let mut found = Vec::new();
    for text in texts {
        if text == "-" {
            for line in listed.split_whitespace() {
                found.push(parse(line)?);
            }
        } else {
            found.push(parse(text)?);
        }
    }
    if found.len() > JOBS_MAX {
        return Err(Failure::usage(format!("more than {JOBS_MAX} jobs"), "take fewer at a time"));
    }
    Ok(found)
}

/// Finds the jobs that a command line names.
pub(crate) async fn choose(session: &Session, texts: &[String]) -> Result<Vec<Chosen>, Failure> {
    let selectors = parse_all(texts, crate::input::all_of_standard_input)?;
    let mut chosen = Vec::new();
    for selector in selectors {
        let job = match &selector.which {
            Which::Id(id) => *id,
            Which::Recent(count) => recent(session, *count).await?,
            Which::Name(name) => newest_named(session, name).await?,
        };
        chosen.push(Chosen { job, tasks: selector.tasks });
    }
    Ok(chosen)
}

/// Finds the one job that a command line names.
pub(crate) async fn choose_one(session: &Session, text: &str) -> Result<Chosen, Failure> {
    let mut chosen = choose(session, &[text.to_string()]).await?;
    match (chosen.pop(), chosen.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err(Failure::usage("one job is wanted here", "name it")),
    }
}

async fn recent(session: &Session, count: u32) -> Result<u64, Failure> {
    let request = v1::ListJobsRequest {
        page: Some(v1::Page { size: count, ..v1::Page::default() }),
        mine: true,
        newest_first: true,
        ..v1::ListJobsRequest::default()
    };
    let jobs = session.client.jobs(request).await?.jobs;
    let found = usize::try_from(count).ok().and_then(|count| jobs.get(count - 1));
    let missing = || {
        let message = format!("you have submitted {} jobs that are still known", jobs.len());
        Failure::new(exit::NOT_FOUND, message, "`yard ls --all` lists them")
    };
    found.map(|job| job.id).ok_or_else(missing)
}

async fn newest_named(session: &Session, name: &str) -> Result<u64, Failure> {
    // One's own job goes before one of somebody else.
    for mine in [true, false] {
        let request = v1::ListJobsRequest {
            page: Some(v1::Page { size: 1, ..v1::Page::default() }),
            name: name.to_string(),
            mine,
            newest_first: true,
            ..v1::ListJobsRequest::default()
        };
        if let Some(job) = session.client.jobs(request).await?.jobs.first() {
            return Ok(job.id);
        }
    }
    let hint = "`yard ls --all` lists the jobs that are known";
    Err(Failure::new(exit::NOT_FOUND, format!("there is no job with the name {name}"), hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text) {
            Ok(Selector { which, tasks }) => {
                let tasks: Vec<String> = tasks.iter().map(TaskRange::to_string).collect();
                format!("{which:?} {}", tasks.join(","))
            }
            Err(failure) => format!("{} {}", failure.exit, failure.message),
        }
    }

    #[test]
    fn selectors_read_as_they_are_written() {
        for (text, meant) in [
            ("812", "Id(812) "),
            ("812[3]", "Id(812) 3"),
            ("812[0,3-7]", "Id(812) 0,3-7"),
            ("last", "Recent(1) "),
            ("last[2]", "Recent(1) 2"),
            ("@2", "Recent(2) "),
            ("llama-ft", "Name(\"llama-ft\") "),
            ("7b", "Name(\"7b\") "),
        ] {
            assert_eq!(shown(text), meant, "{text}");
        }
        for bad in
            ["", "@0", "@x", "812[", "812[]", "812[7-3]", "812[-3]", "812]", "A b", "[3]", "-1"]
        {
            assert!(shown(bad).starts_with("64 "), "{bad}: {}", shown(bad));
        }
        assert!(shown(&"9".repeat(30)).starts_with("64 "), "too large for an id");
    }

    #[test]
    fn a_dash_stands_for_standard_input() {
        let texts = ["8".to_string(), "-".into()];
        let found = parse_all(&texts, || Ok("9\n10[2]\n\nname\n".into())).unwrap();
        assert_eq!(found.len(), 4);
        let unread = || panic!("nobody asked for standard input");
        assert_eq!(parse_all(&texts[..1], unread).unwrap().len(), 1);
    }

    #[test]
    fn a_choice_displays_as_it_is_written() {
        let chosen = Chosen { job: 8, tasks: ranges("0,3-7").unwrap() };
        assert_eq!(chosen.to_string(), "8[0,3-7]");
        assert!(chosen.only_task().is_err());
        let one = Chosen { job: 8, tasks: ranges("3").unwrap() };
        assert_eq!(one.only_task(), Ok(Some(3)));
    }
}
