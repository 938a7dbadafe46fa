//! Kills two processes at once, again and again, while a test's load runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::limits::START_WAIT;
use crate::stand::Stand;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The warden; the store has to be started with `--respawn`.
    Warden,
    /// The gateway.
    Gateway,
    /// The replica that leads.
    Leader,
    /// A replica that does not.
    Follower,
}

/// Kills until it is told to stop; to be run in a thread beside the load.
pub struct PairKiller<'a> {
    stand: &'a Stand,
    pairs: &'a [&'a [Victim]],
    seed: u64,
    killed: Vec<u64>,
}

impl<'a> PairKiller<'a> {
    /// Kills these in turn, with pauses that follow from the seed.
    pub fn new(stand: &'a Stand, pairs: &'a [&'a [Victim]], seed: u64) -> Self {
        Self { stand, pairs, seed, killed: Vec::new() }
    }

    /// Gives the number of rounds in which all of the victims were killed.
    ///
    /// # Panics
    /// If the store does not get well between two rounds: then it would be three at once.
    pub fn run(mut self, stop: &AtomicBool) -> u64 {
        let mut rounds = 0;
        while !stop.load(Ordering::Relaxed) {
            let status = self.settled();
            // splitmix64: the pause is to be another one each time, and the same for the same seed.
            self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            std::thread::sleep(Duration::from_micros(mixed % 60_000));
            let pair = self.pairs[usize::try_from(rounds).unwrap_or(0) % self.pairs.len()];
            // Looked up before the first of them dies: at once means within microseconds.
            self.killed = pair.iter().map(|victim| pid_of(&status, *victim)).collect();
            for (victim, pid) in pair.iter().zip(&self.killed) {
                let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw);
                let pid = pid.unwrap_or_else(|| panic!("no {victim:?} in {status}"));
                // A follower that was behind the first snapshot ends by itself and begins anew from it: the log was let go up
                // to there.
                let gone = |error| matches!(victim, Victim::Follower) && error == rustix::io::Errno::SRCH;
                match kill_process(pid, Signal::KILL) {
                    Err(error) if gone(error) => eprintln!("the follower had ended"),
                    killed => killed.unwrap_or_else(|error| panic!("{victim:?}: {error}")),
                }
            }
            rounds += 1;
        }
        self.settled();
        rounds
    }

    fn settled(&self) -> serde_json::Value {
        let began = Instant::now();
        loop {
            let status = self.stand.try_status();
            // The warden may not have seen the deaths yet.
            let fresh = |status: &&serde_json::Value| is_well(status) && !shows(status, &self.killed);
            if let Some(status) = status.as_ref().filter(fresh) {
                return status.clone();
            }
            assert!(began.elapsed() < START_WAIT, "the store does not get well: {status:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn is_well(status: &serde_json::Value) -> bool {
    let services = status["services"].as_array().map_or(&[][..], Vec::as_slice);
    let ready =
        |service: &serde_json::Value| ["ready", "serving"].contains(&service["state"].as_str().unwrap_or(""));
    status["serving"] == true && !services.is_empty() && services.iter().all(ready)
}

fn shows(status: &serde_json::Value, pids: &[u64]) -> bool {
    let services = status["services"].as_array().map_or(&[][..], Vec::as_slice);
    let shown = services.iter().chain([&status["warden"]]).filter_map(|service| service["pid"].as_u64());
    shown.into_iter().any(|pid| pids.contains(&pid))
}

fn pid_of(status: &serde_json::Value, victim: Victim) -> u64 {
    let role = match victim {
        Victim::Warden => return status["warden"]["pid"].as_u64().unwrap_or(0),
        Victim::Gateway => "gateway",
        Victim::Leader => "leader",
        Victim::Follower => "follower",
    };
    let services = status["services"].as_array().map_or(&[][..], Vec::as_slice);
    services.iter().find(|service| service["role"] == role).and_then(|s| s["pid"].as_u64()).unwrap_or(0)
}
