//! Verbs that need no cluster, or find out why there is none.

use crate::args::{self, Global, LoginArgs};
use crate::context::{Contexts, Environment, check_name};
use crate::failure::{Failure, exit};
use crate::input::all_of_standard_input;
use crate::output::{Format, Listing, Row, column, put, say};
use crate::pages;
use crate::session::now_wall_ms;
use crate::text;
use crate::view;
use serde_json::json;
use std::path::Path;
use yard_client::Client;
use yard_common::spec::{Draft, Features};
use yard_proto::v1;
use yard_runtime::files;

/// Difference of clocks from which on it is told, in milliseconds.
const SKEW_MS_MAX: u64 = 5_000;
/// Rest of a certificate's life from which on it is told, in milliseconds: three days.
const EXPIRY_MS: u64 = 3 * 24 * 3_600 * 1_000;

/// Logs in, and remembers the cluster.
pub(crate) async fn login(args: &LoginArgs) -> Result<u8, Failure> {
    let token = match args.token.as_str() {
        "-" => all_of_standard_input()?,
        token => token.to_string(),
    };
    let folder = Environment::of_process().folder()?;
    let mut contexts = Contexts::load(&folder)?;
    let host = args.address.rsplit_once(':').map_or(args.address.as_str(), |(host, _)| host);
    let name = match &args.name {
        Some(name) => name.clone(),
        None => context_name(host),
    };
    check_name(&name)?;
    let logged_in = yard_client::login(&args.address, &token).await?;
    let own = contexts.add(&folder, &name, vec![args.address.clone()]);
    logged_in.identity.save(&own).map_err(|error| Failure::local(&error, ""))?;
    contexts.save(&folder)?;
    say(&format!("logged in as {} at {}; the context is {name}", logged_in.name, args.address));
    Ok(0)
}

/// A name for the context of a host: `10.0.0.1` is `10-0-0-1`.
fn context_name(host: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = host.chars().map(legal).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "default".into() } else { name.chars().take(63).collect() }
}

/// Prints the page of an error code.
pub(crate) fn explain(code: &str) -> Result<u8, Failure> {
    put(pages::page(code)?)?;
    Ok(0)
}

/// Clusters that this machine knows.
pub(crate) fn contexts(global: &Global) -> Result<u8, Failure> {
    let contexts = Contexts::load(&Environment::of_process().folder()?)?;
    put(&view::holder::contexts(&contexts).render(global.output.unwrap_or_default()))?;
    Ok(0)
}

/// Uses another cluster from now on.
pub(crate) fn use_context(name: &str) -> Result<u8, Failure> {
    let folder = Environment::of_process().folder()?;
    let mut contexts = Contexts::load(&folder)?;
    contexts.switch(name)?;
    contexts.save(&folder)?;
    say(&format!("the context is {name}"));
    Ok(0)
}

/// What a new job file says.
const JOB_FILE: &str = "\
# A job for `yard run job.yaml`. `yard schema` prints every field with its default.
name: hello
nodes: 1
resources: { cpus: 1, memory: 512MiB }     # of each node; gpus: h100:8 adds GPUs
command: echo \"hello from rank $YARD_RANK of $YARD_WORLD_SIZE on $YARD_NODE_NAME\"
time_limit: 10m
";

/// Writes a job file to start from.
pub(crate) fn init(path: &Path) -> Result<u8, Failure> {
    if path.exists() {
        let message = format!("{} exists already", path.display());
        return Err(Failure::new(exit::REFUSED, message, "name another file: yard init FILE"));
    }
    files::write_durably(path, JOB_FILE.as_bytes(), files::PUBLIC)
        .map_err(|error| Failure::local(&error, ""))?;
    say(&format!("wrote {}; next: yard run {}", path.display(), path.display()));
    Ok(0)
}

/// Prints every field of a job file with its default.
pub(crate) fn schema() -> Result<u8, Failure> {
    put(&schema_text())?;
    Ok(0)
}

fn schema_text() -> String {
    let draft = Draft::read(b"command: python3 train.py\n", None);
    // The text above is valid; a test says so.
    draft.validate(&Features::all()).map(|spec| draft.print_resolved(&spec)).unwrap_or_default()
}

/// Prints completions for a shell.
pub(crate) fn completion(shell: clap_complete::Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "yard", &mut script);
    put(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

/// Something that is wrong, and how to put it right.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    problem: String,
    fix: String,
}

fn finding(problem: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { problem: problem.into(), fix: fix.into() }
}

/// Looks for what is wrong; the exit code is 1 if something is.
pub(crate) async fn doctor(global: &Global) -> Result<u8, Failure> {
    let findings = match examine(global).await {
        Ok(findings) => findings,
        // What ends the examination is its finding.
        Err(failure) => vec![finding(failure.message, failure.hint)],
    };
    put(&told(&findings, global.output.unwrap_or_default()))?;
    Ok(u8::from(!findings.is_empty()))
}

/// Problems and fixes in pairs.
fn told(findings: &[Finding], format: Format) -> String {
    if !matches!(format, Format::Table | Format::Wide) {
        let columns = vec![column("PROBLEM"), column("FIX")];
        let row = |found: &Finding| Row {
            cells: vec![found.problem.clone(), found.fix.clone()],
            value: json!({ "problem": found.problem, "fix": found.fix }),
            name: found.problem.clone(),
            tones: Vec::new(),
        };
        let rows = findings.iter().map(row).collect();
        return Listing { kind: "Finding", columns, rows }.render(format);
    }
    if findings.is_empty() {
        return "nothing is wrong here\n".into();
    }
    let pair = |found: &Finding| {
        let fix = match found.fix.as_str() {
            "" => String::new(),
            fix => format!("    fix: {fix}\n"),
        };
        format!("problem: {}\n{fix}", found.problem.trim_end())
    };
    findings.iter().map(pair).collect::<Vec<String>>().join("\n")
}

async fn examine(global: &Global) -> Result<Vec<Finding>, Failure> {
    let environment = Environment::of_process();
    let contexts = Contexts::load(&environment.folder()?)?;
    let (flag, address) = (global.context.as_deref(), global.address.as_deref());
    let (name, context) = contexts.choose(flag, address, &environment)?;
    let identity = context.load_identity()?;
    let ends = identity.peer().not_after_wall_ms;
    let mut findings: Vec<Finding> = expiry(ends, now_wall_ms()).into_iter().collect();
    let given = address.is_some() || environment.address.is_some();
    let options = context.options(identity.clone(), given);
    say(&format!("context {name}: {}", options.addresses.join(", ")));
    let client = Client::connect(&options)?;
    let status = client.status(v1::StatusRequest::default()).await?;
    let asked_at = now_wall_ms();
    findings.extend(of_cluster(&status, asked_at));
    findings.extend(of_members(&status));
    Ok(findings)
}

fn expiry(ends_wall_ms: u64, now: u64) -> Option<Finding> {
    let fix = "log in again: an administrator makes a token with `yard user invite`";
    match ends_wall_ms.checked_sub(now) {
        None => {
            Some(finding(format!("your certificate ended {}", text::moment(ends_wall_ms)), fix))
        }
        Some(left) if left < EXPIRY_MS => {
            let problem = format!("your certificate ends in {}", text::duration(left));
            Some(finding(problem, "any command renews it; if none does, log in again"))
        }
        Some(_) => None,
    }
}

fn of_cluster(status: &v1::StatusResponse, now: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    if status.leader.is_none() {
        let fix = "see that a majority of the coordinators runs and can reach each other";
        findings.push(finding("the cluster has no leader", fix));
    }
    let there = status.now.as_ref().map_or(now, |now| now.wall_ms);
    if there.abs_diff(now) > SKEW_MS_MAX {
        let by = text::duration(there.abs_diff(now));
        let problem = format!("the clocks of this machine and of the coordinator differ by {by}");
        findings.push(finding(problem, "let both follow the network time (chrony, timesyncd)"));
    }
    let counts = status.counts.unwrap_or_default();
    if counts.nodes == 0 {
        let fix = "yard node invite makes a token; on the machine: yard agent join HOST:PORT TOKEN";
        findings.push(finding("the cluster has no nodes, so no job can start", fix));
    } else if counts.nodes_up < counts.nodes {
        let problem =
            format!("{} of {} nodes are not up", counts.nodes - counts.nodes_up, counts.nodes);
        findings.push(finding(problem, "`yard node ls` says which, and why"));
    }
    if counts.nodes > 0 && counts.nodes_up == 0 {
        findings.push(finding("no node is up, so no job can start", "start the agents"));
    }
    findings
}

/// Coordinators that are away, slow or about to lose their certificate.
fn of_members(status: &v1::StatusResponse) -> Vec<Finding> {
    let mut findings = Vec::new();
    let now = status.now.as_ref().map_or(0, |now| now.wall_ms);
    for member in &status.members {
        let (id, address) = (member.id, &member.address);
        if !member.unreachable.is_empty() {
            let problem = format!("coordinator {id} at {address} does not answer");
            let fix =
                format!("start it, or, if its machine is gone for good: yard cluster remove {id}");
            findings.push(finding(problem, fix));
        }
        let left = member.certificate_expires_wall_ms.map(|ends| ends.saturating_sub(now));
        if left.is_some_and(|left| left < EXPIRY_MS) {
            let problem = format!("the certificate of coordinator {id} ends soon");
            findings.push(finding(problem, "its log says why it is not renewed"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_job_file_is_valid_and_the_schema_is_whole() {
        let draft = Draft::read(JOB_FILE.as_bytes(), Some("job.yaml"));
        let spec = draft.validate(&Features::NONE).unwrap();
        assert_eq!(spec.name(), "hello");
        let schema = schema_text();
        for field in ["resources:", "time_limit:", "isolation:", "sweep:", "notify:"] {
            assert!(schema.contains(field), "{field} is not in\n{schema}");
        }
        assert_eq!(yard_common::spec::JobSpec::from_yaml(&schema).unwrap().name(), "train");
    }

    #[test]
    fn init_never_overwrites() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("job.yaml");
        assert_eq!(init(&path), Ok(0));
        assert_eq!(init(&path).unwrap_err().exit, 1);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), JOB_FILE);
    }

    #[test]
    fn contexts_get_legal_names() {
        for (host, name) in [
            ("10.0.0.1", "10-0-0-1"),
            ("Head.Example.org", "head-example-org"),
            ("[::1]", "1"),
            ("::", "default"),
        ] {
            assert_eq!(context_name(host), name);
            assert!(check_name(&context_name(host)).is_ok());
        }
    }

    #[test]
    fn a_doctor_names_problem_and_fix() {
        let now = 1_800_000_000_000;
        assert_eq!(expiry(now + EXPIRY_MS, now), None);
        assert!(expiry(now - 1, now).unwrap().problem.contains("ended"));
        assert!(expiry(now + 3_600_000, now).unwrap().problem.ends_with("ends in 1h"));
        let member = |address: &str| v1::Member { address: address.into(), ..Default::default() };
        let status = v1::StatusResponse {
            now: Some(v1::Stamp { cluster_ms: 0, wall_ms: now + 60_000 }),
            members: vec![member("a:1"), member("b:1")],
            ..v1::StatusResponse::default()
        };
        let found: Vec<String> =
            of_cluster(&status, now).into_iter().map(|found| found.problem).collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[1].ends_with("differ by 1m"), "{found:?}");
        assert_eq!(of_members(&status), []);
        let mut away = status.clone();
        away.members[1].unreachable = "refused".into();
        away.members[0].certificate_expires_wall_ms = Some(now + 60_000 + EXPIRY_MS - 1);
        let found = of_members(&away);
        assert!(found[0].problem.starts_with("the certificate of coordinator"), "{found:?}");
        assert!(found[1].problem.ends_with("at b:1 does not answer"), "{found:?}");
    }

    #[test]
    fn findings_come_in_pairs_or_as_objects() {
        let list = [finding("no leader\n", "start one"), finding("no certificate", "")];
        let text = told(&list, Format::Table);
        assert_eq!(text, "problem: no leader\n    fix: start one\n\nproblem: no certificate\n");
        assert_eq!(told(&[], Format::Table), "nothing is wrong here\n");
        assert!(told(&list, Format::Jsonl).contains(r#""fix":"start one""#));
        assert!(told(&[], Format::Json).contains(r#""items": []"#));
    }

    #[test]
    fn completions_know_the_verbs() {
        let mut script = Vec::new();
        clap_complete::generate(
            clap_complete::Shell::Bash,
            &mut args::command(),
            "yard",
            &mut script,
        );
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("submit") && script.contains("--dry-run"));
    }
}
