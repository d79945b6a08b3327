//! Rules between the fields of a job: what excludes what, and what needs what.
//!
//! A rule judges values, never whether a field is written out: else a job would not be the same
//! after its defaults were left out. It never fires because a field has a problem of its own.

use super::feature::Feature;
use super::gang::{Nodes, Resources};
use super::job::{JobFields, REGROW_AFTER};
use super::placeholder::{
    INPUT_PREFIX, OUTPUT_PREFIX, PARAM_PREFIX, Piece, check as check_placeholders, pieces,
};
use super::policy::not_zero;
use super::problem::Issue;
use super::run::{Command, Launch, default_shell};
use super::scalar::Auto;
use super::storage::{is_below, normal};
use super::text::{Ident, Text};
use super::tree::{At, Node, Value};
use super::walk::{MapView, Walk};
use crate::ErrorCode;
use crate::gpu::GpuCount;
use crate::limits::GANG_NODES_MAX;

/// A rule's view of the job.
struct Rules<'r, 'w, 'n> {
    job: &'r JobFields,
    map: &'r MapView<'n>,
    walk: &'r mut Walk<'w>,
}

pub(crate) fn check_job(job: &JobFields, map: &MapView<'_>, walk: &mut Walk<'_>) {
    let mut rules = Rules { job, map, walk };
    rules.something_to_run();
    rules.one_shape();
    rules.gang();
    rules.shares();
    rules.launcher();
    rules.words();
    rules.tasks();
    rules.environment();
    rules.paths();
    rules.mounts();
    rules.times();
}

impl<'n> Rules<'_, '_, 'n> {
    /// The place of a field of the top.
    fn at(&self, key: &str) -> &'n At {
        self.map.get(key).map_or(self.map.at, |node| &node.at)
    }

    /// Reports a conflict at a field of the top.
    fn conflict(&mut self, key: &str, message: impl Into<String>, fix: impl Into<String>) {
        self.report(key, Issue::new(ErrorCode::Conflict, message, fix));
    }

    fn report(&mut self, key: &str, issue: Issue) {
        let (at, value) = (self.at(key), self.map.get(key).map_or(String::new(), Node::shown));
        self.walk.within(key, |walk| walk.report(at, value, issue));
    }

    /// Whether the field was read as it stands: a default that stands in for a bad value proves
    /// nothing.
    fn is_clean(&self, key: &str) -> bool {
        self.walk.problems.list().iter().all(|problem| {
            let inner = problem.field.strip_prefix(key);
            !inner.is_some_and(|inner| inner.is_empty() || inner.starts_with(['.', '[']))
        })
    }

    fn something_to_run(&mut self) {
        let nothing = self.job.command.is_none() && self.job.roles.is_empty();
        if nothing && self.is_clean("command") && self.is_clean("roles") {
            let fix = "add command: python3 train.py";
            let issue = Issue::new(ErrorCode::FieldMissing, "the job has nothing to run", fix);
            self.report("command", issue);
        }
    }

    /// Roles take the place of other fields; alternatives add to them.
    fn one_shape(&mut self) {
        let job = self.job;
        let shape = [
            ("nodes", job.nodes != Nodes::ONE),
            ("resources", job.resources != Resources::defaults()),
            ("ranks_per_node", job.ranks_per_node != Auto::Auto),
            ("command", job.command.is_some()),
            ("any_of", !job.any_of.is_empty()),
        ];
        for (key, _) in shape.into_iter().filter(|(_, set)| *set && !job.roles.is_empty()) {
            let fix = format!("put {key} into the roles, or drop them");
            self.conflict(key, format!("roles take the place of {key}"), fix);
        }
        // Else the job would start with the defaults: one node and no GPU.
        let first = shape[..2].iter().any(|(key, set)| *set || !self.is_clean(key));
        if !job.any_of.is_empty() && job.roles.is_empty() && !first {
            let message = "any_of has further choices, and there is no first one";
            let fix = "write nodes and resources of the first choice at the top";
            let issue = Issue::new(ErrorCode::FieldMissing, message, fix);
            self.report("any_of", issue);
        }
        let mut names: Vec<&str> = self.job.roles.iter().map(|role| role.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let message = format!("two roles are called {}", pair[0]);
            self.conflict("roles", message, "give each its own name");
        }
    }

    fn gang(&mut self) {
        let job = self.job;
        if job.roles.iter().any(|role| role.nodes.is_elastic()) {
            let fix = "write a fixed number of nodes in every role";
            self.conflict("roles", "a gang of several roles cannot change its size", fix);
        }
        let nodes: u64 = job.roles.iter().map(|role| u64::from(role.nodes.max())).sum();
        let shapes = || std::iter::once(job.nodes).chain(job.any_of.iter().map(|a| a.nodes));
        let most = shapes().map(Nodes::max).max().map_or(0, u64::from).max(nodes);
        let total = most + u64::from(job.spares.get());
        if total > GANG_NODES_MAX.into() {
            let message =
                format!("{total} nodes with spares, at most {GANG_NODES_MAX} are allowed");
            let key = if nodes > 0 { "roles" } else { "spares" };
            self.report(key, Issue::new(ErrorCode::OutOfRange, message, "ask for fewer"));
        }
        let elastic =
            job.nodes.is_elastic() || job.any_of.iter().any(|shape| shape.nodes.is_elastic());
        if job.regrow_after != REGROW_AFTER && !elastic {
            let fix = "write nodes as a range such as 4..16, or leave regrow_after out";
            self.conflict("regrow_after", "only an elastic job grows again", fix);
        }
        let only = job.place.only_nodes.len() as u64;
        let least = shapes().map(Nodes::min).min().map_or(0, u64::from).max(nodes);
        if only > 0 && only < least {
            let message = format!("the job needs {least} nodes, and only {only} may be used");
            self.conflict("place", message, "name more nodes in only_nodes");
        }
    }

    /// A share of a GPU is of one device, for one machine and its processes.
    fn shares(&mut self) {
        let job = self.job;
        let shared = |resources: &Resources| matches!(resources.gpus.count, GpuCount::Part(_));
        let wrong = |nodes: Nodes, resources: &Resources| shared(resources) && nodes.max() > 1;
        let message = "a share of a GPU goes with one node";
        let fix = "write nodes: 1, or whole GPUs";
        if wrong(job.nodes, &job.resources) {
            self.conflict("resources", message, fix);
        }
        if job.any_of.iter().any(|shape| wrong(shape.nodes, &shape.resources)) {
            self.conflict("any_of", message, fix);
        }
        if job.roles.iter().any(|role| shared(&role.resources)) {
            let fix = "write whole GPUs in roles";
            self.conflict("roles", "a share of a GPU goes with a job of one node", fix);
        }
    }

    fn launcher(&mut self) {
        let job = self.job;
        let known = job.launch.options();
        for option in job.launch_options.set() {
            if known.contains(&option) {
                continue;
            }
            let message = format!("launch {} does not know the option {option}", job.launch);
            let fix = match known {
                [] => "leave launch_options out, or choose another launcher".to_string(),
                _ => format!("it knows {}", known.join(", ")),
            };
            if self.is_clean("launch") {
                self.conflict("launch_options", message, fix);
            }
        }
        if job.launch == Launch::Custom
            && job.ranks_per_node.fixed().is_some_and(|ranks| ranks.get() > 1)
        {
            let message = "launch custom starts the command once, on the first node";
            self.conflict("ranks_per_node", message, "leave ranks_per_node out, or use plain");
        }
    }

    /// Placeholders, and fields that only one form of a command has.
    fn words(&mut self) {
        let job = self.job;
        let declared = |name: &str| self.declares(name);
        let list = |command: &Command| match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(_) => Vec::new(),
        };
        let mut found: Vec<(&str, Option<usize>, Vec<Text>)> = Vec::new();
        for (key, command) in [("command", &job.command), ("prepare", &job.prepare)] {
            found.extend(command.iter().map(|command| (key, None, list(command))));
        }
        let roles = job.roles.iter().enumerate();
        found.extend(roles.map(|(index, role)| ("roles", Some(index), list(&role.command))));
        let replaces = |command: &Command| matches!(command, Command::Exec(_));
        if job.command.as_ref().is_some_and(replaces) {
            found.push(("args", None, job.args.clone()));
        }
        let mut bad = Vec::new();
        for (key, role, words) in found {
            for (index, word) in words.iter().enumerate() {
                let checked = check_placeholders(word.as_str(), &declared);
                if let Some(issue) = checked.err().or_else(|| self.no_value(key, word.as_str())) {
                    bad.push((key, role, index, issue));
                }
            }
        }
        for (key, role, index, issue) in bad {
            let list = match role {
                None => self.map.get(key),
                Some(role) => {
                    self.map.get(key).and_then(|n| n.item(role)).and_then(|n| n.get("command"))
                }
            };
            let item = list.and_then(|list| list.item(index)).or(list);
            let at = item.map_or(self.map.at, |node| &node.at);
            let value = item.map_or(String::new(), Node::shown);
            let field = match role {
                None => format!("{key}[{index}]"),
                Some(role) => format!("roles[{role}].command[{index}]"),
            };
            self.walk.within(&field, |walk| walk.report(at, value, issue));
        }
        if job.shell != default_shell() && job.command.as_ref().is_some_and(replaces) {
            let message = "a command that is a list runs without a shell";
            self.conflict("shell", message, "leave shell out, or write the command as a line");
        }
        match job.shell.first() {
            Some(shell) if shell.as_str().starts_with('/') => {}
            first => {
                let name = first.map_or("bash", |word| word.as_str());
                let fix = format!("write for instance [/bin/{name}, -c]");
                let message = "the shell's path must be absolute";
                self.report("shell", Issue::new(ErrorCode::BadPath, message, fix));
            }
        }
    }

    /// What is wrong with a word whose placeholder would become nothing, whatever happens.
    fn no_value(&self, key: &str, word: &str) -> Option<Issue> {
        pieces(word).find_map(|piece| match piece {
            Piece::Placeholder(name) => self.why_empty(key, name),
            Piece::Text(_) => None,
        })
    }

    fn why_empty(&self, key: &str, name: &str) -> Option<Issue> {
        let job = self.job;
        let bad = |why: &str, fix: &str| {
            let message = format!("{name} has no value here: {why}");
            Some(Issue::new(ErrorCode::BadPlaceholder, message, fix))
        };
        match name {
            "YARD_RANK" | "YARD_LOCAL_RANK" if key == "prepare" => {
                bad("prepare runs once on a node, for no rank", "use ${YARD_NODE_RANK}")
            }
            "YARD_RANK" | "YARD_LOCAL_RANK" if job.launch == Launch::Mpi => bad(
                "launch mpi has one command for all ranks",
                "write the command as a line, where the shell of each rank replaces it",
            ),
            "YARD_CODE_DIR" if job.code.is_none() && self.is_clean("code") => {
                bad("no code is shipped", "add code: .")
            }
            "YARD_CHECKPOINT_DIR" | "YARD_RESUME_FROM" | "YARD_CHECKPOINT_REQUEST"
                if job.checkpoint.is_none() && self.is_clean("checkpoint") =>
            {
                bad("the job has no checkpoints", "add checkpoint: { dir: /path }")
            }
            "YARD_MOUNT_ROOT" | "YARD_JOB_MOUNT_ROOT" | "YARD_SHARED_TEMP" => {
                self.walk.lack(Feature::Mounts, "leave it out")
            }
            _ => None,
        }
    }

    /// Whether the job sets a variable of a parameter, input or output. Judged by the file as it
    /// stands, so that a bad input is not also an unknown placeholder.
    fn declares(&self, name: &str) -> bool {
        let names = |key: &str, upper: &str| match self.map.get(key).map(|node| &node.value) {
            Some(Value::Map(entries)) => {
                entries.iter().any(|(key, _)| key.text.eq_ignore_ascii_case(upper))
            }
            Some(Value::List(items)) => items.iter().any(|item| match &item.value {
                Value::Scalar(text, _) => text.eq_ignore_ascii_case(upper),
                Value::List(_) | Value::Map(_) => false,
            }),
            Some(Value::Scalar(..)) | None => false,
        };
        let is_upper = !name.bytes().any(|b| b.is_ascii_lowercase());
        let declared = if let Some(param) = name.strip_prefix(PARAM_PREFIX) {
            let each = self.map.get("array").and_then(|array| array.get("each"));
            // A file may have any; all rows have the same.
            let in_rows = match each.map(|each| &each.value) {
                Some(Value::List(rows)) => rows.first().is_some_and(|row| has_key(row, param)),
                Some(Value::Scalar(..)) => true,
                Some(Value::Map(_)) | None => false,
            };
            in_rows || names("sweep", param)
        } else if let Some(input) = name.strip_prefix(INPUT_PREFIX) {
            names("inputs", input)
        } else {
            name.strip_prefix(OUTPUT_PREFIX).is_some_and(|output| names("outputs", output))
        };
        declared && is_upper
    }

    fn tasks(&mut self) {
        let job = self.job;
        if job.array.is_some() && job.sweep.is_some() {
            let fix = "keep one; array.each takes the parameters of each task from a file";
            self.conflict("sweep", "array and sweep exclude each other", fix);
        }
        let single = job.array.is_none() && job.sweep.is_none();
        let is_clean = self.is_clean("array") && self.is_clean("sweep");
        if !job.after.each.is_empty() && single && is_clean {
            let message = "after.each waits index by index, and this job has no array";
            self.conflict("after", message, "use after.ok, or add an array");
        }
    }

    fn environment(&mut self) {
        let job = self.job;
        if let Some(name) = job.secrets.keys().find(|name| job.env.contains_key(*name)) {
            let message = format!("env sets {name} as well");
            self.conflict("secrets", message, "set it in one of the two");
        }
        let same = |ids: &mut dyn Iterator<Item = &Ident>| {
            let mut upper: Vec<String> = ids.map(Ident::upper).collect();
            upper.sort_unstable();
            upper.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone())
        };
        let inputs = same(&mut job.inputs.keys());
        let outputs = same(&mut job.outputs.0.keys());
        for (key, id) in [("inputs", inputs), ("outputs", outputs)] {
            if let Some(id) = id {
                let message = format!("two ids are {id} in the name of a variable");
                self.conflict(key, message, "rename one");
            }
        }
    }

    fn paths(&mut self) {
        let Some(workdir) = &self.job.workdir else { return };
        let relative = !workdir.as_str().starts_with('/');
        if relative && self.job.code.is_none() && self.is_clean("code") {
            let issue = Issue::new(
                ErrorCode::BadPath,
                "the path must be absolute: no code is shipped that it could be relative to",
                "start it with /",
            );
            self.report("workdir", issue);
        }
    }

    fn mounts(&mut self) {
        let mounts = self.job.mounts.iter().enumerate();
        let mut paths: Vec<(String, usize)> =
            mounts.map(|(index, mount)| (normal(mount.path.as_str()), index)).collect();
        // Sorted by parts, a directory stands right before what lies below it.
        paths.sort_by(|a, b| a.0.split('/').cmp(b.0.split('/')));
        for pair in paths.windows(2) {
            if is_below(&pair[1].0, &pair[0].0) {
                let index = pair[1].1;
                let mount = self.map.get("mounts").and_then(|list| list.item(index));
                let at = mount.and_then(|mount| mount.get("path")).map_or(self.map.at, |n| &n.at);
                let message = format!("{} is a mount of this job as well", pair[0].0);
                let fix = "mount beside it, not at or below it";
                let issue = Issue::new(ErrorCode::Conflict, message, fix);
                let field = format!("mounts[{index}].path");
                self.walk.within(&field, |walk| walk.report(at, pair[1].0.clone(), issue));
            }
        }
    }

    fn times(&mut self) {
        let job = self.job;
        not_zero("time_limit", job.time_limit, self.map, self.walk);
        not_zero("prepare_timeout", Some(job.prepare_timeout), self.map, self.walk);
        let notice = job.checkpoint.as_ref().map(|checkpoint| checkpoint.notice);
        if let (Some(notice), Some(limit)) = (notice, job.time_limit)
            && notice >= limit
        {
            let message = format!(
                "a checkpoint would be asked for {notice} before the end, \
                that is at once: the time limit is {limit}"
            );
            self.conflict("checkpoint", message, "write a shorter checkpoint.notice");
        }
    }
}

/// Whether a mapping has a key, which is in upper case here.
fn has_key(node: &Node, upper: &str) -> bool {
    match &node.value {
        Value::Map(entries) => entries.iter().any(|(key, _)| key.text.eq_ignore_ascii_case(upper)),
        Value::Scalar(..) | Value::List(_) => false,
    }
}

impl Node {
    /// The item of a list.
    pub(crate) fn item(&self, index: usize) -> Option<&Node> {
        match &self.value {
            Value::List(items) => items.get(index),
            Value::Scalar(..) | Value::Map(_) => None,
        }
    }
}
