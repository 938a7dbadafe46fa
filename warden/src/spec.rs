//! What a warden is to keep alive.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use control::names;
use rustix::event::EventfdFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::Error;
use crate::limits::{LISTEN_BACKLOG, LOG_BYTES};
use crate::rundir::RunDir;

/// How a service is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSpec {
    /// The binary.
    pub program: PathBuf,
    /// Its arguments, without the name.
    pub args: Vec<OsString>,
    /// Environment variables besides the warden's own ones.
    pub env: Vec<(OsString, OsString)>,
}

/// Shared memory that is made for the group. Zeroed memory is its valid, empty state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    /// Its name among the kept descriptors.
    pub name: String,
    /// Its size in bytes; it cannot be changed later.
    pub length_bytes: u64,
}

/// One gateway and its replicas.
#[derive(Debug)]
pub struct GroupSpec {
    /// The gateway.
    pub gateway: ServiceSpec,
    /// The replicas, by number.
    pub replicas: Vec<ServiceSpec>,
    /// Memory to make. The one named [`names::BOARD`] is also read by the warden.
    pub regions: Vec<RegionSpec>,
    /// Descriptors to hand to every service, by name.
    pub descriptors: Vec<(String, OwnedFd)>,
}

/// Everything a warden needs to know.
#[derive(Debug)]
pub struct WardenSpec {
    /// Where the gRPC socket will be.
    pub rundir: RunDir,
    /// The services.
    pub group: GroupSpec,
    /// One of local, dom0, domains: for the status alone.
    pub profile: String,
    /// Whether faults may be injected.
    pub injection: bool,
    /// A loopback address where status, events and health are served besides the Unix socket.
    pub grpc_listen: Option<SocketAddr>,
}

/// The store's group: `xs_uk --role gateway ARGS` and `replicas` times `xs_uk --role replica ARGS`.
///
/// The services find the run directory in `XENSTORED_RUNDIR`.
///
/// # Errors
/// [`Error::System`] if no eventfd can be made.
pub fn store_group(
    rundir: &Path,
    xs_uk: &Path,
    args: &[OsString],
    replicas: u32,
    listener: OwnedFd,
) -> Result<GroupSpec, Error> {
    let kick = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|source| Error::System { call: "eventfd", source: source.into() })?;
    let service = |role: &str| ServiceSpec {
        program: xs_uk.to_owned(),
        args: ["--role".into(), role.into()].into_iter().chain(args.iter().cloned()).collect(),
        env: vec![("XENSTORED_RUNDIR".into(), rundir.into())],
    };
    let region = |name: &str, length_bytes| RegionSpec { name: name.to_owned(), length_bytes };
    Ok(GroupSpec {
        gateway: service("gateway"),
        replicas: (0..replicas).map(|_| service("replica")).collect(),
        regions: vec![
            region(names::LOG, LOG_BYTES),
            region(names::CONNS, xs_shm::limits::TABLE_BYTES as u64),
            region(names::BOARD, xs_shm::limits::BOARD_BYTES as u64),
        ],
        descriptors: vec![(names::LISTENER.to_owned(), listener), (names::KICK.to_owned(), kick)],
    })
}

/// Makes a listening Unix socket that only its owner can connect to, in place of what is at `path`.
///
/// # Errors
/// [`Error::Path`] with what the system says.
pub fn bind_listener(path: &Path) -> Result<OwnedFd, Error> {
    let failed = |source: rustix::io::Errno| Error::Path { path: path.to_owned(), source: source.into() };
    // Bound under another name, it takes the place of an old socket at once and with its rights already set.
    let fresh = path.with_extension(format!("new.{}", std::process::id()));
    let _ = std::fs::remove_file(&fresh);
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(failed)?;
    let address = SocketAddrUnix::new(&fresh).map_err(failed)?;
    rustix::net::bind(&socket, &address).map_err(failed)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).map_err(Error::path(path))?;
    rustix::net::listen(&socket, LISTEN_BACKLOG).map_err(failed)?;
    std::fs::rename(&fresh, path).map_err(Error::path(path))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_listener_takes_the_place_of_an_old_one_with_its_rights() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _old = bind_listener(&path).unwrap();
        let _new = bind_listener(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_stores_services_are_told_their_roles() {
        let dir = tempfile::tempdir().unwrap();
        let listener = bind_listener(&dir.path().join("socket")).unwrap();
        let group = store_group(dir.path(), Path::new("/bin/xs_uk"), &["-K".into()], 2, listener).unwrap();
        assert_eq!(group.gateway.args, ["--role", "gateway", "-K"]);
        assert_eq!(group.replicas.len(), 2);
        assert_eq!(group.replicas[1].args, ["--role", "replica", "-K"]);
    }
}
