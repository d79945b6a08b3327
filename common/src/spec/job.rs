//! The job spec: every field, with its name and default, in the order in which it is written.

use super::array::{Array, Sweep};
use super::declare::record;
use super::gang::{Alternative, Nodes, Place, RanksPerNode, Resources, Role};
use super::json::Json;
use super::policy::{After, Checkpoint, Isolation, Notify, Priority, Stall, Stop};
use super::retry::Retry;
use super::rules::check_job;
use super::run::{
    Command, Image, InheritEnv, Launch, LaunchOptions, Limits, SecretRef, default_shell,
};
use super::scalar::{Auto, Count};
use super::storage::{Input, Logs, Mount, Outputs};
use super::text::Word;
use super::text::{AnyPath, EnvName, Ident, LabelKey, LabelValue, LocalPath, Name, Text, Umask};
use super::time::{DurationMs, NotBefore};
use super::tree::Node;
use super::walk::{Detail, Part, Walk};
use crate::limits::GANG_NODES_MAX;
use std::collections::BTreeMap;

/// The default of `regrow_after`.
pub(crate) const REGROW_AFTER: DurationMs = DurationMs::minutes(10);

record! {
    /// The fields of a job. Plain data: only a [`super::JobSpec`] is known to be valid.
    pub struct JobFields manual check check_job {
        /// The version of the format.
        version: Count<1, 1> = Count::LEAST,
        /// The job's name; set in every valid spec.
        name: Option<Name> = None,
        /// The tenancy boundary that it belongs to.
        workspace: Name = Name::of_default(),
        /// A group of jobs, created on first use.
        experiment: Option<Name> = None,
        /// Labels of the user's choice.
        labels: BTreeMap<LabelKey, LabelValue> = BTreeMap::new(),
        /// Where it waits.
        queue: Name = Name::of_default(),
        /// Where it runs; none: any pool that the queue allows.
        pool: Option<Name> = None,
        /// Its order in the queue; capped by the queue.
        priority: Priority = Priority::NORMAL,
        /// Of each attempt; none: the queue's default, else none.
        time_limit: Option<DurationMs> = None,
        /// When it may start at the earliest.
        not_before: Option<NotBefore> = None,
        /// Jobs that must end first.
        after: After = After::NONE,
        /// Whether it waits until it is released.
        hold: bool = false,
        /// Whether it gives way to others; none: as the queue has it.
        preemptible: Option<bool> = None,
        /// Different machines.
        nodes: Nodes = Nodes::ONE,
        /// Ranks on each of them. Auto: see [`Launch::is_per_gpu`].
        ranks_per_node: RanksPerNode = Auto::Auto,
        /// What each node gives.
        resources: Resources = Resources::defaults(),
        /// Whether nobody else runs on its machines.
        exclusive: bool = false,
        /// Which nodes will do.
        place: Place = Place::anywhere(),
        /// Further nodes, held ready for a failure.
        spares: Count<0, GANG_NODES_MAX> = Count::LEAST,
        /// How long an elastic gang waits for a replacement before it goes on smaller.
        regrow_after: DurationMs = REGROW_AFTER,
        /// Further choices of shape, in order, after the one of `nodes` and `resources`.
        any_of: Vec<Alternative> = Vec::new(),
        /// What starts the ranks.
        launch: Launch = Launch::Plain,
        /// Options of the launcher.
        launch_options: LaunchOptions = LaunchOptions::NONE,
        /// What each rank runs; set unless there are roles.
        command: Option<Command> = None,
        /// Words appended to the command.
        args: Vec<Text> = Vec::new(),
        /// The shell of commands that are a line.
        shell: Vec<Word> = default_shell(),
        /// Groups of different kind, in place of nodes, ranks, resources and command.
        roles: Vec<Role> = Vec::new(),
        /// Run once on each node before the ranks.
        prepare: Option<Command> = None,
        /// How long the gang may take to get ready.
        prepare_timeout: DurationMs = DurationMs::minutes(15),
        /// Whether nodes are checked before the start.
        preflight: bool = false,
        /// The directory to ship; none: nothing.
        code: Option<LocalPath> = None,
        /// Where ranks start; none: the code's root, else the directory of submission.
        workdir: Option<AnyPath> = None,
        /// Variables of every rank.
        env: BTreeMap<EnvName, Text> = BTreeMap::new(),
        /// Variables of the submitter's shell that are passed on.
        inherit_env: InheritEnv = InheritEnv::Names(Vec::new()),
        /// Secrets by variable.
        secrets: BTreeMap<EnvName, SecretRef> = BTreeMap::new(),
        /// The mode that is taken away from new files.
        umask: Umask = Umask::DEFAULT,
        /// Limits of each process.
        limits: Limits = Limits::DEFAULT,
        /// A container image; none: the node itself.
        image: Option<Image> = None,
        /// Volumes.
        mounts: Vec<Mount> = Vec::new(),
        /// Input directories by id.
        inputs: BTreeMap<Ident, Input> = BTreeMap::new(),
        /// Output directories by id.
        outputs: Outputs = Outputs::default(),
        /// Output of the ranks.
        logs: Logs = Logs::DEFAULT,
        /// Checkpoints; none: the job has none that the cluster should know of.
        checkpoint: Option<Checkpoint> = None,
        /// How attempts are kept apart.
        isolation: Isolation = Isolation::DEFAULT,
        /// How often it is tried again.
        retry: Retry = Retry::defaults(),
        /// How ranks are stopped.
        stop: Stop = Stop::DEFAULT,
        /// What happens when ranks write nothing.
        stall: Stall = Stall::DEFAULT,
        /// A task for each index.
        array: Option<Array> = None,
        /// A task for each combination of parameters.
        sweep: Option<Sweep> = None,
        /// Webhooks that are told of events.
        notify: Vec<Notify> = Vec::new(),
    }
}
