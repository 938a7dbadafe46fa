//! Resetting a network card, on a thread of its own: a driver may take seconds to let its device go.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use net_watch::ladder::{Attempt, NicId};
use nic::NicSpec;
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
    pub fn begin(&self, nic: NicId, attempt: Attempt, spec: NicSpec) {
        let (sender, wake) = (self.sender.clone(), Arc::clone(&self.wake));
        let work = move || {
            let outcome = reset(&spec);
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

/// Unbinds the kernel's driver and binds it again, if the device has one on a bus; else switches the link off and on.
fn reset(spec: &NicSpec) -> Result<(), Error> {
    let name = &spec.interface;
    let device = std::fs::canonicalize(Path::new("/sys/class/net").join(name).join("device"));
    if let Ok(device) = device
        && let Ok(driver) = std::fs::canonicalize(device.join("driver"))
        && let Some(id) = device.file_name()
    {
        let id = id.as_encoded_bytes();
        std::fs::write(driver.join("unbind"), id)?;
        std::fs::write(driver.join("bind"), id)?;
    } else {
        link(name, "down")?;
    }
    link_up(name)
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
        resets.begin(NicId(3), Attempt(2), NicSpec::packet("no-such-link"));
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
}
