//! The shadow: the network backend as guests see it.
//!
//! One thread moves frames ([`fabric`]); another one speaks with the store ([`xenbus`]) and tells the first what to connect.
//! So a store that is slow or gone holds up no frame.

mod cards;
mod connect;
pub mod fabric;
mod frame;
mod gather;
pub mod plain;
mod queue;
mod replay;
mod shares;
mod trust;
mod turn;
pub mod uplink;
mod vif;
mod waiters;
mod wants;
mod xenbus;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use hypervisor::{BackendHost, DomId, HostSpec, Port, Region};
use lane::Lane;
use net_switch::limits::AGEING_DEFAULT_NS;
use net_switch::{MacAddress, PortConfig, Switch};
use nic::NicSpec;
use tokio::sync::mpsc::UnboundedSender;

pub use wants::Wants;
use xenbus::{Command, DeviceKey};

use crate::error::Error;
use crate::limits::{BEAT, BUSY_TURNS, EVENTS_PER_TURN_MAX, LANE_LOOK, LANE_SLOTS};
use crate::poller::{Interest, Poller};
use crate::state::{Heartbeat, Place, State, VifRecord};
use crate::wire::{self, Accused, Begun, Boss, Order, Said, names};
use fabric::{Fabric, Side};
use gather::Scratch;
use queue::Queue;
use trust::News;
use uplink::{FIRST_QUEUE_SOURCE, Uplink, drain};
use vif::{QueueId, Vif, VifId};

const BOSS: u64 = 0;
const EVENTS: u64 = 1;
const COMMANDS: u64 = 2;
const UPLINKS: u64 = 16;

/// The shadow's process.
pub struct Shadow {
    boss: Boss,
    injection: bool,
    fabric: Fabric,
    scratch: Scratch,
    state: State,
    poller: Poller,
    commands: Receiver<Command>,
    commands_wake: Arc<OwnedFd>,
    ports: BTreeMap<u32, Vec<QueueId>>,
    devices: BTreeMap<DeviceKey, VifId>,
    /// Ports whose events were taken and not unmasked.
    masked: Vec<Port>,
    next_source: u16,
    began: Instant,
    heartbeat: Heartbeat,
    /// Devices that were taken down without an order.
    lost: UnboundedSender<DeviceKey>,
    /// See [`Self::close_strays`].
    strays_closed: bool,
    /// Lanes that may hold more frames.
    lanes_pending: Vec<bool>,
    /// When they were looked at last.
    lanes_looked: Duration,
    /// Events may wait.
    events_pending: bool,
    /// Wakes the keeper.
    busy: OwnedFd,
}

/// Runs until the keeper says stop, or for ever without one.
///
/// # Errors
/// What makes it useless: the keeper starts another.
pub fn run(host: &HostSpec) -> Result<(), Error> {
    let (boss, begun) = Boss::meet()?;
    let mut shadow = Shadow::begin(boss, begun, host)?;
    shadow.serve()
}

impl Shadow {
    fn begin(boss: Boss, mut begun: Begun, spec: &HostSpec) -> Result<Self, Error> {
        let state = State::open(begun.take(names::STATE, "state")?)?;
        let host = BackendHost::adopt(spec, begun.take_all(names::EVTCHN))?;
        let mut switch = Switch::new(AGEING_DEFAULT_NS);
        let uplinks = take_uplinks(&mut begun, &mut switch)?;
        let poller = Poller::new()?;
        poller.add(&boss, BOSS, Interest::READ)?;
        poller.add(host.events.wait_fd(), EVENTS, Interest::READ)?;
        for (number, uplink) in uplinks.iter().enumerate() {
            poller.add(&uplink.wake_shadow, UPLINKS + number as u64, Interest::SIGNAL)?;
        }
        let busy = begun.take(names::BUSY, "eventfd")?;
        let lanes_pending = vec![true; uplinks.len()];
        let fabric = Fabric::new(host.grants, host.events, uplinks, switch);
        let commands_wake = Arc::new(uplink::eventfd()?);
        poller.add(&*commands_wake, COMMANDS, Interest::READ)?;
        let heartbeat = state.heartbeat();
        heartbeat.begin(begun.begin.epoch);
        let (sender, commands) = std::sync::mpsc::channel();
        let (lost, lost_receiver) = tokio::sync::mpsc::unbounded_channel();
        let mut shadow = Self {
            boss,
            injection: begun.begin.injection,
            fabric,
            scratch: Scratch::new()?,
            state,
            poller,
            commands,
            commands_wake: commands_wake.clone(),
            ports: BTreeMap::new(),
            devices: BTreeMap::new(),
            masked: vec![],
            next_source: FIRST_QUEUE_SOURCE,
            began: Instant::now(),
            heartbeat,
            lost,
            strays_closed: false,
            lanes_pending,
            lanes_looked: Duration::ZERO,
            events_pending: true,
            busy,
        };
        shadow.take_over();
        let known = shadow.devices.keys().copied().collect();
        let commands = xenbus::Commands { sender, wake: commands_wake, lost: lost_receiver };
        xenbus::start(commands, known)?;
        shadow.heartbeat.set_ready();
        shadow.boss.say(Said::Ready(true));
        Ok(shadow)
    }

    /// Takes over the interfaces of a former shadow. One that cannot be taken over is given up, and closed in the store by
    /// and by.
    fn take_over(&mut self) {
        self.take_stale_events();
        let records: Vec<_> = self.state.connected().collect();
        for (place, record) in records {
            let last = record.queues.iter().map(|queue| queue.source).max().unwrap_or(0);
            self.next_source = self.next_source.max(last.saturating_add(1));
            let domid = DomId(record.domid);
            // A copy of it may be damaged.
            self.state.commit(place, &record);
            if let Err(error) = self.attach(place, &record, true) {
                tracing::warn!(%domid, handle = record.handle, %error, "an interface cannot be taken over");
                self.note("vif_lost", format!("vif{domid}.{}: {error}", record.handle));
                let _ = self.state.free(place);
            }
        }
    }

    /// Empties the handle of events that a former shadow was not given. All are looked at anyway, and their ports unmasked:
    /// one that was unmasked before its event is taken could fill the handle with a second one, and a handle that ran over
    /// is of no use any more.
    fn take_stale_events(&mut self) {
        for _ in 0..hypervisor::limits::PORTS_MAX {
            if !matches!(self.fabric.events.pending(), Ok(Some(_))) {
                return;
            }
        }
    }

    fn attach(&mut self, place: Place, record: &VifRecord, again: bool) -> Result<(), Error> {
        let id = VifId::of_place(place);
        let domid = DomId(record.domid);
        let mut queues = vec![];
        for (number, queue) in record.queues.iter().enumerate() {
            let memory = self.state.queue(place, number)?;
            let mut attached = Queue::attach(self.fabric.grants.as_ref(), domid, queue, memory)?;
            if again {
                attached.replay_before = Some(attached.tx.published().plus(netif::ring::RING_SLOTS));
            }
            queues.push(Some(attached));
        }
        // A former shadow may have taken an event and died, or died before it could send one. If it died while it closed the
        // interface, this fails, before anybody knows of it.
        for port in record.queues.iter().flat_map(|queue| [queue.tx_port, queue.rx_port]) {
            self.fabric.events.unmask(Port(port))?;
            self.fabric.events.notify(Port(port))?;
        }
        let wants = Wants::from_bits(record.flags);
        let mut config = PortConfig::vif(MacAddress(record.mac));
        config.filters_multicast = wants.multicast_control;
        let port = self.fabric.switch.add_port(config)?;
        self.fabric.sides.insert(port, Side::Guest(id));
        self.fabric.vifs.insert(id, Vif { port, wants, queues });
        for (number, queue) in record.queues.iter().enumerate() {
            for port in [queue.tx_port, queue.rx_port] {
                let ids = self.ports.entry(port).or_default();
                let id = QueueId { vif: id, queue: number };
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        self.devices.insert(DeviceKey { domid, handle: record.handle }, id);
        Ok(())
    }

    fn serve(&mut self) -> Result<(), Error> {
        let mut ready = vec![];
        let mut busy_turns = 0;
        loop {
            self.heartbeat.beat();
            self.take_events()?;
            let more = self.pump()?;
            self.wake_keeper();
            self.unmask()?;
            self.drop_broken();
            self.look_after_lanes();
            if more && busy_turns < BUSY_TURNS {
                busy_turns += 1;
                continue;
            }
            busy_turns = 0;
            // However busy it is: who is not asked to send an event, and has sent none, is looked at here.
            let pause = if self.may_sleep()? && !more { self.longest_pause() } else { Duration::ZERO };
            self.poller.wait(pause, &mut ready)?;
            self.awake();
            for word in &ready {
                match *word {
                    BOSS if self.take_orders()? => return Ok(()),
                    EVENTS => self.events_pending = true,
                    COMMANDS => self.obey()?,
                    word if word >= UPLINKS => {
                        let number = usize::try_from(word - UPLINKS).unwrap_or(usize::MAX);
                        self.lanes_pending[number] = true;
                        // A driver that took frames off made room for those that guests keep waiting.
                        self.fabric.uplinks[number].wanted = 0;
                        self.all_waiting_pending();
                    }
                    _ => {}
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// The handle stays readable until there are none.
    fn take_events(&mut self) -> Result<(), Error> {
        for _ in 0..EVENTS_PER_TURN_MAX {
            if !self.events_pending {
                return Ok(());
            }
            let Some(port) = self.fabric.events.pending()? else {
                self.events_pending = false;
                return Ok(());
            };
            self.masked.push(port);
            for id in self.ports.get(&port.0).into_iter().flatten() {
                let queues = self.fabric.vifs.get_mut(&id.vif).map(|vif| &mut vif.queues);
                if let Some(queue) = queues.and_then(|queues| queues[id.queue].as_mut()) {
                    (queue.tx_pending, queue.rx_pending) = (true, true);
                }
            }
        }
        Ok(())
    }

    /// An event that comes from here on is told again: so a guest that sends many is served once a turn.
    fn unmask(&mut self) -> Result<(), Error> {
        for port in std::mem::take(&mut self.masked) {
            if self.ports.contains_key(&port.0) {
                self.fabric.events.unmask(port)?;
            }
        }
        Ok(())
    }

    fn wake_keeper(&self) {
        // Whatever was published: frames from the wire wake it by themselves.
        if self.fabric.sent && self.heartbeat.take_keeper_sleeps() {
            uplink::signal(&self.busy);
        }
    }

    fn awake(&mut self) {
        for uplink in &mut self.fabric.uplinks {
            uplink.rx.awake();
        }
    }

    /// A lane of which something makes no sense is looked at again soon.
    fn longest_pause(&self) -> Duration {
        if self.fabric.uplinks.iter().all(Uplink::is_trusted) { BEAT } else { LANE_LOOK }
    }

    fn look_after_lanes(&mut self) {
        let now = self.now();
        for number in 0..self.fabric.uplinks.len() {
            let uplink = &mut self.fabric.uplinks[number];
            let (news, damaged, epoch) = (uplink.look_after(now), uplink.take_damaged(), uplink.epoch());
            let accused = uplink.accused_epoch();
            if let Some((frames, too_many)) = damaged {
                self.note("lane_damaged", format!("network card {number}: {frames} frames"));
                if too_many {
                    self.accuse(number, epoch, "many frames that it did not write so");
                }
            }
            match news {
                Some(News::Accuse) => self.accuse(number, accused, "an index that makes no sense"),
                Some(News::Healed) => self.note("lane_healed", format!("network card {number}")),
                Some(News::Mended) => self.note("lane_mended", format!("network card {number}")),
                None => continue,
            }
            self.lanes_pending[number] = true;
            self.fabric.uplinks[number].wanted = 0;
            self.all_waiting_pending();
        }
    }

    fn accuse(&self, number: usize, epoch: u64, detail: &str) {
        let nic = u32::try_from(number).unwrap_or(u32::MAX);
        self.boss.say(Said::Accused(Accused { nic, epoch, detail: detail.to_owned() }));
    }

    /// Takes interfaces down whose guests broke their rings.
    fn drop_broken(&mut self) {
        for (id, error) in std::mem::take(&mut self.fabric.broken) {
            let key = self.devices.iter().find(|(_, known)| **known == id).map(|(key, _)| *key);
            let Some(key) = key else { continue };
            tracing::warn!(domid = %key.domid, handle = key.handle, %error, "a guest broke its interface");
            self.note("vif_broken", format!("vif{}.{}: {error}", key.domid, key.handle));
            self.disconnect(key);
            let _ = self.lost.send(key);
        }
    }

    fn obey(&mut self) -> Result<(), Error> {
        drain(&self.commands_wake);
        loop {
            match self.commands.try_recv() {
                Ok(Command::Connect { key, config, mac, answer }) => {
                    let connected = self.connect(key, &config, mac);
                    if let Err(error) = &connected {
                        self.note("vif_refused", format!("vif{}.{}: {error}", key.domid, key.handle));
                    }
                    let _ = answer.send(connected.is_ok());
                }
                Ok(Command::Disconnect { key, answer }) => {
                    self.disconnect(key);
                    let _ = answer.send(true);
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    return Err(Error::Missing { name: "thread for the store" });
                }
            }
        }
    }

    /// True if it is to stop. Without anybody to tell it so it goes on.
    fn take_orders(&mut self) -> Result<bool, Error> {
        while let Some(order) = wire::next_order(&mut self.boss, &self.poller)? {
            match order {
                Order::Stop(_) => return Ok(true),
                Order::Misbehave(order) if self.injection => {
                    if let Err(error) = self.fabric.fate.arm(&order.fault) {
                        tracing::warn!(%error, "an order is passed over");
                    }
                }
                // A keeper that took over asks so whether we serve.
                Order::Begin(_) => self.boss.say(Said::Ready(true)),
                Order::Misbehave(_) => {}
            }
        }
        Ok(false)
    }

    fn note(&self, kind: &str, detail: String) {
        self.boss.note(kind, detail);
    }
}

fn take_uplinks(begun: &mut Begun, switch: &mut Switch) -> Result<Vec<Uplink>, Error> {
    let nics = begun.begin.nics.clone();
    let uplink = |nic: crate::wire::Nic| {
        let number = nic.number;
        let lane = begun.take(&format!("{}{number}", names::LANE), "lane")?;
        let lane = Lane::attach(Arc::new(Region::open(lane, Lane::bytes(LANE_SLOTS, LANE_SLOTS))?))?;
        let wake_driver = begun.take(&format!("{}{number}", names::WAKE_DRIVER), "eventfd")?;
        let wake_shadow = begun.take(&format!("{}{number}", names::WAKE_SHADOW), "eventfd")?;
        let number = u16::try_from(number).map_err(|_| Error::Full { what: "network card" })?;
        let port = switch.add_port(PortConfig::nic())?;
        let offload = nic.spec.parse::<NicSpec>()?.offload;
        let uplink = Uplink::attach(number, port, lane, wake_driver, wake_shadow);
        Ok(uplink.with_offload(offload))
    };
    nics.into_iter().map(uplink).collect()
}
