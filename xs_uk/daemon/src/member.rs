//! A member of the store's own etcd: starts Debian's etcd as a child, and ends with it.
//!
//! Members and clients meet at Unix sockets in a directory that nobody else can enter: etcd has no other way to know who
//! asks without certificates. etcd takes such addresses only in the form `unix://host:port`, which names the file
//! `host:port` in its working directory.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use control::{Ready, Role, from_service, to_service};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::error::Error;
use crate::limits::{
    MEMBER_PROBE, MEMBER_PROBE_PAUSE, MEMBER_SNAPSHOT_ENTRIES, MEMBER_START_WAIT, MEMBER_STOP_WAIT,
};
use crate::poller::{Interest, Poller};
use crate::service::{Service, report};

/// How many processors a program in Go uses.
const PROCESSORS: &str = "GOMAXPROCS";

const WARDEN: u64 = 0;
const CHILD: u64 = 1;

/// What a member must know besides its number.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    /// The etcd binary.
    pub program: PathBuf,
    /// Where the sockets are.
    pub directory: PathBuf,
    /// Where the data is.
    pub data: PathBuf,
    /// How many members there are.
    pub members: u32,
    /// Most bytes of its data file.
    pub quota_bytes: u64,
    /// Pause between heartbeats of the members.
    pub heartbeat: Duration,
    /// Without one for so long they elect another leader.
    pub election: Duration,
}

/// The file of a member's client socket.
pub fn client_socket(directory: &Path, number: u32) -> PathBuf {
    directory.join(host(CLIENT_PORT, number))
}

const CLIENT_PORT: u32 = 1000;
const PEER_PORT: u32 = 2000;

fn host(base: u32, number: u32) -> String {
    format!("localhost:{}", base + number)
}

/// Runs the role until the warden says stop or etcd ends.
pub fn run(options: &MemberOptions) -> Result<(), Error> {
    let service = Service::start(Role::Member)?;
    let number = service.begin.replica;
    let mut child = start_etcd(options, number)?;
    let member = Member { service, child: &mut child, patience: MEMBER_PROBE.max(options.election) };
    let outcome = member.supervise(&client_socket(&options.directory, number));
    stop_etcd(&mut child);
    outcome
}

struct Member<'c> {
    service: Service,
    child: &'c mut Child,
    /// How long one probe may take.
    patience: Duration,
}

impl Member<'_> {
    fn supervise(mut self, socket: &Path) -> Result<(), Error> {
        let ended = pidfd(self.child)?;
        let mut poller = Poller::new().map_err(Error::system("epoll_create"))?;
        poller.add(&self.service.warden, WARDEN, Interest::READ).map_err(Error::system("epoll_ctl"))?;
        poller.add(&ended, CHILD, Interest::READ).map_err(Error::system("epoll_ctl"))?;
        let (began, mut ready, mut answers) = (Instant::now(), Vec::new(), false);
        loop {
            let wait = if answers { Duration::from_secs(1) } else { MEMBER_PROBE_PAUSE };
            poller.wait(wait, &mut ready).map_err(Error::system("epoll_wait"))?;
            if ready.contains(&CHILD) {
                let status = self.child.try_wait().ok().flatten();
                return Err(Error::Member(format!("etcd ended: {status:?}")));
            }
            if ready.contains(&WARDEN) && self.is_told_to_stop()? {
                return Ok(());
            }
            if !answers && probe(socket, self.patience) {
                answers = true;
                let ready = Ready { pid: self.child.id(), ..Ready::default() };
                report(&self.service.warden, from_service::Report::Ready(ready))?;
            }
            if !answers && began.elapsed() > MEMBER_START_WAIT {
                return Err(Error::Member(format!(
                    "etcd does not answer after {} s",
                    MEMBER_START_WAIT.as_secs()
                )));
            }
        }
    }

    fn is_told_to_stop(&mut self) -> Result<bool, Error> {
        while let Some(packet) = self.service.warden.order()? {
            if let Some(to_service::Order::Stop(_)) = packet.message.order {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Starts etcd so that it ends with us, whatever ends us.
fn start_etcd(options: &MemberOptions, number: u32) -> Result<Child, Error> {
    let directory = &options.directory;
    for directory in [directory, &options.data] {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| Error::Member(format!("{}: {error}", directory.display())))?;
    }
    // One that was killed leaves its sockets, and etcd does not bind over them.
    for socket in [client_socket(directory, number), directory.join(host(PEER_PORT, number))] {
        let _ = std::fs::remove_file(socket);
    }
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(directory.join(format!("etcd-{number}.log")))
        .map_err(|error| Error::Member(format!("etcd's log: {error}")))?;
    let mut command = bound_to(std::process::id(), &options.program);
    if std::env::var_os(PROCESSORS).is_none() {
        // What it does for one batch after the other is one chain of goroutines: to hand each link to another processor
        // costs more than it saves.
        command.env(PROCESSORS, "1");
    }
    command
        .args(etcd_args(options, number))
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|error| Error::Member(format!("{}: {error}", options.program.display())))
}

/// A program that ends with the process `parent`, which starts it: if that dies before the signal at its death is asked for,
/// nobody sends it. So the program begins only if its parent is still that one afterwards. (An etcd that nobody had told
/// to end kept its data to itself, and no other could begin.)
fn bound_to(parent: u32, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "sh", "-c", r#"test "$PPID" = "$0" && exec "$@""#])
        .arg(parent.to_string())
        .arg(program);
    command
}

fn etcd_args(options: &MemberOptions, number: u32) -> Vec<String> {
    let client = format!("unix://{}", host(CLIENT_PORT, number));
    let peer = |number| format!("unix://{}", host(PEER_PORT, number));
    let cluster: Vec<String> = (0..options.members).map(|n| format!("etcd-{n}={}", peer(n))).collect();
    let named = [
        ("--name", format!("etcd-{number}")),
        ("--data-dir", options.data.join(format!("etcd-{number}")).display().to_string()),
        ("--listen-client-urls", client.clone()),
        ("--advertise-client-urls", client),
        ("--listen-peer-urls", peer(number)),
        ("--initial-advertise-peer-urls", peer(number)),
        ("--initial-cluster", cluster.join(",")),
        ("--heartbeat-interval", options.heartbeat.as_millis().to_string()),
        ("--election-timeout", options.election.as_millis().to_string()),
        ("--quota-backend-bytes", options.quota_bytes.to_string()),
        ("--snapshot-count", MEMBER_SNAPSHOT_ENTRIES.to_string()),
        ("--logger", "zap".into()),
        ("--log-outputs", "stderr".into()),
        ("--log-level", "warn".into()),
    ];
    named.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

fn stop_etcd(child: &mut Child) {
    signal(child, Signal::TERM);
    let began = Instant::now();
    while began.elapsed() < MEMBER_STOP_WAIT {
        if child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        std::thread::sleep(MEMBER_PROBE_PAUSE);
    }
    signal(child, Signal::KILL);
    let _ = child.wait();
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = pid(child) {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn pidfd(child: &Child) -> Result<OwnedFd, Error> {
    let pid = pid(child).ok_or(Error::Missing { name: "etcd's process id" })?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(Error::system("pidfd_open"))
}

/// Whether a member answers at its socket at all; whether it has a quorum is the engine's to find out.
fn probe(socket: &Path, patience: Duration) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.write_all(b"GET /version HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = [0; 15];
        stream.read_exact(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.") && answer.ends_with(b" 200 OK"))
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_knows_all_others() {
        let options = MemberOptions {
            program: "etcd".into(),
            directory: "/run/x/etcd".into(),
            data: "/var/x".into(),
            members: 3,
            quota_bytes: 1 << 20,
            heartbeat: Duration::from_millis(30),
            election: Duration::from_millis(300),
        };
        let args = etcd_args(&options, 1);
        let value = |flag: &str| {
            let at = args.iter().position(|arg| arg == flag).unwrap();
            args[at + 1].as_str()
        };
        assert_eq!(
            value("--initial-cluster"),
            "etcd-0=unix://localhost:2000,etcd-1=unix://localhost:2001,etcd-2=unix://localhost:2002"
        );
        assert_eq!(value("--listen-client-urls"), "unix://localhost:1001");
        assert_eq!(value("--data-dir"), "/var/x/etcd-1");
        assert_eq!((value("--heartbeat-interval"), value("--election-timeout")), ("30", "300"));
        assert_eq!(client_socket(&options.directory, 1), Path::new("/run/x/etcd/localhost:1001"));
    }

    /// A member was killed between starting etcd and etcd's asking for a signal at its death: 600 faults into a run with
    /// etcd. The etcd that was left held the lock of its data for ever.
    #[test]
    fn a_program_whose_parent_died_early_does_not_begin() {
        let dir = tempfile::tempdir().unwrap();
        let begin = |parent, name: &str| {
            let file = dir.path().join(name);
            let status = bound_to(parent, Path::new("touch")).arg(&file).status().unwrap();
            (status.success(), file.exists())
        };
        assert_eq!(begin(std::process::id(), "ours"), (true, true));
        assert_eq!(begin(1, "another's"), (false, false));
    }

    #[test]
    fn nobody_at_the_socket_is_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(!probe(&path, MEMBER_PROBE));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // One that ends before the question has come resets the connection.
            stream.read_exact(&mut [0; 16]).unwrap();
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n{}").unwrap();
        });
        assert!(probe(&path, MEMBER_PROBE));
        server.join().unwrap();
    }
}
