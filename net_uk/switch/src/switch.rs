//! The switch.

use std::collections::HashMap;

use foldhash::quality::RandomState;

use crate::counters::{Counters, DropReason};
use crate::limits::{HEADER_BYTES, MULTICAST_MAX, PORTS_MAX};
use crate::port::Port;
use crate::{MacAddress, PortConfig, PortId, PortKind, PortSet, Result, SwitchError, TimeNs};

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// To these ports, at least one.
    To(PortSet),
    /// Nowhere.
    Dropped(DropReason),
}

/// Where a station is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Fixed(PortId),
    Learned { port: PortId, place: usize, seen: TimeNs },
}

/// Sets that do not change with each frame.
#[derive(Clone, Copy, Debug, Default)]
struct Sets {
    all: PortSet,
    nics: PortSet,
    wants_unknown: PortSet,
    wants_all_groups: PortSet,
}

/// A learning switch.
#[derive(Clone, Debug)]
pub struct Switch {
    ageing_ns: u64,
    ports: Vec<Option<Port>>,
    sets: Sets,
    // Never walked, so its order is of no effect. Two are looked up for each frame; how many there are is bounded for each
    // port, so that a hash for speed, with a seed of its own, will do.
    stations: HashMap<MacAddress, Place, RandomState>,
    groups: HashMap<MacAddress, PortSet, RandomState>,
}

impl Switch {
    /// A switch without ports that believes a learned address for `ageing_ns` without a frame from it.
    pub fn new(ageing_ns: u64) -> Self {
        Self {
            ageing_ns,
            ports: Vec::new(),
            sets: Sets::default(),
            stations: HashMap::default(),
            groups: HashMap::default(),
        }
    }

    /// Adds a port. Its fixed address is here from now on, wherever it was learned.
    ///
    /// # Errors
    /// All ports are in use, another port has this fixed address, or the port cannot be set up like this.
    pub fn add_port(&mut self, config: PortConfig) -> Result<PortId> {
        config.check()?;
        if let Some(mac) = config.mac
            && let Some(Place::Fixed(port)) = self.stations.get(&mac).copied()
        {
            return Err(SwitchError::AddressTaken { mac, port });
        }
        let id = self.free_port()?;
        self.reserve(&config);
        if let Some(mac) = config.mac {
            self.forget(mac);
            self.stations.insert(mac, Place::Fixed(id));
        }
        self.ports[id.index()] = Some(Port::new(config));
        self.add_to_sets(id, &config);
        Ok(id)
    }

    /// Takes a port away, with all that was learned there.
    ///
    /// # Errors
    /// There is no such port.
    pub fn remove_port(&mut self, id: PortId) -> Result<Counters> {
        let port = self.ports.get_mut(id.index()).and_then(Option::take).ok_or(SwitchError::NoPort(id))?;
        for mac in port.learned.iter().chain(port.config.mac) {
            self.stations.remove(&mac);
        }
        for mac in &port.groups {
            self.leave(id, *mac);
        }
        let Sets { all, nics, wants_unknown, wants_all_groups } = &mut self.sets;
        for set in [all, nics, wants_unknown, wants_all_groups] {
            set.remove(id);
        }
        Ok(port.counters)
    }

    /// Adds a group to what a port asked for. Asking again changes nothing.
    ///
    /// # Errors
    /// There is no such port or it has no filter, the address is not a group's, or the filter is full.
    pub fn add_group(&mut self, id: PortId, mac: MacAddress) -> Result<()> {
        let port = self.filtering(id, mac)?;
        if port.groups.contains(&mac) {
            return Ok(());
        }
        if port.groups.len() == MULTICAST_MAX {
            return Err(SwitchError::FilterFull { port: id, max: MULTICAST_MAX });
        }
        port.groups.push(mac);
        self.groups.entry(mac).or_default().insert(id);
        Ok(())
    }

    /// Takes a group away from what a port asked for, if it is there.
    ///
    /// # Errors
    /// There is no such port or it has no filter, or the address is not a group's.
    pub fn remove_group(&mut self, id: PortId, mac: MacAddress) -> Result<()> {
        let port = self.filtering(id, mac)?;
        port.groups.retain(|group| *group != mac);
        self.leave(id, mac);
        Ok(())
    }

    /// Counts of a port.
    ///
    /// # Errors
    /// There is no such port.
    pub fn counters(&self, id: PortId) -> Result<Counters> {
        let port = self.ports.get(id.index()).and_then(Option::as_ref);
        port.map(|port| port.counters).ok_or(SwitchError::NoPort(id))
    }

    /// All ports.
    pub fn ports(&self) -> PortSet {
        self.sets.all
    }

    /// Decides where a frame from a port goes, and learns where its sender is. `length_bytes` is the frame's whole length;
    /// `header` needs to hold its first 14 bytes only.
    ///
    /// # Errors
    /// There is no such port.
    pub fn forward(
        &mut self,
        now: TimeNs,
        from: PortId,
        header: &[u8],
        length_bytes: u64,
    ) -> Result<Forward> {
        let port = self.port_mut(from)?;
        port.counters.in_frames += 1;
        port.counters.in_bytes += length_bytes;
        let targets = match self.decide(now, from, header) {
            Ok(targets) => targets,
            Err(drop) => {
                self.port_mut(from)?.counters.count(drop);
                return Ok(Forward::Dropped(drop));
            }
        };
        for target in targets {
            let counters = &mut self.port_mut(target)?.counters;
            counters.out_frames += 1;
            counters.out_bytes += length_bytes;
        }
        Ok(Forward::To(targets))
    }

    fn decide(&mut self, now: TimeNs, from: PortId, header: &[u8]) -> Result<PortSet, DropReason> {
        let (to, sender) = addresses_of(header).ok_or(DropReason::TooShort)?;
        if !sender.is_station() {
            return Err(DropReason::BadSender);
        }
        if self.is_spoofed(from, sender) {
            return Err(DropReason::Spoofed);
        }
        if to.is_of_the_link() {
            return Err(DropReason::OfTheLink);
        }
        self.learn(now, from, sender);
        let mut targets = self.targets(now, from, to);
        targets.remove(from);
        if self.sets.nics.contains(from) {
            targets = targets & !self.sets.nics;
        }
        if targets.is_empty() { Err(DropReason::NoTarget) } else { Ok(targets) }
    }

    /// A fixed address may be seen at a NIC: a guest is moving, or a frame came back. At another vif it is a lie.
    fn is_spoofed(&self, from: PortId, sender: MacAddress) -> bool {
        let Some(port) = self.ports.get(from.index()).and_then(Option::as_ref) else { return false };
        if port.config.checks_sender {
            return port.config.mac != Some(sender);
        }
        let is_fixed_elsewhere =
            || matches!(self.stations.get(&sender), Some(Place::Fixed(port)) if *port != from);
        port.config.kind == PortKind::Vif && is_fixed_elsewhere()
    }

    fn targets(&mut self, now: TimeNs, from: PortId, to: MacAddress) -> PortSet {
        if to == MacAddress::BROADCAST {
            return self.sets.all;
        }
        if to.is_group() {
            let asked = self.groups.get(&to).copied().unwrap_or_default();
            return self.sets.wants_all_groups | asked;
        }
        match self.find(now, to) {
            Some(port) => PortSet::of(port),
            None => {
                if let Some(Some(port)) = self.ports.get_mut(from.index()) {
                    port.counters.flooded += 1;
                }
                self.sets.wants_unknown
            }
        }
    }

    /// Where a station is, if that is known and not too old.
    fn find(&self, now: TimeNs, mac: MacAddress) -> Option<PortId> {
        match *self.stations.get(&mac)? {
            Place::Fixed(port) => Some(port),
            Place::Learned { port, seen, .. } => (now.since_ns(seen) < self.ageing_ns).then_some(port),
        }
    }

    fn learn(&mut self, now: TimeNs, from: PortId, mac: MacAddress) {
        let ageing_ns = self.ageing_ns;
        let Some(Some(port)) = self.ports.get_mut(from.index()) else { return };
        match self.stations.get_mut(&mac) {
            Some(Place::Fixed(_)) => return,
            Some(Place::Learned { port, seen, .. }) if *port == from => {
                *seen = now.max(*seen);
                return;
            }
            Some(Place::Learned { seen, .. }) => {
                if !port.config.takes_over && now.since_ns(*seen) < ageing_ns {
                    port.counters.refused_moves += 1;
                    return;
                }
                port.counters.moved_in += 1;
            }
            None => port.counters.learned += 1,
        }
        self.settle(now, from, mac);
    }

    /// Notes that a station is at a port now.
    fn settle(&mut self, now: TimeNs, from: PortId, mac: MacAddress) {
        self.forget(mac);
        let Some(Some(port)) = self.ports.get_mut(from.index()) else { return };
        let (place, displaced) = port.learned.insert(mac);
        if let Some(displaced) = displaced {
            port.counters.displaced += 1;
            self.stations.remove(&displaced);
        }
        self.stations.insert(mac, Place::Learned { port: from, place, seen: now });
    }

    /// Forgets where a station was learned.
    fn forget(&mut self, mac: MacAddress) {
        if let Some(Place::Learned { port, place, .. }) = self.stations.get(&mac).copied() {
            self.stations.remove(&mac);
            if let Some(Some(port)) = self.ports.get_mut(port.index()) {
                port.learned.clear(place);
            }
        }
    }

    fn free_port(&mut self) -> Result<PortId> {
        let index = self.ports.iter().position(Option::is_none).unwrap_or(self.ports.len());
        let id = PortId::new(index).ok_or(SwitchError::PortsFull { max: PORTS_MAX })?;
        if index == self.ports.len() {
            self.ports.push(None);
        }
        Ok(id)
    }

    /// Room for all that the ports may learn, so that forwarding need not allocate.
    fn reserve(&mut self, config: &PortConfig) {
        let ports = self.ports.iter().flatten().map(|port| &port.config).chain([config]);
        let most: usize = ports.map(|config| config.addresses_max() + 1).sum();
        self.stations.reserve(most - self.stations.len());
    }

    fn add_to_sets(&mut self, id: PortId, config: &PortConfig) {
        self.sets.all.insert(id);
        if config.kind == PortKind::Nic {
            self.sets.nics.insert(id);
        }
        if config.wants_unknown {
            self.sets.wants_unknown.insert(id);
        }
        if !config.filters_multicast {
            self.sets.wants_all_groups.insert(id);
        }
    }

    fn leave(&mut self, id: PortId, mac: MacAddress) {
        let Some(members) = self.groups.get_mut(&mac) else { return };
        members.remove(id);
        if members.is_empty() {
            self.groups.remove(&mac);
        }
    }

    fn filtering(&mut self, id: PortId, mac: MacAddress) -> Result<&mut Port> {
        if !mac.is_group() {
            return Err(SwitchError::NotMulticast(mac));
        }
        let port = self.port_mut(id)?;
        if port.config.filters_multicast { Ok(port) } else { Err(SwitchError::Unfit) }
    }

    fn port_mut(&mut self, id: PortId) -> Result<&mut Port> {
        self.ports.get_mut(id.index()).and_then(Option::as_mut).ok_or(SwitchError::NoPort(id))
    }
}

/// Is a frame for a group, or for all stations?
pub fn is_for_group(header: &[u8]) -> bool {
    addresses_of(header).is_some_and(|(to, _)| to.is_group())
}

/// Receiver and sender.
fn addresses_of(header: &[u8]) -> Option<(MacAddress, MacAddress)> {
    let header = header.first_chunk::<HEADER_BYTES>()?;
    let (to, rest) = header.split_first_chunk::<6>()?;
    Some((MacAddress(*to), MacAddress(*rest.first_chunk::<6>()?)))
}
