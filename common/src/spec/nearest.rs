//! Did you mean: the known word that is nearest to a mistaken one.

/// Words longer than this are never matched, so that the work stays bounded.
const WORD_BYTES_MAX: usize = 64;

/// Words of other systems, and what they are called here.
const ALIASES: [(&str, &str); 27] = [
    ("oom", "out_of_memory"),
    ("timeout", "timed_out"),
    ("signal", "signaled"),
    ("exit_code", "exited"),
    ("xid", "gpu_fault"),
    ("timeout", "time_limit"),
    ("walltime", "time_limit"),
    ("time", "time_limit"),
    ("max_runtime", "time_limit"),
    ("deadline", "time_limit"),
    ("depends_on", "after"),
    ("dependency", "after"),
    ("dependencies", "after"),
    ("begin", "not_before"),
    ("partition", "queue"),
    ("environment", "env"),
    ("volumes", "mounts"),
    ("container", "image"),
    ("script", "command"),
    ("cmd", "command"),
    ("run", "command"),
    ("job_name", "name"),
    ("num_nodes", "nodes"),
    ("ntasks_per_node", "ranks_per_node"),
    ("nproc_per_node", "ranks_per_node"),
    ("tags", "labels"),
    ("restarts", "retry"),
];

/// The nearest of the known words, when one is near enough to have been meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > WORD_BYTES_MAX {
        return None;
    }
    let word = plain(word);
    let is_alias =
        |candidate: &str| ALIASES.iter().any(|(t, ours)| *ours == candidate && plain(t) == word);
    let allowed = (word.len() / 3).clamp(1, 3);
    let mut best: Option<(usize, &str)> = None;
    for candidate in known {
        if is_alias(candidate) {
            return Some(candidate);
        }
        let target = plain(candidate);
        let prefix = word.len() >= 3 && target.starts_with(&word);
        let distance = if prefix { 1 } else { distance(&word, &target) };
        let near = distance <= allowed && distance < target.len();
        if near && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Lower case without separators, so that `timeLimit` and `time-limit` are `time_limit`.
fn plain(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// The least number of insertions, deletions, substitutions and swaps of neighbours that turn
/// one word into the other (optimal string alignment; Damerau 1964).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substitute = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substitute.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: [&str; 6] = ["time_limit", "nodes", "memory", "gpus", "command", "env"];

    #[test]
    fn slips_are_recognised() {
        for (word, meant) in [
            ("ndoes", Some("nodes")),
            ("node", Some("nodes")),
            ("timeLimit", Some("time_limit")),
            ("walltime", Some("time_limit")),
            ("mem", Some("memory")),
            ("gpu", Some("gpus")),
            ("enviroment", None),
            ("xyz", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, KNOWN.into_iter()), meant, "{word}");
        }
    }

    proptest! {
        #[test]
        fn only_known_words_are_suggested(word in "\\PC{0,80}") {
            if let Some(found) = nearest(&word, KNOWN.into_iter()) {
                prop_assert!(KNOWN.contains(&found));
            }
        }

        #[test]
        fn distance_is_symmetric_and_zero_only_for_equals(a in "[ab]{0,6}", b in "[ab]{0,6}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
        }
    }
}
