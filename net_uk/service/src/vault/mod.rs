//! A vault: holds duplicates of all that must outlive the keeper, and starts the next keeper when it dies or hangs.
//!
//! It does nothing else, reads nothing from guests, and needs little memory. There are two, so that one may die together with
//! the keeper; the keeper replaces a vault that dies. What the kernel has queued for a vault is as good as held: before it
//! gives anything to a next keeper it takes all that the dead one sent.
//!
//! ```text
//!   the keeper dies --> take what it had sent --> start the next --Fence--> it waits for the desk's lock
//!                                                       Begin, with all <--Fenced--'
//!                                                                 '--> it deposits all anew, in all vaults
//! ```
//! Both vaults may start a keeper, the second one after a pause. The desk's lock lets one of them begin; whoever
//! deposits is the keeper, and a vault kills another one that it had started.

mod holding;
pub mod wire;

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use control::proc::Stat;
use control::{Link, LinkError, Packet};
use net_watch::TimeNs;
use net_watch::detector::Verdict;
use rustix::process::WaitOptions;

use crate::desk::Desk;
use crate::error::Error;
use crate::events::{nanos, now};
use crate::instance::Instance;
use crate::limits::{
    BEAT, KEEPER_AGAIN_FIRST, KEEPER_AGAIN_MAX, KEEPER_LIVED, KEEPER_STOP_WAIT, KEEPER_STOPS_MAX,
    VAULT_DOUBTS, VAULT_LINKS_MAX, VAULT_LOOK, VAULT_LOOK_AGAIN, VAULT_YIELD, VAULTS,
};
use crate::poller::{Interest, Poller};
use crate::process::{Clock, Late, Watched, start_role};
use crate::wire::names;
use holding::Holding;
use wire::{Bid, Found, Process, Succession, ToKeeper, ToVault, Told};

const STOP: u64 = 0;
const KEEPER: u64 = 1;
const LINKS: u64 = 16;

/// Exit status of a process that panicked.
const PANICKED: i32 = 101;

/// The process that is, or is to be, the keeper.
struct Keeper {
    process: Watched,
    /// The link over which it is to be told to begin, if this vault started it.
    begins: Option<u64>,
    since: TimeNs,
    beats: u64,
    beaten_at: TimeNs,
    status: Option<i32>,
}

/// See the module's text.
pub struct Vault {
    number: usize,
    arguments: Vec<OsString>,
    desk: Desk,
    holding: Holding,
    links: Vec<(u64, Link)>,
    links_made: u64,
    /// The link over which a keeper said that it has the lock.
    fenced: Option<u64>,
    keeper: Option<Keeper>,
    /// When the next one is to be started, if nobody else does.
    start_at: TimeNs,
    pause: Duration,
    stopping: Option<TimeNs>,
    /// Keepers that ended without having stopped all.
    stops_failed: u32,
    found: Option<Found>,
    poller: Poller,
    stop: OwnedFd,
}

/// The first process of all. `arguments` are a keeper's; `stop` is readable when all is to end. Gives the exit status.
///
/// # Errors
/// [`Error::Running`], [`Error::Orphans`], or what it cannot go on without.
pub fn run_first(rundir: &Path, arguments: Vec<OsString>, stop: OwnedFd) -> Result<u8, Error> {
    let Instance { watchers, parts } = Instance::claim(rundir)?;
    let desk = Desk::create()?;
    let holding = Holding::first([
        (names::DESK, desk.as_fd().try_clone_to_owned()?),
        (names::COMMANDS, std::io::stdin().as_fd().try_clone_to_owned()?),
        (names::LOCK, watchers),
        (names::PARTS, parts),
    ]);
    Vault::new(0, arguments, desk, holding, stop)?.run()
}

/// A vault that a keeper started. It ends if the keeper does before it has given anything.
///
/// # Errors
/// What it cannot go on without.
pub fn run_next(arguments: Vec<OsString>, stop: OwnedFd) -> Result<u8, Error> {
    let link = Link::from_fd(std::io::stdin().as_fd().try_clone_to_owned()?);
    let Packet { message, descriptors } = link.receive::<ToVault>()?;
    let Some(Told::Deposit(deposit)) = message.told else { return Err(Error::Missing { name: "deposit" }) };
    link.set_nonblocking(true)?;
    let number = usize::try_from(deposit.vault).ok().filter(|number| *number < VAULTS);
    let number = number.ok_or(Error::Missing { name: "number below the bound" })?;
    let mut holding = Holding::default();
    let keeper = deposit.keeper.clone();
    holding.replace(deposit, descriptors);
    let desk = Desk::open(holding.copy_of(names::DESK).ok_or(Error::Missing { name: "desk" })?)?;
    let mut vault = Vault::new(number, arguments, desk, holding, stop)?;
    vault.add_link(link)?;
    vault.obey(keeper)?;
    vault.run()
}

impl Vault {
    fn new(
        number: usize,
        arguments: Vec<OsString>,
        desk: Desk,
        holding: Holding,
        stop: OwnedFd,
    ) -> Result<Self, Error> {
        // Processes of a dead keeper become our children: somebody must wait for them.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(Error::system("prctl"))?;
        let poller = Poller::new()?;
        poller.add(&stop, STOP, Interest::READ)?;
        Ok(Self {
            number,
            arguments,
            desk,
            holding,
            links: vec![],
            links_made: 0,
            fenced: None,
            keeper: None,
            start_at: TimeNs(0),
            pause: Duration::ZERO,
            stopping: None,
            stops_failed: 0,
            found: None,
            poller,
            stop,
        })
    }

    fn run(mut self) -> Result<u8, Error> {
        let mut ready = vec![];
        let (mut clock, mut late) = (Clock::new(), Late::default());
        loop {
            let now = now();
            self.desk.beat_vault(self.number);
            self.reap();
            self.hear(now)?;
            if let Some(id) = self.fenced.take() {
                // Whoever was the keeper is gone: this is the last of what it sent.
                self.hear(now)?;
                self.begin(id)?;
            }
            if let Some(code) = self.look(now, late)? {
                return Ok(code);
            }
            if self.keeper.is_none() && now >= self.start_at {
                self.start(now);
            }
            let pause = self.look_again(now);
            let planned = now.plus_ns(nanos(pause));
            self.poller.wait(pause, &mut ready)?;
            late = clock.late(if ready.is_empty() { crate::events::now().since_ns(planned) } else { 0 });
            if ready.contains(&STOP) {
                let _ = rustix::io::read(&self.stop, &mut [0; 8]);
                self.begin_stop();
            }
        }
    }

    /// How long to sleep.
    fn look_again(&mut self, now: TimeNs) -> Duration {
        let Some(keeper) = &mut self.keeper else {
            return Duration::from_nanos(self.start_at.since_ns(now)).min(BEAT);
        };
        let beats = self.desk.keeper_beats();
        if std::mem::replace(&mut keeper.beats, beats) != beats {
            keeper.beaten_at = now;
        }
        let doubted = now.since_ns(keeper.beaten_at) > nanos(VAULT_DOUBTS);
        if doubted { VAULT_LOOK_AGAIN } else { VAULT_LOOK }
    }

    /// Waits for children, ours and those that dead keepers left.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get().unsigned_abs();
            if let Some(keeper) = self.keeper.as_mut().filter(|keeper| keeper.process.pid == pid) {
                keeper.status = status.exit_status();
            }
        }
    }

    fn hear(&mut self, now: TimeNs) -> Result<(), Error> {
        for id in self.links.iter().map(|(id, _)| *id).collect::<Vec<_>>() {
            while let Some((_, link)) = self.links.iter().find(|(known, _)| *known == id) {
                match link.receive::<ToVault>() {
                    Ok(packet) => self.take(id, packet, now)?,
                    Err(LinkError::WouldBlock) => break,
                    Err(error) => {
                        tracing::debug!(%error, "a link ends");
                        self.links.retain(|(known, _)| *known != id);
                    }
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, id: u64, packet: Packet<ToVault>, now: TimeNs) -> Result<(), Error> {
        match packet.message.told {
            Some(Told::Fenced(_)) => self.fenced = Some(id),
            Some(Told::Deposit(deposit)) => {
                let keeper = deposit.keeper.clone();
                if self.holding.replace(deposit, packet.descriptors) {
                    self.obey(keeper)?;
                }
            }
            Some(Told::Stop(_)) => self.stopping = self.stopping.or(Some(now)),
            None => {}
        }
        Ok(())
    }

    /// Whoever deposits is the keeper.
    fn obey(&mut self, claim: Option<Process>) -> Result<(), Error> {
        let Some(claim) = claim else { return Ok(()) };
        if let Some(keeper) = &self.keeper {
            if keeper.process.is(claim.pid, claim.start_ticks) {
                // It knows how the one before it ended.
                self.found.take_if(|found| found.pid != claim.pid);
                return Ok(());
            }
            // It waits for the desk's lock, in vain.
            keeper.process.kill();
        }
        self.found = None;
        match Watched::other(claim.pid, claim.start_ticks, now()) {
            Some(process) => self.watch(process, None)?,
            None => self.bury(now(), claim.pid, None),
        }
        Ok(())
    }

    fn watch(&mut self, process: Watched, begins: Option<u64>) -> Result<(), Error> {
        self.poller.add(&process, KEEPER, Interest::READ)?;
        let (since, beats) = (now(), self.desk.keeper_beats());
        self.keeper = Some(Keeper { process, begins, since, beats, beaten_at: since, status: None });
        Ok(())
    }

    /// Looks at the keeper. Gives the exit status when all has ended.
    fn look(&mut self, now: TimeNs, late: Late) -> Result<Option<u8>, Error> {
        let Some(keeper) = &mut self.keeper else { return Ok(None) };
        if keeper.process.is_gone() {
            return self.keeper_gone();
        }
        if !keeper.process.condemned && self.stopping.is_none() {
            self.judge(now, late);
            return Ok(None);
        }
        let takes_too_long = self.stopping.is_some_and(|since| now.since_ns(since) > nanos(KEEPER_STOP_WAIT));
        if takes_too_long {
            self.stopping = Some(now);
            keeper.process.kill();
        }
        Ok(None)
    }

    /// One that stops all is excused: it waits for each process.
    fn judge(&mut self, now: TimeNs, late: Late) {
        let Some(keeper) = &mut self.keeper else { return };
        let verdict = keeper.process.judge(now, late, self.desk.keeper_beats());
        let Verdict::Dead { since, cause } = verdict else { return };
        keeper.process.condemned = true;
        self.desk.condemn(keeper.process.pid, &format!("{cause:?} after {} us", now.since_ns(since) / 1000));
        keeper.process.kill();
    }

    fn keeper_gone(&mut self) -> Result<Option<u8>, Error> {
        // Looked up again: it may have died after this turn of the loop had begun, and must not be said to have died before.
        let now = now();
        self.reap();
        // All that it sent before its end.
        self.hear(now)?;
        let Some(keeper) = self.keeper.take_if(|keeper| keeper.process.is_gone()) else { return Ok(None) };
        if self.desk.is_finished() {
            return Ok(Some(0));
        }
        let by_itself = keeper.status.filter(|code| *code != PANICKED);
        if let Some(code) = by_itself
            && self.holding.sequence() == 0
        {
            // Nothing was begun, and the next one would fare no better.
            return Ok(Some(u8::try_from(code).unwrap_or(1)));
        }
        if self.stopping.is_some() {
            self.stops_failed += 1;
            if self.stops_failed == KEEPER_STOPS_MAX {
                return Ok(Some(1));
            }
        }
        let short = now.since_ns(keeper.since) < nanos(KEEPER_LIVED);
        self.pause = match short {
            true => (self.pause * 2).clamp(KEEPER_AGAIN_FIRST, KEEPER_AGAIN_MAX),
            false => Duration::ZERO,
        };
        self.bury(now, keeper.process.pid, keeper.status);
        Ok(None)
    }

    fn bury(&mut self, now: TimeNs, pid: u32, status: Option<i32>) {
        self.keeper = None;
        let (kind, detail) = match (self.desk.condemned(pid), status) {
            (Some(why), _) => ("condemned", why),
            (None, Some(code)) => ("ended", format!("exit status {code}")),
            (None, None) => ("ended", "killed".to_owned()),
        };
        let kind = kind.to_owned();
        self.found.get_or_insert(Found { at_monotonic_ns: now.0, kind, detail, pid });
        let yields = VAULT_YIELD * u32::try_from(self.number).unwrap_or(0);
        self.start_at = now.plus_ns(nanos(self.pause + yields));
    }

    fn start(&mut self, now: TimeNs) {
        if let Err(error) = self.try_start(now) {
            tracing::error!(%error, "no keeper can be started");
            self.start_at = now.plus_ns(nanos(KEEPER_AGAIN_MAX));
        }
    }

    fn try_start(&mut self, now: TimeNs) -> Result<(), Error> {
        let (process, ours) = start_role(|command| command.arg("keep").args(&self.arguments))?;
        ours.set_nonblocking(true)?;
        ours.send(&ToKeeper { bid: Some(Bid::Fence(true)) }, &[self.desk.as_fd()])?;
        let id = self.add_link(ours)?;
        self.watch(Watched::child(&process, now)?, Some(id))
    }

    /// Gives all to a keeper that this vault started and that has the lock.
    fn begin(&mut self, id: u64) -> Result<(), Error> {
        let ours = self.keeper.as_ref().is_some_and(|keeper| keeper.begins == Some(id));
        let Some((_, link)) = self.links.iter().find(|(known, _)| *known == id && ours) else {
            return Ok(());
        };
        if self.holding.sequence() < self.desk.deposited() {
            // Another vault knows of processes that this one does not.
            return Err(Error::Stale { have: self.holding.sequence(), newest: self.desk.deposited() });
        }
        let pid = std::process::id();
        let start_ticks = Stat::of(pid).map_or(0, |stat| stat.start_ticks);
        let succession = Succession {
            deposit: Some(self.holding.deposit().clone()),
            vault: Some(Process { number: self.number as u64, pid, start_ticks }),
            found: self.found.clone(),
        };
        let begun = link.send(&ToKeeper { bid: Some(Bid::Begin(succession)) }, &self.holding.descriptors());
        if let Err(error) = begun {
            tracing::warn!(%error, "a keeper cannot begin");
        }
        if self.stopping.is_some() {
            self.begin_stop();
        }
        Ok(())
    }

    fn begin_stop(&mut self) {
        self.stopping.get_or_insert_with(now);
        for (_, link) in &self.links {
            // Only one has a keeper at its other end.
            let _ = link.send(&ToKeeper { bid: Some(Bid::Stop(true)) }, &[]);
        }
    }

    fn add_link(&mut self, link: Link) -> Result<u64, Error> {
        self.links_made += 1;
        self.poller.add(&link, LINKS + self.links_made, Interest::READ)?;
        if self.links.len() == VAULT_LINKS_MAX {
            self.links.remove(0);
        }
        self.links.push((self.links_made, link));
        Ok(self.links_made)
    }
}
