//! The network interfaces of a guest, for [`crate::Frontends`].

use std::collections::BTreeMap;

use hypervisor::limits::MEMORY_PAGES;
use serde::Serialize;

use super::netfront::{NetOptions, NetStats, Netfront};
use super::queue::QUEUE_PAGES;
use crate::limits::{QUEUES_MAX, STATES_MAX};
use crate::{Class, Device, Driver, Error, Guest, NoDriver, Result, XenbusState};

/// What a frontend saw of its backend's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Changes since the frontend connected: none but one, to `Connected`, unless the interface goes.
    pub changes: u64,
    /// Events of the node since then, with a change or not. A backend that was restarted may write the same state again,
    /// and Linux announces itself to its neighbours each time it sees `Connected`.
    pub events: u64,
    /// All states in order, the first ones if they are many.
    pub states: Vec<u8>,
    last: Option<u8>,
}

impl Seen {
    fn note(&mut self, state: XenbusState, connected: bool) {
        let changed = self.last.replace(state.number()) != Some(state.number());
        if changed && self.states.len() < STATES_MAX {
            self.states.push(state.number());
        }
        self.changes += u64::from(connected && changed);
        self.events += u64::from(connected);
    }
}

/// An interface and what it saw.
#[derive(Debug, Default)]
struct Interface {
    seen: Seen,
    front: Option<Netfront>,
    /// Of connections that were closed.
    before: Option<NetStats>,
}

/// The network interfaces. Other devices have no rings, as with [`NoDriver`].
#[derive(Debug)]
pub struct NetDriver {
    options: NetOptions,
    interfaces: BTreeMap<String, Interface>,
}

impl NetDriver {
    /// None yet.
    pub fn new(options: NetOptions) -> Self {
        Self { options, interfaces: BTreeMap::new() }
    }

    /// The connected interface of a path, as `device/vif/0`.
    pub fn front(&mut self, path: &str) -> Option<&mut Netfront> {
        self.interfaces.get_mut(path)?.front.as_mut()
    }

    /// The first connected interface.
    pub fn first(&mut self) -> Option<&mut Netfront> {
        self.interfaces.values_mut().find_map(|interface| interface.front.as_mut())
    }

    /// What the frontend of a path saw of its backend's state.
    pub fn seen(&self, path: &str) -> Option<&Seen> {
        self.interfaces.get(path).map(|interface| &interface.seen)
    }

    /// Path, counters and backend's states of all interfaces; of one that was closed, those of its last connection.
    pub fn stats(&self) -> impl Iterator<Item = (&str, NetStats, &Seen)> {
        self.interfaces.iter().map(|(path, interface)| {
            let now = interface.front.as_ref().map(Netfront::stats);
            (path.as_str(), now.or_else(|| interface.before.clone()).unwrap_or_default(), &interface.seen)
        })
    }

    fn close(&mut self, path: &str) -> Result<()> {
        if let Some(interface) = self.interfaces.get_mut(path)
            && let Some(front) = interface.front.take()
        {
            interface.before = Some(front.close()?);
        }
        Ok(())
    }

    /// The first frame of a device's pages. Interfaces lie one after the other by their numbers.
    fn first_frame(&self, path: &str) -> Result<u32> {
        let none = || Error::Pages { path: path.to_owned() };
        let number: u32 = path.rsplit('/').next().and_then(|id| id.parse().ok()).ok_or_else(none)?;
        let pages = u32::from(self.options.queues.clamp(1, QUEUES_MAX)) * QUEUE_PAGES;
        let first = number.checked_mul(pages).ok_or_else(none)?;
        let end = first.checked_add(pages).filter(|end| *end <= MEMORY_PAGES);
        end.map(|_| first).ok_or_else(none)
    }
}

impl Driver for NetDriver {
    fn offer(&mut self, guest: &mut Guest, device: &Device) -> Result<()> {
        if device.class != Class::Vif {
            return NoDriver.offer(guest, device);
        }
        self.close(&device.path)?;
        let first = self.first_frame(&device.path)?;
        let front = Netfront::offer(self.options.clone(), guest, device, first)?;
        self.interfaces.entry(device.path.clone()).or_default().front = Some(front);
        Ok(())
    }

    fn backend_seen(&mut self, device: &Device, state: XenbusState) {
        if device.class == Class::Vif {
            let interface = self.interfaces.entry(device.path.clone()).or_default();
            interface.seen.note(state, device.state == XenbusState::Connected);
        }
    }

    fn switched(&mut self, device: &Device) -> Result<()> {
        match device.state {
            XenbusState::Closed => self.close(&device.path),
            _ => Ok(()),
        }
    }

    fn removed(&mut self, device: &Device) {
        // Its ports go with the process at the latest.
        self.close(&device.path).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypervisor::DomId;

    #[test]
    fn states_are_counted_once_connected() {
        use XenbusState::{Closing, Connected, InitWait, Initialising};
        let mut seen = Seen::default();
        seen.note(Initialising, false);
        seen.note(InitWait, false);
        seen.note(Connected, true);
        seen.note(Connected, true);
        assert_eq!((seen.changes, seen.events), (1, 2));
        assert_eq!(seen.states, [1, 2, 4]);
        for _ in 0..STATES_MAX {
            seen.note(Closing, true);
            seen.note(Connected, true);
        }
        assert_eq!(seen.states.len(), STATES_MAX);
        assert_eq!(seen.changes, 1 + 2 * STATES_MAX as u64);
    }

    #[test]
    fn interfaces_have_pages_of_their_own_as_far_as_there_are() {
        let mut options = NetOptions::new("/hv".into(), DomId(1));
        options.queues = QUEUES_MAX;
        let driver = NetDriver::new(options);
        assert_eq!(driver.first_frame("device/vif/0").unwrap(), 0);
        assert!(matches!(driver.first_frame("device/vif/1"), Err(Error::Pages { .. })));
        let driver = NetDriver::new(NetOptions::new("/hv".into(), DomId(1)));
        assert_eq!(driver.first_frame("device/vif/6").unwrap(), 6 * QUEUE_PAGES);
        for bad in ["device/vif/7", "device/vif/4294967295", "device/vif/x"] {
            assert!(driver.first_frame(bad).is_err(), "{bad}");
        }
    }
}
