//! Listening Unix sockets in the file system.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::limits::LISTEN_BACKLOG;

/// Makes a listening socket that only its owner can connect to, in place of what is at `path`.
///
/// # Errors
/// What the system says.
pub fn bind(path: &Path, kind: SocketType) -> io::Result<OwnedFd> {
    // Bound under another name, it takes the place of an old socket at once and with its rights already set.
    let fresh = path.with_extension(format!("new.{}", std::process::id()));
    let _ = std::fs::remove_file(&fresh);
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&fresh)?)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    rustix::net::listen(&socket, LISTEN_BACKLOG)?;
    std::fs::rename(&fresh, path)?;
    Ok(socket)
}
