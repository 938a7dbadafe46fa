//! Cost of an append to the embedded log: `cargo run --release -p xs_consensus --example append`.
#![expect(clippy::print_stdout, reason = "it is its purpose")]

use std::time::Instant;

use xs_consensus::limits::LOG_BYTES;
use xs_consensus::{Consensus, Cursor, Embedded, Epoch};

const APPENDS: u32 = 200_000;
const ROUNDS: usize = 7;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for entry_bytes in [64, 160, 4096] {
        let mut best_ns = f64::MAX;
        for _ in 0..ROUNDS {
            let region = xs_shm::Region::create("log", LOG_BYTES)?;
            let mut engine = Embedded::attach(region, Cursor::default())?;
            engine.lead(Epoch(1))?;
            let entry = vec![7; entry_bytes];
            let began = Instant::now();
            for i in 0..APPENDS {
                if i % 4096 == 0 {
                    engine.release(&engine.cursor())?;
                }
                engine.append(&entry)?;
            }
            best_ns = best_ns.min(began.elapsed().as_secs_f64() * 1e9 / f64::from(APPENDS));
        }
        println!("entry of {entry_bytes} bytes: {best_ns:.0} ns");
    }
    Ok(())
}
