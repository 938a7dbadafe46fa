//! All that outlives shadow and drivers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use hypervisor::{Host, Region};
use lane::Lane;
use net_watch::ladder::{Incarnation, Part};
use nic::Held;

use super::Options;
use crate::error::Error;
use crate::limits::LANE_SLOTS;
use crate::poller::{Interest, Poller};
use crate::shadow::uplink::{drain, eventfd};
use crate::state::State;
use crate::wire::{Begin, Nic, names};

/// A network card with its lane.
pub struct Card {
    /// The kernel's descriptors.
    pub held: Held,
    /// The lane.
    pub lane: Lane,
    /// The kernel's number of the interface: another one is another device.
    index: Option<u32>,
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
        let host = Host::open(&options.host)?;
        let events = host.events.handles().into_iter().map(|fd| fd.try_clone_to_owned());
        let events = events.collect::<Result<_, _>>()?;
        let cards = options.nics.iter().map(Card::open).collect::<Result<_, _>>()?;
        Ok(Self { cards, state: State::create()?, busy: eventfd()?, events, asleep: false })
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

    /// A device that was taken away and came back needs new descriptors.
    pub fn open_again_if_gone(&mut self, number: usize, options: &Options) -> Result<(), Error> {
        let card = &mut self.cards[number];
        let spec = &options.nics[number];
        let index = interface_index(&spec.interface);
        if index.is_some() && index != card.index {
            card.held = Held::open(spec)?;
            card.index = index;
        }
        Ok(())
    }
}

impl Card {
    fn open(spec: &nic::NicSpec) -> Result<Self, Error> {
        let region = Arc::new(Region::create("net-lane", Lane::bytes(LANE_SLOTS, LANE_SLOTS))?);
        let lane = Lane::create(region, LANE_SLOTS, LANE_SLOTS)?;
        let index = interface_index(&spec.interface);
        let held = Held::open(spec)?;
        Ok(Self { held, lane, index, wake_driver: eventfd()?, wake_shadow: eventfd()? })
    }
}

fn interface_index(name: &str) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?;
    text.trim_end().parse().ok()
}
