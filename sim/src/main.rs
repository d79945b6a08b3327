//! `yard-sim`: see [`yard_sim`].
fn main() {
    yard_sim::runner::catch_panics();
    let from: u64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(1);
    let count: u64 = std::env::args().nth(2).and_then(|a| a.parse().ok()).unwrap_or(1);
    for seed in from..from + count {
        let t = std::time::Instant::now();
        let outcome = yard_sim::runner::run_seed(seed, count == 1);
        if let Some(trace) = &outcome.trace { println!("{trace}"); }
        println!("{seed} {:?} {:?} {} s virtual {:?}", outcome.violation, outcome.stats, outcome.virtual_us / 1_000_000, t.elapsed());
    }
}
