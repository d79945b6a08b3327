//! Why a task waits, one reason at a time.

use crate::text;
use yard_common::gpu::GPU_PARTS;
use yard_proto::v1;
use yard_proto::v1::constraint::What;

/// What people read of a constraint. Numbers of machines and places in a queue are put into words
/// here; of the rest the server's words are taken.
pub(super) fn text(constraint: &v1::Constraint) -> String {
    match &constraint.what {
        Some(What::Nodes(numbers)) if !numbers.groups.is_empty() => {
            let groups: Vec<String> = numbers.groups.iter().map(group).collect();
            groups.join("\n")
        }
        Some(What::Position(position)) => match position.ahead {
            0 => format!("it is the next one in queue {}", position.queue),
            1 => format!("1 job is ahead of it in queue {}", position.queue),
            ahead => format!("{ahead} jobs are ahead of it in queue {}", position.queue),
        },
        _ if !constraint.text.is_empty() => constraint.text.clone(),
        Some(What::Held(reason)) => format!("held: {reason}"),
        Some(What::Suspended(reason)) => format!("suspended: {reason}"),
        Some(What::QueueClosed(queue)) => format!("the queue {queue} starts nothing"),
        Some(other) => format!("{other:?}"),
        None => "something that this version does not know".into(),
    }
}

/// What a group wants, how many machines could give it, and why the others could not.
fn group(group: &v1::GroupNumbers) -> String {
    let wanted = amounts(&group.amounts.unwrap_or_default());
    let gpus = match (group.gpu_parts, group.mig_profile.as_str()) {
        (0, _) => String::new(),
        (parts, "") => format!(", {} GPUs", text::gpus(parts)),
        (parts, profile) => format!(", {} of {profile}", parts / u64::from(GPU_PARTS)),
    };
    let mut out = format!(
        "{}: it wants {} with {wanted}{gpus}{}\n{} of {} could ever give that, {} can now",
        group.name,
        nodes(group.wanted),
        if group.wanted == 1 { "" } else { " each" },
        group.ever,
        nodes(group.nodes),
        group.free
    );
    if let Some(together) = group.together {
        out.push_str(&format!(", {together} of them together"));
    }
    let unfit = group.unfit.iter();
    let unfit: Vec<String> = unfit.map(|one| format!("{} {}", one.nodes, unfit_of(one))).collect();
    if !unfit.is_empty() {
        out.push_str(&format!("\nthe others: {}", unfit.join(", ")));
    }
    if let Some(free) = &group.most_free {
        let gpus = match group.gpu_parts {
            0 => String::new(),
            _ => format!(", {} GPUs", group.most_free_gpus),
        };
        // Of machines that could ever run it; if there are none, of those that are too small.
        let which = if group.ever > 0 { "one of those" } else { "any one" };
        out.push_str(&format!("\nat most {}{gpus} are free on {which}", amounts(free)));
    }
    out
}

fn nodes(count: u32) -> String {
    if count == 1 { "1 node".into() } else { format!("{count} nodes") }
}

fn amounts(amounts: &v1::ResourceAmounts) -> String {
    let unit = if amounts.cpu_milli == 1_000 { "CPU" } else { "CPUs" };
    let disk = match amounts.disk_bytes {
        0 => String::new(),
        disk => format!(", {} disk", text::bytes(disk)),
    };
    let memory = text::bytes(amounts.memory_bytes);
    format!("{} {unit}, {memory} memory{disk}", text::cpus(amounts.cpu_milli))
}

fn unfit_of(count: &v1::UnfitCount) -> &'static str {
    match count.why() {
        v1::Unfit::Unspecified => "for a reason that this version does not know",
        v1::Unfit::Pool => "in another pool",
        v1::Unfit::Excluded => "excluded by the job",
        v1::Unfit::NotNamed => "not named by the job",
        v1::Unfit::Label => "without its label",
        v1::Unfit::GpuKind => "with other GPUs",
        v1::Unfit::CpusEver => "with too few CPUs",
        v1::Unfit::MemoryEver => "with too little memory",
        v1::Unfit::DiskEver => "with too little disk",
        v1::Unfit::GpusEver => "with too few GPUs",
        v1::Unfit::NotUp => "not up",
        v1::Unfit::Cordoned => "cordoned",
        v1::Unfit::Unwell => "not well",
        v1::Unfit::Setup => "where the setup of the pool is not done",
        v1::Unfit::Maintenance => "in maintenance",
        v1::Unfit::Draining => "drained",
        v1::Unfit::PlannedDrain => "to be drained before it could end",
        v1::Unfit::NotIdle => "not idle",
        v1::Unfit::Full => "with as many assignments as a node may have",
        v1::Unfit::Cpus => "with too few CPUs free",
        v1::Unfit::Memory => "with too little memory free",
        v1::Unfit::Disk => "with too little disk free",
        v1::Unfit::Gpus => "with too few GPUs free",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(what: What) -> String {
        text(&v1::Constraint { what: Some(what), text: "the server's words".into() })
    }

    #[test]
    fn numbers_of_machines_are_put_into_words() {
        let unfit = |why: v1::Unfit, nodes| v1::UnfitCount { why: why.into(), nodes };
        let amounts = |cpu_milli, memory_bytes| {
            Some(v1::ResourceAmounts { cpu_milli, memory_bytes, disk_bytes: 0 })
        };
        let mut group = v1::GroupNumbers {
            name: "main".into(),
            wanted: 2,
            amounts: amounts(6_000, 24_683_656 << 10),
            nodes: 3,
            ever: 0,
            unfit: vec![unfit(v1::Unfit::CpusEver, 2), unfit(v1::Unfit::Draining, 1)],
            most_free: amounts(4_000, 8 << 30),
            ..v1::GroupNumbers::default()
        };
        let numbers = |group: &v1::GroupNumbers| {
            told(What::Nodes(v1::GroupNumbersList { groups: vec![group.clone()] }))
        };
        assert_eq!(
            numbers(&group),
            "main: it wants 2 nodes with 6 CPUs, 23.5GiB memory each\n0 of 3 nodes could ever \
             give that, 0 can now\nthe others: 2 with too few CPUs, 1 drained\nat most 4 CPUs, \
             8GiB memory are free on any one"
        );
        group.most_free = None;
        assert!(numbers(&group).ends_with("2 with too few CPUs, 1 drained"));
        (group.wanted, group.ever, group.gpu_parts) = (1, 2, 8 * u64::from(GPU_PARTS));
        (group.most_free, group.most_free_gpus) = (amounts(1_000, 1 << 30), 3);
        let text = numbers(&group);
        assert!(text.starts_with("main: it wants 1 node with 6 CPUs, 23.5GiB memory, 8 GPUs\n"));
        let end = "\nat most 1 CPU, 1GiB memory, 3 GPUs are free on one of those";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn a_place_in_a_queue_is_told_by_its_name() {
        let place = |ahead| told(What::Position(v1::QueuePosition { queue: "gpu".into(), ahead }));
        assert_eq!(place(0), "it is the next one in queue gpu");
        assert_eq!(place(1), "1 job is ahead of it in queue gpu");
        assert_eq!(place(7), "7 jobs are ahead of it in queue gpu");
    }

    #[test]
    fn of_the_rest_the_words_of_the_server_are_taken() {
        assert_eq!(told(What::Held("x".into())), "the server's words");
        let bare = |what| text(&v1::Constraint { what, text: String::new() });
        assert_eq!(bare(Some(What::Held("maintenance".into()))), "held: maintenance");
        assert_eq!(bare(None), "something that this version does not know");
    }
}
