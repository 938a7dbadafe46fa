//! A driver: moves frames between its lane and its network card. It may die at any instruction.

mod fault;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypervisor::Region;
use lane::{Consumer, DriverState, DriverWords, Lane, Producer};
use net_watch::detector::DeviceReport;
use nic::{Counters, Done, Held, Kick, Nic, NicError, NicSpec};

pub use fault::{Fault, Ring};

use crate::error::Error;
use crate::limits::{
    BEAT, CONGESTED_PAUSE, DOWN_PAUSE, LANE_LOOK, LANE_LOOKS_DRIVER, ORDER_TURNS, REFUSALS_PAUSE, SLOW_PAUSE,
};
use crate::poller::{Interest, Poller};
use crate::shadow::uplink::signal;
use crate::wire::{self, Begun, Boss, Order, Said, names};

/// The driver word in which it tells how its device is: 0 fine, 1 its queue is full, 2 it is down.
pub const DEVICE_WORD: usize = lane::limits::NIC_WORDS - 1;

/// What a driver tells there.
pub fn device_report(words: &DriverWords) -> DeviceReport {
    match words.nic(DEVICE_WORD) {
        0 => DeviceReport::Fine,
        1 => DeviceReport::RingFull,
        _ => DeviceReport::LinkDown,
    }
}

const BOSS: u64 = 0;
const WAKE: u64 = 1;
const NIC: u64 = 2;

struct Driver {
    boss: Boss,
    injection: bool,
    nic: Box<dyn Nic + Send>,
    tx: Consumer,
    rx: Producer,
    words: DriverWords,
    // Watched as long as it is open.
    _wake_driver: OwnedFd,
    wake_shadow: OwnedFd,
    poller: Poller,
    /// What the card is watched for.
    interest: Interest,
    kick: Kick,
    /// The card woke this driver.
    woken: bool,
    /// Turns in a row in which something was moved.
    busy_turns: u32,
    fault: Option<Fault>,
    lane: Lane,
    /// How often in a row an index of the shadow's made no sense.
    doubts: u32,
    /// When it told last what came to nothing.
    refusals_told: Instant,
}

/// Runs until the keeper says stop, or for ever without one.
///
/// # Errors
/// What makes it useless: the keeper starts another.
pub fn run() -> Result<(), Error> {
    let (boss, begun) = Boss::meet()?;
    let mut driver = Driver::begin(boss, begun)?;
    let ran = driver.serve();
    driver.words.set_state(DriverState::Failed);
    ran
}

impl Driver {
    fn begin(boss: Boss, mut begun: Begun) -> Result<Self, Error> {
        let described = begun.begin.nics.first().cloned().ok_or(Error::Missing { name: "network card" })?;
        let spec: NicSpec = described.spec.parse()?;
        let held = Held::from_fds(&spec, begun.take_all(names::NIC))?;
        let lane = begun.take_first(names::LANE, "lane")?;
        let lane = Lane::attach(Arc::new(Region::open(lane, 1)?))?;
        let words = lane.words();
        words.set_epoch(begun.begin.epoch);
        words.set_state(DriverState::Starting);
        let (wake_driver, wake_shadow) = (
            begun.take_first(names::WAKE_DRIVER, "eventfd")?,
            begun.take_first(names::WAKE_SHADOW, "eventfd")?,
        );
        let (mut tx, mut rx) = attach_ends(&lane, &held, &boss, &wake_shadow)?;
        let mut nic = held.attach(&mut tx, &mut rx, words.clone())?;
        // Before anything is handed to it: a device that is gone takes nothing.
        let kick = nic.kick()?;
        let poller = Poller::new()?;
        poller.add(&boss, BOSS, Interest::READ)?;
        poller.add(&wake_driver, WAKE, Interest::SIGNAL)?;
        poller.add(nic.poll_fd(), NIC, Interest::READ)?;
        // A former driver may have died before it could.
        signal(&wake_shadow);
        words.set_state(DriverState::Running);
        boss.say(Said::Ready(true));
        Ok(Self {
            boss,
            injection: begun.begin.injection,
            nic,
            tx,
            rx,
            words,
            _wake_driver: wake_driver,
            wake_shadow,
            poller,
            interest: Interest::READ,
            kick,
            woken: false,
            busy_turns: 0,
            fault: None,
            lane,
            doubts: 0,
            refusals_told: Instant::now(),
        })
    }

    fn serve(&mut self) -> Result<(), Error> {
        let mut ready = vec![];
        loop {
            if let Some(fault) = self.fault {
                self.misbehave(fault)?;
            }
            self.words.beat();
            ready.clear();
            match self.work(&mut ready) {
                Err(error) if is_nonsense(&error) && self.doubts < LANE_LOOKS_DRIVER => {
                    self.doubts += 1;
                    self.wait_for_sense();
                }
                worked => {
                    worked?;
                    self.doubts = 0;
                }
            }
            self.tell_refusals()?;
            self.woken = ready.contains(&NIC);
            if ready.contains(&BOSS) && self.take_orders()? {
                return Ok(());
            }
        }
    }

    fn tell_refusals(&mut self) -> Result<(), Error> {
        if self.refusals_told.elapsed() >= REFUSALS_PAUSE {
            let Counters { rx_dropped, rx_refused, tx_refused } = self.nic.counters()?;
            self.words.set_refusals(rx_dropped, rx_refused, tx_refused);
            self.refusals_told = Instant::now();
        }
        Ok(())
    }

    /// Moves what there is, and sleeps if there is nothing.
    fn work(&mut self, ready: &mut Vec<u64>) -> Result<(), Error> {
        let lies = matches!(self.fault, Some(Fault::Nonsense(..)));
        if !lies && (self.tx.reassert() | self.rx.reassert()) {
            signal(&self.wake_shadow);
        }
        let (sent, received) = self.turn()?;
        if sent.taken() + received.taken() == 0 {
            self.busy_turns = 0;
            return self.sleep(sent.blocked, received.blocked, ready);
        }
        self.busy_turns += 1;
        if self.busy_turns == ORDER_TURNS {
            self.busy_turns = 0;
            self.poller.wait(Duration::ZERO, ready)?;
        }
        Ok(())
    }

    /// An index of the shadow's makes no sense. It writes it again when it is woken. What was handed to the kernel is
    /// committed, what was not published comes again.
    fn wait_for_sense(&mut self) {
        self.tx.commit();
        self.rx.abandon();
        self.kick = Kick::Congested;
        give_time(&self.wake_shadow);
    }

    /// Moves what there is in both directions, and tells the shadow.
    fn turn(&mut self) -> Result<(Done, Done), Error> {
        self.words.count_poll();
        // What cannot be sent stays in the lane, and fills no ring of a device that may never come back.
        let sent = if self.kick == Kick::Down { Done::default() } else { self.nic.transmit(&mut self.tx)? };
        // A device without room may have taken everything and not given its room back.
        if sent.taken() > 0 || sent.blocked || self.kick != Kick::Clear {
            self.kick = self.nic.kick()?;
        }
        let device = match self.kick {
            Kick::Down => 2,
            Kick::Congested if sent.blocked => 1,
            Kick::Clear | Kick::Congested => 0,
        };
        self.words.set_nic(DEVICE_WORD, device);
        let received = self.nic.receive(&mut self.rx)?;
        if std::mem::take(&mut self.woken) && received.taken() == 0 && self.kick == Kick::Clear {
            // Woken up for nothing: the card may be gone.
            self.kick = self.nic.kick()?;
        }
        self.words.add_tx(sent.frames.into(), sent.bytes);
        self.words.add_rx(received.frames.into(), received.bytes);
        let wanted = sent.taken() > 0 && self.tx.needs_wake();
        if (received.taken() > 0 && self.rx.needs_wake()) | wanted {
            signal(&self.wake_shadow);
        }
        Ok((sent, received))
    }

    fn sleep(&mut self, device_full: bool, lane_full: bool, ready: &mut Vec<u64>) -> Result<(), Error> {
        ready.clear();
        // Frames that the device has no room for, or does not take, are not waited for, but the room is, or the device.
        let nothing_to_send = self.tx.prepare_sleep()? || device_full || self.kick == Kick::Down;
        let no_room = !lane_full || self.rx.prepare_sleep(1)?;
        if nothing_to_send && no_room {
            self.watch_nic(Interest { read: !lane_full, write: device_full, edge: false })?;
            let pause = match self.kick {
                Kick::Clear => BEAT,
                Kick::Congested => CONGESTED_PAUSE,
                Kick::Down => DOWN_PAUSE,
            };
            self.poller.wait(pause, ready)?;
        } else {
            self.poller.wait(Duration::ZERO, ready)?;
        }
        self.tx.awake();
        self.rx.awake();
        Ok(())
    }

    fn watch_nic(&mut self, wanted: Interest) -> Result<(), Error> {
        if wanted != self.interest {
            self.poller.change(self.nic.poll_fd(), NIC, wanted)?;
            self.interest = wanted;
        }
        Ok(())
    }

    /// True if it is to stop. Without anybody to tell it so it goes on: frames matter more than orders.
    fn take_orders(&mut self) -> Result<bool, Error> {
        while let Some(order) = wire::next_order(&mut self.boss, &self.poller)? {
            match order {
                Order::Stop(_) => return Ok(true),
                Order::Misbehave(order) if self.injection => self.fault = order.fault.parse().ok(),
                // A keeper that took over asks so whether we serve.
                Order::Begin(_) => self.boss.say(Said::Ready(true)),
                Order::Misbehave(_) => {}
            }
        }
        Ok(false)
    }

    fn misbehave(&mut self, fault: Fault) -> Result<(), Error> {
        match fault {
            Fault::Loop => loop {
                std::hint::spin_loop();
            },
            Fault::Livelock => loop {
                self.words.beat();
                std::thread::sleep(CONGESTED_PAUSE);
            },
            Fault::Slow => std::thread::sleep(SLOW_PAUSE),
            Fault::Nonsense(ring, damage) => {
                let ring = if ring == Ring::Tx { self.lane.tx() } else { self.lane.rx() };
                ring.damage(damage);
            }
            Fault::Exit => return Err(Error::Missing { name: "will to live" }),
            Fault::Panic => panic!("told to"),
        }
        Ok(())
    }
}

/// Both ends of the lane. The shadow is given time to write an index again that something else changed.
fn attach_ends(
    lane: &Lane,
    held: &Held,
    boss: &Boss,
    wake_shadow: &OwnedFd,
) -> Result<(Consumer, Producer), Error> {
    let mut left = LANE_LOOKS_DRIVER;
    loop {
        if lane.is_given_up() && lane.mend(held.handed(lane)?) {
            let (tx, rx) = (lane.tx().consumed(), lane.rx().produced());
            boss.note("lane_mended", format!("to the wire {tx}, from the wire {rx}"));
        }
        match (lane.tx().consumer(), lane.rx().producer()) {
            (Ok(tx), Ok(rx)) => return Ok((tx, rx)),
            (Err(error), _) | (_, Err(error)) if left == 0 => return Err(error.into()),
            _ => {}
        }
        left -= 1;
        give_time(wake_shadow);
    }
}

/// For the shadow to write an index again. Frames that come meanwhile do not shorten it.
fn give_time(wake_shadow: &OwnedFd) {
    signal(wake_shadow);
    std::thread::sleep(LANE_LOOK);
}

fn is_nonsense(error: &Error) -> bool {
    match error {
        Error::Lane(error) | Error::Nic(NicError::Lane(error)) => error.is_nonsense(),
        _ => false,
    }
}
