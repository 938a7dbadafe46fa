//! All that outlives shadow and drivers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use hypervisor::{BackendHost, Region};
use lane::Lane;
use net_watch::TimeNs;
use net_watch::ladder::{Incarnation, Part};
use nic::Held;

use super::Options;
use super::reset::{BusDevice, link_up};
use crate::error::Error;
use crate::events::nanos;
use crate::limits::{LANE_SLOTS, OLD_RING_WAIT};
use crate::poller::{Interest, Poller};
use crate::shadow::uplink::{drain, eventfd};
use crate::state::State;
use crate::vault::wire::{NicRecord, Record};
use crate::wire::{Begin, Named, Nic, names, take_all_named, take_named};

/// A network card with its lane.
pub struct Card {
    /// The kernel's descriptors.
    pub held: Held,
    /// The lane.
    pub lane: Lane,
    /// The kernel's number of the interface: another one is another device.
    index: Option<u32>,
    /// Where the device is on its bus, if it is on one.
    pub bus: Option<BusDevice>,
    /// Since when another one is there.
    replaced_since: Option<TimeNs>,
    wake_driver: OwnedFd,
    wake_shadow: OwnedFd,
}

/// All descriptors.
pub struct Kept {
    /// The network cards.
    pub cards: Vec<Card>,
    /// The shadow's state.
    pub state: State,
    /// Becomes readable when a guest sends after a pause.
    pub busy: OwnedFd,
    events: Vec<OwnedFd>,
    asleep: bool,
}

impl Kept {
    /// Opens everything.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let host = BackendHost::open(&options.host)?;
        let events = host.events.handles().into_iter().map(|fd| fd.try_clone_to_owned());
        let events = events.collect::<Result<_, _>>()?;
        let cards = options.nics.iter().map(Card::open).collect::<Result<_, _>>()?;
        Ok(Self { cards, state: State::create()?, busy: eventfd()?, events, asleep: false })
    }

    /// Takes over what an earlier keeper had opened.
    ///
    /// # Errors
    /// What is missing, or makes no sense.
    pub fn adopt(named: &mut Named, record: &Record) -> Result<Self, Error> {
        let state = State::adopt(take_named(named, names::STATE, "state")?)?;
        // The one before may have slept: we do not.
        state.heartbeat().set_keeper_sleeps(false);
        let busy = take_named(named, names::BUSY, "eventfd")?;
        let events = take_all_named(named, names::EVTCHN);
        let cards = record.nics.iter().enumerate().map(|(number, nic)| Card::adopt(named, number, nic));
        Ok(Self { cards: cards.collect::<Result<_, _>>()?, state, busy, events, asleep: false })
    }

    /// All descriptors, with the names by which [`Self::adopt`] knows them.
    pub fn descriptors(&self) -> Vec<(String, BorrowedFd<'_>)> {
        let mut all = vec![
            (names::STATE.to_owned(), self.state.region().as_fd()),
            (names::BUSY.to_owned(), self.busy.as_fd()),
        ];
        for (number, handle) in self.events.iter().enumerate() {
            all.push((format!("{}{number}", names::EVTCHN), handle.as_fd()));
        }
        for (number, card) in self.cards.iter().enumerate() {
            all.push((format!("{}{number}", names::LANE), card.lane.region().as_fd()));
            all.push((format!("{}{number}", names::WAKE_DRIVER), card.wake_driver.as_fd()));
            all.push((format!("{}{number}", names::WAKE_SHADOW), card.wake_shadow.as_fd()));
            for (at, descriptor) in card.held.fds().into_iter().enumerate() {
                all.push((format!("{}{number}.{at}", names::CARD), descriptor));
            }
        }
        all
    }

    /// What the descriptors of the cards are about.
    pub fn record(&self) -> Vec<NicRecord> {
        let record = |card: &Card| {
            let BusDevice { driver, id } = card.bus.clone().unwrap_or_default();
            NicRecord { spec: card.held.spec().to_string(), index: card.index.unwrap_or(0), driver, id }
        };
        self.cards.iter().map(record).collect()
    }

    /// The first order of a process, with its descriptors.
    pub fn begin(
        &self,
        part: Part,
        incarnation: Incarnation,
        injection: bool,
    ) -> (Begin, Vec<BorrowedFd<'_>>) {
        let mut begin = Begin { epoch: incarnation.0, names: vec![], nics: vec![], injection };
        let mut descriptors = vec![];
        let mut add = |name: String, descriptor| {
            begin.names.push(name);
            descriptors.push(descriptor);
        };
        self.state.refresh();
        if part == Part::Shadow {
            add(names::STATE.to_owned(), self.state.region().as_fd());
            add(names::BUSY.to_owned(), self.busy.as_fd());
            for (number, handle) in self.events.iter().enumerate() {
                add(format!("{}{number}", names::EVTCHN), handle.as_fd());
            }
        }
        let own = part.nic().map(|nic| usize::from(nic.0));
        let mut nics = vec![];
        for (number, card) in self.cards.iter().enumerate() {
            card.lane.refresh();
            if own.is_some_and(|own| own != number) {
                continue;
            }
            let spec = card.held.spec().to_string();
            nics.push(Nic { number: u32::try_from(number).unwrap_or(u32::MAX), spec });
            add(format!("{}{number}", names::LANE), card.lane.region().as_fd());
            add(format!("{}{number}", names::WAKE_DRIVER), card.wake_driver.as_fd());
            add(format!("{}{number}", names::WAKE_SHADOW), card.wake_shadow.as_fd());
            for (at, descriptor) in card.held.fds().into_iter().enumerate().filter(|_| own.is_some()) {
                add(format!("{}{at}", names::NIC), descriptor);
            }
        }
        begin.nics = nics;
        (begin, descriptors)
    }

    /// Has frames wake us.
    pub fn fall_asleep(&mut self, poller: &mut Poller, word: u64) -> Result<(), Error> {
        if self.asleep {
            return Ok(());
        }
        for (number, card) in self.cards.iter().enumerate() {
            for descriptor in card.held.fds().into_iter().take(1) {
                poller.add(descriptor, word + number as u64, Interest::READ)?;
            }
        }
        self.state.heartbeat().set_keeper_sleeps(true);
        self.asleep = true;
        Ok(())
    }

    /// Looks by itself from now on.
    pub fn wake_up(&mut self, poller: &mut Poller) -> Result<(), Error> {
        drain(&self.busy);
        if !std::mem::take(&mut self.asleep) {
            return Ok(());
        }
        self.state.heartbeat().set_keeper_sleeps(false);
        for card in &self.cards {
            for descriptor in card.held.fds().into_iter().take(1) {
                poller.remove(descriptor)?;
            }
        }
        Ok(())
    }

    /// Is another device of the same name there, and nothing left to be read of the old one, or too long unread?
    pub fn is_replaced(&mut self, number: usize, now: TimeNs) -> bool {
        let card = &mut self.cards[number];
        let index = interface_index(&card.held.spec().interface);
        if index.is_none() || index == card.index {
            card.replaced_since = None;
            return false;
        }
        let since = *card.replaced_since.get_or_insert(now);
        let unread = card.held.fds().first().is_some_and(super::look::is_readable);
        !unread || now.since_ns(since) > nanos(OLD_RING_WAIT)
    }

    /// Opens a device that came in the place of another. What waited for the old one goes over it. No driver runs. Tells how
    /// many frames waited.
    ///
    /// # Errors
    /// What the kernel reports; then the old one is kept.
    pub fn replace(&mut self, number: usize, poller: &mut Poller) -> Result<u32, Error> {
        // The poller must not go on waiting for what is closed here.
        self.wake_up(poller)?;
        // Looked up first: should it be replaced once more meanwhile, that is found out.
        let card = &mut self.cards[number];
        let spec = card.held.spec().clone();
        let index = interface_index(&spec.interface);
        link_up(&spec.interface)?;
        // It waits for nothing: this is the keeper's own loop, which comes here again.
        let held = Held::open(&spec)?;
        let carried = held.carry_over(&card.held, &card.lane)?;
        (card.held, card.index, card.replaced_since) = (held, index, None);
        card.bus = BusDevice::of(&spec.interface);
        Ok(carried)
    }
}

impl Card {
    fn open(spec: &nic::NicSpec) -> Result<Self, Error> {
        let region = Arc::new(Region::create("net-lane", Lane::bytes(LANE_SLOTS, LANE_SLOTS))?);
        let lane = Lane::create(region, LANE_SLOTS, LANE_SLOTS)?;
        let index = interface_index(&spec.interface);
        let held = Held::open_waiting(spec)?;
        // A TAP device may have been made just now.
        let index = index.or_else(|| interface_index(&spec.interface));
        let bus = BusDevice::of(&spec.interface);
        let (wake_driver, wake_shadow) = (eventfd()?, eventfd()?);
        Ok(Self { held, lane, index, bus, replaced_since: None, wake_driver, wake_shadow })
    }

    fn adopt(named: &mut Named, number: usize, nic: &NicRecord) -> Result<Self, Error> {
        let spec: nic::NicSpec = nic.spec.parse()?;
        let held = Held::from_fds(&spec, take_all_named(named, &format!("{}{number}.", names::CARD)))?;
        let lane = take_named(named, &format!("{}{number}", names::LANE), "lane")?;
        let region = Arc::new(Region::open(lane, Lane::bytes(LANE_SLOTS, LANE_SLOTS))?);
        // This writes only what never changes, which may have been damaged.
        let lane = Lane::create(region, LANE_SLOTS, LANE_SLOTS)?;
        let mut take = |name: &str| take_named(named, &format!("{name}{number}"), "eventfd");
        let (wake_driver, wake_shadow) = (take(names::WAKE_DRIVER)?, take(names::WAKE_SHADOW)?);
        let index = Some(nic.index).filter(|index| *index != 0);
        let noted = BusDevice { driver: nic.driver.clone(), id: nic.id.clone() };
        // An older keeper did not note it.
        let bus = if noted == BusDevice::default() { BusDevice::of(&spec.interface) } else { Some(noted) };
        Ok(Self { held, lane, index, bus, replaced_since: None, wake_driver, wake_shadow })
    }
}

fn interface_index(name: &str) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?;
    text.trim_end().parse().ok()
}
