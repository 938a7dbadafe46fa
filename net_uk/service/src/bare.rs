//! A driver without a shadow: whoever starts it is the other end of its lane. For measurements of what a shadow costs.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::sync::Arc;

use control::Link;
use hypervisor::Region;
use lane::Lane;
use nic::{Held, NicSpec};

use crate::error::Error;
use crate::limits::LANE_SLOTS;
use crate::process::start_role;
use crate::shadow::uplink::eventfd;
use crate::wire::{Begin, FromChild, Nic, Order, Said, ToChild, names};

/// A driver that nobody watches; told to stop with the value.
pub struct BareDriver {
    /// Its lane.
    pub lane: Lane,
    /// Wakes it.
    pub wake_driver: OwnedFd,
    /// It wakes whoever is at the other end.
    pub wake_shadow: OwnedFd,
    process: Child,
    link: Link,
    held: Held,
}

impl BareDriver {
    /// Opens a network card and starts its driver; comes back when it serves.
    ///
    /// # Errors
    /// What cannot be opened or started.
    pub fn start(spec: &NicSpec) -> Result<Self, Error> {
        let held = Held::open_waiting(spec)?;
        let region = Arc::new(Region::create("net-lane", Lane::bytes(LANE_SLOTS, LANE_SLOTS))?);
        let lane = Lane::create(region, LANE_SLOTS, LANE_SLOTS)?;
        let (wake_driver, wake_shadow) = (eventfd()?, eventfd()?);
        let (process, link) = start_role(|command| command.arg("driver").process_group(0))?;
        let driver = Self { lane, wake_driver, wake_shadow, process, link, held };
        driver.begin(spec)?;
        Ok(driver)
    }

    fn begin(&self, spec: &NicSpec) -> Result<(), Error> {
        let mut names =
            vec![names::LANE.to_owned(), names::WAKE_DRIVER.to_owned(), names::WAKE_SHADOW.to_owned()];
        let mut descriptors =
            vec![self.lane.region().as_fd(), self.wake_driver.as_fd(), self.wake_shadow.as_fd()];
        for (at, descriptor) in self.held.fds().into_iter().enumerate() {
            names.push(format!("{}{at}", names::NIC));
            descriptors.push(descriptor);
        }
        let nics = vec![Nic { number: 0, spec: spec.to_string() }];
        let begin = Begin { epoch: 1, names, nics, injection: false };
        self.link.send(&ToChild { order: Some(Order::Begin(begin)) }, &descriptors)?;
        loop {
            if let Some(Said::Ready(_)) = self.link.receive::<FromChild>()?.message.said {
                return Ok(());
            }
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for BareDriver {
    fn drop(&mut self) {
        if self.link.send(&ToChild { order: Some(Order::Stop(true)) }, &[]).is_err() {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}
