//! How a keeper begins: alone, or behind one that died.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};

use control::proc::Stat;
use control::{Link, Packet};
use net_watch::TimeNs;
use net_watch::detector::{Cause, ExitStatus};
use net_watch::ladder::{Incarnation, Input, Ladder, Memory, NicId, Part};

use super::child::Child;
use super::commands::Commands;
use super::held::Kept;
use super::reset::Resets;
use super::vaults::Vaults;
use super::{ASKS, BUSY, COMMANDS, Keeper, Options, RESETS, STOP, VAULT_LINKS, VAULTS_GONE};
use crate::desk::{Desk, KeeperLock};
use crate::error::Error;
use crate::events::{Event, Events, now};
use crate::poller::{Interest, Poller};
use crate::process::Clock;
use crate::rpc;
use crate::vault::wire::{Bid, Deposit, Record, Succession, ToKeeper, ToVault, Told};
use crate::wire::{Named, names, take_named};

/// Takes over from a vault, whose link is the standard input, and runs until all is told to stop, here (`stop` is
/// readable) or there.
///
/// # Errors
/// What it cannot begin or go on without.
pub fn run(options: Options, stop: OwnedFd) -> Result<(), Error> {
    let succession = Inheritance::take()?;
    let mut keeper = Keeper::begin(options, stop, succession)?;
    keeper.serve()
}

/// What a vault gives.
struct Inheritance {
    desk: Desk,
    lock: KeeperLock,
    generation: u64,
    link: Link,
    succession: Succession,
    named: Named,
}

impl Inheritance {
    /// Waits until no other keeper lives, and then for what is held.
    fn take() -> Result<Self, Error> {
        let link = Link::from_fd(std::io::stdin().as_fd().try_clone_to_owned()?);
        let Packet { message, descriptors } = link.receive::<ToKeeper>()?;
        let (Some(Bid::Fence(_)), Some(desk)) = (message.bid, descriptors.into_iter().next()) else {
            return Err(Error::Missing { name: "desk" });
        };
        let desk = Desk::open(desk)?;
        let lock = desk.lock()?;
        // Taken under the lock: whoever is the keeper later has a higher number.
        let generation = desk.next_generation();
        link.send(&ToVault { told: Some(Told::Fenced(true)) }, &[])?;
        loop {
            let Packet { message, descriptors } = link.receive::<ToKeeper>()?;
            // A stop that comes before is told again.
            let Some(Bid::Begin(mut succession)) = message.bid else { continue };
            let names = std::mem::take(&mut succession.deposit.get_or_insert_default().names);
            let named = names.into_iter().zip(descriptors).collect();
            link.set_nonblocking(true)?;
            return Ok(Self { desk, lock, generation, link, succession, named });
        }
    }
}

impl Keeper {
    fn begin(options: Options, stop: OwnedFd, inheritance: Inheritance) -> Result<Self, Error> {
        let Inheritance { desk, lock, generation, link, mut succession, mut named } = inheritance;
        let Deposit { sequence, record, .. } = succession.deposit.take().unwrap_or_default();
        let record = record.unwrap_or_default();
        let first = sequence == 0;
        let commands = Commands::new(take_named(&mut named, names::COMMANDS, "commands")?);
        let kept = if first { Kept::open(&options)? } else { Kept::adopt(&mut named, &record)? };
        let memories: Vec<Memory> = record.parts.iter().map(|part| part.memory()).collect();
        let ids: Vec<NicId> =
            (0..options.nics.len()).filter_map(|n| u16::try_from(n).ok().map(NicId)).collect();
        let events = Events::new(desk.journal(), options.format)?;
        let (window, clerk) = rpc::ends()?;
        let pid = std::process::id();
        let mut keeper = Self {
            ladder: Ladder::resuming(&ids, &memories, now())?,
            options,
            kept,
            children: BTreeMap::new(),
            judges: BTreeMap::new(),
            clock: Clock::new(),
            vaults: Vaults::new(generation),
            remembered: vec![],
            resets: Resets::new()?,
            poller: Poller::new()?,
            events,
            rpc: window,
            inputs: VecDeque::new(),
            idle_since: None,
            looked_at: TimeNs(0),
            look_took: std::time::Duration::ZERO,
            stop,
            commands,
            desk,
            generation,
            start_ticks: Stat::of(pid).map_or(0, |stat| stat.start_ticks),
            lock: take_named(&mut named, names::LOCK, "lock")?,
            parts: take_named(&mut named, names::PARTS, "lock")?.into(),
            _only: lock,
        };
        keeper.desk.beat_keeper();
        keeper.tell_beginning(&succession, pid);
        keeper.adopt_vaults(&succession, &record, &mut named, link)?;
        keeper.adopt_children(&record, &mut named)?;
        // Now this one is the keeper.
        keeper.deposit();
        keeper.watch_rest()?;
        keeper.greet_children();
        if let Err(error) = rpc::start(&keeper.options.listen, keeper.source(), clerk) {
            keeper.events.tell(Event::about("keeper", "rpc_failed", &error.to_string()));
        }
        keeper.complete_vaults()?;
        keeper.events.tell(Event::about("keeper", "ready", "").with_pid(pid));
        Ok(keeper)
    }

    fn tell_beginning(&self, succession: &Succession, pid: u32) {
        if let Some(found) = &succession.found {
            let event = Event::about("keeper", &found.kind, &found.detail);
            self.events.tell(event.at(found.at_monotonic_ns).with_pid(found.pid));
        }
        let detail = format!("{pid}, the {}.", self.generation);
        self.events.tell(Event::about("keeper", "started", &detail).with_pid(pid));
    }

    fn adopt_vaults(
        &mut self,
        succession: &Succession,
        record: &Record,
        named: &mut Named,
        link: Link,
    ) -> Result<(), Error> {
        let home = succession.vault.clone().unwrap_or_default();
        for vault in record.vaults.iter().filter(|vault| vault.number != home.number) {
            let name = format!("{}{}", names::VAULT, vault.number);
            let link = take_named(named, &name, "link to a vault");
            if !link.is_ok_and(|link| self.vaults.adopt(vault, link, now())) {
                let event = Event::about(&format!("vault.{}", vault.number), "ended", "");
                self.events.tell(event.with_pid(vault.pid));
            }
        }
        self.vaults.adopt(&home, link.into_fd(), now());
        for (number, seat) in self.vaults.present() {
            self.poller.add(&seat.process, VAULTS_GONE | number as u64, Interest::READ)?;
            self.poller.add(&seat.link, VAULT_LINKS | number as u64, Interest::READ)?;
            let (name, pid) = (format!("vault.{number}"), seat.process.pid);
            self.events.tell(Event::about(&name, "adopted", &pid.to_string()).with_pid(pid));
        }
        Ok(())
    }

    /// Goes on with processes of an earlier keeper. That they were without one is not held against them.
    fn adopt_children(&mut self, record: &Record, named: &mut Named) -> Result<(), Error> {
        for known in &record.parts {
            let memory = known.memory();
            let (part, incarnation) = (memory.part, memory.incarnation);
            let link = take_named(named, &format!("{}{}", names::LINK, known.part), "link");
            let child = link.ok().and_then(|link| Child::adopt(incarnation, known, link, now()));
            match child {
                Some(child) => {
                    self.children.insert(part, child);
                    self.watch(part)?;
                    let event = Event::of(part, "adopted", &known.pid.to_string());
                    self.events.tell(event.with_pid(known.pid));
                }
                None if memory.has_process() => self.died_meanwhile(part, incarnation, known.pid),
                None => {}
            }
        }
        Ok(())
    }

    /// It is not known how it ended: it was nobody's child who could have been told.
    fn died_meanwhile(&mut self, part: Part, incarnation: Incarnation, pid: u32) {
        let status = ExitStatus::Unknown;
        self.events.tell(Event::of(part, "ended", &format!("{status:?}")).with_pid(pid));
        self.inputs.push_back(Input::Ended { part, incarnation, cause: Cause::Exited(status) });
    }

    fn watch_rest(&mut self) -> Result<(), Error> {
        self.poller.add(&self.kept.busy, BUSY, Interest::READ)?;
        self.poller.add(&self.stop, STOP, Interest::READ)?;
        self.poller.add(self.resets.wake(), RESETS, Interest::READ)?;
        self.poller.add(self.rpc.wake(), ASKS, Interest::READ)?;
        // A file or the null device cannot be waited for, and gives no commands.
        let _ = self.poller.add(&self.commands, COMMANDS, Interest::READ);
        Ok(())
    }

    /// The keeper before may have died before it gave them their first order, or before it heard that they serve.
    fn greet_children(&self) {
        for part in self.children.keys() {
            self.begin_child(*part);
        }
    }
}
