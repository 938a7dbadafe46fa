//! A broker and a store in a directory of their own.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use hypervisor::local::Broker;
use hypervisor::{DomId, HostSpec};
use rustix::process::{Pid, Signal, kill_process};
use sim_guest::{Guest, Toolstack};
use tempfile::TempDir;
use xs_protocol::MessageType;

use crate::limits::{ANSWER_WAIT, START_WAIT, STOP_WAIT};
use crate::raw::RawClient;

/// Everything that a test needs to run; ends with the value.
pub struct Stand {
    directory: TempDir,
    broker: Child,
    store: Child,
}

/// The path of one of the workspace's binaries, which must have been built.
///
/// # Panics
/// If it was not.
pub fn binary(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("the test's own path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.push(name);
    assert!(path.exists(), "{} is missing: build the workspace first", path.display());
    path
}

/// A command of Debian's Xen packages: from where `deploy/packages` unpacked them, or where Debian installs them, or
/// from the path.
pub fn stock(name: &str) -> Command {
    let unpacked = std::env::var_os("XEN_TOOLS").map(PathBuf::from);
    let places = unpacked.into_iter().chain([PathBuf::from("/usr/lib/xen-4.17/bin")]);
    let found = places.map(|place| place.join(name)).find(|path| path.exists());
    Command::new(found.unwrap_or_else(|| name.into()))
}

impl Stand {
    /// Starts broker and store, and waits until the store answers.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn start(flags: &[&str]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let rundir = directory.path();
        let hv_socket = rundir.join(HostSpec::LOCAL_SOCKET_NAME);
        let broker = spawn(&binary("ppvmm-hv"), rundir, "hv", &["--socket", &text(&hv_socket)]);
        wait_for(|| hv_socket.exists(), "the broker's socket");
        let store = Self::spawn_store(rundir, flags);
        let stand = Self { directory, broker, store };
        wait_for(|| stand.answers(), "the store's answer");
        wait_for(|| stand.is_whole(), "all services");
        stand
    }

    fn spawn_store(rundir: &Path, flags: &[&str]) -> Child {
        let rundir_text = text(rundir);
        let mut args = vec!["-N", "--profile", "local", "--enable-injection", "--rundir", &rundir_text];
        args.extend(flags);
        spawn(&binary("xs_uk"), rundir, "xs_uk", &args)
    }

    fn answers(&self) -> bool {
        UnixStream::connect(self.socket()).is_ok()
            && RawClient::connect(&self.socket())
                .is_ok_and(|mut client| client.request(MessageType::READ, 0, b"/\0").is_ok())
    }

    /// Whether every service is there, the slowest follower too.
    fn is_whole(&self) -> bool {
        let Some(status) = self.try_status() else { return false };
        let well =
            |service: &serde_json::Value| matches!(service["state"].as_str(), Some("ready" | "serving"));
        status["services"]
            .as_array()
            .is_some_and(|services| !services.is_empty() && services.iter().all(well))
    }

    /// The processes that the stand started: store and broker.
    pub(crate) fn children(&self) -> [u32; 2] {
        [self.store.id(), self.broker.id()]
    }

    /// The directory of all sockets and logs.
    pub fn rundir(&self) -> &Path {
        self.directory.path()
    }

    /// The store's socket.
    pub fn socket(&self) -> PathBuf {
        self.rundir().join("socket")
    }

    /// The socket of the hypervisor's stand-in.
    pub fn hv_socket(&self) -> PathBuf {
        self.rundir().join(HostSpec::LOCAL_SOCKET_NAME)
    }

    /// A new client.
    ///
    /// # Panics
    /// If the store takes none.
    pub fn client(&self) -> RawClient {
        RawClient::connect(&self.socket()).expect("the store takes a client")
    }

    /// The hypervisor's stand-in.
    ///
    /// # Panics
    /// If it is not there.
    pub fn hypervisor(&self) -> Broker {
        Broker::connect(&self.hv_socket()).expect("the broker takes a client")
    }

    /// Makes a domain and introduces it as the toolstack does; gives its end of the ring.
    ///
    /// # Panics
    /// If broker or store refuse.
    pub fn guest(&self) -> (DomId, Guest) {
        let mut toolstack = Toolstack::connect(&self.socket()).expect("the store takes a client");
        let domid = toolstack.create(&self.hypervisor()).expect("a domain");
        (domid, self.attach(domid))
    }

    /// Introduces a domain, or introduces it again.
    ///
    /// # Panics
    /// If the store refuses.
    pub fn introduce(&self, domid: DomId) {
        let mut toolstack = Toolstack::connect(&self.socket()).expect("the store takes a client");
        toolstack.introduce(&self.hypervisor(), domid).expect("INTRODUCE");
    }

    /// A domain's end of its ring.
    ///
    /// # Panics
    /// If the broker refuses.
    pub fn attach(&self, domid: DomId) -> Guest {
        let (socket, began) = (self.hv_socket(), Instant::now());
        let mut guest = loop {
            match Guest::attach(&socket, domid) {
                Ok(guest) => break guest,
                // The broker has not heard yet that the former one is gone.
                Err(error) if error.to_string().contains("taken") && began.elapsed() < ANSWER_WAIT => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("the guest's end: {error}"),
            }
        };
        guest.set_reply_timeout(ANSWER_WAIT);
        guest
    }

    /// The leader's epoch.
    ///
    /// # Panics
    /// If the status tells none.
    pub fn epoch(&self) -> u64 {
        let status = self.status();
        let epochs = status["services"].as_array().into_iter().flatten().filter_map(|s| s["epoch"].as_u64());
        epochs.max().unwrap_or_else(|| panic!("no epoch in {status}"))
    }

    /// A stock command, pointed at this store.
    pub fn stock(&self, name: &str) -> Command {
        let mut command = stock(name);
        command.env("XENSTORED_PATH", self.socket()).env("XENSTORED_RUNDIR", self.rundir());
        command
    }

    /// Runs a stock command; gives what it printed.
    ///
    /// # Panics
    /// If it fails.
    pub fn run_stock(&self, name: &str, args: &[&str]) -> String {
        let output = self.stock(name).args(args).output().expect("a stock command starts");
        assert!(output.status.success(), "{name} {args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `ppvmm` against this store.
    ///
    /// # Panics
    /// If it does not start.
    pub fn ppvmm(&self, args: &[&str]) -> Output {
        Command::new(binary("ppvmm"))
            .arg("--rundir")
            .arg(self.rundir())
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("ppvmm starts")
    }

    /// The status as JSON.
    ///
    /// # Panics
    /// If there is none.
    pub fn status(&self) -> serde_json::Value {
        let output = self.ppvmm(&["status", "-o", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// As [`Stand::status`], for a time when there may be no warden to ask.
    pub fn try_status(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.ppvmm(&["status", "-o", "json"]).stdout).ok()
    }

    /// What broker and store logged, for a failed test's message.
    pub fn logs(&self) -> String {
        ["hv.log", "xs_uk.log"]
            .map(|name| std::fs::read_to_string(self.rundir().join(name)).unwrap_or_default())
            .join("\n")
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        stop(&mut self.store);
        // A warden that died just then has left its services behind.
        end_services_of(self.rundir());
        stop(&mut self.broker);
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

fn spawn(program: &Path, rundir: &Path, name: &str, args: &[&str]) -> Child {
    let log = std::fs::File::create(rundir.join(format!("{name}.log"))).expect("a log file");
    Command::new(program)
        .args(args)
        // Whoever runs this may have another store's exported.
        .env_remove("XENSTORED_PATH")
        .env_remove("XENSTORED_RUNDIR")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

fn end_services_of(rundir: &Path) {
    let wanted = [b"XENSTORED_RUNDIR=", rundir.as_os_str().as_encoded_bytes(), b"\0"].concat();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && environment.windows(wanted.len()).any(|part| part == wanted)
        {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn stop(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::TERM);
    }
    let began = Instant::now();
    while began.elapsed() < STOP_WAIT {
        if child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits until something is so.
fn wait_for(so: impl Fn() -> bool, what: &str) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < START_WAIT.max(ANSWER_WAIT), "waited in vain for {what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
