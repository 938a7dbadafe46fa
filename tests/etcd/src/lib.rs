//! Real etcd members for tests: started on free ports, killed, stopped, restarted.
//!
//! Each member is a process of its own with its data below one directory. Dropping the stand kills the members
//! and, if it was made by the stand, removes the directory.
#![forbid(unsafe_code)]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

pub mod limits;

use limits::{START_PAUSE, START_WAIT};

/// Why a stand does not stand.
#[derive(Debug, thiserror::Error)]
pub enum StandError {
    /// The system refuses: no etcd, no port, no directory.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What it reports.
        source: std::io::Error,
    },
    /// A member takes no connections in time, or ended.
    #[error("etcd member {member} does not start; see {}", log.display())]
    Silent {
        /// Its number.
        member: usize,
        /// Its log.
        log: PathBuf,
    },
}

/// What is not usual about the members.
#[derive(Clone, Debug, Default)]
pub struct StandOptions {
    /// More flags for each.
    pub flags: Vec<String>,
    /// The flag `--quota-backend-bytes`.
    pub quota_bytes: Option<u64>,
    /// Clients come by TLS: the server's certificate, its key, and the clients' CA.
    pub tls: Option<[PathBuf; 3]>,
}

#[derive(Debug)]
struct Member {
    client_port: u16,
    peer_port: u16,
    child: Option<Child>,
}

/// A cluster of real members.
#[derive(Debug)]
pub struct EtcdStand {
    members: Vec<Member>,
    dir: PathBuf,
    options: StandOptions,
    _own_dir: Option<tempfile::TempDir>,
}

impl EtcdStand {
    /// Starts `members` members whose data lies in `data_dir`, and waits until all take connections.
    ///
    /// # Errors
    /// [`StandError`].
    pub fn start(members: usize, data_dir: &Path) -> Result<Self, StandError> {
        Self::start_with(members, data_dir, StandOptions::default())
    }

    /// As [`Self::start`], in memory: in a directory of its own below /dev/shm, if there is one.
    ///
    /// # Errors
    /// [`StandError`].
    pub fn start_in_memory(members: usize, options: StandOptions) -> Result<Self, StandError> {
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("etcd-stand").tempdir_in(base);
        let dir = dir.map_err(|source| StandError::System { what: "directory".to_owned(), source })?;
        let mut stand = Self::start_with(members, dir.path(), options)?;
        stand._own_dir = Some(dir);
        Ok(stand)
    }

    /// As [`Self::start`], with options.
    ///
    /// # Errors
    /// [`StandError`].
    pub fn start_with(members: usize, data_dir: &Path, options: StandOptions) -> Result<Self, StandError> {
        let ports = free_ports(2 * members)?;
        let members =
            ports.chunks(2).map(|two| Member { client_port: two[0], peer_port: two[1], child: None });
        let members = members.collect();
        let mut stand = Self { members, dir: data_dir.to_owned(), options, _own_dir: None };
        for i in 0..stand.members.len() {
            stand.spawn(i)?;
        }
        for i in 0..stand.members.len() {
            stand.wait(i)?;
        }
        Ok(stand)
    }

    /// Where clients reach the members.
    pub fn endpoints(&self) -> Vec<String> {
        let scheme = self.scheme();
        self.members.iter().map(|member| format!("{scheme}://127.0.0.1:{}", member.client_port)).collect()
    }

    /// Ends a member at once (SIGKILL).
    pub fn kill(&mut self, i: usize) {
        if let Some(mut child) = self.members[i].child.take() {
            // Both fail only for a process that ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops a member as it is (SIGSTOP).
    pub fn stop(&self, i: usize) {
        self.signal(i, Signal::STOP);
    }

    /// Lets a stopped member go on (SIGCONT).
    pub fn cont(&self, i: usize) {
        self.signal(i, Signal::CONT);
    }

    /// Starts a member that was killed, with its data, and waits until it takes connections.
    ///
    /// # Errors
    /// [`StandError`].
    pub fn restart(&mut self, i: usize) -> Result<(), StandError> {
        self.kill(i);
        self.spawn(i)?;
        self.wait(i)
    }

    fn signal(&self, i: usize, signal: Signal) {
        if let Some(child) = &self.members[i].child {
            let sent = kill_process(Pid::from_child(child), signal);
            debug_assert!(sent.is_ok(), "our own child, not waited for");
        }
    }

    fn scheme(&self) -> &'static str {
        if self.options.tls.is_some() { "https" } else { "http" }
    }

    fn log(&self, i: usize) -> PathBuf {
        self.dir.join(format!("m{i}.log"))
    }

    fn spawn(&mut self, i: usize) -> Result<(), StandError> {
        let system = |what: &str, source| StandError::System { what: what.to_owned(), source };
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log(i));
        let log = log.map_err(|source| system("log", source))?;
        let client = &self.endpoints()[i];
        let peer = |member: &Member| format!("http://127.0.0.1:{}", member.peer_port);
        let cluster = self.members.iter().enumerate().map(|(i, member)| format!("m{i}={}", peer(member)));
        let cluster = cluster.collect::<Vec<_>>().join(",");
        let own_peer = peer(&self.members[i]);
        let mut command = Command::new("etcd");
        command
            .args(["--name", &format!("m{i}"), "--data-dir"])
            .arg(self.dir.join(format!("m{i}")))
            .args(["--listen-client-urls", client, "--advertise-client-urls", client])
            .args(["--listen-peer-urls", &own_peer, "--initial-advertise-peer-urls", &own_peer])
            .args(["--initial-cluster", &cluster, "--initial-cluster-state", "new", "--logger", "zap"])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(&self.options.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(quota_bytes) = self.options.quota_bytes {
            command.args(["--quota-backend-bytes", &quota_bytes.to_string()]);
        }
        if let Some([cert, key, ca]) = &self.options.tls {
            command.arg("--client-cert-auth").arg("--cert-file").arg(cert).arg("--key-file").arg(key);
            command.arg("--trusted-ca-file").arg(ca);
        }
        self.members[i].child = Some(command.spawn().map_err(|source| system("etcd", source))?);
        Ok(())
    }

    fn wait(&mut self, i: usize) -> Result<(), StandError> {
        let began = Instant::now();
        let log = self.log(i);
        let member = &mut self.members[i];
        while TcpStream::connect(("127.0.0.1", member.client_port)).is_err() {
            let ended = member.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || began.elapsed() > START_WAIT {
                return Err(StandError::Silent { member: i, log });
            }
            std::thread::sleep(START_PAUSE);
        }
        Ok(())
    }
}

impl Drop for EtcdStand {
    fn drop(&mut self) {
        for i in 0..self.members.len() {
            self.kill(i);
        }
    }
}

fn free_ports(count: usize) -> Result<Vec<u16>, StandError> {
    let system = |source| StandError::System { what: "a free port".to_owned(), source };
    let listeners: Result<Vec<_>, _> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    // All are held until all are known, so they differ.
    let listeners = listeners.map_err(system)?;
    listeners.iter().map(|listener| Ok(listener.local_addr().map_err(system)?.port())).collect()
}
