//! What an endpoint sends over and receives from.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use hypervisor::Region;
use lane::{Consumer, Lane, Producer};
use nic::{Held, Kick, Nic, NicSpec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Result, system};
use crate::limits::SLOTS;

/// Rings of frames with something behind them.
pub trait Wire: Send {
    /// Where frames to be sent go.
    fn outbox(&mut self) -> &mut Producer;

    /// Where frames that came are.
    fn inbox(&mut self) -> &mut Consumer;

    /// Moves what is in the outbox on, and what came into the inbox.
    ///
    /// # Errors
    /// What makes it useless.
    fn pump(&mut self) -> Result<()>;

    /// Sleeps until something came, or `timeout` is over.
    ///
    /// # Errors
    /// What the system reports.
    fn wait(&mut self, timeout: Duration) -> Result<()>;

    /// Frames that came and were dropped at this end because nobody took them in time.
    ///
    /// # Errors
    /// What the system reports.
    fn dropped(&mut self) -> Result<u64>;
}

/// How somebody without work waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Until there is work: at once, at the price of a wake-up.
    AtOnce,
    /// For this time, whatever comes: in batches.
    Every(Duration),
}

/// A packet socket on an interface, driven in this process.
pub struct PacketWire {
    port: Box<dyn Nic + Send>,
    // Whatever happens to the port, the socket stays.
    _held: Held,
    tx: Consumer,
    rx: Producer,
    outbox: Producer,
    inbox: Consumer,
    kick: Kick,
    look: Look,
}

impl PacketWire {
    /// Opens it.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn open(spec: &NicSpec, look: Look) -> Result<Self> {
        let held = Held::open(spec)?;
        let region = Arc::new(Region::create("endpoint", Lane::bytes(SLOTS, SLOTS))?);
        let lane = Lane::create(region, SLOTS, SLOTS)?;
        let (mut tx, mut rx) = (lane.tx().consumer()?, lane.rx().producer()?);
        let (outbox, inbox) = (lane.tx().producer()?, lane.rx().consumer()?);
        let port = held.attach(&mut tx, &mut rx, lane.words())?;
        Ok(Self { port, _held: held, tx, rx, outbox, inbox, kick: Kick::Clear, look })
    }
}

impl Wire for PacketWire {
    fn outbox(&mut self) -> &mut Producer {
        &mut self.outbox
    }

    fn inbox(&mut self) -> &mut Consumer {
        &mut self.inbox
    }

    fn pump(&mut self) -> Result<()> {
        self.outbox.publish();
        self.inbox.commit();
        let moved = self.port.transmit(&mut self.tx)?;
        if moved.taken() > 0 || self.kick != Kick::Clear {
            self.kick = self.port.kick()?;
        }
        self.port.receive(&mut self.rx)?;
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        match self.look {
            Look::AtOnce => wait_for(self.port.poll_fd(), timeout),
            Look::Every(pause) => {
                std::thread::sleep(pause.min(timeout));
                Ok(())
            }
        }
    }

    fn dropped(&mut self) -> Result<u64> {
        Ok(self.port.counters()?.rx_dropped)
    }
}

/// The shadow's end of a driver's lane.
pub struct LaneWire {
    outbox: Producer,
    inbox: Consumer,
    wake_driver: OwnedFd,
    wake_shadow: OwnedFd,
    /// There was no room.
    waits_for_room: bool,
}

impl LaneWire {
    /// Attaches to a lane that nobody else is at.
    ///
    /// # Errors
    /// [`crate::Error::Lane`].
    pub fn attach(lane: &Lane, wake_driver: OwnedFd, wake_shadow: OwnedFd) -> Result<Self> {
        let (outbox, inbox) = (lane.tx().producer()?, lane.rx().consumer()?);
        Ok(Self { outbox, inbox, wake_driver, wake_shadow, waits_for_room: false })
    }
}

impl Wire for LaneWire {
    fn outbox(&mut self) -> &mut Producer {
        &mut self.outbox
    }

    fn inbox(&mut self) -> &mut Consumer {
        &mut self.inbox
    }

    fn pump(&mut self) -> Result<()> {
        let published = self.outbox.publish();
        let taken = self.inbox.commit();
        if (published && self.outbox.needs_wake()) | (taken && self.inbox.needs_wake()) {
            // One that is full is readable.
            let _ = rustix::io::write(&self.wake_driver, &1u64.to_ne_bytes());
        }
        self.waits_for_room = self.outbox.room_slots()? < self.outbox.ring().slots() / 4;
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        let nothing = self.inbox.prepare_sleep()?;
        let full = !self.waits_for_room || self.outbox.prepare_sleep(self.outbox.ring().slots() / 4)?;
        if nothing && full {
            wait_for(self.wake_shadow.as_fd(), timeout)?;
        }
        self.inbox.awake();
        self.outbox.awake();
        let _ = rustix::io::read(&self.wake_shadow, &mut [0; 8]);
        Ok(())
    }

    fn dropped(&mut self) -> Result<u64> {
        Ok(0)
    }
}

fn wait_for(fd: impl AsFd, timeout: Duration) -> Result<()> {
    let fd = fd.as_fd();
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let timeout = Timespec::try_from(timeout).ok();
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(system("poll")(error)),
    }
}
