use super::*;
use proptest::prelude::*;

const SCALE: Scale = Scale { ranks: 1, silence_ms: 600_000 };

fn pulse_of(looks: &[(u64, Signs)], scale: Scale) -> Pulse {
    let mut pulse = Pulse::new(looks[0].0, looks[0].1);
    for (at_ms, signs) in &looks[1..] {
        pulse.look(*at_ms, *signs, scale);
    }
    pulse
}

/// A look every five seconds, with what was counted by then.
fn every_5_s(count: u64, signs: impl Fn(u64) -> Signs) -> Vec<(u64, Signs)> {
    (0..count).map(|nth| (nth * 5_000, signs(nth))).collect()
}

#[test]
fn nothing_is_silence_and_every_sign_ends_it() {
    let quiet = every_5_s(9, |_| Signs::default());
    assert_eq!(pulse_of(&quiet, SCALE).silent_ms(), 40_000);
    let signs = [
        Signs { log_bytes: 1, ..Signs::default() },
        Signs { cpu_us: 600_000, ..Signs::default() },
        Signs { io_bytes: 80_000, ..Signs::default() },
        Signs { net_bytes: 80_000, ..Signs::default() },
        Signs { gpu_busy: true, ..Signs::default() },
    ];
    for sign in signs {
        let mut pulse = pulse_of(&quiet, SCALE);
        pulse.look(45_000, sign, SCALE);
        assert_eq!((pulse.silent_ms(), pulse.moved()), (0, true), "{sign:?}");
        pulse.look(50_000, Signs { gpu_busy: false, ..sign }, SCALE);
        assert_eq!((pulse.silent_ms(), pulse.moved()), (5_000, false), "{sign:?}");
    }
}

#[test]
fn heartbeats_are_noise_and_slow_work_is_not() {
    // A thread that looks around: 40 ms of CPU and 4 KiB each 5 s.
    let beats = |nth| Signs {
        cpu_us: nth * 40_000,
        io_bytes: nth * 4_096,
        net_bytes: nth * 4_096,
        ..Signs::default()
    };
    assert_eq!(pulse_of(&every_5_s(200, beats), SCALE).silent_ms(), 995_000);
    // Twice the noise is work.
    let slow = |nth| Signs { cpu_us: nth * 100_000, ..Signs::default() };
    assert!(pulse_of(&every_5_s(200, slow), SCALE).silent_ms() < 60_000);
    // Eight ranks make eight times the noise.
    let all = Scale { ranks: 8, ..SCALE };
    assert_eq!(pulse_of(&every_5_s(50, slow), all).silent_ms(), 245_000);
}

#[test]
fn what_nobody_saw_is_no_silence() {
    let mut pulse = Pulse::new(0, Signs::default());
    pulse.look(5_000, Signs::default(), SCALE);
    // The machine slept for a night.
    pulse.look(36_000_000, Signs::default(), SCALE);
    assert_eq!(pulse.silent_ms(), 5_000 + STALL_GAP_MS_MAX);
    // A clock that stands still, and counters that began anew, are nothing.
    pulse.look(36_000_000, Signs::default(), SCALE);
    let mut pulse = Pulse::new(0, Signs { cpu_us: 9_000_000, ..Signs::default() });
    pulse.look(5_000, Signs::default(), SCALE);
    assert_eq!(pulse.silent_ms(), 5_000);
}

#[test]
fn silence_is_told_once_and_its_end_too() {
    let (mut herald, mut pulse) = (Herald::default(), Pulse::new(0, Signs::default()));
    let (mut is_told, mut told) = (false, Vec::new());
    let mut at_ms = 0;
    let mut look = |signs: Signs, is_told: &mut bool| {
        at_ms += 5_000;
        pulse.look(at_ms, signs, SCALE);
        if let Some(news) = herald.news(&pulse, at_ms, Some(20_000), *is_told) {
            *is_told = matches!(news, News::Silent(_));
            told.push((at_ms, news));
        }
    };
    for _ in 0..10 {
        look(Signs::default(), &mut is_told);
    }
    for log_bytes in [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1] {
        look(Signs { log_bytes, ..Signs::default() }, &mut is_told);
    }
    // The second silence is long enough after 75 s, but the first was told at 20 s.
    let second = (80_000, News::Silent(25_000));
    assert_eq!(told, [(20_000, News::Silent(20_000)), (55_000, News::Active), second]);
}

#[test]
fn an_agent_that_starts_does_not_say_that_silence_is_over() {
    let mut herald = Herald::default();
    let mut pulse = Pulse::new(0, Signs { log_bytes: 7, ..Signs::default() });
    assert_eq!(herald.news(&pulse, 0, Some(20_000), true), None);
    pulse.look(5_000, Signs { log_bytes: 7, ..Signs::default() }, SCALE);
    assert_eq!(herald.news(&pulse, 5_000, Some(20_000), true), None);
    pulse.look(10_000, Signs { log_bytes: 8, ..Signs::default() }, SCALE);
    assert_eq!(herald.news(&pulse, 10_000, Some(20_000), true), Some(News::Active));
    assert_eq!(herald.news(&pulse, 10_000, None, false), None, "nobody wants to know");
}

#[test]
fn the_odd_rank_is_named() {
    let odd = |ranks: &[(u32, u64)]| odd_ones(ranks, 60_000);
    assert_eq!(odd(&[]), Odd::Nobody);
    assert_eq!(odd(&[(0, 90_000)]), Odd::Nobody);
    assert_eq!(odd(&[(0, 0), (1, 5_000), (2, 0)]), Odd::Nobody, "nobody is silent");
    assert_eq!(odd(&[(0, 0), (1, 70_000), (2, 0)]), Odd::Silent(vec![1]));
    assert_eq!(odd(&[(0, 70_000), (1, 0), (2, 70_000)]), Odd::Active(vec![1]));
    assert_eq!(odd(&[(0, 70_000), (1, 0)]), Odd::Silent(vec![0]));
    assert_eq!(
        odd(&[(0, 70_000), (1, 71_000), (2, 130_000)]),
        Odd::First { rank: 2, lead_ms: 59_000 }
    );
    assert_eq!(odd(&[(0, 70_000), (1, 71_000), (2, 75_000)]), Odd::Nobody, "all at once");
    let many: Vec<_> = (0..100).map(|rank| (rank, if rank < 40 { 60_000 } else { 0 })).collect();
    assert_eq!(odd(&many), Odd::Silent((0..STALL_ODD_MAX as u32).collect()));
}

proptest! {
    /// Whoever does more than three times the noise within each stretch of half the patience is
    /// never told of as silent, whichever sign it is, and whenever somebody looks.
    #[test]
    fn whoever_does_something_is_never_told_of(
        silence_ms in 2_000u64..900_000,
        gaps in prop::collection::vec(500u64..5_000, 1..200),
        kind in 0usize..5,
        ranks in 1u32..16,
    ) {
        let scale = Scale { ranks, silence_ms };
        let (mut pulse, mut herald) = (Pulse::new(0, Signs::default()), Herald::default());
        let mut at_ms = 0;
        for (nth, gap_ms) in gaps.into_iter().enumerate() {
            at_ms += gap_ms.min(silence_ms / 4).max(1);
            let many = u64::from(ranks);
            let signs = match kind {
                0 => Signs { log_bytes: nth as u64 + 1, ..Signs::default() },
                1 => Signs { cpu_us: 3 * many * STALL_CPU_MILLI * at_ms, ..Signs::default() },
                2 => Signs { io_bytes: 3 * many * 2 * at_ms, ..Signs::default() },
                3 => Signs { net_bytes: 3 * many * 2 * at_ms, ..Signs::default() },
                _ => Signs { gpu_busy: true, ..Signs::default() },
            };
            pulse.look(at_ms, signs, scale);
            let news = herald.news(&pulse, at_ms, Some(silence_ms), false);
            prop_assert_eq!(news, None, "at {} of {}", at_ms, silence_ms);
        }
    }

    /// Whoever does nothing is told of exactly once.
    #[test]
    fn whoever_does_nothing_is_told_of_once(
        silence_ms in 1_000u64..900_000,
        gaps in prop::collection::vec(1u64..5_000, 1..400),
    ) {
        let scale = Scale { ranks: 1, silence_ms };
        let (mut pulse, mut herald) = (Pulse::new(0, Signs::default()), Herald::default());
        let (mut at_ms, mut told) = (0, Vec::new());
        for gap_ms in gaps {
            at_ms += gap_ms;
            pulse.look(at_ms, Signs::default(), scale);
            told.extend(herald.news(&pulse, at_ms, Some(silence_ms), !told.is_empty()));
        }
        let expected = usize::from(at_ms >= silence_ms);
        prop_assert_eq!(told.len(), expected);
    }
}
