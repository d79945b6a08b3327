//! What this version can run. A field whose feature is not there is read, checked, and refused:
//! never ignored.

use super::json::Json;

/// Declares the features: a name in the plural, and the fields that need it. A field with a word
/// (`launch=mpi`) needs it for that word only.
macro_rules! features {
    ($($(#[$doc:meta])* $variant:ident = $name:literal [$($field:literal),*];)*) => {
        /// Something that a job can ask for beyond a plain command on fixed nodes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Feature {
            $($(#[$doc])* $variant,)*
        }

        impl Feature {
            /// Every feature.
            pub const ALL: &[Feature] = &[$(Feature::$variant),*];

            /// What it is called in a message.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Feature::$variant => $name,)* }
            }

            /// The feature of this name.
            #[must_use]
            pub fn find(name: &str) -> Option<Feature> {
                Feature::ALL.iter().copied().find(|feature| feature.name() == name)
            }

            /// The fields that need it.
            fn fields(self) -> &'static [&'static str] {
                match self { $(Feature::$variant => &[$($field),*],)* }
            }
        }
    };
}

features! {
    /// Several tasks in one job.
    Arrays = "arrays" ["array"];
    /// Arrays over the product of parameters.
    Sweeps = "sweeps" ["sweep"];
    /// Jobs that wait for others.
    Dependencies = "dependencies" ["after"];
    /// Jobs that wait for a time.
    StartTimes = "start times" ["not_before"];
    /// Jobs that give way to others.
    Preemption = "preemptible jobs" ["preemptible"];
    /// Gangs whose size may change.
    Elastic = "elastic jobs" ["regrow_after"];
    /// Gangs of several groups.
    Roles = "roles" ["roles"];
    /// Nodes held ready for a failure.
    Spares = "spare nodes" ["spares"];
    /// Alternatives of shape.
    Alternatives = "alternatives" ["any_of"];
    /// Shares of one GPU.
    GpuShares = "shares of a GPU" [];
    /// MIG instances.
    Mig = "MIG instances" ["resources.mig"];
    /// Rank-wise visibility and indices of GPUs.
    GpuViews = "other views of GPUs" ["resources.gpus.visible", "resources.gpus.ids"];
    /// Constraints by topology.
    Topology = "topology constraints" ["place.within", "place.prefer"];
    /// Checks of the nodes before the start.
    Preflight = "preflight checks" ["preflight"];
    /// A command before the ranks.
    Prepare = "prepare commands" ["prepare"];
    /// PyTorch's variables for ranks of ours.
    LaunchTorch = "PyTorch launchers" ["launch=torch"];
    /// PyTorch's own launcher.
    LaunchTorchrun = "torchrun launchers" ["launch=torchrun"];
    /// MPI.
    LaunchMpi = "MPI launchers" ["launch=mpi"];
    /// What runs on MPI, and has settings of its own.
    LaunchOverMpi = "Horovod, Chainer and CNTK launchers"
        ["launch=horovod", "launch=chainer", "launch=cntk"];
    /// Another MPI than Open MPI.
    MpiKinds = "other kinds of MPI" ["launch_options.mpi=mpich", "launch_options.mpi=intel"];
    /// TensorFlow.
    LaunchTensorflow = "TensorFlow launchers" ["launch=tensorflow"];
    /// JAX.
    LaunchJax = "JAX launchers" ["launch=jax"];
    /// DeepSpeed.
    LaunchDeepspeed = "DeepSpeed launchers" ["launch=deepspeed"];
    /// Caffe and Caffe2.
    LaunchCaffe = "Caffe launchers" ["launch=caffe", "launch=caffe2"];
    /// Ray.
    LaunchRay = "Ray launchers" ["launch=ray"];
    /// One process that starts the rest itself.
    LaunchCustom = "custom launchers" ["launch=custom"];
    /// The submitter's directory on the nodes.
    Code = "shipped directories" ["code"];
    /// Variables of the submitter's shell.
    InheritEnv = "inherited variables" ["inherit_env"];
    /// Secrets of the cluster.
    Secrets = "secrets" ["secrets", "image.login"];
    /// Containers.
    Images = "container images" ["image"];
    /// Volumes.
    Mounts = "mounts" ["mounts"];
    /// Named input directories.
    Inputs = "inputs" ["inputs"];
    /// Named output directories.
    Outputs = "outputs" ["outputs"];
    /// Logs in a place of the user's.
    LogDirs = "log directories" ["logs.dir"];
    /// How much output is kept, and for how long.
    LogLimits = "limits of logs" ["logs.max_per_rank", "logs.keep"];
    /// Checkpoints that are published, asked for again and again, or waited for at a stop.
    Checkpoints = "published and periodic checkpoints"
        ["checkpoint.mode=published", "checkpoint.every", "checkpoint.max_grace"];
    /// Isolation beyond the default.
    StrictIsolation = "strict leases" ["isolation.class=strict", "isolation.lease"];
    /// Jobs that are neither moved nor killed.
    TolerantIsolation = "tolerant leases" ["isolation.class=tolerant"];
    /// Watching for silence.
    Stalls = "stall limits" ["stall.warn", "stall.kill"];
    /// Messages to webhooks.
    Notifications = "notifications" ["notify"];
}

const _: () = assert!(Feature::ALL.len() <= 64, "a set of features is one word");

/// A set of features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// None: what a plain job needs is always there.
    pub const NONE: Features = Features(0);

    /// All of them.
    #[must_use]
    pub fn all() -> Features {
        Feature::ALL.iter().fold(Features::NONE, |set, feature| set.with(*feature))
    }

    /// The set and one more.
    #[must_use]
    pub fn with(self, feature: Feature) -> Features {
        Features(self.0 | 1 << feature as u32)
    }

    /// The set without one.
    #[must_use]
    pub fn without(self, feature: Feature) -> Features {
        Features(self.0 & !(1 << feature as u32))
    }

    /// Whether the feature is in the set.
    #[must_use]
    pub fn has(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u32) != 0
    }

    /// Those that are in the set.
    pub fn list(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.iter().copied().filter(move |feature| self.has(*feature))
    }

    /// The features that a field with this value needs. `path` is without positions.
    pub(crate) fn of_field(path: &str, value: impl Fn() -> Json) -> Vec<Feature> {
        let path = ["roles.", "any_of."].iter().find_map(|p| path.strip_prefix(p)).unwrap_or(path);
        let needs = |entry: &str| match entry.split_once('=') {
            // Whoever wants nothing of it needs no feature.
            None => entry == path && value() != Json::Null,
            Some((field, word)) => field == path && value() == Json::Text(word.into()),
        };
        let needs_any = |feature: &Feature| feature.fields().iter().any(|entry| needs(entry));
        Feature::ALL.iter().copied().filter(needs_any).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_was_put_in() {
        let set = Features::NONE.with(Feature::Mig);
        assert!(set.has(Feature::Mig) && !set.has(Feature::Arrays));
        assert_eq!(set.without(Feature::Mig), Features::NONE);
        assert!(Feature::ALL.iter().all(|feature| Features::all().has(*feature)));
        assert_eq!(set.list().collect::<Vec<_>>(), [Feature::Mig]);
        let named = |feature: &Feature| Feature::find(feature.name()) == Some(*feature);
        assert!(Feature::ALL.iter().all(named), "no name is there twice");
        assert_eq!(Feature::find("time travel"), None);
    }

    #[test]
    fn fields_need_features_by_path_and_word() {
        let word = |word: &str| Json::Text(word.into());
        let of = |path: &str, value: &str| Features::of_field(path, || word(value));
        assert_eq!(of("launch", "mpi"), [Feature::LaunchMpi]);
        assert_eq!(of("launch", "plain"), []);
        assert_eq!(of("roles.resources.mig", "1g.10gb:1"), [Feature::Mig]);
    }
}
