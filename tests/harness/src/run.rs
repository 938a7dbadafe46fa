//! One run: the stand, the load, the faults, the verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use api::v1;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::Signal;
use tests::Stand;
use xs_protocol::MessageType;

use crate::client::Client;
use crate::control::Control;
use crate::faults::{Deed, Fault, Target, is_whole, send};
use crate::report::{Report, Spread, Tally};
use crate::timing::{Injected, Times, Victim};
use crate::worker::{CONSTANTS, Shared, Worker, constant_path, constant_value};
use crate::{Engine, TargetArg, XsArgs};

/// How long everything may take to be whole again after a fault.
const WHOLE_WAIT: Duration = Duration::from_secs(60);
/// After how many faults a run that nobody looks at says so.
const PROGRESS_EACH: u64 = 250;
/// How long a successor may take until it is ready, while clients are served. Longer: a busy kernel was seen to give a new
/// process no processor for more than a minute, so that it could not even be killed.
const REPLACED_WAIT: Duration = Duration::from_secs(600);
/// Longer than the pause between two looks of a follower's scrubber, which sees the whole of a small store at once.
const SCRUB_ROUND: Duration = Duration::from_millis(700);
/// How often the events are looked through for a sign that a flipped bit was noticed.
const SIGN_PAUSE: Duration = Duration::from_millis(5);
/// How often the status is asked for.
const STATUS_PAUSE: Duration = Duration::from_millis(1);
/// What was told of an engine before it lacked something is older.
const COPIED_FOR: Duration = Duration::from_millis(2500);
/// Longest stop of a process that nobody replaces.
const STOP_MS_MAX: u64 = 300;

struct Load {
    workers: Vec<JoinHandle<Tally>>,
    progress: Vec<Arc<AtomicU64>>,
    shared: Arc<Shared>,
}

/// Runs it.
pub fn run(args: &XsArgs) -> anyhow::Result<Report> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut flags = vec!["--respawn".to_owned()];
    if args.engine == Engine::Etcd {
        flags.extend(["--engine".to_owned(), "etcd".to_owned()]);
    }
    flags.extend(args.xs_uk_args.iter().cloned());
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let stand = Stand::start(&flags);
    let mut control = Control::start(stand.rundir())?;
    wait_whole(&mut control)?;
    let load = start_load(&stand, args, seed)?;
    let began = Instant::now();
    let mut rng = fastrand::Rng::with_seed(seed);
    let outcome = harm(&stand, &mut control, args, &load, &mut rng);
    let done = match outcome {
        Ok(done) => done,
        Err(error) => {
            let logs = std::env::temp_dir().join(format!("ppvmm-crash-{seed}.log"));
            std::fs::write(&logs, stand.logs())?;
            let tally = finish_load(&load.shared, load.workers)?;
            let findings = tally.findings.join("\n  ");
            return Err(error.context(format!("seed {seed}, logs in {}\n  {findings}", logs.display())));
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    let tally = finish_load(&load.shared, load.workers)?;
    wait_whole(&mut control)?;
    wait_copied(&mut control)?;
    verdict(&stand, &control, args, seed, seconds, done, tally, &load.shared, &load.progress)
}

fn start_load(stand: &Stand, args: &XsArgs, seed: u64) -> anyhow::Result<Load> {
    let mut setup = stand.client();
    setup.write("/crash/counter", "0").context("the common counter")?;
    for number in 0..CONSTANTS {
        let path = constant_path(number);
        setup.write(&path, &constant_value(number))?;
        setup.request(MessageType::SET_PERMS, 0, format!("{path}\0r0\0").as_bytes())?;
    }
    let shared: Arc<Shared> = Arc::default();
    let (mut workers, mut progress) = (Vec::new(), Vec::new());
    for number in 0..args.sockets + args.rings {
        let (client, home) = if number < args.sockets {
            let home = format!("/crash/s{number}");
            setup.request(MessageType::MKDIR, 0, format!("{home}\0").as_bytes())?;
            (Client::Socket { writer: stand.client(), watcher: stand.client() }, home)
        } else {
            let (domid, guest) = stand.guest();
            let home = format!("/local/domain/{domid}/crash");
            setup.request(MessageType::MKDIR, 0, format!("{home}\0").as_bytes())?;
            setup.request(MessageType::SET_PERMS, 0, format!("{home}\0n{domid}\0").as_bytes())?;
            (Client::Ring(Box::new(guest)), home)
        };
        let seed = seed.wrapping_add(1 + number as u64);
        let pause = Duration::from_micros(args.pause_us);
        let worker = Worker::new(format!("client {number}"), client, home, seed, Arc::clone(&shared), pause);
        progress.push(Arc::clone(&worker.progress));
        workers.push(std::thread::spawn(move || worker.run()));
    }
    Ok(Load { workers, progress, shared })
}

/// What was injected, and for how long each kind of fault kept some client waiting.
#[derive(Default)]
struct Done {
    faults: Vec<Injected>,
    outages: BTreeMap<String, Vec<u64>>,
}

impl Done {
    fn add(&mut self, injected: Injected, took: Duration) {
        self.outages.entry(injected.fault.name()).or_default().push(micros(took));
        self.faults.push(injected);
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for injected in &self.faults {
            *counts.entry(injected.fault.name()).or_default() += 1;
        }
        counts
    }
}

/// Injects the faults.
fn harm(
    stand: &Stand,
    control: &mut Control,
    args: &XsArgs,
    load: &Load,
    rng: &mut fastrand::Rng,
) -> anyhow::Result<Done> {
    let targets = targets(args);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} faults, {elapsed}, {eta} left {msg}")?;
    let bar = ProgressBar::new(args.faults).with_style(style);
    let (mut done, mut overlapped, mut hit) = (Done::default(), false, None);
    while (done.faults.len() as u64) < args.faults {
        // Two at once, not three: what holds a client's connection is in gateway, leader and warden.
        let overlapping = !overlapped && rng.u32(0..100) < args.overlapping;
        let status = if overlapping { control.status() } else { Some(wait_replaced(control, hit)?) };
        let fault = Fault::draw(rng, &targets);
        if fault.deed == Deed::Flip {
            // A leader that ends over it while the gateway is down closes who came within the last millisecond: that window
            // is known, and the client below would be in it.
            if overlapping || status.is_none_or(|status| !is_whole(&status)) {
                continue;
            }
            let at_us = api::clock_us();
            let Some(service) = flip(control, fault, rng) else { continue };
            let injected = Injected { fault, victim: Victim::Service(service), at_us };
            let took = flip_served(load, control, &injected, stand)?;
            done.add(injected, took);
        } else {
            let Some(victim) = status.and_then(|status| fault.victim(&status, rng)) else {
                std::thread::sleep(STATUS_PAUSE);
                continue;
            };
            std::thread::sleep(Duration::from_micros(rng.u64(0..10_000)));
            let at_us = api::clock_us();
            if !fault.inject(victim) {
                continue;
            }
            let took = wait_served(load, fault, victim, rng).with_context(|| fault.name())?;
            done.add(Injected { fault, victim: Victim::Process(victim), at_us }, took);
            hit = fault.is_replaced().then_some(victim);
            overlapped = overlapping;
        }
        bar.set_position(done.faults.len() as u64);
        if bar.is_hidden() && (done.faults.len() as u64).is_multiple_of(PROGRESS_EACH) {
            eprintln!(
                "{} of {} faults, {:.0} s",
                done.faults.len(),
                args.faults,
                bar.elapsed().as_secs_f64()
            );
        }
    }
    bar.finish_and_clear();
    Ok(done)
}

const PARTS: [&str; 7] = ["value", "perms", "digest", "generation", "name", "pointer", "sum"];

/// Flips a bit of a node that nobody changes: its place cannot become another's meanwhile. Gives the service that was hit.
fn flip(control: &mut Control, fault: Fault, rng: &mut fastrand::Rng) -> Option<String> {
    let path = constant_path(rng.u64(0..CONSTANTS));
    let part = PARTS[rng.usize(0..PARTS.len())].to_owned();
    let target = if fault.target == Target::Leader { "leader" } else { "follower" };
    control.flip(target, v1::Flip { path, part, bit: rng.u64(0..4096) })
}

/// Reads every constant, so that what the leader has is looked at, and waits until a follower's scrubber has come by:
/// one copy at a time is damaged, not two.
fn flip_served(
    load: &Load,
    control: &mut Control,
    injected: &Injected,
    stand: &Stand,
) -> anyhow::Result<Duration> {
    let fault = injected.fault;
    let began = Instant::now();
    let mut client = stand.client();
    for number in 0..CONSTANTS {
        let value = read_constant(&mut client, number, began).with_context(|| fault.name())?;
        ensure!(value == constant_value(number), "constant {number} is {value:?}");
    }
    let took = began.elapsed();
    // Some bits mean nothing, and nobody ever notices: the gaps between a permission entry's fields.
    while began.elapsed() < SCRUB_ROUND && !control.has_noticed(injected) {
        std::thread::sleep(SIGN_PAUSE);
    }
    ensure!(!load.workers.iter().any(JoinHandle::is_finished), "a client gave up");
    wait_whole(control)?;
    Ok(took)
}

/// A replica that cannot ask enough others refuses until it can; it never guesses.
fn read_constant(client: &mut tests::RawClient, number: u64, began: Instant) -> std::io::Result<String> {
    loop {
        match client.read(&constant_path(number)) {
            Err(error) if error.to_string() == "EIO" && began.elapsed() < WHOLE_WAIT => {
                std::thread::sleep(STATUS_PAUSE);
            }
            read => return read,
        }
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

fn targets(args: &XsArgs) -> Vec<Target> {
    let all = [Target::Leader, Target::Follower, Target::Gateway, Target::Warden, Target::Member];
    let chosen = |target: &Target| match target {
        Target::Member => args.engine == Engine::Etcd,
        _ => true,
    };
    if args.targets.is_empty() {
        return all.into_iter().filter(chosen).collect();
    }
    let meant = |target: &TargetArg| match target {
        TargetArg::Leader => Target::Leader,
        TargetArg::Follower => Target::Follower,
        TargetArg::Gateway => Target::Gateway,
        TargetArg::Warden => Target::Warden,
        TargetArg::Member => Target::Member,
    };
    args.targets.iter().map(meant).collect()
}

/// Waits until each client has finished an operation that it began after the fault.
fn wait_served(load: &Load, fault: Fault, victim: u32, rng: &mut fastrand::Rng) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let read = || -> Vec<u64> { load.progress.iter().map(|count| count.load(Ordering::Relaxed)).collect() };
    let before = read();
    // Nobody watches the warden, and a member that stands still holds up only what needs it.
    let stopped = fault.deed == Deed::Stop && matches!(fault.target, Target::Warden | Target::Member);
    let go_on_after = Duration::from_millis(rng.u64(1..STOP_MS_MAX));
    let mut resumed = !stopped;
    loop {
        if !resumed && began.elapsed() >= go_on_after {
            // One that died meanwhile needs no signal.
            send(victim, Signal::CONT);
            resumed = true;
        }
        // The operation under way at the fault may have been answered before it: one more counts.
        let served = read().iter().zip(&before).all(|(now, then)| *now >= then + 2);
        if served && resumed {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < WHOLE_WAIT, "clients are not served after {} s", WHOLE_WAIT.as_secs());
        if load.workers.iter().any(JoinHandle::is_finished) {
            bail!("a client gave up");
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn wait_whole(control: &mut Control) -> anyhow::Result<api::v1::StatusResponse> {
    wait_replaced(control, None)
}

/// Waits until everything is up, and something else in place of the process that was `hit`: as long as nobody has noticed
/// that it died or stands still, the status is that of a whole store.
fn wait_replaced(control: &mut Control, hit: Option<u32>) -> anyhow::Result<api::v1::StatusResponse> {
    let began = Instant::now();
    loop {
        let status = control.status();
        let still =
            |status: &v1::StatusResponse| status.services.iter().any(|service| Some(service.pid) == hit);
        if let Some(status) = status.as_ref().filter(|status| is_whole(status) && !still(status)) {
            return Ok(status.clone());
        }
        ensure!(began.elapsed() < REPLACED_WAIT, "not whole after {} s: {status:?}", REPLACED_WAIT.as_secs());
        std::thread::sleep(STATUS_PAUSE);
    }
}

/// An engine that follows the log has all of it soon after the last request, and goes on having it.
fn wait_copied(control: &mut Control) -> anyhow::Result<()> {
    let (began, mut since) = (Instant::now(), None);
    while since.is_none_or(|since: Instant| since.elapsed() < COPIED_FOR) {
        let engine = control.status().and_then(|status| status.engine);
        if engine.as_ref().is_some_and(|engine| engine.lag_entries.unwrap_or(0) > 0) {
            since = None;
        } else {
            since.get_or_insert_with(Instant::now);
        }
        ensure!(began.elapsed() < WHOLE_WAIT, "the engine lacks entries: {engine:?}");
        std::thread::sleep(STATUS_PAUSE);
    }
    Ok(())
}

fn finish_load(shared: &Shared, workers: Vec<JoinHandle<Tally>>) -> anyhow::Result<Tally> {
    shared.stop.store(true, Ordering::Relaxed);
    let mut tally = Tally::default();
    for worker in workers {
        tally.add(worker.join().map_err(|_| anyhow::anyhow!("a client's thread panicked"))?);
    }
    Ok(tally)
}

#[allow(clippy::too_many_arguments, reason = "the parts of one report")]
fn verdict(
    stand: &Stand,
    control: &Control,
    args: &XsArgs,
    seed: u64,
    seconds: f64,
    done: Done,
    tally: Tally,
    shared: &Shared,
    progress: &[Arc<AtomicU64>],
) -> anyhow::Result<Report> {
    let mut client = stand.client();
    let counter: u64 = client.read("/crash/counter")?.parse().context("the common counter")?;
    let acknowledged = shared.increments.load(Ordering::Relaxed);
    let check = client.request(MessageType::CONTROL, 0, b"check\0").context("CONTROL check")?;
    let check: Vec<String> = String::from_utf8_lossy(&check)
        .trim_end_matches('\0')
        .lines()
        .filter(|line| !line.is_empty() && *line != "OK")
        .map(str::to_owned)
        .collect();
    let counted = counter >= acknowledged && counter <= acknowledged + tally.unknown_increments;
    let Times { detection, restoration } = Times::of(&done.faults, control.events());
    let passed = tally.is_clean() && counted && check.is_empty();
    Ok(Report {
        version: 2,
        engine: format!("{:?}", args.engine).to_lowercase(),
        seed,
        clients: [args.sockets, args.rings],
        pause_us: args.pause_us,
        seconds,
        faults: done.counts(),
        operations: progress.iter().map(|count| count.load(Ordering::Relaxed)).sum(),
        latency: tally.latencies(),
        tally,
        counter: [counter, acknowledged],
        check,
        detection,
        restoration,
        outage: done.outages.into_iter().map(|(name, times)| (name, Spread::of(times))).collect(),
        passed,
    })
}
