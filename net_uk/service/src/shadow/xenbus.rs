//! The store's side of the shadow: what devices there are, and the states that both ends write.
//!
//! It looks at levels, not at changes: a watch, or a second without one, makes it look at all devices again, and do for each
//! what [`netif::handshake::next`] says until that is nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use hypervisor::DomId;
use netif::features::{FrontendConfig, Offer, parse_frontend};
use netif::handshake::{Action, Hotplug, Life, Link, Situation, XenbusState, next};
use netif::{MacAddr, MacError};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_stream::StreamExt;
use xenstore_rs::tokio::XsTokio;
use xenstore_rs::{AsyncWatch, AsyncXs};

use super::uplink::signal;
use crate::error::Error;
use crate::limits::{ACTIONS_MAX, QUEUES_MAX, STORE_AGAIN, STORE_LOOK, VIFS_MAX};

/// Names a device as the store does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceKey {
    /// The guest.
    pub domid: DomId,
    /// Its number there.
    pub handle: u32,
}

/// What the thread that moves frames is to do.
pub enum Command {
    /// Connect a device.
    Connect {
        /// Which.
        key: DeviceKey,
        /// What the guest wrote.
        config: FrontendConfig,
        /// The address that the toolstack gave it.
        mac: [u8; 6],
        /// Whether it is connected.
        answer: oneshot::Sender<bool>,
    },
    /// Take a device down.
    Disconnect {
        /// Which.
        key: DeviceKey,
        /// When it is done.
        answer: oneshot::Sender<bool>,
    },
}

/// The way to the thread that moves frames.
pub struct Commands {
    /// What it is to do.
    pub sender: Sender<Command>,
    /// Wakes it.
    pub wake: Arc<OwnedFd>,
    /// Devices that it took down by itself.
    pub lost: mpsc::UnboundedReceiver<DeviceKey>,
}

impl Commands {
    async fn ask(&self, command: impl FnOnce(oneshot::Sender<bool>) -> Command) -> bool {
        let (answer, answered) = oneshot::channel();
        if self.sender.send(command(answer)).is_err() {
            return false;
        }
        signal(&self.wake);
        answered.await.unwrap_or(false)
    }
}

/// What is known of a device.
struct Device {
    link: Link,
    life: Life,
    frontend: String,
}

/// Starts the thread. `known` are those that the other thread took over. The store's socket is in `XENSTORED_PATH`, if it
/// is not the usual one.
///
/// # Errors
/// What the kernel reports.
pub fn start(commands: Commands, known: BTreeSet<DeviceKey>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let life = |key| (key, Device { link: Link::Up, life: Life::Fresh, frontend: String::new() });
    let devices = known.into_iter().map(life).collect();
    let bus = Bus {
        commands,
        devices,
        changed: Arc::default(),
        watched: BTreeSet::new(),
        fresh: false,
        is_driver_domain: false,
    };
    std::thread::Builder::new().name("xenbus".to_owned()).spawn(move || runtime.block_on(bus.run()))?;
    Ok(())
}

struct Bus {
    commands: Commands,
    devices: BTreeMap<DeviceKey, Device>,
    changed: Arc<Notify>,
    watched: BTreeSet<String>,
    /// All devices that a former shadow left were seen.
    fresh: bool,
    /// This is a driver domain. There the toolstack runs no script and takes no backend's directory away, and we may be the
    /// only program.
    is_driver_domain: bool,
}

impl Bus {
    async fn run(mut self) {
        loop {
            match XsTokio::new().await {
                Ok(store) => {
                    if let Err(error) = self.serve(&store).await {
                        tracing::warn!(%error, "the store is lost");
                    }
                }
                Err(error) => tracing::debug!(%error, "the store cannot be reached"),
            }
            self.watched.clear();
            tokio::time::sleep(STORE_AGAIN).await;
        }
    }

    async fn serve(&mut self, store: &XsTokio) -> io::Result<()> {
        let own: u16 = read(store, "domid").await?.and_then(|domid| domid.parse().ok()).unwrap_or(0);
        self.is_driver_domain = own != 0;
        let home = format!("/local/domain/{own}/backend/vif");
        self.watch(store, &home).await?;
        loop {
            while let Ok(key) = self.commands.lost.try_recv() {
                if let Some(device) = self.devices.get_mut(&key) {
                    device.link = Link::Refused;
                }
            }
            self.look(store, &home).await?;
            self.fresh = true;
            let _ = tokio::time::timeout(STORE_LOOK, self.changed.notified()).await;
        }
    }

    /// Has every change below a path wake us.
    async fn watch(&mut self, store: &XsTokio, path: &str) -> io::Result<()> {
        if !self.watched.insert(path.to_owned()) {
            return Ok(());
        }
        let mut events = store.watch(path).await?;
        let changed = Arc::clone(&self.changed);
        tokio::spawn(async move {
            while events.next().await.is_some() {
                changed.notify_one();
            }
        });
        Ok(())
    }

    async fn look(&mut self, store: &XsTokio, home: &str) -> io::Result<()> {
        let present = list(store, home).await?;
        let known: Vec<_> = self.devices.keys().copied().collect();
        for key in present.iter().chain(known.iter().filter(|key| !present.contains(key))) {
            if let Err(error) = self.settle(store, home, *key).await {
                if error.kind() == io::ErrorKind::BrokenPipe {
                    return Err(error);
                }
                tracing::warn!(domid = %key.domid, handle = key.handle, %error, "a device is passed over");
            }
        }
        Ok(())
    }

    /// Does what is to be done for a device.
    async fn settle(&mut self, store: &XsTokio, home: &str, key: DeviceKey) -> io::Result<()> {
        let back = format!("{home}/{}/{}", key.domid, key.handle);
        for _ in 0..ACTIONS_MAX {
            let situation = self.situation(store, &back, key).await?;
            let Some(action) = next(&situation) else { return Ok(()) };
            tracing::debug!(domid = %key.domid, handle = key.handle, ?situation, ?action, "device");
            if !self.act(store, &back, key, action).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn situation(&mut self, store: &XsTokio, back: &str, key: DeviceKey) -> io::Result<Situation> {
        let own = state(store, back).await?;
        let frontend = read(store, &format!("{back}/frontend")).await?.unwrap_or_default();
        let fresh = self.fresh || own != Some(XenbusState::Connected);
        let life = if fresh { Life::Fresh } else { Life::Recovering };
        let new = || Device { link: Link::Down, life, frontend: frontend.clone() };
        let device = self.devices.entry(key).or_insert_with(new);
        if !frontend.is_empty() {
            device.frontend.clone_from(&frontend);
        }
        let (link, life, frontend) = (device.link, device.life, device.frontend.clone());
        let front_state = if frontend.is_empty() { None } else { self.front_state(store, &frontend).await? };
        if !frontend.is_empty() {
            self.watch(store, &format!("{frontend}/state")).await?;
        }
        let online = read(store, &format!("{back}/online")).await?.as_deref() == Some("1");
        let script = match self.is_driver_domain {
            true => None,
            false => read(store, &format!("{back}/script")).await?,
        };
        let hotplug = match script {
            None => Hotplug::NotNeeded,
            Some(_) => match read(store, &format!("{back}/hotplug-status")).await?.as_deref() {
                Some("connected") => Hotplug::Done,
                _ => Hotplug::Pending,
            },
        };
        Ok(Situation { frontend: front_state, own, online, hotplug, link, life })
    }

    async fn front_state(&self, store: &XsTokio, frontend: &str) -> io::Result<Option<XenbusState>> {
        match state(store, frontend).await {
            // What is not there, in a directory that one may not read, is answered so. What is there one may read.
            Err(error) if self.is_driver_domain && error.kind() == io::ErrorKind::PermissionDenied => {
                Ok(None)
            }
            state => state,
        }
    }

    /// False if nothing more is to be done for the device.
    async fn act(&mut self, store: &XsTokio, back: &str, key: DeviceKey, action: Action) -> io::Result<bool> {
        match action {
            Action::Offer => {
                for (name, value) in offer().keys() {
                    store.write(&format!("{back}/{name}"), &value).await?;
                }
                write_state(store, back, XenbusState::InitWait).await?;
                self.set_link(key, Link::Down);
            }
            Action::Connect => {
                let link = if self.connect(store, back, key).await? { Link::Up } else { Link::Refused };
                self.set_link(key, link);
            }
            Action::Switch(state) => write_state(store, back, state).await?,
            Action::Disconnect => {
                self.commands.ask(|answer| Command::Disconnect { key, answer }).await;
                self.set_link(key, Link::Down);
            }
            Action::Abandon => {
                if let Some(device) = self.devices.get_mut(&key) {
                    device.life = Life::Fresh;
                }
            }
            Action::Remove => {
                let device = self.devices.remove(&key);
                let frontend = device.map(|device| device.frontend).unwrap_or_default();
                self.watched.remove(&format!("{frontend}/state"));
                // One that never had a frontend is being made.
                if self.is_driver_domain && !frontend.is_empty() {
                    remove_device(store, back).await?;
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn set_link(&mut self, key: DeviceKey, link: Link) {
        if let Some(device) = self.devices.get_mut(&key) {
            device.link = link;
            if link == Link::Up {
                device.life = Life::Fresh;
            }
        }
    }

    async fn connect(&mut self, store: &XsTokio, back: &str, key: DeviceKey) -> io::Result<bool> {
        let Some(frontend) = self.devices.get(&key).map(|device| device.frontend.clone()) else {
            return Ok(false);
        };
        let keys = fetch(store, &frontend).await?;
        let config = match parse_frontend(|key| keys.get(key).cloned(), &offer()) {
            Ok(config) => config,
            Err(refusal) => {
                tracing::warn!(domid = %key.domid, handle = key.handle, %refusal, "a frontend is refused");
                return Ok(false);
            }
        };
        let mac = read(store, &format!("{back}/mac")).await?.unwrap_or_default();
        let mac: Result<MacAddr, MacError> = mac.trim_end_matches('\0').parse();
        let Some(mac) = mac.ok().or(config.mac) else { return Ok(false) };
        Ok(self.commands.ask(|answer| Command::Connect { key, config, mac: mac.0, answer }).await)
    }
}

/// What this backend offers.
fn offer() -> Offer {
    Offer { queues_max: u32::try_from(QUEUES_MAX).unwrap_or(1), ..Offer::default() }
}

/// Takes a device's directory away, which is what xl waits for, then the guest's if nothing is left in it. A driver domain
/// that may not do the latter leaves it to xl.
async fn remove_device(store: &XsTokio, back: &str) -> io::Result<()> {
    present(store.rm(back).await)?;
    let Some((guest, _)) = back.rsplit_once('/') else { return Ok(()) };
    let left = present(store.directory(guest).await)?.unwrap_or_default();
    if left.iter().any(|name| !name.is_empty()) {
        return Ok(());
    }
    match store.rm(guest).await {
        Err(refused) if refused.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => present(done).map(drop),
    }
}

/// All devices, up to the bound.
async fn list(store: &XsTokio, home: &str) -> io::Result<Vec<DeviceKey>> {
    let mut keys = vec![];
    for domid in present(store.directory(home).await)?.unwrap_or_default() {
        let Ok(number) = domid.parse::<u16>() else { continue };
        for handle in present(store.directory(&format!("{home}/{domid}")).await)?.unwrap_or_default() {
            if let Ok(handle) = handle.parse()
                && keys.len() < VIFS_MAX
            {
                keys.push(DeviceKey { domid: DomId(number), handle });
            }
        }
    }
    Ok(keys)
}

/// All keys of a frontend that mean something.
async fn fetch(store: &XsTokio, frontend: &str) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut keys = BTreeMap::new();
    let names = present(store.directory(frontend).await)?.unwrap_or_default();
    let queue = |name: &str| name.strip_prefix("queue-").is_some_and(|number| number.parse::<u32>().is_ok());
    let (queues, plain): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| queue(name));
    let mut paths: Vec<String> = plain.into_iter().map(String::from).collect();
    for queue in queues.into_iter().take(QUEUES_MAX) {
        let names = present(store.directory(&format!("{frontend}/{queue}")).await)?.unwrap_or_default();
        paths.extend(names.into_iter().map(|name| format!("{queue}/{name}")));
    }
    for path in paths.into_iter().take(crate::limits::FRONTEND_KEYS_MAX) {
        if let Some(value) = read(store, &format!("{frontend}/{path}")).await? {
            keys.insert(path, value.into_bytes());
        }
    }
    Ok(keys)
}

/// The state below a directory; `None` only if the directory is not there.
async fn state(store: &XsTokio, directory: &str) -> io::Result<Option<XenbusState>> {
    match read(store, &format!("{directory}/state")).await? {
        Some(value) => Ok(Some(XenbusState::parse(value.as_bytes()))),
        None => Ok(present(store.directory(directory).await)?.map(|_| XenbusState::Unknown)),
    }
}

async fn write_state(store: &XsTokio, directory: &str, state: XenbusState) -> io::Result<()> {
    store.write(&format!("{directory}/state"), &state.number().to_string()).await
}

async fn read(store: &XsTokio, path: &str) -> io::Result<Option<String>> {
    Ok(present(store.read(path).await)?.map(String::from))
}

/// `None` if there is no such node.
fn present<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
