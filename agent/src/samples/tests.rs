use super::*;

fn sample(at_ms: u64, position: u32, cpu_us: u64, log_bytes: u64) -> Sample {
    let usage = Usage { cpu_us, read_bytes: Some(10 * cpu_us), ..Usage::default() };
    let signs = Signs { cpu_us, log_bytes, ..Signs::default() };
    Sample { at_ms, position, usage, signs, ..Sample::default() }
}

fn known() -> Known {
    Known {
        job: JobId(1),
        tasks: (3..6).map(|task| (task, AttemptNumber(1))).collect(),
        group: crate::cgroup::Support::none().find("x"),
        mark: String::new(),
        ranks: 8,
        gpus: vec!["a".into(), "b".into()],
        has_whole_gpus: true,
        silence_ms: Some(600_000),
    }
}

fn kept(samples: &[Sample]) -> Kept {
    let known = Arc::new(known());
    let mut kept = None;
    for sample in samples {
        kept = Some(Kept::of(known.clone(), Default::default(), sample.clone(), kept));
    }
    kept.expect("there is one")
}

#[test]
fn rates_are_between_the_last_two_samples() {
    let told = kept(&[sample(1_000, 0, 0, 0), sample(3_000, 0, 3_000_000, 500)]).told(3_500);
    let told = told.expect("it runs");
    let rates = Rates {
        cpu_milli: 1_500,
        read_bytes_per_s: 15_000_000,
        write_bytes_per_s: 0,
        log_bytes_per_s: 250,
        net_bytes_per_s: None,
    };
    assert_eq!((told.task, told.age_ms, told.rates), (3, 500, Some(rates)));
    assert_eq!(kept(&[sample(1_000, 0, 5, 5)]).told(1_000).map(|told| told.rates), Some(None));
}

#[test]
fn the_network_is_told_of_once_it_was_looked_at_twice() {
    let with = |at_ms: u64, net_bytes: u64, has_net: bool| {
        let mut sample = sample(at_ms, 0, 0, 0);
        (sample.signs.net_bytes, sample.has_net) = (net_bytes, has_net);
        sample
    };
    let told = |last: Sample| kept(&[with(1_000, 500, true), last]).told(2_000);
    let rate =
        |last: Sample| told(last).and_then(|told| told.rates).and_then(|r| r.net_bytes_per_s);
    assert_eq!(rate(with(2_000, 4_500, true)), Some(4_000));
    assert_eq!(rate(with(2_000, 4_500, false)), None);
}

#[test]
fn the_next_task_of_a_chain_is_not_compared_with_the_one_before() {
    let kept = kept(&[sample(1_000, 0, 0, 900), sample(2_000, 1, 9_000_000, 1)]);
    let told = kept.told(2_000).expect("it runs");
    assert_eq!((told.task, told.rates, told.silent_ms), (4, None, 0));
}

#[test]
fn silence_is_counted_from_the_last_sign_of_life() {
    let quiet = |from: u64| (0..4).map(move |at| sample(from + at * 1_000, 0, at * 5_000, 7));
    let mut all: Vec<Sample> = quiet(1_000).collect();
    assert_eq!(kept(&all).told(4_000).map(|told| told.silent_ms), Some(3_000));
    all.push(sample(5_000, 0, 15_000, 8));
    assert_eq!(kept(&all).told(5_000).map(|told| told.silent_ms), Some(0), "it wrote a byte");
    all.push(sample(6_000, 0, 15_000, 8));
    assert_eq!(kept(&all).told(9_000).map(|told| told.silent_ms), Some(1_000));
}

#[test]
fn one_rank_that_works_is_not_lost_among_many_that_do_not() {
    // A rank at 5 % of a CPU, of eight that may make noise of 1 % each.
    let at = |nth: u64| {
        let mut sample = sample(nth * 5_000, 0, nth * 250_000, 0);
        let busy = Signs { cpu_us: nth * 250_000, ..Signs::default() };
        sample.ranks = BTreeMap::from([(0, Signs::default()), (1, busy)]);
        sample
    };
    let all: Vec<Sample> = (0..40).map(at).collect();
    let told = kept(&all).told(200_000).expect("it runs");
    assert!(told.silent_ms < 60_000, "{told:?}");
    assert_eq!(told.ranks[0], (0, 195_000));
    assert!(told.ranks[1].1 < 60_000, "{told:?}");
}

#[test]
fn what_gpus_do_is_known_of_those_that_it_has_for_itself() {
    let gpu = |busy_percent, used_bytes| Gpu { busy_percent, used_bytes, is_part: false };
    let mut gpus =
        Gpus::from([("a".into(), gpu(100, 5)), ("b".into(), gpu(0, 7)), ("c".into(), gpu(9, 9))]);
    let both = GpuUse { count: 2, busy_percent: Some(50), used_bytes: 12 };
    assert_eq!(gpu_use(&known(), &gpus), (Some(both), true));
    let shared = Known { has_whole_gpus: false, ..known() };
    assert_eq!(gpu_use(&shared, &gpus), (None, true), "it may be the work of others");
    assert_eq!(gpu_use(&Known { gpus: Vec::new(), ..known() }, &gpus), (None, false));
    gpus.insert("a".into(), Gpu { is_part: true, ..gpu(0, 5) });
    let parts = GpuUse { busy_percent: None, ..both };
    assert_eq!(gpu_use(&known(), &gpus), (Some(parts), false));
}

#[test]
fn somebody_asks_for_a_while() {
    let samples = Samples::default();
    assert!(!samples.is_asked(1), "nobody did");
    assert_eq!(
        samples.latest(AssignmentId { allocation: yard_common::id::AllocationId(1), group: 0 }),
        None
    );
    assert!(samples.is_asked(boot_ms()));
    assert!(!samples.is_asked(boot_ms() + ASKED_MS + 1_000));
}
