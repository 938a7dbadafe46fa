//! `tests/crash net`: faults in the network backend under traffic, and a ledger of every frame.
//!
//! ```text
//!  simulated guests --- rings --- net_uk --- veth A | veth B --- peer (in this process)
//! ```
//! Both ends number their frames and put a checksum over them. At the end sending stops, what is under way arrives, and
//! what was sent is compared with what came: sent = came once + counted as overflow.

mod args;
mod calm;
mod faults;
mod flip;
mod report;
mod stand;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::Stand;

pub use args::NetArgs;
use faults::{Deed, Fault, Outcome};
use net_stand::{Keeper, Veth};
use report::Course;
pub use report::NetReport;
use rustix::process::Signal;
use stand::{Guests, Peer, harm, start_keeper};

use crate::faults::send;

/// How long everything may take to be whole again.
const WHOLE_WAIT: Duration = Duration::from_secs(20);
/// How long a shadow may take to a place where it is to die.
const PLACE_WAIT: Duration = Duration::from_millis(500);
/// How long a fault that nobody need notice is waited for.
const UNNOTICED_WAIT: Duration = Duration::from_millis(60);
/// How long a network card is switched off at most.
const OFF_MS_MAX: u64 = 300;
/// Deaths of one storm.
const STORM: u32 = 4;
/// Faults that a load lasts.
const LOAD_FAULTS: usize = 50;
/// How long after the end of sending frames may arrive.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs all faults and gives the account.
pub fn run(args: &NetArgs) -> anyhow::Result<NetReport> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut rng = fastrand::Rng::with_seed(seed);
    let stand = Stand::start(&[]);
    let veth = stand::create_wire(args.driver).context("a pair of virtual interfaces (root is needed)")?;
    let mut backend = start_keeper(&stand, &veth, args)?;
    let mut guests = Guests::start(&stand, args, &veth)?;
    let peer = Peer::start(&veth, args, &guests)?;
    wait_until("all guests", || guests.all_connected())?;
    guests.add_hostile(&stand, args, &veth)?;
    guests.start_sending()?;
    wait_until("frames of all guests", || peer.hears_from_all())?;
    peer.set_sending(true);
    let hogs = calm::Hogs::start(args.hogs);
    let began = Instant::now();
    let mut outcomes = Vec::new();
    let bar = indicatif::ProgressBar::new(args.faults);
    let mut loads = args.loads.iter().cycle();
    let mut next_load = 0;
    while (outcomes.len() as u64) < args.faults {
        if outcomes.len() >= next_load
            && let Some(load) = loads.next()
        {
            next_load += LOAD_FAULTS;
            guests.set_load(*load)?;
            peer.set_load(*load);
        }
        let faults = Fault::draw(&mut rng, args);
        let jitter = Duration::from_micros(rng.u64(0..args.jitter_ms.max(1) * 1000));
        std::thread::sleep(Duration::from_millis(args.pause_ms) + jitter);
        outcomes.extend(inject(&mut backend, &peer, &veth, &faults, &mut rng)?);
        bar.set_position(outcomes.len() as u64);
    }
    bar.finish_and_clear();
    let seconds = began.elapsed().as_secs_f64();
    let calm = calm::wait(&mut backend, Duration::from_secs(args.calm_s))?;
    drop(hogs);
    guests.stop_sending()?;
    peer.set_sending(false);
    std::thread::sleep(DRAIN);
    let counts = backend.counts()?;
    let peer = peer.end()?;
    let guests = guests.end()?;
    let course = Course { seed, seconds, calm, events_missing: backend.missing() };
    Ok(NetReport::of(&course, &outcomes, &guests, &peer, &counts))
}

/// Faults at the same instant, and the wait until frames flow both ways again.
fn inject(
    backend: &mut Keeper,
    peer: &Peer,
    veth: &Veth,
    faults: &[Fault],
    rng: &mut fastrand::Rng,
) -> anyhow::Result<Vec<Outcome>> {
    backend.hear()?;
    let hit: Vec<String> = faults.iter().map(|fault| fault.part()).collect();
    let pids = hit.iter().map(|part| backend.pid_of(part).context("the process to be harmed"));
    let mut pids = pids.collect::<anyhow::Result<Vec<u32>>>()?;
    let mut at_ns = net_uk::events::monotonic_ns();
    for (fault, pid) in faults.iter().zip(&mut pids) {
        let storm_ended_ns = do_harm(backend, veth, *fault, pid, rng)?;
        at_ns = storm_ended_ns.unwrap_or(at_ns);
    }
    let before = peer.received();
    let mut outcomes: Vec<Outcome> = faults.iter().copied().map(Outcome::new).collect();
    let began = Instant::now();
    loop {
        backend.hear()?;
        for (outcome, pid) in outcomes.iter_mut().zip(&pids) {
            outcome.look(backend.events(), at_ns, &hit);
            let fault = outcome.fault;
            if fault.deed == Deed::Die && began.elapsed() > PLACE_WAIT && !outcome.is_noticed() {
                // It does not come to that place: nothing waits in backlogs.
                harm(backend, Fault { deed: Deed::Kill, ..fault }, *pid)?;
            }
        }
        let over = |outcome: &Outcome| {
            let unnoticed = !outcome.fault.deed.must_be_noticed()
                && outcome.is_settled()
                && began.elapsed() > UNNOTICED_WAIT;
            outcome.is_whole() || unnoticed
        };
        if outcomes.iter().all(over) && peer.received() > before + 2 {
            let served_us = u64::try_from(began.elapsed().as_micros()).ok();
            return Ok(outcomes.into_iter().map(|outcome| Outcome { served_us, ..outcome }).collect());
        }
        ensure!(
            began.elapsed() < WHOLE_WAIT,
            "{faults:?}: not whole after {} s: {:?}",
            WHOLE_WAIT.as_secs(),
            backend.last_events()
        );
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Does it. Of a storm it gives when its last death was, and whose.
fn do_harm(
    backend: &mut Keeper,
    veth: &Veth,
    fault: Fault,
    pid: &mut u32,
    rng: &mut fastrand::Rng,
) -> anyhow::Result<Option<u64>> {
    match fault.deed {
        Deed::Flip => flip::flip(fault, *pid, rng)?,
        Deed::LinkDown => switch_off(veth, rng)?,
        Deed::Storm => {
            for _ in 1..STORM {
                *pid = kill_and_meet_the_next(backend, fault, *pid, rng)?;
            }
            let at_ns = net_uk::events::monotonic_ns();
            send(*pid, Signal::KILL);
            return Ok(Some(at_ns));
        }
        _ => harm(backend, fault, *pid)?,
    }
    Ok(None)
}

/// A driver's card without a carrier for a while.
fn switch_off(veth: &Veth, rng: &mut fastrand::Rng) -> anyhow::Result<()> {
    veth.set_up(false)?;
    std::thread::sleep(Duration::from_millis(rng.u64(1..OFF_MS_MAX)));
    Ok(veth.set_up(true)?)
}

/// Kills a process and gives its successor, which is just being started.
fn kill_and_meet_the_next(
    backend: &mut Keeper,
    fault: Fault,
    pid: u32,
    rng: &mut fastrand::Rng,
) -> anyhow::Result<u32> {
    send(pid, Signal::KILL);
    let began = Instant::now();
    loop {
        backend.hear()?;
        if let Some(next) = backend.pid_of(&fault.part()).filter(|next| *next != pid) {
            std::thread::sleep(Duration::from_micros(rng.u64(0..3000)));
            return Ok(next);
        }
        ensure!(
            began.elapsed() < WHOLE_WAIT,
            "{fault:?}: no successor of {pid}: {:?}",
            backend.last_events()
        );
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) -> anyhow::Result<()> {
    let began = Instant::now();
    while !done() {
        ensure!(began.elapsed() < WHOLE_WAIT, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
