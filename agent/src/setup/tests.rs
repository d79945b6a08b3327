//! Runs of real scripts, without control groups: what is left is found by its mark.

use super::*;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use yard_common::limits::SETUP_MS;

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine, with an agent that comes and goes.
struct Lab {
    folder: TempDir,
    heard: watch::Sender<Heard>,
    asked: watch::Sender<u32>,
    options: Options,
    boot: u128,
    agent: Option<Agent>,
}

struct Agent {
    task: JoinHandle<Result<(), Fatal>>,
    stop: CancellationToken,
    told: watch::Receiver<Told>,
}

impl Lab {
    fn new() -> Lab {
        Lab {
            folder: tempfile::tempdir().unwrap(),
            heard: watch::Sender::new(Heard::default()),
            asked: watch::Sender::new(0),
            options: Options::default(),
            boot: 1,
            agent: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn memory(&self) -> Memory {
        Memory::create(&self.path("agent")).unwrap()
    }

    fn site(&self) -> Site {
        Site {
            options: self.options.clone(),
            node: "n1".into(),
            paths: Paths::new(self.path("agent")),
            cgroups: Support::none(),
            boot: BootId::from_u128(self.boot),
        }
    }

    /// Starts an agent, which has heard nothing yet but what is on its disk.
    fn start(&mut self) {
        let (memory, site) = (self.memory(), self.site());
        let file = memory.setup().unwrap();
        let heard = Heard { wanted: file.wanted.clone(), is_confirmed: false };
        self.heard.send_replace(heard);
        let told = watch::Sender::new(file.told(site.boot));
        let (heard, asked) = (self.heard.subscribe(), self.asked.subscribe());
        let watched = told.subscribe();
        let runner = Runner { site, memory, file, heard, asked, told };
        let stop = CancellationToken::new();
        let task = tokio::spawn(runner.run(stop.clone()));
        self.agent = Some(Agent { task, stop, told: watched });
    }

    async fn stop(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.stop.cancel();
        agent.task.await.unwrap().unwrap();
    }

    /// The coordinator says what is wanted now.
    fn say(&self, revision: u32, line: &str) {
        let setup = Setup {
            command: line.to_string(),
            variables: vec![("OWN".into(), "mine".into())],
            timeout_ms: SETUP_MS,
        };
        let setup = Some(setup).filter(|_| !line.is_empty());
        let before = SetupId { revision: revision - 1, hash: 1 };
        let id = before.next(setup.as_ref());
        let wanted = Wanted { life: 1, id, setup, pool: "gpu".into() };
        self.heard.send_replace(Heard { wanted, is_confirmed: true });
    }

    /// Waits until something is told.
    async fn told(&mut self, what: impl FnMut(&Told) -> bool) -> Told {
        let told = &mut self.agent.as_mut().unwrap().told;
        let found = tokio::time::timeout(PATIENCE, told.wait_for(what)).await;
        found.expect("it is told in time").unwrap().clone()
    }

    async fn stage(&mut self, revision: u32, stage: SetupStage) -> String {
        let is = |told: &Told| {
            let report = told.report;
            report.is_some_and(|one| one.id.revision == revision && one.stage == stage)
        };
        self.told(is).await.why.unwrap_or_default()
    }

    fn lines(&self, name: &str) -> usize {
        fs::read_to_string(self.path(name)).unwrap_or_default().lines().count()
    }

    fn log(&self) -> String {
        String::from_utf8(output::read(&Paths::new(self.path("agent")), 0).unwrap()).unwrap()
    }
}

async fn until(what: &str, mut look: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < end, "still not: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn lives(pid: &str) -> bool {
    let pid = pid.trim().parse().unwrap();
    crate::process::fact(pid).is_some_and(|fact| !fact.zombie)
}

#[tokio::test]
async fn it_runs_once_a_boot_and_when_it_changes() {
    let mut lab = Lab::new();
    let count = format!("echo x >> {}", lab.path("count").display());
    lab.start();
    lab.say(1, &format!("{count}; echo $OWN $YARD_NODE_NAME $YARD_POOL ${{CARGO_PKG_NAME-}}; cat"));
    assert_eq!(lab.stage(1, SetupStage::Done).await, "");
    assert_eq!((lab.log().as_str(), lab.lines("count")), ("mine n1 gpu\n", 1));
    lab.stop().await;
    // An agent that comes back says what was done, and does not do it again.
    lab.start();
    lab.stage(1, SetupStage::Done).await;
    let again = lab.memory().setup().unwrap().wanted;
    lab.heard.send_replace(Heard { wanted: again.clone(), is_confirmed: true });
    lab.say(2, &format!("{count}; echo two"));
    lab.stage(2, SetupStage::Done).await;
    assert_eq!((lab.log().as_str(), lab.lines("count")), ("two\n", 2));
    lab.stop().await;
    // After a boot nothing is told, and nothing is run, before the coordinator has said so.
    lab.boot = 2;
    lab.start();
    assert_eq!(*lab.agent.as_ref().unwrap().told.borrow(), Told::default());
    lab.say(2, &format!("{count}; echo two"));
    lab.stage(2, SetupStage::Done).await;
    assert_eq!(lab.lines("count"), 3);
    lab.say(3, "");
    lab.told(|told| *told == Told::default()).await;
    lab.stop().await;
}

#[tokio::test]
async fn a_failure_is_told_with_its_last_line_and_tried_again_when_asked() {
    let mut lab = Lab::new();
    let (gate, count) = (lab.path("gate"), lab.path("count"));
    let line = format!(
        "echo x >> {}; [ -e {} ] && exit 0; echo no mirror >&2; exit 3",
        count.display(),
        gate.display()
    );
    lab.start();
    lab.say(1, &line);
    let why = lab.stage(1, SetupStage::Failed).await;
    assert_eq!(why, "revision 1 failed with exit code 3: no mirror");
    lab.asked.send_replace(1);
    until("it was tried again", || lab.lines("count") == 2).await;
    fs::write(gate, "").unwrap();
    // It may be on its way yet.
    for check in 2.. {
        lab.asked.send_replace(check);
        let told = lab.agent.as_ref().unwrap().told.borrow().clone();
        match told.report.unwrap().stage {
            SetupStage::Done => break,
            stage => assert_eq!(stage, SetupStage::Failed, "that is told while it is tried again"),
        }
        sleep(Duration::from_millis(5)).await;
    }
    lab.stop().await;
}

#[tokio::test]
async fn what_is_replaced_or_late_is_ended_with_all_that_it_started() {
    let mut lab = Lab::new();
    let pid = lab.path("pid");
    let line = format!("setsid sleep 1000 & echo $! > {}; wait", pid.display());
    lab.start();
    lab.say(1, &line);
    until("it runs", || fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n'))).await;
    assert_eq!(lab.stage(1, SetupStage::Running).await, "revision 1 runs");
    let first = fs::read_to_string(&pid).unwrap();
    assert!(lives(&first));
    fs::remove_file(&pid).unwrap();
    lab.say(2, "true");
    lab.stage(2, SetupStage::Done).await;
    assert!(!lives(&first), "the next one runs alone");
    lab.stop().await;

    let setup = Setup { command: line, variables: Vec::new(), timeout_ms: 300 };
    let site = lab.site();
    let run = Run { site: &site, number: 9, setup: &setup, pool: "gpu" };
    let outcome = run.finish(std::future::pending()).await;
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.how, "no end within 0 s");
    assert!(!lives(&fs::read_to_string(&pid).unwrap()));
}

#[tokio::test]
async fn after_a_success_a_daemon_stays_and_the_rest_of_the_group_ends() {
    let lab = Lab::new();
    let (daemon, child) = (lab.path("daemon"), lab.path("child"));
    // It writes once it has left the process group, and nothing ends before that.
    let command = format!(
        "setsid sh -c 'echo $$ > {daemon}; exec sleep 1000' >/dev/null 2>&1 & \
         until [ -s {daemon} ]; do sleep 0.01; done; sleep 1001 & echo $! > {}",
        child.display(),
        daemon = daemon.display(),
    );
    let setup = Setup { command, variables: Vec::new(), timeout_ms: SETUP_MS };
    let site = lab.site();
    let run = Run { site: &site, number: 1, setup: &setup, pool: "gpu" };
    assert_eq!(run.finish(std::future::pending()).await, Outcome::Done);
    let child = fs::read_to_string(child).unwrap();
    until("its child has ended", || !lives(&child)).await;
    assert!(lives(&fs::read_to_string(daemon).unwrap()));
    run::end(&site, 1).await;
}

#[tokio::test]
async fn a_run_that_no_agent_saw_the_end_of_is_ended_and_run_again() {
    let mut lab = Lab::new();
    let (pid, count) = (lab.path("pid"), lab.path("count"));
    let line = format!(
        "echo x >> {}; [ -e {pid} ] && exit 0; echo $$ > {pid}; exec sleep 1000",
        count.display(),
        pid = pid.display()
    );
    lab.start();
    lab.say(1, &line);
    until("it runs", || fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n'))).await;
    // As if the agent were killed: its file says that a run has begun, and the run goes on.
    let file = lab.memory().setup().unwrap();
    assert!(file.is_running && file.done.is_none());
    let agent = lab.agent.take().unwrap();
    let orphan = std::process::Command::new("sleep")
        .arg("1000")
        .env("YARD_SETUP_RUN", format!("{}:{}", lab.path("agent").display(), file.runs))
        .spawn();
    let mut orphan = orphan.unwrap();
    agent.task.abort();
    let _ = agent.task.await;
    lab.start();
    until("the orphan is ended", || !lives(&orphan.id().to_string())).await;
    orphan.wait().unwrap();
    assert_eq!(lab.lines("count"), 1, "nothing runs before the coordinator has said so");
    lab.say(1, &line);
    lab.stage(1, SetupStage::Done).await;
    assert_eq!(lab.lines("count"), 2);
    lab.stop().await;
}

#[tokio::test]
async fn a_machine_may_refuse_it() {
    let mut lab = Lab::new();
    lab.options.allowed = false;
    lab.start();
    lab.say(1, "true");
    let why = lab.stage(1, SetupStage::Refused).await;
    assert!(why.contains("does not allow it"), "{why}");
    lab.stop().await;
    assert_eq!(lab.memory().setup().unwrap().runs, 0);
}

#[test]
fn an_old_word_is_not_heard_and_a_new_life_counts_anew() {
    let setup = || Setup { command: "true".into(), variables: Vec::new(), timeout_ms: SETUP_MS };
    let id = |revision| SetupId { revision, hash: 7 };
    let have = Wanted { life: 2, id: id(5), setup: Some(setup()), pool: "a".into() };
    let after = |life, id, setup| have.after(Incarnation(life), id, setup, "b".into());
    assert_eq!(after(2, id(4), Some(setup())).unwrap(), None, "of a leader that was");
    let same = after(2, id(5), None).unwrap().unwrap();
    assert_eq!((same.setup, same.pool.as_str()), (Some(setup()), "b"));
    assert!(after(2, id(6), None).is_err(), "its text is not here");
    let restored = after(3, id(4), Some(setup())).unwrap().unwrap();
    assert_eq!((restored.life, restored.id), (3, id(4)));
    let none = after(2, SetupId { revision: 6, hash: 0 }, None).unwrap().unwrap();
    assert_eq!(none.setup, None);
}
