//! Features that a version may lack: their fields are checked and refused, never ignored.

use crate::good;
use yard_common::ErrorCode;
use yard_common::spec::{Draft, Feature, Features};

/// A job that needs the feature, the field that is refused, and no other feature.
fn job(feature: Feature) -> (&'static str, &'static str) {
    match feature {
        Feature::Arrays => ("array: 0-9", "array"),
        Feature::Sweeps => ("sweep: {a: 0..1}", "sweep"),
        Feature::Dependencies => ("after: {ok: [1]}", "after"),
        Feature::StartTimes => ("not_before: +2h", "not_before"),
        Feature::Preemption => ("preemptible: true", "preemptible"),
        Feature::Elastic => ("nodes: 1..2", "nodes"),
        Feature::Roles => ("roles: [{name: a, command: a}]", "roles"),
        Feature::Spares => ("spares: 1", "spares"),
        Feature::Alternatives => ("nodes: 2\nany_of: [{}]", "any_of"),
        Feature::GpuShares => ("resources: {gpus: 0.5}", "resources.gpus"),
        Feature::Mig => ("resources: {mig: 1g.10gb}", "resources.mig"),
        Feature::GpuViews => ("resources: {gpus: {count: 1, ids: index}}", "resources.gpus.ids"),
        Feature::Topology => ("place: {within: rack}", "place.within"),
        Feature::Preflight => ("preflight: true", "preflight"),
        Feature::Prepare => ("prepare: a", "prepare"),
        Feature::LaunchTorch => ("launch: torch", "launch"),
        Feature::LaunchTorchrun => ("launch: torchrun", "launch"),
        Feature::LaunchMpi => ("launch: mpi", "launch"),
        Feature::LaunchOverMpi => ("launch: horovod", "launch"),
        Feature::LaunchTensorflow => ("launch: tensorflow", "launch"),
        Feature::LaunchJax => ("launch: jax", "launch"),
        Feature::LaunchDeepspeed => ("launch: deepspeed", "launch"),
        Feature::LaunchCaffe => ("launch: caffe2", "launch"),
        Feature::LaunchRay => ("launch: ray", "launch"),
        Feature::LaunchCustom => ("launch: custom", "launch"),
        Feature::Code => ("code: .", "code"),
        Feature::InheritEnv => ("inherit_env: [all]", "inherit_env"),
        Feature::Secrets => ("secrets: {A: s}", "secrets"),
        Feature::Images => ("image: a", "image"),
        Feature::Mounts => ("mounts: [{name: a, path: /a}]", "mounts"),
        Feature::Inputs => ("inputs: {a: /a}", "inputs"),
        Feature::Outputs => ("outputs: [a]", "outputs"),
        Feature::LogDirs => ("logs: {dir: /a}", "logs.dir"),
        Feature::Checkpoints => ("checkpoint: {dir: /a, every: 1h}", "checkpoint.every"),
        Feature::StrictIsolation => ("isolation: strict", "isolation.class"),
        Feature::TolerantIsolation => ("isolation: {class: tolerant}", "isolation.class"),
        Feature::MpiKinds => ("launch: mpi\nlaunch_options: {mpi: mpich}", "launch_options.mpi"),
        Feature::LogLimits => ("logs: {keep: 1d}", "logs.keep"),
        Feature::Stalls => ("stall: {kill: 1h}", "stall.kill"),
        Feature::Notifications => ("notify: [{on: [ended], webhook: a}]", "notify"),
    }
}

/// The feature that it builds on.
fn base(feature: Feature) -> Features {
    match feature {
        Feature::MpiKinds => Features::NONE.with(Feature::LaunchMpi),
        _ => Features::NONE,
    }
}

fn text(feature: Feature) -> String {
    let command = if feature == Feature::Roles { "" } else { "command: a\n" };
    format!("{command}{}\n", job(feature).0)
}

#[test]
fn a_field_without_its_feature_is_refused() {
    for feature in Feature::ALL.iter().copied() {
        let text = text(feature);
        let draft = Draft::read(text.as_bytes(), None);
        let problems = draft.validate(&Features::all().without(feature)).unwrap_err();
        let found: Vec<_> =
            problems.list().iter().map(|problem| (problem.code, problem.field.as_str())).collect();
        assert_eq!(found, [(ErrorCode::NotInThisVersion, job(feature).1)], "{problems}");
        assert!(draft.validate(&base(feature).with(feature)).is_ok(), "{text}");
    }
}

#[test]
fn a_field_without_its_feature_is_checked_nevertheless() {
    let draft = Draft::read(b"command: a\nmounts: [{name: A, path: /a}]", None);
    let problems = draft.validate(&Features::NONE).unwrap_err();
    let codes: Vec<_> = problems.list().iter().map(|problem| problem.code).collect();
    assert!(codes.contains(&ErrorCode::BadName), "{problems}");
}

#[test]
fn the_default_of_a_field_needs_no_feature() {
    let text = std::fs::read(crate::directory().join("defaults.yaml")).unwrap();
    let spec = Draft::read(&text, None).validate(&Features::NONE).unwrap();
    assert_eq!(spec, good("command: python3 train.py"));
}

#[test]
fn a_placeholder_without_its_feature_is_refused() {
    for name in ["YARD_MOUNT_ROOT", "YARD_JOB_MOUNT_ROOT", "YARD_SHARED_TEMP"] {
        let text = format!("command: [a, '${{{name}}}/x']");
        let draft = Draft::read(text.as_bytes(), None);
        let problems = draft.validate(&Features::all().without(Feature::Mounts)).unwrap_err();
        let found: Vec<_> = problems.list().iter().map(|p| (p.code, p.field.as_str())).collect();
        assert_eq!(found, [(ErrorCode::NotInThisVersion, "command[1]")], "{problems}");
        assert!(draft.validate(&Features::all()).is_ok(), "{name}");
    }
    // A shell asks nobody, and may have a default of its own.
    assert!(
        Draft::read(b"command: a ${YARD_MOUNT_ROOT:-/x}", None).validate(&Features::NONE).is_ok()
    );
}

#[test]
fn what_would_have_no_effect_needs_a_feature_as_well() {
    let launched = Features::NONE.with(Feature::LaunchMpi);
    for (text, refused) in [
        ("stall: {warn: 1h}", true),
        ("logs: {max_per_rank: 1MiB}", true),
        ("launch: mpi\nlaunch_options: {mpi: intel}", true),
        // These ask for what happens anyway.
        ("stall: {warn: none}", false),
        ("stall: {warn: 10m}", false),
        ("logs: {max_per_rank: 1GiB, keep: 14d}", false),
        ("launch: mpi\nlaunch_options: {mpi: openmpi}", false),
    ] {
        let text = format!("command: a\n{text}");
        let problems = Draft::read(text.as_bytes(), None).validate(&launched).err();
        let codes = problems.iter().flat_map(|p| p.list()).map(|problem| problem.code);
        let expected = refused.then_some(ErrorCode::NotInThisVersion);
        assert_eq!(codes.collect::<Vec<_>>(), Vec::from_iter(expected), "{text}");
    }
}
