//! What a warden is to keep alive.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use control::names;
use rustix::net::SocketType;

use crate::error::Error;
use crate::limits::LOG_BYTES;
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

/// One gateway and its replicas. What is to be made is made only if there is no running group to adopt.
#[derive(Clone, Debug, Default)]
pub struct GroupSpec {
    /// The gateway.
    pub gateway: ServiceSpec,
    /// Members of an engine's own cluster, by number: they start first and end last.
    pub members: Vec<ServiceSpec>,
    /// The replicas, by number.
    pub replicas: Vec<ServiceSpec>,
    /// Memory to make. The one named [`names::BOARD`] is also read by the warden.
    pub regions: Vec<RegionSpec>,
    /// Listening Unix sockets to make, by name.
    pub listeners: Vec<(String, PathBuf)>,
    /// Eventfds to make, by name.
    pub eventfds: Vec<String>,
    /// What keeps the log, in words: a running group is adopted only if it is the same.
    pub log: String,
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
    /// A loopback address where metrics are given over HTTP.
    pub metrics_listen: Option<SocketAddr>,
}

/// The store's group: `xs_uk --role gateway ARGS`, `replicas` times `xs_uk --role replica ARGS`, and `members` times
/// `xs_uk --role member ARGS`.
///
/// The services find the run directory in `XENSTORED_RUNDIR`. `socket` is the path of the store's socket.
pub fn store_group(
    rundir: &Path,
    xs_uk: &Path,
    args: &[OsString],
    replicas: u32,
    members: u32,
    socket: &Path,
) -> GroupSpec {
    let service = |role: &str| ServiceSpec {
        program: xs_uk.to_owned(),
        args: [OsString::from("--role"), role.into(), "--replicas".into(), replicas.to_string().into()]
            .into_iter()
            .chain(args.iter().cloned())
            .collect(),
        env: vec![("XENSTORED_RUNDIR".into(), rundir.into())],
    };
    let region = |name: &str, length_bytes| RegionSpec { name: name.to_owned(), length_bytes };
    GroupSpec {
        gateway: service("gateway"),
        members: (0..members).map(|_| service("member")).collect(),
        replicas: (0..replicas).map(|_| service("replica")).collect(),
        regions: vec![
            region(names::LOG, LOG_BYTES),
            region(names::CONNS, xs_shm::limits::TABLE_BYTES as u64),
            region(names::BOARD, xs_shm::limits::BOARD_BYTES as u64),
            region(names::ROOTS, xs_shm::limits::ROOTS_BYTES as u64),
            region(names::CONSULT, xs_shm::limits::CONSULT_BYTES as u64),
        ],
        listeners: vec![(names::LISTENER.to_owned(), socket.to_owned())],
        eventfds: vec![names::KICK.to_owned()],
        log: String::new(),
    }
}

/// Makes a listening Unix socket that only its owner can connect to, in place of what is at `path`.
///
/// # Errors
/// [`Error::Path`] with what the system says.
pub fn bind_listener(path: &Path) -> Result<OwnedFd, Error> {
    bind(path, SocketType::STREAM)
}

/// As [`bind_listener`], for a socket of packets.
///
/// # Errors
/// [`Error::Path`].
pub(crate) fn bind_packet_listener(path: &Path) -> Result<OwnedFd, Error> {
    bind(path, SocketType::SEQPACKET)
}

fn bind(path: &Path, kind: SocketType) -> Result<OwnedFd, Error> {
    control::listen::bind(path, kind).map_err(Error::path(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
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
        let socket = dir.path().join("socket");
        let group = store_group(dir.path(), Path::new("/bin/xs_uk"), &["-K".into()], 2, 1, &socket);
        assert_eq!(group.gateway.args, ["--role", "gateway", "--replicas", "2", "-K"]);
        assert_eq!((group.replicas.len(), group.members.len()), (2, 1));
        assert_eq!(group.replicas[1].args, ["--role", "replica", "--replicas", "2", "-K"]);
    }
}
