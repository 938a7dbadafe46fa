//! The backend, the guests and the peer of a run.

use std::time::Duration;

use anyhow::Context;
use net_stand::{
    Endpoint, EndpointOptions, EndpointReport, Guest, GuestOptions, GuestReport, Keeper, KeeperOptions, Look,
    PacketWire, Role, Veth,
};
use sim_guest::net::Mac;
use sim_guest::net::traffic::Load;
use tests::{Stand, binary};

use super::args::{NetArgs, NicDriver};
use super::faults::Fault;
use crate::faults::send;

/// Flows towards guests have these numbers behind the guest's.
const FLOW_BASE: u64 = 1 << 40;
/// Largest frame that the wire takes.
const PEER_BYTES_MAX: usize = 1514;
/// Frames that wait in the peer's socket.
const PEER_SLOTS: u32 = 8192;
/// The peer looks this often.
const PEER_LOOK: Duration = Duration::from_micros(100);

/// Makes what a kind of network card needs.
pub fn create_wire(driver: NicDriver) -> net_stand::Result<Veth> {
    if driver == NicDriver::Tap { Veth::create_tap() } else { Veth::create() }
}

/// Starts the backend with one network card.
pub fn start_keeper(stand: &Stand, veth: &Veth, args: &NetArgs) -> anyhow::Result<Keeper> {
    let hv_socket = stand.hv_socket();
    Ok(Keeper::start(KeeperOptions {
        program: &binary("net_uk"),
        hv_socket: &hv_socket,
        store: &stand.socket(),
        nic: Some(&format!("{}:{}", args.driver.name(), veth.ours())),
        log: &stand.rundir().join("net_uk.log"),
        injection: true,
        guests: args.guests,
    })?)
}

/// Does it.
pub fn harm(keeper: &mut Keeper, fault: Fault, pid: u32) -> anyhow::Result<()> {
    if let Some(signal) = fault.deed.signal() {
        send(pid, signal);
        return Ok(());
    }
    Ok(keeper.command(&format!("inject {} {}", fault.part(), fault.order()))?)
}

/// All guests.
pub struct Guests {
    guests: Vec<Guest>,
    // Killed in the end.
    hostile: Vec<Guest>,
}

impl Guests {
    /// Makes domains and starts them. They send once they are told to.
    pub fn start(stand: &Stand, args: &NetArgs, veth: &Veth) -> anyhow::Result<Self> {
        let guests = (0..args.guests).map(|number| start_guest(stand, args, veth, number, &["--wait"]));
        Ok(Self { guests: guests.collect::<Result<_, _>>()?, hostile: vec![] })
    }

    /// Adds the hostile ones, which begin at once. Only then, for domains get their numbers as they come, and what is counted
    /// of the first ones is taken for the others'.
    pub fn add_hostile(&mut self, stand: &Stand, args: &NetArgs, veth: &Veth) -> anyhow::Result<()> {
        for (number, how) in (args.guests..).zip(&args.hostile) {
            self.hostile.push(start_guest(stand, args, veth, number, &["--hostile", how.as_str()])?);
        }
        Ok(())
    }

    /// Are all connected?
    pub fn all_connected(&self) -> bool {
        self.guests.iter().all(Guest::is_connected)
    }

    /// Each sends so much from now on.
    pub fn set_load(&mut self, load: Load) -> anyhow::Result<()> {
        self.guests.iter_mut().try_for_each(|guest| Ok(guest.command(&format!("load {load}"))?))
    }

    /// Has them send.
    pub fn start_sending(&mut self) -> anyhow::Result<()> {
        self.guests.iter_mut().try_for_each(|guest| Ok(guest.command("start")?))
    }

    /// Has them send no more.
    pub fn stop_sending(&mut self) -> anyhow::Result<()> {
        self.guests.iter_mut().try_for_each(|guest| Ok(guest.command("stop")?))
    }

    /// Ends them; gives their accounts.
    pub fn end(self) -> anyhow::Result<Vec<GuestReport>> {
        drop(self.hostile);
        self.guests.into_iter().map(|guest| Ok(guest.end()?)).collect()
    }
}

fn start_guest(
    stand: &Stand,
    args: &NetArgs,
    veth: &Veth,
    number: u16,
    more: &[&str],
) -> anyhow::Result<Guest> {
    let last = u8::try_from(number + 1).context("that many guests")?;
    Ok(Guest::start(GuestOptions {
        program: &binary("sim-net-guest"),
        hv_socket: &stand.hv_socket(),
        store: &stand.socket(),
        mac: Mac([0x00, 0x16, 0x3e, 0x77, 0, last]),
        peer_mac: veth.peer_mac(),
        rate: args.rate,
        flow: u64::from(number) + 1,
        sizes: (args.size_min, args.size_max),
        more,
    })?)
}

/// The other end of the wire.
pub struct Peer {
    endpoint: Endpoint,
    guests: u64,
}

impl Peer {
    /// Counts what comes, and sends to these guests once it is told to.
    pub fn start(veth: &Veth, args: &NetArgs, guests: &Guests) -> anyhow::Result<Self> {
        let spec = format!("packet:{},rx={PEER_SLOTS}", veth.theirs()).parse()?;
        let to: Vec<Mac> = guests.guests.iter().map(Guest::mac).collect();
        let guests = to.len() as u64;
        let options = EndpointOptions {
            from: veth.peer_mac(),
            to,
            flow: FLOW_BASE,
            sizes: (args.size_min, args.size_max.min(PEER_BYTES_MAX)),
            role: Role::Send { rate: args.rate * guests },
        };
        let wire = PacketWire::open(&spec, Look::Every(PEER_LOOK))?;
        Ok(Self { endpoint: Endpoint::start(Box::new(wire), options), guests })
    }

    /// Frames that came.
    pub fn received(&self) -> u64 {
        self.endpoint.seen().received
    }

    /// Has something come from each guest?
    pub fn hears_from_all(&self) -> bool {
        self.endpoint.flows_heard() >= self.guests
    }

    /// Sends from now on, or no more. Before a guest is connected nobody would know where its frames are to go.
    pub fn set_sending(&self, sending: bool) {
        self.endpoint.set_sending(sending);
    }

    /// Sends so much to each guest from now on.
    pub fn set_load(&self, load: Load) {
        let rate = load.rate * self.guests;
        let capped = |bytes: usize| bytes.min(PEER_BYTES_MAX);
        let (least_bytes, most_bytes) = (capped(load.least_bytes), capped(load.most_bytes));
        self.endpoint.set_load(Load { rate, least_bytes, most_bytes });
    }

    /// Ends it.
    pub fn end(self) -> anyhow::Result<EndpointReport> {
        Ok(self.endpoint.end()?)
    }
}
