//! A contender between its two ends.

use std::path::Path;
use std::process::{Child, Command};
use std::time::Instant;

use hypervisor::HostSpec;
use net_stand::{
    Endpoint, EndpointOptions, Guest, GuestOptions, Keeper, KeeperOptions, LaneWire, Look, PacketWire, Role,
    Veth, Wire, process_cpu_ns,
};
use peers::{Binaries, Daemon, Ours, beside_us};
use sim_guest::net::Mac;

use crate::StartDriver;
use crate::contender::Contender;
use crate::error::{Error, Result, system};
use crate::limits::{PEER_LOOK, PEER_SLOTS, START_WAIT};
use crate::lines::{Line, Load, Way};

/// Address of the near end.
const NEAR_MAC: Mac = Mac([0x00, 0x16, 0x3e, 0x77, 0, 1]);
/// Flow of the near end.
const NEAR_FLOW: u64 = 1;
/// Flow of the far end.
const FAR_FLOW: u64 = 1 << 40;

/// What a measurement is of.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    /// The line.
    pub line: &'a Line,
    /// Who.
    pub contender: Contender,
    /// Frames a second where the load is fixed.
    pub rate: u64,
    /// Where files go.
    pub dir: &'a Path,
    /// Starts a driver alone.
    pub start_driver: StartDriver,
}

/// The near end.
pub enum Near {
    /// A guest, with all that serves it.
    Guest {
        /// The guest.
        guest: Box<Guest>,
        /// The backend.
        backend: Backend,
        /// The store.
        _store: Box<Ours>,
    },
    /// A thread of this process; with a driver between it and the wire, or without.
    Endpoint {
        /// The thread.
        endpoint: Endpoint,
        /// The driver's process, and what it ends with.
        driver: Option<(u32, Box<dyn Send>)>,
    },
}

/// Who serves a guest.
pub enum Backend {
    /// Shadow, driver and keeper.
    NetUk(Box<Keeper>),
    /// One process.
    Plain(Plain),
}

/// A backend of one process, killed with the value.
pub struct Plain(Child);

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything that runs.
pub struct Setup {
    /// The near end, where the guest is.
    pub near: Near,
    /// The far end of the wire.
    pub far: Endpoint,
    _veth: Veth,
}

/// Processor time that each party took so far, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The shadow.
    pub shadow: u64,
    /// The driver, or who is it too.
    pub driver: u64,
    /// The keeper.
    pub keeper: u64,
    /// Both ends: who makes and checks frames.
    pub ends: u64,
}

impl Setup {
    /// Starts it, and waits until frames can go.
    pub fn start(order: Order<'_>) -> Result<Self> {
        let veth = Veth::create()?;
        if let Some(mbits) = order.line.wire_mbits {
            veth.limit(mbits)?;
        }
        let near = match order.contender {
            Contender::NetUk | Contender::Plain => start_guest(order, &veth)?,
            Contender::Driver => start_lane_end(order, &veth)?,
            Contender::Veth => {
                let wire = packet_wire(order, veth.ours())?;
                Near::Endpoint { endpoint: near_endpoint(order, wire, &veth), driver: None }
            }
        };
        let role = match (order.line.way, order.line.load) {
            (Way::FromWire, Load::Saturating) => Role::Send { rate: 0 },
            (_, Load::Window(window)) => Role::Ping { window },
            _ => Role::Send { rate: order.rate },
        };
        let options = EndpointOptions {
            from: veth.peer_mac(),
            to: vec![NEAR_MAC],
            flow: FAR_FLOW,
            sizes: (order.line.bytes, order.line.bytes),
            role,
        };
        let far = Endpoint::start(packet_wire(order, veth.theirs())?, options);
        Ok(Self { near, far, _veth: veth })
    }

    /// Whoever sends does so from now on, or no more.
    pub fn set_sending(&mut self, line: &Line, sending: bool) -> Result<()> {
        match (&mut self.near, line.way) {
            (_, Way::FromWire | Way::RoundTrip) => self.far.set_sending(sending),
            (Near::Endpoint { endpoint, .. }, Way::ToWire) => endpoint.set_sending(sending),
            (Near::Guest { guest, .. }, Way::ToWire) => {
                guest.command(if sending { "start" } else { "stop" })?
            }
        }
        Ok(())
    }

    /// What everybody ran.
    pub fn usage(&self) -> Usage {
        let far = self.far.cpu_ns();
        match &self.near {
            Near::Guest { guest, backend, .. } => {
                Usage { ends: far + process_cpu_ns(guest.pid()), ..backend.usage() }
            }
            Near::Endpoint { endpoint, driver } => Usage {
                driver: driver.as_ref().map_or(0, |(pid, _)| process_cpu_ns(*pid)),
                ends: far + endpoint.cpu_ns(),
                ..Usage::default()
            },
        }
    }
}

impl Backend {
    fn start(order: Order<'_>, veth: &Veth, store: &Ours) -> Result<Self> {
        let (program, nic) = (beside_us("net_uk")?, format!("packet:{}", veth.ours()));
        let (hv_socket, log) = (order.dir.join(HostSpec::LOCAL_SOCKET_NAME), order.dir.join("net_uk.log"));
        if order.contender == Contender::Plain {
            let log = std::fs::File::create(log).map_err(system("make the backend's log"))?;
            let started = Command::new(program)
                .args(["plain", "--profile", "local", "--nic", &nic, "--hv-socket"])
                .arg(hv_socket)
                .env("XENSTORED_PATH", store.socket())
                .stderr(log)
                .spawn();
            return Ok(Self::Plain(Plain(started.map_err(system("start a plain backend"))?)));
        }
        Ok(Self::NetUk(Box::new(Keeper::start(KeeperOptions {
            program: &program,
            hv_socket: &hv_socket,
            store: &store.socket(),
            nic: Some(&nic),
            log: &log,
            injection: false,
            guests: u16::MAX,
        })?)))
    }

    fn is_ready(&mut self) -> Result<bool> {
        let Self::NetUk(keeper) = self else { return Ok(true) };
        keeper.hear()?;
        let told = |part: &str| keeper.events().iter().any(|told| told.part == part && told.kind == "ready");
        Ok(told("shadow") && told("driver.0"))
    }

    fn usage(&self) -> Usage {
        match self {
            Self::NetUk(keeper) => {
                let of = |part| keeper.pid_of(part).map_or(0, process_cpu_ns);
                let keeper = process_cpu_ns(keeper.pid());
                Usage { shadow: of("shadow"), driver: of("driver.0"), keeper, ends: 0 }
            }
            Self::Plain(plain) => Usage { driver: process_cpu_ns(plain.0.id()), ..Usage::default() },
        }
    }

    /// Frames that it, or the kernel for it, dropped, as far as it tells.
    pub fn dropped(&mut self) -> Result<u64> {
        let Self::NetUk(keeper) = self else { return Ok(0) };
        let counts = keeper.counts()?;
        Ok(counts.dropped_to_wire() + counts.dropped_from_wire() + counts.refused())
    }
}

fn packet_wire(order: Order<'_>, interface: &str) -> Result<Box<dyn Wire>> {
    let spec = format!("packet:{interface},rx={PEER_SLOTS}").parse()?;
    let look = match order.line.way {
        Way::RoundTrip => Look::AtOnce,
        Way::ToWire | Way::FromWire => Look::Every(PEER_LOOK),
    };
    Ok(Box::new(PacketWire::open(&spec, look)?))
}

fn near_endpoint(order: Order<'_>, wire: Box<dyn Wire>, veth: &Veth) -> Endpoint {
    let role = match (order.line.way, order.line.load) {
        (Way::RoundTrip, _) => Role::Echo,
        (_, Load::Saturating) => Role::Send { rate: 0 },
        _ => Role::Send { rate: order.rate },
    };
    let bytes = order.line.bytes;
    let to = vec![veth.peer_mac()];
    Endpoint::start(
        wire,
        EndpointOptions { from: NEAR_MAC, to, flow: NEAR_FLOW, sizes: (bytes, bytes), role },
    )
}

fn start_lane_end(order: Order<'_>, veth: &Veth) -> Result<Near> {
    let spec = format!("packet:{}", veth.ours()).parse()?;
    let driver = (order.start_driver)(&spec).map_err(Error::Driver)?;
    let wire = LaneWire::attach(&driver.lane, driver.wake_driver, driver.wake_shadow)?;
    let endpoint = near_endpoint(order, Box::new(wire), veth);
    Ok(Near::Endpoint { endpoint, driver: Some((driver.pid, driver.life)) })
}

fn start_guest(order: Order<'_>, veth: &Veth) -> Result<Near> {
    let store = Ours::start(&Binaries::beside_us()?, order.dir, &[])?;
    let hv_socket = order.dir.join(HostSpec::LOCAL_SOCKET_NAME);
    let mut backend = Backend::start(order, veth, &store)?;
    let echo: &[&str] = if order.line.way == Way::RoundTrip { &["--echo"] } else { &[] };
    let guest = Guest::start(GuestOptions {
        program: &beside_us("sim-net-guest")?,
        hv_socket: &hv_socket,
        store: &store.socket(),
        mac: NEAR_MAC,
        peer_mac: veth.peer_mac(),
        rate: if order.line.load == Load::Fixed { order.rate } else { 0 },
        flow: NEAR_FLOW,
        sizes: (order.line.bytes, order.line.bytes),
        more: &[&["--wait"], echo].concat(),
    })?;
    let began = Instant::now();
    while !(guest.is_connected() && backend.is_ready()?) {
        if began.elapsed() > START_WAIT {
            return Err(Error::Late("the guest's interface"));
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    Ok(Near::Guest { guest: Box::new(guest), backend, _store: Box::new(store) })
}
