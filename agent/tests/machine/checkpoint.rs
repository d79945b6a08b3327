//! A checkpoint is asked for before the time limit passes.

use crate::world::{Node, assignment, id, output, wanted};
use yard_agent::logs::{Kind, Writer};
use yard_common::ExitCause;
use yard_common::id::{AttemptNumber, TaskRange};
use yard_core::agent::{Chain, ChainLink, DesiredPhase};

/// Waits for the file, says what is in it, and takes it away or does not.
const WAITS: &str = "until [ -e $YARD_CHECKPOINT_REQUEST ]; do sleep 0.01; done; \
                     cat $YARD_CHECKPOINT_REQUEST; stat -c %a $YARD_CHECKPOINT_REQUEST; \
                     [ $YARD_TASK_INDEX = 0 ] || rm $YARD_CHECKPOINT_REQUEST; \
                     echo $YARD_CHECKPOINT_DIR";

#[tokio::test]
async fn each_task_of_a_chain_is_asked_before_its_limit() {
    let mut node = Node::start().await;
    let yaml = format!("command: {WAITS}\ncheckpoint: {{ dir: /c, notice: 1m }}");
    let mut detail = assignment(&yaml);
    detail.time_limit_ms = Some(60_050);
    let chain =
        Chain(vec![ChainLink { tasks: TaskRange::between(0, 2), attempt: AttemptNumber(1) }]);
    node.desire(vec![wanted(1, chain, DesiredPhase::Run)], vec![(id(1), detail)]).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    assert_eq!(node.heard.causes(id(1)), [ExitCause::Exited(0); 2]);
    for task in 0..2 {
        // What the one before it left was no request to this one.
        let out = output(node.root.path(), task, Writer::Rank(0), Kind::Out);
        assert_eq!(out, "time limit\n600\n/c\n");
    }
}
