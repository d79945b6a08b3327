//! What a job asks for: nodes, ranks, the resources of each node, and where.

use super::declare::{record, words};
use super::feature::Feature;
use super::json::Json;
use super::problem::Issue;
use super::run::Command;
use super::scalar::{Auto, Count, parse_integer};
use super::text::{LabelKey, LabelValue, Model, Name, NodeName};
use super::tree::{Node, Value};
use super::walk::{Detail, MapView, Part, Scalar, Walk};
use crate::gpu::{GPU_PARTS, GpuCount, GpuRequest, MigProfile};
use crate::limits::{
    GANG_NODES_MAX, GPU_MODELS_MAX, GROUPS_MAX, NODE_DEVICES_MAX, RANKS_PER_NODE_MAX,
};
use crate::{Bytes, Cpus, ErrorCode};
use std::collections::BTreeMap;

/// How many different machines: a number, or a range for an elastic gang.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nodes {
    min: u32,
    max: u32,
}

impl Nodes {
    /// One machine.
    pub const ONE: Nodes = Nodes { min: 1, max: 1 };

    /// The range, if it is legal.
    #[must_use]
    pub fn between(min: u32, max: u32) -> Option<Nodes> {
        (1 <= min && min <= max && max <= GANG_NODES_MAX).then_some(Nodes { min, max })
    }

    /// The least that the gang runs with.
    #[must_use]
    pub fn min(self) -> u32 {
        self.min
    }

    /// The most that the gang uses.
    #[must_use]
    pub fn max(self) -> u32 {
        self.max
    }

    /// Whether the size may change.
    #[must_use]
    pub fn is_elastic(self) -> bool {
        self.min < self.max
    }
}

impl Scalar for Nodes {
    const WHAT: &'static str = "a number of nodes such as 4, or 4..16";

    fn parse(text: &str) -> Result<Nodes, Issue> {
        let one = |text: &str| parse_integer(text.trim(), 1, GANG_NODES_MAX.into());
        let (min, max) = match text.split_once("..") {
            Some((min, max)) => (one(min)?, one(max)?),
            None => one(text).map(|n| (n, n))?,
        };
        if min > max {
            let fix = format!("write {max}..{min}");
            let issue = Issue::new(ErrorCode::OutOfRange, "the range ends before it starts", fix);
            return Err(issue.nearest(Some(format!("{max}..{min}"))));
        }
        Ok(Nodes { min: min as u32, max: max as u32 })
    }

    fn print(&self) -> Json {
        if self.is_elastic() {
            Json::Text(format!("{}..{}", self.min, self.max))
        } else {
            Json::Int(self.min.into())
        }
    }

    fn feature(&self) -> Option<Feature> {
        self.is_elastic().then_some(Feature::Elastic)
    }
}

/// Ranks on each node.
pub type RanksPerNode = Auto<Count<1, RANKS_PER_NODE_MAX>>;

record! {
    /// What each node of a group gives to the attempt; its ranks there share it.
    pub struct Resources check check_resources {
        /// CPUs. Auto: with GPUs, the same share of the pool's smallest node as the GPUs are;
        /// else 1 per rank.
        cpus: Auto<Cpus> = Auto::Auto,
        /// Memory. Auto: as the CPUs.
        memory: Auto<Bytes> = Auto::Auto,
        /// GPUs, whole or a share of one.
        gpus: Gpus = Gpus::NONE,
        /// MIG instances instead of GPUs.
        mig: Option<Mig> = None,
        /// Scratch and logs; none: bounded by the node only.
        disk: Option<Bytes> = None,
    }
}

impl Resources {
    /// What a group without a word about resources gets.
    #[must_use]
    pub fn defaults() -> Resources {
        Resources { cpus: Auto::Auto, memory: Auto::Auto, gpus: Gpus::NONE, mig: None, disk: None }
    }

    /// GPUs and MIG instances as the scheduler asks for them.
    #[must_use]
    pub fn gpu_request(&self) -> GpuRequest {
        GpuRequest {
            count: self.mig.map_or(self.gpus.count, |mig| GpuCount::Mig(mig.profile, mig.count)),
            models: self.gpus.model.iter().map(|model| model.as_str().to_string()).collect(),
            memory_min: self.gpus.memory,
        }
    }
}

fn check_resources(value: &Resources, map: &MapView<'_>, walk: &mut Walk<'_>) {
    let gpus = map.get("gpus").map_or(map.at, |node| &node.at);
    if value.mig.is_some() && value.gpus.count != GpuCount::None {
        let issue = Issue::new(
            ErrorCode::Conflict,
            "a node of the job gives either GPUs or MIG instances",
            "keep resources.gpus or resources.mig",
        );
        walk.within("mig", |walk| walk.report(gpus, String::new(), issue));
    }
    let constrained = !value.gpus.model.is_empty() || value.gpus.memory != Bytes(0);
    if constrained && value.mig.is_none() && value.gpus.count == GpuCount::None {
        let issue = Issue::new(
            ErrorCode::FieldMissing,
            "the GPUs have a model or a memory, but no count",
            "add the count: {count: 8, model: [h100]}",
        );
        walk.within("gpus", |walk| walk.report(gpus, String::new(), issue));
    }
    if value.memory == Auto::Fixed(Bytes(0)) {
        let issue = Issue::new(ErrorCode::OutOfRange, "a rank needs memory", "write some, or auto");
        walk.within("memory", |walk| walk.report(map.at, "0".into(), issue));
    }
}

words! {
    /// Which GPUs a rank sees.
    pub enum Visible("node or rank") {
        /// All of the attempt's GPUs on the node, in one order; the local rank indexes them.
        Node = "node",
        /// Its own only.
        Rank = "rank",
    }
}

words! {
    /// How GPUs are named to a rank.
    pub enum GpuIds("uuid or index") {
        /// By UUID.
        Uuid = "uuid",
        /// By position, for libraries that parse integers.
        Index = "index",
    }
}

record! {
    /// GPUs of one node. Short forms: `8`, `h100:8`, `[h100:8, h200:8]`, `0.5`.
    pub struct Gpus manual {
        /// How many devices, or which share of one.
        count: GpuCount = GpuCount::None,
        /// Models that will do, in order of preference; empty: any.
        model: Vec<Model> = Vec::new(),
        /// Memory that each device has at least.
        memory: Bytes = Bytes(0),
        /// Which of them a rank sees.
        visible: Visible = Visible::Node,
        /// How they are named to a rank.
        ids: GpuIds = GpuIds::Uuid,
    }
}

impl Gpus {
    /// No GPUs.
    pub const NONE: Gpus = Gpus {
        count: GpuCount::None,
        model: Vec::new(),
        memory: Bytes(0),
        visible: Visible::Node,
        ids: GpuIds::Uuid,
    };

    fn of(count: GpuCount, model: Vec<Model>) -> Gpus {
        Gpus { count, model, ..Gpus::NONE }
    }

    /// Reads `h100:8` or a count.
    fn parse_short(text: &str) -> Result<(Option<Model>, GpuCount), Issue> {
        match text.split_once(':') {
            Some((model, count)) => Ok((Some(Model::parse(model)?), GpuCount::parse(count)?)),
            None => Ok((None, GpuCount::parse(text)?)),
        }
    }

    /// Reads `[h100:8, h200:8]`: one count, several models.
    fn read_list(node: &Node, walk: &mut Walk<'_>) -> Option<Gpus> {
        let (mut models, mut count) = (Vec::new(), None);
        for item in walk.items(node, GPU_MODELS_MAX)? {
            let text = walk.text(item, "a model and a count such as h100:8")?;
            let (model, this) = walk.settle(item, Gpus::parse_short(text))?;
            if count.is_some_and(|count| count != this) {
                let fix = "use any_of for alternatives with different counts";
                let issue = Issue::new(ErrorCode::Conflict, "the counts differ", fix);
                walk.refuse(item, issue);
            }
            count = count.or(Some(this));
            models.extend(model);
        }
        Some(Gpus::of(count.unwrap_or(GpuCount::None), models))
    }
}

impl Part for Gpus {
    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<Gpus> {
        let gpus = match &node.value {
            Value::Map(_) => Gpus::read_record(node, walk),
            Value::List(_) => Gpus::read_list(node, walk),
            Value::Scalar(..) => {
                let text = walk.text(node, "a number of GPUs such as 8 or h100:8")?;
                let (model, count) = walk.settle(node, Gpus::parse_short(text))?;
                Some(Gpus::of(count, model.into_iter().collect()))
            }
        }?;
        if matches!(gpus.count, GpuCount::Part(_)) && !matches!(node.value, Value::Map(_)) {
            walk.require(Feature::GpuShares, &node.at);
        }
        Some(gpus)
    }

    fn write(&self, detail: Detail) -> Json {
        let short = *self == Gpus::of(self.count, Vec::new());
        if short { self.count.print() } else { self.write_record(detail) }
    }
}

impl Scalar for GpuCount {
    const WHAT: &'static str = "a number of GPUs such as 8 or 0.5";

    /// Whole devices, or a share of one below 1.
    fn parse(text: &str) -> Result<GpuCount, Issue> {
        let Some(fraction) = text.strip_prefix("0.") else {
            if text.contains('.') {
                let message = "only a share of one GPU may be fractional";
                let fix = "write a whole number, or less than 1";
                return Err(Issue::new(ErrorCode::OutOfRange, message, fix));
            }
            let count = parse_integer(text, 0, NODE_DEVICES_MAX as i64)? as u16;
            return Ok(if count == 0 { GpuCount::None } else { GpuCount::Whole(count) });
        };
        let digits = fraction.trim_end_matches('0');
        let legal = (1..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        let parts = format!("{digits:0<4}").parse::<u16>().ok();
        match parts.filter(|parts| legal && (1..GPU_PARTS).contains(parts)) {
            Some(parts) => Ok(GpuCount::Part(parts)),
            None => {
                let message = "a share of a GPU is from 0.0001 to 0.9999";
                Err(Issue::new(ErrorCode::OutOfRange, message, "write for instance 0.5"))
            }
        }
    }

    fn print(&self) -> Json {
        match self {
            GpuCount::None => Json::Int(0),
            GpuCount::Whole(count) => Json::Int((*count).into()),
            GpuCount::Part(parts) => {
                let digits = format!("{parts:04}");
                Json::Text(format!("0.{}", digits.trim_end_matches('0')))
            }
            GpuCount::Mig(profile, count) => Json::Text(format!("{profile}:{count}")),
        }
    }

    fn feature(&self) -> Option<Feature> {
        matches!(self, GpuCount::Part(_)).then_some(Feature::GpuShares)
    }
}

/// MIG instances of one profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mig {
    /// The profile.
    pub profile: MigProfile,
    /// How many, at least 1.
    pub count: u16,
}

impl Scalar for Mig {
    const WHAT: &'static str = "MIG instances such as 1g.10gb:2";

    /// `1g.10gb:2`; one without a count.
    fn parse(text: &str) -> Result<Mig, Issue> {
        let (profile, count) = text.split_once(':').unwrap_or((text, "1"));
        let count = parse_integer(count, 1, NODE_DEVICES_MAX as i64)? as u16;
        let profile = profile.parse().map_err(|()| {
            let message = "this is no MIG profile";
            let fix = "write it as `nvidia-smi mig -lgip` shows it, in lower case: 1g.10gb";
            Issue::new(ErrorCode::UnknownValue, message, fix)
        })?;
        Ok(Mig { profile, count })
    }

    fn print(&self) -> Json {
        Json::Text(format!("{}:{}", self.profile, self.count))
    }
}

record! {
    /// Which nodes will do.
    pub struct Place check check_place {
        /// Labels that a node must have.
        labels: BTreeMap<LabelKey, LabelValue> = BTreeMap::new(),
        /// Nodes that are never used.
        exclude_nodes: Vec<NodeName> = Vec::new(),
        /// The only nodes that are used; empty: any.
        only_nodes: Vec<NodeName> = Vec::new(),
        /// A level of the topology that the whole gang must fit into: `rack`.
        within: Option<Name> = None,
        /// A level of the topology that the gang should fit into.
        prefer: Option<Name> = None,
    }
}

impl Place {
    /// Anywhere.
    #[must_use]
    pub fn anywhere() -> Place {
        Place {
            labels: BTreeMap::new(),
            exclude_nodes: Vec::new(),
            only_nodes: Vec::new(),
            within: None,
            prefer: None,
        }
    }
}

fn check_place(value: &Place, map: &MapView<'_>, walk: &mut Walk<'_>) {
    let at = map.get("exclude_nodes").map_or(map.at, |node| &node.at);
    let only: std::collections::BTreeSet<_> = value.only_nodes.iter().collect();
    if let Some(both) = value.exclude_nodes.iter().find(|node| only.contains(node)) {
        let message = "this node is also in place.only_nodes";
        let issue = Issue::new(ErrorCode::Conflict, message, "name it in one of the two");
        walk.within("exclude_nodes", |walk| walk.report(at, both.to_string(), issue));
    }
}

record! {
    /// An alternative shape of the job.
    pub struct Alternative manual {
        /// Different machines.
        nodes: Nodes = Nodes::ONE,
        /// What each of them gives.
        resources: Resources = Resources::defaults(),
    }
}

impl Part for Alternative {
    const LIST_MAX: usize = GROUPS_MAX;

    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<Alternative> {
        Alternative::read_record(node, walk)
    }

    fn write(&self, detail: Detail) -> Json {
        self.write_record(detail)
    }
}

record! {
    /// One group of a gang of several.
    pub struct Role manual {
        /// The group's name: `ps`.
        name: Name,
        /// Different machines.
        nodes: Nodes = Nodes::ONE,
        /// Ranks on each of them.
        ranks_per_node: RanksPerNode = Auto::Auto,
        /// What each of them gives.
        resources: Resources = Resources::defaults(),
        /// What its ranks run.
        command: Command,
    }
}

impl Part for Role {
    const LIST_MAX: usize = GROUPS_MAX;

    fn read(node: &Node, walk: &mut Walk<'_>) -> Option<Role> {
        Role::read_record(node, walk)
    }

    fn write(&self, detail: Detail) -> Json {
        self.write_record(detail)
    }
}
