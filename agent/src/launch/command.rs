//! The words of a command.

use std::collections::BTreeMap;
use std::path::Path;
use yard_common::spec::JobSpec;
use yard_common::spec::placeholder::expand;
use yard_common::spec::run::Command;

/// The words that a rank runs: the shell and its line, or program and words.
///
/// A line gets the job's further `args` as `"$@"` behind it, so that no shell reads them. A script
/// of several lines, or of another language, finds them as the arguments that it was started with.
pub(super) fn words(
    spec: &JobSpec,
    command: &Command,
    variables: &BTreeMap<String, String>,
) -> Vec<String> {
    let args: Vec<&str> = spec.args.iter().map(|word| word.as_str()).collect();
    with_args(spec, command, &args, variables)
}

/// The words of a command that gets no `args`: they are for ranks.
pub(super) fn alone(
    spec: &JobSpec,
    command: &Command,
    variables: &BTreeMap<String, String>,
) -> Vec<String> {
    with_args(spec, command, &[], variables)
}

fn with_args(
    spec: &JobSpec,
    command: &Command,
    args: &[&str],
    variables: &BTreeMap<String, String>,
) -> Vec<String> {
    match command {
        Command::Shell(line) => {
            let mut words: Vec<String> =
                spec.shell.iter().map(|word| word.as_str().to_string()).collect();
            if args.is_empty() {
                words.push(line.as_str().to_string());
                return words;
            }
            let is_shell = words.iter().any(|word| is_shell(word));
            let trimmed = line.as_str().trim();
            match is_shell && !trimmed.contains('\n') {
                true => words.push(format!("{trimmed} \"$@\"")),
                false => words.push(line.as_str().to_string()),
            }
            // Shells take the first word behind the line for the name of the script.
            words.extend(is_shell.then(|| "yard".to_string()));
            words.extend(args.iter().map(|word| (*word).to_string()));
            words
        }
        Command::Exec(list) => {
            let value = |name: &str| variables.get(name).map(String::as_str);
            let list = list.iter().map(|word| word.as_str());
            list.chain(args.iter().copied()).map(|word| expand(word, value)).collect()
        }
    }
}

/// Whether a word of `shell` is a shell as POSIX has it.
fn is_shell(word: &str) -> bool {
    let name = word.rsplit('/').next().unwrap_or(word);
    matches!(name, "sh" | "bash" | "dash" | "zsh" | "ksh" | "ash" | "busybox")
}

/// Where a program may be: itself if it is a path, else in each directory of `PATH`.
pub(super) fn paths(program: &str, path: &str) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_string()];
    }
    let directories = path.split(':').filter(|directory| directory.starts_with('/'));
    directories.map(|at| Path::new(at).join(program).to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> JobSpec {
        JobSpec::from_yaml(yaml).unwrap()
    }

    fn of(yaml: &str) -> Vec<String> {
        let spec = spec(yaml);
        let variables = BTreeMap::from([("YARD_RANK".to_string(), "$(id) 3".to_string())]);
        words(&spec, spec.command.as_ref().unwrap(), &variables)
    }

    #[test]
    fn a_line_reaches_its_shell_untouched() {
        assert_eq!(
            of("command: echo ${YARD_RANK} '$x'"),
            ["/bin/bash", "-c", "echo ${YARD_RANK} '$x'"]
        );
        assert_eq!(
            of("command: echo\nargs: ['a b', '$(id)']"),
            ["/bin/bash", "-c", "echo \"$@\"", "yard", "a b", "$(id)"]
        );
    }

    #[test]
    fn args_of_a_line_in_a_block_stand_on_it_and_a_script_is_started_with_them() {
        let block = of("command: |\n  echo one\nargs: [two]");
        assert_eq!(block, ["/bin/bash", "-c", "echo one \"$@\"", "yard", "two"]);
        let script = of("command: |\n  echo \"$1\"\n  date\nargs: [two]");
        assert_eq!(script, ["/bin/bash", "-c", "echo \"$1\"\ndate\n", "yard", "two"]);
        let python = of("shell: [/usr/bin/env, python3, -c]\ncommand: print(1)\nargs: [two]");
        assert_eq!(python, ["/usr/bin/env", "python3", "-c", "print(1)", "two"]);
    }

    #[test]
    fn words_get_their_values_once_and_no_shell() {
        let words = of("command: [prog, '--rank=${YARD_RANK}', $HOME]\nargs: ['${YARD_RANK}']");
        assert_eq!(words, ["prog", "--rank=$(id) 3", "$HOME", "$(id) 3"]);
    }

    #[test]
    fn programs_are_looked_for_in_absolute_directories() {
        assert_eq!(paths("./x", "/bin"), ["./x"]);
        assert_eq!(paths("x", "/bin:.::/usr/bin"), ["/bin/x", "/usr/bin/x"]);
    }
}
