//! What Linux's xenbus does with a guest's devices.
//!
//! ```text
//!   vif:  Initialising --backend InitWait: offer rings--> Connected
//!   vbd:  Initialising --backend InitWait: offer ring--> Initialised --backend Connected: connect--> Connected
//!   any:  --backend Closing, Closed or gone--> Closed
//! ```
//!
//! As in `drivers/net/xen-netfront.c` and `drivers/block/xen-blkfront.c` of Linux.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use xs_protocol::XsError;

use crate::limits::DEVICES_MAX;
use crate::{Error, Guest, Result, Tx, WatchEvent};

const DEVICES_TOKEN: &str = "devices";
const BACKEND_TOKEN: &str = "backend:";

/// A device's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A network interface.
    Vif,
    /// A block device.
    Vbd,
}

impl Class {
    /// Its directory below `device`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vif => "vif",
            Self::Vbd => "vbd",
        }
    }

    /// What a frontend of this class writes before it changes its state, where no [`Driver`] has such rings: the numbers
    /// stand for them.
    fn ring_keys(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Vif => &[
                ("tx-ring-ref", "768"),
                ("rx-ring-ref", "769"),
                ("event-channel", "18"),
                ("request-rx-copy", "1"),
                ("feature-rx-notify", "1"),
                ("feature-sg", "1"),
                ("feature-gso-tcpv4", "1"),
            ],
            Self::Vbd => &[
                ("ring-ref", "8"),
                ("event-channel", "19"),
                ("protocol", "x86_64-abi"),
                ("feature-persistent", "1"),
            ],
        }
    }
}

impl FromStr for Class {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Vif, Self::Vbd]
            .into_iter()
            .find(|class| class.name() == name)
            .ok_or_else(|| format!("no such class of devices: {name}"))
    }
}

/// A device's state as one side shows it (`enum xenbus_state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of xen/include/public/io/xenbus.h")]
pub enum XenbusState {
    Unknown,
    Initialising,
    InitWait,
    Initialised,
    Connected,
    Closing,
    Closed,
}

impl XenbusState {
    /// The number in the store.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The state of what is in the store; what is no number is unknown.
    pub fn parse(value: &[u8]) -> Self {
        match value {
            b"1" => Self::Initialising,
            b"2" => Self::InitWait,
            b"3" => Self::Initialised,
            b"4" => Self::Connected,
            b"5" => Self::Closing,
            b"6" => Self::Closed,
            _ => Self::Unknown,
        }
    }
}

/// What a frontend does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Writes its ring keys and then this state.
    Offer(XenbusState),
    /// Changes to this state.
    Switch(XenbusState),
}

/// A device from the frontend's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its class.
    pub class: Class,
    /// Its directory, below the guest's own.
    pub path: String,
    /// The backend's directory.
    pub backend: String,
    /// The frontend's state.
    pub state: XenbusState,
}

impl Device {
    /// What the frontend does when the backend is in a state. Pure.
    pub fn step(&self, backend: XenbusState) -> Option<Step> {
        use XenbusState::{Closed, Closing, Connected, InitWait, Initialised, Initialising};
        match (self.class, self.state, backend) {
            (Class::Vif, Initialising, InitWait) => Some(Step::Offer(Connected)),
            (Class::Vbd, Initialising, InitWait) => Some(Step::Offer(Initialised)),
            (Class::Vbd, Initialised, Connected) => Some(Step::Switch(Connected)),
            (_, Initialising | Initialised | Connected, Closing | Closed) => Some(Step::Switch(Closed)),
            _ => None,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.path, self.state)
    }
}

/// What is behind a guest's devices.
pub trait Driver {
    /// Sets up what a device needs and writes its keys.
    ///
    /// # Errors
    /// What the store answers, or what does not work. The device stays as it is then.
    fn offer(&mut self, guest: &mut Guest, device: &Device) -> Result<()>;

    /// The state of a device's backend was read, as after any event of its node: also when it is as before.
    fn backend_seen(&mut self, _device: &Device, _state: XenbusState) {}

    /// A device's frontend changed its state, in the store too.
    ///
    /// # Errors
    /// What does not work.
    fn switched(&mut self, _device: &Device) -> Result<()> {
        Ok(())
    }

    /// The toolstack removed a device.
    fn removed(&mut self, _device: &Device) {}
}

/// No rings at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDriver;

impl Driver for NoDriver {
    fn offer(&mut self, guest: &mut Guest, device: &Device) -> Result<()> {
        let keys = device.class.ring_keys();
        let keys: Vec<_> = keys.iter().map(|(key, value)| (*key, value.to_string())).collect();
        write_keys(guest, device, &keys)
    }
}

/// All frontends of a guest.
#[derive(Debug)]
pub struct Frontends {
    classes: Vec<Class>,
    devices: BTreeMap<String, Device>,
}

impl Frontends {
    /// Starts to watch for devices of these classes.
    ///
    /// # Errors
    /// What the store answers.
    pub fn start(guest: &mut Guest, classes: Vec<Class>) -> Result<Self> {
        guest.watch("device", DEVICES_TOKEN)?;
        Ok(Self { classes, devices: BTreeMap::new() })
    }

    /// The devices found so far.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// Does what an event asks for, without rings, and gives the devices that changed.
    ///
    /// # Errors
    /// What the store answers, except that a node is missing.
    pub fn handle(&mut self, guest: &mut Guest, event: &WatchEvent) -> Result<Vec<Device>> {
        self.handle_with(guest, event, &mut NoDriver)
    }

    /// Does what an event asks for, and gives the devices that changed.
    ///
    /// # Errors
    /// What the store answers, except that a node is missing; what the driver reports.
    pub fn handle_with(
        &mut self,
        guest: &mut Guest,
        event: &WatchEvent,
        driver: &mut dyn Driver,
    ) -> Result<Vec<Device>> {
        if event.token == DEVICES_TOKEN {
            return self.look_for_devices(guest, driver);
        }
        match event.token.strip_prefix(BACKEND_TOKEN) {
            Some(path) => Ok(self.advance(guest, path, driver)?.into_iter().collect()),
            None => Ok(vec![]),
        }
    }

    fn look_for_devices(&mut self, guest: &mut Guest, driver: &mut dyn Driver) -> Result<Vec<Device>> {
        let mut found = vec![];
        for class in self.classes.clone() {
            let directory = format!("device/{}", class.name());
            for id in present(guest.directory(&directory))?.unwrap_or_default() {
                let path = format!("{directory}/{id}");
                if self.devices.contains_key(&path) || self.devices.len() >= DEVICES_MAX {
                    continue;
                }
                if let Some(device) = probe(guest, class, &path)? {
                    found.push(device.clone());
                    self.devices.insert(path, device);
                }
            }
        }
        self.forget_removed(guest, driver)?;
        Ok(found)
    }

    fn forget_removed(&mut self, guest: &mut Guest, driver: &mut dyn Driver) -> Result<()> {
        for path in self.devices.keys().cloned().collect::<Vec<_>>() {
            if present(guest.read(&format!("{path}/backend")))?.is_none()
                && let Some(device) = self.devices.remove(&path)
            {
                driver.removed(&device);
                present(guest.unwatch(&backend_state(&device.backend), &token(&path)))?;
            }
        }
        Ok(())
    }

    fn advance(&mut self, guest: &mut Guest, path: &str, driver: &mut dyn Driver) -> Result<Option<Device>> {
        let Some(device) = self.devices.get_mut(path) else { return Ok(None) };
        let value = present(guest.read(&backend_state(&device.backend)))?;
        // As Linux: a backend that is gone counts as closed once it was there.
        let backend = value.map_or(XenbusState::Unknown, |value| XenbusState::parse(&value));
        driver.backend_seen(device, backend);
        let Some(step) = device.step(backend) else { return Ok(None) };
        let state = match step {
            Step::Offer(state) => {
                driver.offer(guest, device)?;
                state
            }
            Step::Switch(state) => state,
        };
        guest.write(&format!("{path}/state"), &number(state))?;
        device.state = state;
        driver.switched(device)?;
        Ok(Some(device.clone()))
    }
}

/// Reads what the toolstack wrote of a device and watches its backend.
fn probe(guest: &mut Guest, class: Class, path: &str) -> Result<Option<Device>> {
    let Some(backend) = present(guest.read(&format!("{path}/backend")))? else { return Ok(None) };
    let Ok(backend) = String::from_utf8(backend) else { return Ok(None) };
    let state_path = format!("{path}/state");
    let state = present(guest.read(&state_path))?.map_or(XenbusState::Unknown, |v| XenbusState::parse(&v));
    if state != XenbusState::Initialising {
        guest.write(&state_path, &number(XenbusState::Initialising))?;
    }
    guest.watch(&backend_state(&backend), &token(path))?;
    Ok(Some(Device { class, path: path.to_owned(), backend, state: XenbusState::Initialising }))
}

/// Writes keys below a device's directory, all at once.
pub(crate) fn write_keys<K: AsRef<str>>(
    guest: &mut Guest,
    device: &Device,
    keys: &[(K, String)],
) -> Result<()> {
    guest.transaction(|guest, tx: Tx| {
        for (key, value) in keys {
            guest.write_in(tx, &format!("{}/{}", device.path, key.as_ref()), value.as_bytes())?;
        }
        Ok(())
    })
}

fn backend_state(backend: &str) -> String {
    format!("{backend}/state")
}

fn token(path: &str) -> String {
    format!("{BACKEND_TOKEN}{path}")
}

fn number(state: XenbusState) -> [u8; 1] {
    [b'0' + state.number()]
}

/// `None` if there is no such node.
pub(crate) fn present<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Error::Store(XsError::ENOENT)) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use XenbusState::{Closed, Closing, Connected, InitWait, Initialised, Initialising, Unknown};

    fn walk(class: Class, backend: &[XenbusState]) -> Vec<XenbusState> {
        let (path, backend_path) = (String::new(), String::new());
        let mut device = Device { class, path, backend: backend_path, state: Initialising };
        let mut states = vec![];
        for state in backend {
            if let Some(Step::Offer(next) | Step::Switch(next)) = device.step(*state) {
                device.state = next;
                states.push(next);
            }
        }
        states
    }

    #[test]
    fn a_vif_connects_before_its_backend() {
        assert_eq!(walk(Class::Vif, &[Unknown, Initialising, InitWait, Connected]), [Connected]);
    }

    #[test]
    fn a_vbd_connects_after_its_backend() {
        assert_eq!(
            walk(Class::Vbd, &[Initialising, InitWait, InitWait, Connected]),
            [Initialised, Connected]
        );
    }

    #[test]
    fn a_closing_backend_closes_the_frontend_once() {
        assert_eq!(walk(Class::Vif, &[InitWait, Connected, Closing, Closed, InitWait]), [Connected, Closed]);
        assert_eq!(walk(Class::Vbd, &[Closed]), [Closed]);
    }

    #[test]
    fn states_keep_their_numbers() {
        for state in [Initialising, InitWait, Initialised, Connected, Closing, Closed] {
            assert_eq!(XenbusState::parse(&number(state)), state);
        }
        assert_eq!(XenbusState::parse(b"12"), Unknown);
        assert_eq!((InitWait.number(), Closed.number()), (2, 6));
    }
}
