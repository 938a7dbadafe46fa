//! Connections per second: each client connects, asks once and closes, as `xenstore-read` does.
//!
//! `cargo run --release -p tests --example churn -- SECONDS THREADS`

use std::io::Write;
use std::time::{Duration, Instant};

use tests::Stand;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|text| text.parse::<u64>().ok());
    let (seconds, threads) = (numbers.next().unwrap_or(5), numbers.next().unwrap_or(1));
    let stand = Stand::start(&[]);
    stand.client().write("/a", "1").expect("a write");
    let until = Instant::now() + Duration::from_secs(seconds);
    let total: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| churn(&stand, until))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).sum()
    });
    let line = format!("{} connections per second, {threads} at a time", total / seconds);
    // Nobody reads it any more if this fails.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn churn(stand: &Stand, until: Instant) -> u64 {
    let mut count = 0;
    while Instant::now() < until {
        stand.client().read("/a").expect("a read");
        count += 1;
    }
    count
}
