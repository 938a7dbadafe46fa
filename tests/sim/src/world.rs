//! One world: builds it, lets time pass, heals it, and judges what happened.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use turmoil::{Builder, Sim};
use warden::ids::ServiceId;

use crate::faults::{Troubles, member_host, strike};
use crate::invariants::{self, Finding};
use crate::kernel::{Chore, Kernel, Shared};
use crate::limits::{CLIENTS_MAX, TICK_MS};
use crate::options::{Engine, Options};
use crate::process::{End, Env};
use crate::{client, gateway, network, replica, warden_host};

/// What became of a world.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Tells whether two runs were the same.
    pub trace_hash: String,
    /// Simulated time.
    pub elapsed_ms: u64,
    /// Operations of clients.
    pub operations: usize,
    /// Of those, the ones without a certain outcome.
    pub uncertain: usize,
    /// The history was too uncertain to say whether it is linearizable.
    pub undecided: bool,
    /// Log entries.
    pub entries: usize,
    /// Leaders that served.
    pub leaders: usize,
    /// Snapshots that were kept.
    pub snapshots: u64,
    /// Damage of the log that was mended.
    pub repairs: u64,
    /// Invariants that do not hold.
    pub findings: Vec<Finding>,
    /// The trace, if it was to be kept.
    #[serde(skip)]
    pub trace: Vec<String>,
    /// What clients asked and heard.
    #[serde(skip)]
    pub history: lin::History,
}

/// Runs a world from beginning to end.
///
/// # Errors
/// What the real kernel refuses: memory, descriptors.
pub fn run(options: &Options, keep_trace: bool) -> anyhow::Result<Report> {
    anyhow::ensure!(options.clients <= CLIENTS_MAX, "{CLIENTS_MAX} clients are possible");
    let shared: Shared = Rc::new(RefCell::new(Kernel::new(options.clone(), keep_trace)?));
    let mut sim = build(options, &shared);
    let mut troubles = Troubles::default();
    let finished = live(&mut sim, &shared, &mut troubles, options);
    if let Err(error) = finished {
        shared.borrow_mut().facts.late.push(format!("the world ends: {error}"));
    }
    drop(sim);
    Ok(report(&shared.borrow()))
}

fn report(kernel: &Kernel) -> Report {
    let facts = &kernel.facts;
    Report {
        seed: kernel.options.seed,
        trace_hash: format!("{:016x}", kernel.trace.hash()),
        elapsed_ms: kernel.now_ms,
        operations: facts.history.operations.len(),
        uncertain: facts.history.operations.iter().filter(|operation| operation.outcome.is_none()).count(),
        undecided: invariants::is_undecided(facts),
        entries: facts.entries.len(),
        leaders: facts.leaders.len(),
        snapshots: facts.snapshots,
        repairs: facts.repairs,
        findings: invariants::check(facts),
        trace: kernel.trace.lines().to_vec(),
        history: facts.history.clone(),
    }
}

/// The name of a service's host.
pub fn host(id: ServiceId) -> String {
    id.to_string().replace('/', "-")
}

fn build(options: &Options, shared: &Shared) -> Sim<'static> {
    let mut sim = Builder::new()
        .rng_seed(options.seed)
        .tick_duration(Duration::from_millis(TICK_MS))
        .simulation_duration(Duration::from_secs(3600))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(options.faults.latency_ms_max.max(1)))
        .enable_random_order()
        .build();
    for member in 0..options.members {
        let cluster = shared.borrow().cluster.clone();
        sim.host(member_host(member), move || {
            let cluster = cluster.clone();
            async move {
                match cluster {
                    Some(cluster) => network::serve_member(cluster, member).await,
                    None => Ok(()),
                }
            }
        });
    }
    let services = (0..options.replicas).map(ServiceId::Replica).chain([ServiceId::Gateway]);
    for id in services {
        let shared = shared.clone();
        sim.host(host(id), move || process(shared.clone(), id));
    }
    let kernel = shared.clone();
    sim.host("warden", move || warden_host::run(kernel.clone()));
    for number in 0..options.clients {
        let number = u32::try_from(number).expect("bounded by CLIENTS_MAX");
        sim.client(format!("client-{number}"), client::run(shared.clone(), number));
    }
    sim
}

async fn process(shared: Shared, id: ServiceId) -> turmoil::Result {
    let Some(env) = Env::begin(&shared, id) else { return Ok(()) };
    let ended = match id {
        ServiceId::Gateway => gateway::run(&env).await,
        _ => replica::run(&env).await,
    };
    if let Err(End::Failed(why)) = ended {
        env.with(|kernel| kernel.exit(id, &why));
    }
    Ok(())
}

/// Lets faults happen for their time, then requires that all comes to its end within the bound.
fn live(sim: &mut Sim<'_>, shared: &Shared, troubles: &mut Troubles, options: &Options) -> turmoil::Result {
    // Setting up is no subject here: everybody begins when all watches are set.
    let mut finished = false;
    let begin_by = options.recovery_ms;
    while shared.borrow().ready_clients < options.clients {
        step(sim, shared, troubles)?;
        if shared.borrow().now_ms > begin_by {
            shared.borrow_mut().facts.late.push("clients are not ready to begin".to_owned());
            return Ok(());
        }
    }
    shared.borrow_mut().faulty = true;
    let heal_at = shared.borrow().now_ms + options.faults_ms;
    while shared.borrow().now_ms < heal_at {
        finished = step(sim, shared, troubles)?;
    }
    shared.borrow_mut().faulty = false;
    let late_at = heal_at + options.recovery_ms;
    while !finished && shared.borrow().now_ms < late_at {
        finished = step(sim, shared, troubles)?;
    }
    if !finished {
        shared.borrow_mut().facts.late.push("clients have no answer".to_owned());
        return Ok(());
    }
    shared.borrow_mut().examining = true;
    while shared.borrow().now_ms < late_at {
        if are_equal(&shared.borrow()) {
            return Ok(());
        }
        step(sim, shared, troubles)?;
    }
    let finals: Vec<_> = shared.borrow().facts.finals.iter().map(|(n, is)| (*n, is.index)).collect();
    let copied = shared.borrow().facts.copy_read_to;
    shared.borrow_mut().facts.late.push(format!("not equal: replicas {finals:?}, copy read to {copied}"));
    Ok(())
}

fn are_equal(kernel: &Kernel) -> bool {
    let newest = kernel.facts.entries.keys().next_back().copied().unwrap_or(0);
    let finals = &kernel.facts.finals;
    let copied = kernel.options.engine != Engine::Copied || kernel.facts.copy_read_to == newest;
    copied && finals.len() == kernel.options.replicas as usize && finals.values().all(|is| is.index == newest)
}

/// One tick. True if all clients are at their end.
fn step(sim: &mut Sim<'_>, shared: &Shared, troubles: &mut Troubles) -> turmoil::Result<bool> {
    let chores = {
        let mut kernel = shared.borrow_mut();
        kernel.now_ms += TICK_MS;
        kernel.resume_due();
        strike(&mut kernel);
        troubles.strike(&mut kernel, sim);
        if let Some(cluster) = &kernel.cluster {
            cluster.tick(TICK_MS);
        }
        std::mem::take(&mut kernel.chores)
    };
    for chore in chores {
        match chore {
            Chore::Start(id) => sim.bounce(host(id)),
            Chore::Drop(id) if !shared.borrow().procs[&id].alive => sim.crash(host(id)),
            Chore::Drop(_) => {}
        }
    }
    sim.step()
}
