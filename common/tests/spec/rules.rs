//! One mistake at a time: which problem, and of which field.

use crate::{bad, good};
use std::collections::BTreeSet;
use yard_common::ErrorCode::{self, *};

/// Files with one mistake: text, code, field.
const MISTAKES: &[(&str, ErrorCode, &str)] = &[
    ("", FieldMissing, "command"),
    ("command:", FieldMissing, "command"),
    ("command: none", FieldMissing, "command"),
    ("roles: []", FieldMissing, "command"),
    ("command: ''", OutOfRange, "command"),
    ("command: []", OutOfRange, "command"),
    ("command: {a: b}", WrongType, "command"),
    ("{command: a, version: 2}", OutOfRange, "version"),
    ("[a]", WrongType, ""),
    ("command: [a", Syntax, "command[1]"),
    ("{\"command\": \"a\",}", Syntax, ""),
    ("{command: a, $schem: x}", UnknownField, "$schem"),
    ("{command: a, resources: {x-note: 1}}", UnknownField, "resources.x-note"),
    ("{command: a, nodes: 1, nodes: 2}", DuplicateKey, "nodes"),
    ("{command: a, nodes: }", WrongType, "nodes"),
    ("{command: a, nodes: 0}", OutOfRange, "nodes"),
    ("{command: a, nodes: 10001}", OutOfRange, "nodes"),
    ("{command: a, nodes: 10000, spares: 1}", OutOfRange, "spares"),
    ("{command: a, ranks_per_node: 1025}", OutOfRange, "ranks_per_node"),
    ("{command: a, nodes: [1]}", WrongType, "nodes"),
    ("{command: a, resources: 8}", WrongType, "resources"),
    ("{command: a, resources: {memory: 0}}", OutOfRange, "resources.memory"),
    ("{command: a, resources: {gpus: 1.5}}", OutOfRange, "resources.gpus"),
    ("{command: a, resources: {gpus: 0.0}}", OutOfRange, "resources.gpus"),
    ("{command: a, resources: {gpus: 129}}", OutOfRange, "resources.gpus"),
    ("{command: a, resources: {gpus: {model: [h100]}}}", FieldMissing, "resources.gpus"),
    ("{command: a, resources: {gpus: 1, mig: 1g.10gb}}", Conflict, "resources.mig"),
    ("{command: a, resources: {gpus: H100:8}}", BadName, "resources.gpus"),
    ("{command: a, nodes: 2, resources: {gpus: 0.5}}", Conflict, "resources"),
    (
        "{command: a, resources: {cpus: 1}, any_of: [{nodes: 2, resources: {gpus: 0.5}}]}",
        Conflict,
        "any_of",
    ),
    ("{command: a, any_of: [{nodes: 2}]}", FieldMissing, "any_of"),
    ("{any_of: [{nodes: 2}], roles: [{name: a, command: a}]}", Conflict, "any_of"),
    ("{nodes: 2, roles: [{name: a, command: a}]}", Conflict, "nodes"),
    ("{roles: [{name: a, command: a}, {name: a, command: b}]}", Conflict, "roles"),
    ("{roles: [{name: a, command: a, nodes: 1..2}]}", Conflict, "roles"),
    ("{roles: [{name: a, command: a, resources: {gpus: 0.5}}]}", Conflict, "roles"),
    ("{roles: [{name: a}]}", FieldMissing, "roles[0].command"),
    ("{roles: [{command: a}]}", FieldMissing, "roles[0].name"),
    ("{roles: [{name: a, command: ['${X}']}]}", BadPlaceholder, "roles[0].command[0]"),
    ("{command: [a], args: ['${YARD_PARAM_LR}']}", BadPlaceholder, "args[0]"),
    ("{command: [a], prepare: ['${YARD_RANK']}", BadPlaceholder, "prepare[0]"),
    ("{command: [a, '${YARD_RANK}'], launch: mpi}", BadPlaceholder, "command[1]"),
    ("{command: [a], args: ['${YARD_LOCAL_RANK}'], launch: mpi}", BadPlaceholder, "args[0]"),
    (
        "{launch: mpi, roles: [{name: a, command: ['${YARD_RANK}']}]}",
        BadPlaceholder,
        "roles[0].command[0]",
    ),
    ("{command: [a], prepare: ['${YARD_RANK}']}", BadPlaceholder, "prepare[0]"),
    ("{command: [a, '${YARD_CODE_DIR}']}", BadPlaceholder, "command[1]"),
    ("{command: [a, '${YARD_RESUME_FROM}']}", BadPlaceholder, "command[1]"),
    ("{command: a, regrow_after: 5m}", Conflict, "regrow_after"),
    ("{command: a, nodes: 2..3, place: {only_nodes: [x]}}", Conflict, "place"),
    ("{command: a, place: {only_nodes: [x], exclude_nodes: [x]}}", Conflict, "place.exclude_nodes"),
    ("{command: a, launch_options: {mpi: openmpi}}", Conflict, "launch_options"),
    ("{command: a, launch: custom, ranks_per_node: 2}", Conflict, "ranks_per_node"),
    ("{command: [a], shell: [/bin/sh, -c]}", Conflict, "shell"),
    ("{command: a, shell: [sh, -c]}", BadPath, "shell"),
    ("{command: a, array: 0-1, sweep: {a: 0..1}}", Conflict, "sweep"),
    ("{command: a, array: {max_running: 1}}", FieldMissing, "array"),
    ("{command: a, array: {each: []}}", OutOfRange, "array.each"),
    ("{command: a, array: {each: {lr: 1}}}", WrongType, "array.each"),
    ("{command: a, array: {each: [lr]}}", WrongType, "array.each[0]"),
    ("{command: a, array: {each: [{}]}}", FieldMissing, "array.each[0]"),
    ("{command: a, array: {each: [{a: 1}, {a: [1]}]}}", WrongType, "array.each[1].a"),
    ("{command: a, array: {each: [{a: null}]}}", WrongType, "array.each[0].a"),
    ("{command: a, array: {each: [{a-b: 1}]}}", BadName, "array.each[0].a-b"),
    ("{command: a, array: {each: [{a: 1, A: 2}]}}", Conflict, "array.each[0]"),
    ("{command: a, array: {each: [{a: 1}, {b: 1}]}}", Conflict, "array.each[1]"),
    ("{command: a, array: {each: [{a: 1}], indices: 0-1}}", OutOfRange, "array.indices"),
    ("{command: [a, '${YARD_PARAM_B}'], array: {each: [{a: 1}]}}", BadPlaceholder, "command[1]"),
    ("{command: a, array: 1:30}", AmbiguousScalar, "array"),
    ("{command: a, sweep: {}}", FieldMissing, "sweep"),
    ("{command: a, sweep: {lr: []}}", OutOfRange, "sweep.lr"),
    ("{command: a, sweep: {lr: 3}}", WrongType, "sweep.lr"),
    ("{command: a, sweep: {lr: 0..1, LR: 0..1}}", Conflict, "sweep"),
    ("{command: a, array: none, after: {each: [3]}}", Conflict, "after"),
    ("{command: a, after: {ok: [3], any: [3]}}", Conflict, "after"),
    ("{command: a, after: {ok: 3}}", WrongType, "after.ok"),
    ("{command: a, after: {ok: [-1]}}", OutOfRange, "after.ok[0]"),
    ("{command: a, env: {A: b}, secrets: {A: s}}", Conflict, "secrets"),
    ("{command: a, env: {A: }}", WrongType, "env.A"),
    ("{command: a, env: {A: \"\\0\"}}", UnknownValue, "env.A"),
    ("{command: a, env: {AZ_BATCHAI_X: b}}", ReservedName, "env.AZ_BATCHAI_X"),
    ("{command: a, inherit_env: [all, HOME, YARD_X]}", ReservedName, "inherit_env[2]"),
    ("{command: a, inputs: {a: /a, A: /b}}", Conflict, "inputs"),
    ("{command: a, outputs: {a: {path: p, under: u}}}", Conflict, "outputs.a"),
    ("{command: a, workdir: src}", BadPath, "workdir"),
    ("{command: a, mounts: [{name: a, nfs: 's:/x', path: /a}]}", Conflict, "mounts[0]"),
    ("{command: a, mounts: [{nfs: 'server', path: /a}]}", BadPath, "mounts[0].nfs"),
    ("{command: a, mounts: [{nfs: '-x:/a', path: /a}]}", BadPath, "mounts[0].nfs"),
    (
        "{command: a, mounts: [{nfs: 's:/x', path: /a, options: {suid: 1}}]}",
        UnknownField,
        "mounts[0].options.suid",
    ),
    ("{command: a, mounts: [{name: a, path: /}]}", BadPath, "mounts[0].path"),
    ("{command: a, mounts: [{name: a, path: //etc/./x}]}", BadPath, "mounts[0].path"),
    (
        "{command: a, mounts: [{name: a, path: /a/}, {name: b, path: /a-b}, {name: c, path: /a}]}",
        Conflict,
        "mounts[2].path",
    ),
    ("{command: a, time_limit: 0s}", OutOfRange, "time_limit"),
    ("{command: a, time_limit: 3 fortnights}", BadUnit, "time_limit"),
    ("{command: a, time_limit: 1m, checkpoint: {dir: /c}}", Conflict, "checkpoint"),
    ("{command: a, checkpoint: {}}", FieldMissing, "checkpoint.dir"),
    ("{command: a, isolation: {lease: 0s}}", OutOfRange, "isolation.lease"),
    ("{command: a, retry: {on: {exited: {75: 10001}}}}", OutOfRange, "retry.on.exited.75"),
    (
        "{command: a, retry: {on: {exited: {1: 1,\
          2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1, 9: 1}}}}",
        OutOfRange,
        "retry.on",
    ),
    ("{command: a, image: 'a b'}", BadName, "image.ref"),
    ("{command: a, image: {ref: a, shm_size: 0}}", OutOfRange, "image.shm_size"),
    ("{command: a, labels: {A: b}}", BadName, "labels.A"),
    ("{command: a, umask: \"9\"}", OutOfRange, "umask"),
    ("{command: a, a: [[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]}", FileTooLarge, ""),
];

#[test]
fn each_mistake_is_one_problem_of_its_field() {
    for (text, code, field) in MISTAKES {
        let problems = bad(text);
        let found: Vec<_> = problems.iter().map(|p| (p.code, p.field.as_str())).collect();
        if *code == FileTooLarge {
            assert_eq!(found[0].0, FileTooLarge, "{text}");
        } else {
            assert_eq!(found, [(*code, *field)], "{text}\n{problems:#?}");
        }
        assert!(problems.iter().all(|p| !p.fix.is_empty() && !p.message.is_empty()), "{text}");
    }
}

#[test]
fn every_code_of_job_files_is_tested() {
    let tested: BTreeSet<ErrorCode> = MISTAKES.iter().map(|(_, code, _)| *code).collect();
    for code in ErrorCode::ALL.iter().filter(|code| code.number() < 2000) {
        // Features have a test of their own, in features.rs.
        assert!(tested.contains(code) || *code == NotInThisVersion, "{code}");
    }
}

#[test]
fn a_mistake_does_not_make_others() {
    // The bad command is not also a missing one, the bad input not also an unknown placeholder.
    for text in [
        "command: [a, [b]]",
        "{command: [a, '${YARD_INPUT_X}'], inputs: {x: '/a/../b'}}",
        "{command: a, launch: torc, launch_options: {port: 2000}}",
        "{command: ['${YARD_RANK}'], launch: mpl}",
        "{command: ['${YARD_CODE_DIR}'], code: ~/src}",
        "{command: ['${YARD_RESUME_FROM}'], checkpoint: {dir: c}}",
        "{command: a, sweep: {a: [1], b: {}}, args: []}",
        "{roles: [{name: a, command: a}, {name: B, command: a}]}",
        "{command: a, nodes: x, any_of: [{nodes: 2}]}",
        "{command: a, workdir: src, code: ~}",
        "{command: a, workdir: src, code: ~/src}",
    ] {
        assert_eq!(bad(text).len(), 1, "{text}: {:#?}", bad(text));
    }
}

#[test]
fn forms_of_one_value_are_one_job() {
    for forms in [
        &["resources: {gpus: 'h100:8'}", "resources: {gpus: {count: 8, model: [h100]}}"][..],
        &["resources: {gpus: 0.50}", "resources: {gpus: {count: '0.5'}}"],
        &["priority: high", "priority: 500"],
        &["time_limit: 90m", "time_limit: 1h30m", "time_limit: PT1.5H", "time_limit: '01:30:00'"],
        &["array: 0-9%2", "array: {indices: 0-9, max_running: 2}", "array: '5-9,0-4%2'"],
        &["isolation: strict", "isolation: {class: strict}"],
        &["image: a:1", "image: {ref: 'a:1', pull: missing}"],
        &["outputs: [a, b]", "outputs: {a: {}, b: }"],
        &["secrets: {A: s}", "secrets: {A: {secret: s, as: env}}"],
        &["stop: {signal: SIGINT}", "stop: {signal: int}", "stop: {signal: INT, grace: 30s}"],
        &["stall: {warn: none}", "stall: {warn: null}", "stall: {warn: ~}"],
        &["not_before: 2027-01-31T08:00:00Z", "not_before: 2027-01-31T10:00:00+02:00"],
        &["retry: none", "retry: {infra: 0, preempted: 0}"],
        &["retry: {on: {exited: {75: 5}}}", "retry: {\"on\": {exited: {\"75\": 5}}}"],
        &["mounts: ", "mounts: []", ""],
        &["sweep: {a: 0..1}", "sweep: {a: 0..1}\narray: none"],
        &["array: 0-1", "array: 0-1\nsweep: null"],
    ] {
        let job = |form: &str| good(&format!("command: a\n{form}\n"));
        for form in forms {
            assert_eq!(job(form), job(forms[0]), "{form}");
        }
    }
}
