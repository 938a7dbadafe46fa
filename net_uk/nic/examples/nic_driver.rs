//! The smallest driver: moves frames between a lane and a network card that others hold, until it is killed.
//!
//! `nic_driver SPEC LANE_FD NIC_FD... [die STEP COUNT]`: the descriptors are inherited. With `die` it kills itself after
//! the step has been done COUNT times; tests use that to reach each place.

#![allow(unsafe_code, reason = "descriptors come by number")]

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result};
use hypervisor::Region;
use lane::{DriverState, Lane};
use nic::{Held, Kick, NicSpec, Step, Steps};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Looks this often before it sleeps.
const IDLE_TURNS: u32 = 200;

/// Kills the process at a place.
struct Death {
    step: Option<Step>,
    left: u32,
}

impl Steps for Death {
    fn done(&mut self, step: Step) {
        if self.step != Some(step) {
            return;
        }
        self.left -= 1;
        if self.left == 0 {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let spec: NicSpec = words.next().context("a specification")?.parse()?;
    let region = Region::open(inherited(&words.next().context("the lane's descriptor")?)?, 1)?;
    let mut fds = Vec::new();
    let mut death = Death { step: None, left: 0 };
    while let Some(word) = words.next() {
        if word == "die" {
            let name = words.next().context("a step")?;
            death.step = Step::ALL.into_iter().find(|step| format!("{step:?}") == name);
            death.left = words.next().context("a count")?.parse()?;
            break;
        }
        fds.push(inherited(&word)?);
    }
    let held = Held::from_fds(&spec, fds)?;
    let lane = Lane::attach(Arc::new(region))?;
    drive(&held, &lane, death)
}

fn inherited(word: &str) -> Result<OwnedFd> {
    let fd = word.parse()?;
    // SAFETY: the parent opened this descriptor for this process, and nothing else here uses it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn drive(held: &Held, lane: &Lane, death: Death) -> Result<()> {
    let (mut tx, mut rx) = (lane.tx().consumer()?, lane.rx().producer()?);
    let words = lane.words();
    words.set_epoch(words.epoch() + 1);
    words.set_state(DriverState::Starting);
    let mut port = held.attach_with(&mut tx, &mut rx, words.clone(), death)?;
    words.set_state(DriverState::Running);
    let mut idle = 0;
    let mut kick = Kick::Congested;
    loop {
        words.beat();
        words.count_poll();
        let sent = port.transmit(&mut tx)?;
        if sent.taken() > 0 || kick != Kick::Clear {
            kick = port.kick()?;
        }
        let received = port.receive(&mut rx)?;
        words.add_tx(sent.frames.into(), sent.bytes);
        words.add_rx(received.frames.into(), received.bytes);
        idle = if sent.taken() + received.taken() > 0 { 0 } else { idle + 1 };
        if idle > IDLE_TURNS {
            let wait = Timespec { tv_sec: 0, tv_nsec: 100_000 };
            let mut fds = [PollFd::from_borrowed_fd(port.poll_fd(), PollFlags::IN)];
            match poll(&mut fds, Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
