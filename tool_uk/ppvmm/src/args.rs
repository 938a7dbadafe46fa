//! The command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use hypervisor::{HostSpec, Profile};

use crate::exit::{self, Failure};
use crate::limits::{ELECTION_MS_MAX, HEARTBEAT_MS_MAX, HEARTBEATS_MIN};

/// Brings up, watches and harms the fault-tolerant dom0 services.
#[derive(Debug, Parser)]
#[command(name = "ppvmm", version, after_help = exit::HELP)]
pub struct Cli {
    /// The warden's run directory; default /run/ppvmm for root on a Xen host, else $XDG_RUNTIME_DIR/ppvmm or
    /// /tmp/ppvmm-UID.
    #[arg(long, env = "PPVMM_RUNDIR", global = true)]
    pub rundir: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[command(after_help = exit::HELP)]
pub enum Command {
    /// Start the warden and wait until the store is served.
    #[command(after_help = exit::HELP)]
    Up(Up),
    /// Stop everything in order.
    #[command(after_help = exit::HELP)]
    Down,
    /// Show the services.
    #[command(after_help = exit::HELP)]
    Status {
        /// For people or for programs.
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Show what happened.
    #[command(after_help = exit::HELP)]
    Events(EventsArgs),
    /// Print what was counted and measured, as OpenMetrics text.
    #[command(after_help = exit::HELP)]
    Metrics,
    /// Harm a service; the warden must run with --enable-injection.
    #[command(after_help = exit::HELP)]
    Inject {
        /// What to do to it.
        fault: Fault,
        /// leader, follower, gateway, replica/N, etcd-N or warden.
        target: String,
        /// Which bit of a replica's memory flips.
        #[command(flatten)]
        flip: FlipArgs,
    },
    /// Show and harm the network backend, net_uk.
    #[command(after_help = exit::HELP)]
    Net {
        /// Its socket; default: net_uk.sock in the run directory.
        #[arg(long, value_name = "SOCKET", global = true)]
        socket: Option<PathBuf>,
        /// What to do.
        #[command(subcommand)]
        command: NetCommand,
    },
    /// Ask whether a service serves: exit status 0 if so, else 4.
    #[command(after_help = exit::HELP)]
    Health {
        /// xs_uk, xs_uk.engine (what keeps its log) or warden; all of it if left out.
        #[arg(default_value = "", hide_default_value = true)]
        service: String,
    },
}

/// What to do with the network backend.
#[derive(Debug, Subcommand)]
pub enum NetCommand {
    /// Start it and wait until it serves.
    #[command(after_help = exit::HELP)]
    Up(NetUp),
    /// Stop it.
    #[command(after_help = exit::HELP)]
    Down,
    /// Show processes, network cards and guests' interfaces.
    #[command(after_help = exit::HELP)]
    Status {
        /// For people or for programs.
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Show what happened.
    #[command(after_help = exit::HELP)]
    Events(EventsArgs),
    /// Print what was counted and measured, as OpenMetrics text.
    #[command(after_help = exit::HELP)]
    Metrics,
    /// Harm a process; net_uk must run with --enable-injection.
    #[command(after_help = exit::HELP)]
    Inject {
        /// kill, stop or cont; of a driver also loop, livelock, slow, taken, published, garbage, exit, panic; of a shadow
        /// die:PLACE:COUNT.
        fault: String,
        /// shadow, driver.N, keeper or vault.N.
        target: String,
    },
    /// Ask whether it serves: exit status 0 if so, else 4.
    #[command(after_help = exit::HELP)]
    Health {
        /// net_uk or net_uk.nic.N; all of it if left out.
        #[arg(default_value = "", hide_default_value = true)]
        service: String,
    },
}

/// How to bring the network backend up.
#[derive(Debug, Args)]
pub struct NetUp {
    /// A network card: packet:INTERFACE, xdp:INTERFACE or tap:INTERFACE with options, see net_uk keeper --help. Can be given
    /// again.
    #[arg(long = "nic", value_name = "NIC", required = true)]
    pub nics: Vec<String>,
    /// The store's socket; default: the one in the run directory, or else a Xen host's usual one.
    #[arg(long, value_name = "PATH")]
    pub store: Option<PathBuf>,
    /// How to start it.
    #[command(flatten)]
    pub start: Start,
}

/// How to start something.
#[derive(Clone, Debug, Args)]
pub struct Start {
    /// Let faults be injected (`ppvmm inject`, `ppvmm net inject`).
    #[arg(long)]
    pub enable_injection: bool,
    /// Longest wait until it is served, in seconds.
    #[arg(long, default_value_t = 30)]
    pub timeout_s: u64,
    /// What kind of host it is; found out if left out.
    #[arg(long)]
    pub profile: Option<HostProfile>,
    /// Directory of the programs (warden, xs_uk, ppvmm-hv, net_uk); default: where this one is.
    #[arg(long)]
    pub bindir: Option<PathBuf>,
}

/// Which events to show, and how.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on with what happens.
    #[arg(short, long)]
    pub follow: bool,
    /// How many of the kept events to show first.
    #[arg(short = 'n', long, default_value_t = u32::MAX, hide_default_value = true)]
    pub last: u32,
    /// For people or for programs: one JSON object a line.
    #[arg(short, long, default_value = "table")]
    pub output: Output,
}

/// How to bring it up.
#[derive(Debug, Args)]
pub struct Up {
    /// How to start it.
    #[command(flatten)]
    pub start: Start,
    /// Stay, with the log on the terminal, until everything is down.
    #[arg(long)]
    pub foreground: bool,
    /// Start the warden again when it dies, from a tiny parent process; what runs is adopted then.
    #[arg(long)]
    pub respawn: bool,
    /// Serve status, events and health at this loopback address too.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub grpc_listen: Option<std::net::SocketAddr>,
    /// Give metrics for Prometheus at this loopback address too, path /metrics.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<std::net::SocketAddr>,
    /// What keeps the store's log: shared memory, or etcd.
    #[arg(long, default_value = "embedded")]
    pub engine: Engine,
    /// Members of the store's own etcd, which is started if --etcd-endpoints names none.
    #[arg(long, value_name = "NB", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=5))]
    pub etcd_members: u32,
    /// Where the store's own etcd keeps its data; default: in the run directory, which is in memory on most hosts.
    #[arg(long, value_name = "DIR")]
    pub etcd_data: Option<PathBuf>,
    /// Pause between heartbeats of the store's own etcd [default: as xs_uk has it]. Slow machines need more.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=i64::from(HEARTBEAT_MS_MAX)))]
    pub etcd_heartbeat_ms: Option<u32>,
    /// Without a heartbeat for so long the store's own etcd elects another leader [default: 10 heartbeats].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=i64::from(ELECTION_MS_MAX)))]
    pub etcd_election_ms: Option<u32>,
    /// The etcd to use, such as http://10.0.0.1:2379; certificates and passwords: see xs_uk --help, and give them behind --
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub etcd_endpoints: Vec<String>,
    /// Serve guests' network interfaces too, over this network card, as in net_uk --nic. Can be given again.
    #[arg(long, value_name = "NIC", conflicts_with = "foreground")]
    pub net: Vec<String>,
    /// Arguments for every service of the store.
    #[arg(last = true)]
    pub xs_uk_args: Vec<OsString>,
}

/// What keeps the store's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Shared memory that outlives every process of the store.
    Embedded,
    /// etcd, the store's own or a given one.
    Etcd,
}

impl Up {
    /// How the network backend is to be brought up, if it is.
    pub fn net_up(&self) -> Option<NetUp> {
        (!self.net.is_empty()).then(|| NetUp {
            nics: self.net.clone(),
            store: None,
            start: self.start.clone(),
        })
    }

    /// How many members of an own etcd are to be started.
    pub fn own_members(&self) -> u32 {
        if self.engine == Engine::Etcd && self.etcd_endpoints.is_empty() { self.etcd_members } else { 0 }
    }

    /// Heartbeat and election timeout, in milliseconds, if either was given.
    fn etcd_times_ms(&self) -> Option<(u32, u32)> {
        match (self.etcd_heartbeat_ms, self.etcd_election_ms) {
            (None, None) => None,
            (Some(heartbeat), election) => {
                Some((heartbeat, election.unwrap_or_else(|| (10 * heartbeat).min(ELECTION_MS_MAX))))
            }
            (None, Some(election)) => Some(((election / 10).max(1), election)),
        }
    }

    /// Checks what clap does not.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub fn validate(&self) -> Result<(), Failure> {
        match self.etcd_times_ms() {
            Some((heartbeat, election)) if election < HEARTBEATS_MIN * heartbeat => {
                Err(Failure::Usage(format!(
                    "--etcd-election-ms {election} is less than {HEARTBEATS_MIN} heartbeats of {heartbeat} ms"
                )))
            }
            _ => Ok(()),
        }
    }

    /// What the store's services must know of the engine.
    pub fn engine_args(&self) -> Vec<OsString> {
        if self.engine == Engine::Embedded {
            return Vec::new();
        }
        let mut list: Vec<OsString> =
            ["--engine", "etcd", "--etcd-members"].into_iter().map(OsString::from).collect();
        list.push(self.etcd_members.to_string().into());
        if let Some(data) = &self.etcd_data {
            list.extend(["--etcd-data".into(), data.into()]);
        }
        if let Some((heartbeat, election)) = self.etcd_times_ms() {
            list.extend(["--etcd-heartbeat-ms".into(), heartbeat.to_string().into()]);
            list.extend(["--etcd-election-ms".into(), election.to_string().into()]);
        }
        if !self.etcd_endpoints.is_empty() {
            list.extend(["--etcd-endpoints".into(), self.etcd_endpoints.join(",").into()]);
        }
        list
    }
}

/// What kind of host it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HostProfile {
    /// No Xen: with the stand-in broker.
    Local,
    /// Real Xen.
    Dom0,
}

impl From<HostProfile> for Profile {
    fn from(profile: HostProfile) -> Self {
        match profile {
            HostProfile::Local => Self::Local,
            HostProfile::Dom0 => Self::Xen,
        }
    }
}

/// How to show something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Cont,
    /// A bit of a replica's memory flips.
    Flip,
}

/// Which bit flips.
#[derive(Clone, Debug, Args)]
pub struct FlipArgs {
    /// For flip: a node of the store.
    #[arg(long, default_value = "/")]
    pub path: String,
    /// For flip: value, name, perms, digest, pointer, generation or sum.
    #[arg(long, default_value = "digest")]
    pub part: String,
    /// For flip: the bit, counted from the part's first one, and round again beyond its end.
    #[arg(long, default_value_t = 0)]
    pub bit: u64,
}

impl Cli {
    /// The run directory that was given, or the one that fits the host.
    pub fn rundir(&self) -> PathBuf {
        let asked = match &self.command {
            Command::Up(Up { start, .. })
            | Command::Net { command: NetCommand::Up(NetUp { start, .. }), .. } => {
                start.profile.map(Profile::from)
            }
            _ => None,
        };
        let on_xen = HostSpec::detect(asked, Path::new("")).profile == Profile::Xen;
        let user = rustix::process::geteuid().as_raw();
        let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        self.rundir.clone().unwrap_or_else(|| default_rundir(user, on_xen, session))
    }
}

fn default_rundir(user: u32, on_xen: bool, session: Option<PathBuf>) -> PathBuf {
    match session.filter(|session| session.is_absolute()) {
        _ if user == 0 && on_xen => "/run/ppvmm".into(),
        Some(session) => session.join("ppvmm"),
        None => format!("/tmp/ppvmm-{user}").into(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_run_directory_fits_the_host() {
        let session = Some(PathBuf::from("/run/user/7"));
        assert_eq!(default_rundir(0, true, session.clone()), Path::new("/run/ppvmm"));
        assert_eq!(default_rundir(7, true, session.clone()), Path::new("/run/user/7/ppvmm"));
        assert_eq!(default_rundir(0, false, session), Path::new("/run/user/7/ppvmm"));
        assert_eq!(default_rundir(0, false, None), Path::new("/tmp/ppvmm-0"));
        assert_eq!(default_rundir(7, false, Some("".into())), Path::new("/tmp/ppvmm-7"));
    }

    #[test]
    fn heartbeat_and_election_fit_each_other() {
        let up = |line: &str| match Cli::try_parse_from(
            format!("ppvmm up --engine etcd {line}").split_whitespace(),
        ) {
            Ok(Cli { command: Command::Up(up), .. }) => Some(up),
            _ => None,
        };
        for (line, times) in [
            ("", None),
            ("--etcd-heartbeat-ms 500", Some((500, 5000))),
            ("--etcd-heartbeat-ms 10000", Some((10_000, 50_000))),
            ("--etcd-election-ms 50000", Some((5000, 50_000))),
            ("--etcd-election-ms 5", Some((1, 5))),
        ] {
            let up = up(line).unwrap();
            up.validate().unwrap();
            assert_eq!(up.etcd_times_ms(), times, "{line}");
            let told = up.engine_args().contains(&"--etcd-election-ms".into());
            assert_eq!(told, times.is_some());
        }
        for line in ["--etcd-heartbeat-ms 500 --etcd-election-ms 2499", "--etcd-election-ms 4"] {
            assert!(up(line).unwrap().validate().is_err(), "{line}");
        }
        for line in ["--etcd-heartbeat-ms 10001", "--etcd-election-ms 50001"] {
            assert!(up(line).is_none(), "{line}");
        }
    }

    #[test]
    fn the_run_directory_may_stand_on_either_side() {
        for line in ["ppvmm --rundir /x status -o json", "ppvmm status --rundir /x -o json"] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap().rundir(), Path::new("/x"));
        }
    }
}
