//! What a world is like and what happens to it.

use serde::{Deserialize, Serialize};

/// Which engine keeps the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// In shared memory, kept twice.
    #[default]
    Embedded,
    /// In a simulated etcd.
    Etcd,
    /// In shared memory, kept twice, and copied to a simulated etcd.
    Copied,
}

impl Engine {
    /// Whether there is an etcd.
    pub fn has_members(self) -> bool {
        self != Self::Embedded
    }
}

/// A world. Equal options give equal traces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// All chance comes from it.
    pub seed: u64,
    /// Which engine.
    pub engine: Engine,
    /// Clients that send requests.
    pub clients: usize,
    /// Requests and transactions of each client.
    pub operations: usize,
    /// Replicas.
    pub replicas: u32,
    /// Members of the simulated etcd.
    pub members: usize,
    /// How long faults go on.
    pub faults_ms: u64,
    /// How long after the last fault all clients must have their answers and all replicas be equal.
    pub recovery_ms: u64,
    /// How long a request waits for the engine before it is refused.
    pub request_wait_ms: u64,
    /// What goes wrong.
    pub faults: Faults,
    /// An error built into the leader, to see that it is found.
    pub mutant: Option<Mutant>,
}

/// Faults and how often they come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Faults {
    /// A process dies at a commit point: chance at each point, in millionths.
    pub crash_at_point_ppm: u32,
    /// A process is stopped at a commit point, in millionths.
    pub pause_at_point_ppm: u32,
    /// A process dies at any moment: chance in each millisecond, in millionths.
    pub crash_ppm: u32,
    /// A process is stopped at any moment, in millionths.
    pub pause_ppm: u32,
    /// How long a process is stopped at most.
    pub pause_ms_max: u64,
    /// Most deaths of processes in one world. More could use up the warden's patience with a service.
    pub crashes_max: u32,
    /// A bit of one copy of the log flips: chance in each millisecond, in millionths.
    pub flip_ppm: u32,
    /// An etcd member is cut off, or stopped, or made slow: chance in each millisecond, in millionths.
    pub member_ppm: u32,
    /// For how long at most.
    pub member_ms_max: u64,
    /// Most network latency.
    pub latency_ms_max: u64,
}

/// Errors that the invariants must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mutant {
    /// The successor does not look whether a request was logged already.
    ForgetLogged,
    /// The answer is sent before the entry is in the log, and the entry is left out now and then.
    AnswerFirst,
    /// The successor sends what waits for a client without looking what it has already.
    Redeliver,
    /// The slot tells of one message more than was queued.
    DeliveredTooMuch,
    /// The successor drops the reply to a refused request only if no other one was logged after it.
    RefusedOnce,
    /// One replica's store is not what the log says: it skips an entry now and then.
    OwnRoot,
    /// The warden does not wait for the end of a leader that it gives up.
    NoFence,
    /// The successor serves before it has read the log to its end.
    LeadEarly,
}

impl Options {
    /// The usual world of a seed: what goes wrong, and how much, differs from seed to seed.
    pub fn of_seed(seed: u64, engine: Engine) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let mut some = |most: u32| if rng.bool() { rng.u32(0..=most) } else { 0 };
        let etcd = engine.has_members();
        let in_memory = engine != Engine::Etcd;
        let faults = Faults {
            crash_at_point_ppm: some(6_000),
            pause_at_point_ppm: some(2_000),
            crash_ppm: some(20_000),
            pause_ppm: some(10_000),
            pause_ms_max: 40,
            crashes_max: 10,
            flip_ppm: if in_memory { some(60_000) } else { 0 },
            member_ppm: if etcd { some(8_000) } else { 0 },
            member_ms_max: 2_000,
            latency_ms_max: u64::from(1 + some(8)),
        };
        Self {
            seed,
            engine,
            clients: 3,
            operations: if etcd { 50 } else { 60 },
            replicas: 3,
            members: if etcd { 1 + 2 * rng.usize(0..2) } else { 0 },
            faults_ms: if etcd { 4_000 } else { 400 },
            recovery_ms: if etcd { 30_000 } else { 5_000 },
            request_wait_ms: if etcd { rng.u64(50..2_000) } else { 3_000 },
            faults,
            mutant: None,
        }
    }
}
