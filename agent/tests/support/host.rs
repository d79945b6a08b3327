//! The program that tests run as shim, as the stand-in for `ssh`, and as an agent of its own that
//! they can kill: `host agent ROOT CGROUP`, driven by lines on its standard input.
#![deny(unsafe_code)]

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::process::ExitCode;
use yard_agent::cgroup::{GpuNodes, Support};
use yard_agent::driver::{Driver, Options};
use yard_agent::launch::Assignment;
use yard_common::id::{LeaseId, Sequence};
use yard_core::agent::{AssignmentId, Desired, Fence, Lease};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("shim") => yard_agent::shim::main(arguments.map(OsString::from)),
        Some("shim-dial") => yard_agent::shim::dial_main(arguments),
        Some("deliver") => yard_agent::delivery::main(arguments),
        Some("agent") => agent(arguments.collect()),
        _ => ExitCode::FAILURE,
    }
}

/// An agent whose coordinator is the test.
fn agent(arguments: Vec<String>) -> ExitCode {
    let [root, group] = arguments.as_slice() else { return ExitCode::FAILURE };
    let options = Options {
        root: root.into(),
        node: "n1".into(),
        program: std::env::current_exe().unwrap_or_default(),
        job_path: Options::JOB_PATH.into(),
        gang_dir: None,
        cgroups: if group == "none" { Support::none() } else { Support::detect(group) },
        jobs_as_agent: false,
        cpus_bound: true,
        root_logins: vec!["root".into()],
        gpu_nodes: GpuNodes::default(),
        begin: (Fence::NONE, Sequence(0)),
        checks: None,
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    let handle = match runtime.block_on(Driver::start(options)) {
        Ok(handle) => handle,
        Err(error) => {
            eprintln!("the agent does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let Ok(mut reports) = runtime.block_on(handle.connected()) else { return ExitCode::FAILURE };
    let printer = runtime.spawn(async move {
        while let Some(report) = reports.recv().await {
            let bytes = minicbor::to_vec(&report).unwrap_or_default();
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{}", hex(&bytes));
            let _ = out.flush();
        }
    });
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        let done = match words.as_slice() {
            ["desired", set, details] => {
                let set: Option<Desired> = minicbor::decode(&unhex(set)).ok();
                let details: Option<Vec<(AssignmentId, Assignment)>> =
                    minicbor::decode(&unhex(details)).ok();
                let (Some(set), Some(details)) = (set, details) else { return ExitCode::FAILURE };
                runtime.block_on(handle.desired(set, details)).is_ok()
            }
            ["lease", ahead_ms] => {
                let ahead_ms: u64 = ahead_ms.parse().unwrap_or(0);
                let at_ms = yard_agent::boot_ms() + ahead_ms;
                let lease = Lease {
                    id: LeaseId(1),
                    strict_ms: at_ms,
                    fenced_ms: at_ms,
                    tolerant_ms: at_ms,
                    maintenance_ms: 0,
                };
                runtime.block_on(handle.lease(lease)).is_ok()
            }
            ["acknowledged", up_to] => {
                let up_to = Sequence(up_to.parse().unwrap_or(0));
                runtime.block_on(handle.acknowledged(up_to)).is_ok()
            }
            _ => false,
        };
        if !done {
            return ExitCode::FAILURE;
        }
    }
    let ended = runtime.block_on(handle.shutdown()).is_ok();
    let _ = runtime.block_on(printer);
    if ended { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(text.get(at..at + 2).unwrap_or("0"), 16);
    (0..text.len()).step_by(2).map(|at| digit(at).unwrap_or(0)).collect()
}
