//! Resetting a network card, on a thread of its own: a driver may take seconds to let its device go.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use net_watch::ladder::{Attempt, NicId};
use std::os::fd::OwnedFd;

use crate::error::Error;
use crate::shadow::uplink::{drain, eventfd, signal};

/// Resets that are under way. A card has one at a time.
pub struct Resets {
    sender: Sender<Reset>,
    done: Receiver<Reset>,
    wake: Arc<OwnedFd>,
}

/// A reset that came to its end.
pub struct Reset {
    /// Of which card.
    pub nic: NicId,
    /// Which one.
    pub attempt: Attempt,
    /// How it went.
    pub outcome: Result<(), Error>,
}

impl Resets {
    /// None yet.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn new() -> Result<Self, Error> {
        let (sender, done) = channel();
        Ok(Self { sender, done, wake: Arc::new(eventfd()?) })
    }

    /// Readable when one came to its end.
    pub fn wake(&self) -> &OwnedFd {
        &self.wake
    }

    /// Begins one.
    pub fn begin(&self, nic: NicId, attempt: Attempt, interface: String, device: Option<BusDevice>) {
        let (sender, wake) = (self.sender.clone(), Arc::clone(&self.wake));
        let work = move || {
            let outcome = reset(&interface, device.as_ref());
            // Nobody is there any more only if the keeper ends.
            let _ = sender.send(Reset { nic, attempt, outcome });
            signal(&wake);
        };
        if let Err(error) = std::thread::Builder::new().name("reset".to_owned()).spawn(work) {
            let _ = self.sender.send(Reset { nic, attempt, outcome: Err(error.into()) });
            signal(&self.wake);
        }
    }

    /// Those that came to their end.
    pub fn ended(&self) -> Vec<Reset> {
        drain(&self.wake);
        self.done.try_iter().collect()
    }
}

/// Where a device is on its bus. That is remembered: without its driver it has no interface by which it could be found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BusDevice {
    /// The directory of the kernel's driver.
    pub driver: String,
    /// The device's name on the bus.
    pub id: String,
}

impl BusDevice {
    /// Of the device that has this interface; none if it is on no bus.
    pub fn of(interface: &str) -> Option<Self> {
        let device = Path::new("/sys/class/net").join(interface).join("device");
        let device = std::fs::canonicalize(device).ok()?;
        let driver = std::fs::canonicalize(device.join("driver")).ok()?;
        Some(Self { driver: driver.to_str()?.to_owned(), id: device.file_name()?.to_str()?.to_owned() })
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(&self.driver).join(name)
    }

    fn is_bound(&self) -> bool {
        self.file(&self.id).exists()
    }

    fn bind(&self) -> Result<(), Error> {
        Ok(std::fs::write(self.file("bind"), &self.id)?)
    }

    fn unbind(&self) -> Result<(), Error> {
        Ok(std::fs::write(self.file("unbind"), &self.id)?)
    }
}

/// Unbinds the kernel's driver and binds it again, if the device has one on a bus; else switches the link off and on. A keeper
/// that died between the two has left a device without its driver: that is bound where it was, `known`.
fn reset(interface: &str, known: Option<&BusDevice>) -> Result<(), Error> {
    if let Some(device) = BusDevice::of(interface) {
        device.unbind()?;
        device.bind()?;
    } else if let Some(device) = known.filter(|device| !device.is_bound()) {
        device.bind()?;
    } else {
        link(interface, "down")?;
    }
    link_up(interface)
}

/// Switches a link on.
///
/// # Errors
/// [`Error::Reset`].
pub fn link_up(name: &str) -> Result<(), Error> {
    link(name, "up")
}

fn link(name: &str, state: &'static str) -> Result<(), Error> {
    let mut command = Command::new("ip");
    let status = command.args(["link", "set", "dev", name, state]).stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(Error::Reset { interface: name.to_owned(), state }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_with_its_outcome() {
        let resets = Resets::new().unwrap();
        resets.begin(NicId(3), Attempt(2), "no-such-link".into(), None);
        let began = std::time::Instant::now();
        loop {
            if let [reset] = &resets.ended()[..] {
                assert_eq!((reset.nic, reset.attempt), (NicId(3), Attempt(2)));
                assert!(reset.outcome.is_err());
                return;
            }
            assert!(began.elapsed() < std::time::Duration::from_secs(10), "it ends");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    #[test]
    fn a_device_that_was_left_without_its_driver_is_bound_again() {
        let dir = tempfile::tempdir().unwrap();
        let known =
            BusDevice { driver: dir.path().to_str().unwrap().to_owned(), id: "0000:00:1f.6".to_owned() };
        let (bind, device) = (dir.path().join("bind"), dir.path().join(&known.id));
        std::fs::write(&device, "").unwrap();
        assert!(reset("no-such-link", Some(&known)).is_err());
        assert!(!bind.exists(), "it has its driver");
        std::fs::remove_file(&device).unwrap();
        // Here no interface comes of it.
        assert!(reset("no-such-link", Some(&known)).is_err());
        assert_eq!(std::fs::read_to_string(&bind).unwrap(), known.id);
    }
}
