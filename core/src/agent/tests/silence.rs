//! Ranks that do nothing: told once, of the task that runs, across restarts of the agent.

use super::machine::Progress;
use super::script::*;
use super::world::World;
use crate::agent::*;
use crate::stall::News;
use yard_common::ExitCause;
use yard_common::limits::AGENT_OUTBOX_MAX;

fn hears(world: &mut World, position: u32, news: News) -> Vec<String> {
    world.step(Input::Silence { id: FIRST, position, news });
    said(world)
}

#[test]
fn silence_is_told_once_and_remembered() {
    let mut world = begin_running(Isolation::Fenced, 2);
    said(&mut world);
    assert!(hears(&mut world, 0, News::Active).is_empty(), "that is no news");
    assert_eq!(hears(&mut world, 0, News::Silent(600_000)), ["0: silent for 600000 ms"]);
    assert!(hears(&mut world, 0, News::Silent(605_000)).is_empty());
    restart(&mut world);
    said(&mut world);
    assert!(hears(&mut world, 0, News::Silent(700_000)).is_empty(), "it was told before");
    assert_eq!(hears(&mut world, 0, News::Active), ["0: active"]);
}

#[test]
fn what_is_told_is_of_the_task_that_runs() {
    let mut world = begin_running(Isolation::Fenced, 2);
    said(&mut world);
    assert!(hears(&mut world, 1, News::Silent(1)).is_empty(), "it has not started");
    hears(&mut world, 0, News::Silent(1));
    does(&mut world, FIRST, Progress::End(ExitCause::Exited(0)));
    said(&mut world);
    assert!(hears(&mut world, 0, News::Active).is_empty(), "it has ended");
    assert!(hears(&mut world, 1, News::Silent(1)).is_empty(), "it has not started");
    does(&mut world, FIRST, Progress::StartNext);
    said(&mut world);
    assert_eq!(hears(&mut world, 1, News::Silent(2)), ["0: silent for 2 ms"], "anew");
    wants(&mut world, FIRST, |assignment| {
        let cause = ExitCause::Cancelled;
        assignment.phase = DesiredPhase::Stop { cause, grace_ms: 1_000 };
    });
    assert!(hears(&mut world, 1, News::Active).is_empty(), "it stops");
}

#[test]
fn nobody_hears_of_it_while_others_wait_to_be_heard() {
    let mut world = begin_running(Isolation::Fenced, 1);
    let mut agent = world.agent.clone().expect("it runs");
    let silence = |nth: usize| {
        let news = if nth.is_multiple_of(2) { News::Silent(1) } else { News::Active };
        Input::Silence { id: FIRST, position: 0, news }
    };
    for nth in 0..AGENT_OUTBOX_MAX {
        let _ = agent.step(silence(nth), world.now_ms);
    }
    assert_eq!(agent.kept().outbox.len(), AGENT_OUTBOX_MAX / 2);
    world.step(silence(0));
}
