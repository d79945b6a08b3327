//! What attempts held is billed, whatever ended them.

mod support;

use support::*;
use yard_common::id::TaskRange;
use yard_core::command::*;

#[test]
fn a_machine_that_booted_anew_is_billed_until_then() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &["h100"]);
    let job = lab.submit(with_gpus(1));
    let share = ShareChoice { node, group: 0, gpus: devices([0]) };
    let placement = Placement { job, tasks: vec![TaskRange::one(0)], shares: vec![share] };
    let allocation = lab.try_place(placement).unwrap();
    lab.start(node, allocation, 1);
    lab.wait(10_000);
    let inventory = inventory("a", 4, &["h100"], 2);
    lab.ok(Actor::Node(node), Command::Node(NodeCommand::Update { node, inventory }));
    let rows = lab.state.usage.iter();
    let (held, lost) = rows.fold((0, 0), |(held, lost), (_, row)| {
        (held + row.gpu_part_ms.get(), lost + row.gpu_part_ms_lost.get())
    });
    assert_eq!((held, lost), (100_000_000, 100_000_000));
}
