//! How ranks are started: launcher, command, environment, image, limits.

use super::declare::{record, words};
use super::json::Json;
use super::problem::Issue;
use super::scalar::{Count, Limit};
use super::text::{EnvName, ImageRef, Interface, Name, Text, Word};
use super::tree::{Node, Value};
use super::walk::{Detail, MapView, Part, Walk, long_form};
use crate::{Bytes, ErrorCode};

words! {
    /// What starts the ranks and tells them of each other.
    pub enum Launch("the name of a launcher") {
        /// Nothing but the environment of every rank.
        Plain = "plain",
        /// An MPI launcher.
        Mpi = "mpi",
        /// One process per GPU with PyTorch's variables.
        Torch = "torch",
        /// PyTorch's own launcher, one per node.
        Torchrun = "torchrun",
        /// `TF_CONFIG`.
        Tensorflow = "tensorflow",
        /// JAX's coordinator variables.
        Jax = "jax",
        /// Horovod.
        Horovod = "horovod",
        /// DeepSpeed.
        Deepspeed = "deepspeed",
        /// ChainerMN over MPI.
        Chainer = "chainer",
        /// CNTK over MPI.
        Cntk = "cntk",
        /// Caffe.
        Caffe = "caffe",
        /// Caffe2.
        Caffe2 = "caffe2",
        /// A Ray cluster.
        Ray = "ray",
        /// Once, on the first node; the command starts the rest itself.
        Custom = "custom",
    }
}

words! {
    /// A kind of MPI.
    pub enum MpiKind("a kind of MPI") {
        /// Open MPI.
        Openmpi = "openmpi",
        /// MPICH and its relatives.
        Mpich = "mpich",
        /// Intel MPI.
        Intel = "intel",
    }
}

words! {
    /// What a rank is bound to.
    pub enum Bind("what ranks are bound to") {
        /// Nothing.
        None = "unbound",
        /// Cores.
        Core = "core",
        /// A socket.
        Socket = "socket",
        /// A NUMA domain.
        Numa = "numa",
    }
}

words! {
    /// How ranks speak to each other.
    pub enum Backend("a communication backend") {
        /// NCCL.
        Nccl = "nccl",
        /// Gloo.
        Gloo = "gloo",
        /// MPI.
        Mpi = "mpi",
        /// TCP.
        Tcp = "tcp",
    }
}

record! {
    /// Options of launchers; each is for some launchers only.
    pub struct LaunchOptions {
        /// Which MPI the image or the node has; none: found out on the node.
        mpi: Option<MpiKind> = None,
        /// What a rank is bound to; none: as the launcher does by itself.
        bind: Option<Bind> = None,
        /// The network interface to speak over; none: found out on the node.
        interface: Option<Interface> = None,
        /// The backend that the script is told of.
        backend: Option<Backend> = None,
        /// The port of the first rank; none: a free one.
        port: Option<Count<1_024, 65_535>> = None,
    }
}

impl LaunchOptions {
    /// None.
    pub const NONE: LaunchOptions =
        LaunchOptions { mpi: None, bind: None, interface: None, backend: None, port: None };

    /// The options that are set, by name.
    pub(crate) fn set(&self) -> Vec<&'static str> {
        let set = [
            ("mpi", self.mpi.is_some()),
            ("bind", self.bind.is_some()),
            ("interface", self.interface.is_some()),
            ("backend", self.backend.is_some()),
            ("port", self.port.is_some()),
        ];
        set.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
    }
}

impl Launch {
    /// The options that the launcher knows.
    #[must_use]
    pub fn options(self) -> &'static [&'static str] {
        match self {
            Launch::Mpi | Launch::Horovod | Launch::Chainer | Launch::Cntk => {
                &["mpi", "bind", "interface"]
            }
            Launch::Torch | Launch::Torchrun | Launch::Deepspeed => {
                &["interface", "backend", "port"]
            }
            Launch::Caffe2 => &["interface", "backend"],
            Launch::Tensorflow | Launch::Jax | Launch::Ray => &["interface", "port"],
            Launch::Plain | Launch::Caffe | Launch::Custom => &[],
        }
    }

    /// Whether one rank per GPU is started when the job does not say how many.
    #[must_use]
    pub fn is_per_gpu(self) -> bool {
        match self {
            Launch::Torch
            | Launch::Horovod
            | Launch::Deepspeed
            | Launch::Chainer
            | Launch::Mpi
            | Launch::Cntk => true,
            Launch::Plain
            | Launch::Torchrun
            | Launch::Tensorflow
            | Launch::Jax
            | Launch::Caffe
            | Launch::Caffe2
            | Launch::Ray
            | Launch::Custom => false,
        }
    }
}

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A line for the job's shell, untouched.
    Shell(Word),
    /// A program and its words, without a shell. [`super::placeholder`]s are replaced.
    Exec(Vec<Text>),
}

impl Part for Command {
    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<Command> {
        match &node.value {
            Value::Scalar(..) => Word::read(node, walk).map(Command::Shell),
            Value::List(items) if items.is_empty() => {
                let issue =
                    Issue::new(ErrorCode::OutOfRange, "the list is empty", "name a program");
                walk.refuse(node, issue);
                None
            }
            Value::List(_) => Vec::read(node, walk).map(Command::Exec),
            Value::Map(_) => {
                let fix = "write a line for the shell, or a list of words";
                walk.refuse(node, super::walk::wrong_type(node, "a command", fix));
                None
            }
        }
    }

    fn write(&self, detail: Detail) -> Json {
        match self {
            Command::Shell(line) => line.write(detail),
            Command::Exec(words) => words.write(detail),
        }
    }
}

/// The shell of commands that are a line.
pub(crate) fn default_shell() -> Vec<Word> {
    vec![Word::constant("/bin/bash"), Word::constant("-c")]
}

/// Variables of the submitter's shell that are passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InheritEnv {
    /// These.
    Names(Vec<EnvName>),
    /// Every one.
    All,
}

impl Part for InheritEnv {
    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<InheritEnv> {
        if let Value::List(items) = &node.value {
            let is_all = |item: &Node| matches!(&item.value, Value::Scalar(t, _) if t == "all");
            if items.len() == 1 && is_all(&items[0]) {
                return Some(InheritEnv::All);
            }
        }
        Vec::read(node, walk).map(InheritEnv::Names)
    }

    fn write(&self, detail: Detail) -> Json {
        match self {
            InheritEnv::Names(names) => names.write(detail),
            InheritEnv::All => Json::List(vec![Json::Text("all".into())]),
        }
    }
}

words! {
    /// How a secret reaches the ranks.
    pub enum SecretAs("env or file") {
        /// As the variable's value.
        Env = "env",
        /// In a file in memory; the variable holds its path.
        File = "file",
    }
}

record! {
    /// A secret of the workspace, by name; its value is never part of a job.
    pub struct SecretRef short "secret" {
        /// The secret's name.
        secret: Name,
        /// How it reaches the ranks.
        delivery as "as": SecretAs = SecretAs::Env,
    }
}

record! {
    /// Limits of each rank's process.
    pub struct Limits {
        /// Open files.
        nofile: Limit<Count<64, { u32::MAX }>> = Limit::Max,
        /// Locked memory.
        memlock: Limit<Bytes> = Limit::Max,
        /// Core files.
        core: Limit<Bytes> = Limit::At(Bytes(0)),
        /// Stack; none: as the node has it.
        stack: Option<Limit<Bytes>> = None,
        /// Processes and threads of the attempt on a node; none: as the node has it.
        pids: Option<Limit<Count<16, { u32::MAX }>>> = None,
    }
}

impl Limits {
    /// As high as the node allows, and no core files.
    pub const DEFAULT: Limits = Limits {
        nofile: Limit::Max,
        memlock: Limit::Max,
        core: Limit::At(Bytes(0)),
        stack: None,
        pids: None,
    };
}

words! {
    /// When an image is fetched.
    pub enum Pull("missing, always or never") {
        /// When the node does not have it.
        Missing = "missing",
        /// For every attempt.
        Always = "always",
        /// Never: the node must have it.
        Never = "never",
    }
}

record! {
    /// A container image.
    pub struct Image short "ref" check check_image {
        /// The reference.
        reference as "ref": ImageRef,
        /// The secret that logs in to the registry.
        login: Option<Name> = None,
        /// Size of `/dev/shm`; none: as the job's memory.
        shm_size: Option<Bytes> = None,
        /// When it is fetched.
        pull: Pull = Pull::Missing,
    }
}

fn check_image(value: &Image, map: &MapView<'_>, walk: &mut Walk<'_>) {
    if value.shm_size == Some(Bytes(0)) {
        let issue = Issue::new(ErrorCode::OutOfRange, "no shared memory at all", "write some");
        walk.within("shm_size", |walk| walk.report(map.at, "0".into(), issue));
    }
}
