//! Resetting a network card.

use std::path::Path;
use std::process::{Command, Stdio};

use nic::NicSpec;

use crate::error::Error;

/// Unbinds the kernel's driver and binds it again, if the device has one on a bus; else switches the link off and on.
///
/// # Errors
/// [`Error::Reset`].
pub fn reset(spec: &NicSpec) -> Result<(), Error> {
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
