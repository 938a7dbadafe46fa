//! The command line: stock xenstored's flags (Xen 4.17 to 4.22, and what oxenstored's launcher passes), and ours.

use std::path::PathBuf;

use crate::engine::EngineArgs;
use clap::{ArgAction, Parser, ValueEnum};
use xs_protocol::{DomId, limits::REL_PATH_MAX};
use xs_store::{Config, Quota};

/// The part of the store that a process is. Users leave it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Owns the client endpoints.
    Gateway,
    /// Keeps a copy of the store; one of them leads.
    Replica,
    /// Keeps a member of the store's own etcd.
    Member,
}

/// Which hypervisor there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProfileArg {
    /// Real Xen.
    Xen,
    /// The stand-in with simulated guests.
    Local,
}

/// A replicated xenstore, in place of xenstored.
///
/// Without --role it brings up all that the store needs: a gateway, three replicas, and itself as their warden.
#[derive(Clone, Debug, Parser)]
#[command(name = "xs_uk", version, disable_help_flag = true)]
#[command(
    after_help = "`xs_uk bench --help`: measures this store beside the stock ones.\n\nENVIRONMENT\n  XENSTORED_RUNDIR  directory of the sockets (default /run/xenstored)\n  \
XENSTORED_PATH    the store's socket (default RUNDIR/socket)\n  \
PPVMM_LOG         what is logged, e.g. info or xs_uk=debug\n\n\
EXIT STATUS\n  0  ended as asked\n  1  failed\n  2  usage"
)]
pub struct Args {
    /// Show this help.
    #[arg(short = 'H', long, short_alias = 'h', action = ArgAction::Help)]
    pub help: Option<bool>,
    /// Stay in the foreground.
    #[arg(short = 'N', long)]
    pub no_fork: bool,
    /// Write the process id to this file.
    #[arg(short = 'F', long)]
    pub pid_file: Option<PathBuf>,
    /// Limit the nodes of a domain.
    #[arg(short = 'E', long, value_name = "NB")]
    pub entry_nb: Option<u32>,
    /// Limit the size of a node.
    #[arg(short = 'S', long, value_name = "BYTES")]
    pub entry_size: Option<u32>,
    /// Limit the watches of a domain.
    #[arg(short = 'W', long, value_name = "NB")]
    pub watch_nb: Option<u32>,
    /// Limit the open transactions of a domain.
    #[arg(short = 't', long, value_name = "NB")]
    pub transaction: Option<u32>,
    /// Limit the permissions of a node.
    #[arg(short = 'A', long, value_name = "NB")]
    pub perm_nb: Option<u32>,
    /// Limit the length of a path.
    #[arg(short = 'M', long, value_name = "CHARS")]
    pub path_max: Option<u32>,
    /// Set a quota: transaction-nodes, memory, nodes, node-permissions, node-size, outstanding, path-max,
    /// transactions or watches.
    #[arg(short = 'Q', long, value_name = "WHAT=NB")]
    pub quota: Vec<String>,
    /// Set a soft quota, which only warns: memory.
    #[arg(short = 'q', long, value_name = "WHAT=NB")]
    pub quota_soft: Vec<String>,
    /// Set a time-out in seconds: watch-event.
    #[arg(short = 'w', long, value_name = "WHAT=SECONDS")]
    pub timeout: Vec<String>,
    /// Keep nodes whose owner is gone.
    #[arg(short = 'K', long)]
    pub keep_orphans: bool,
    /// The domain that this runs in.
    #[arg(short = 'm', long, value_name = "DOMID", default_value_t = 0)]
    pub master_domid: u16,
    /// The domain that is privileged.
    #[arg(short = 'p', long, value_name = "DOMID", default_value_t = 0)]
    pub priv_domid: u16,
    /// Write the log to this file.
    #[arg(short = 'T', long, value_name = "FILE")]
    pub trace_file: Option<PathBuf>,
    /// Accepted for compatibility; what is logged is chosen by PPVMM_LOG.
    #[arg(long, value_name = "+|-SWITCH", allow_hyphen_values = true)]
    pub trace_control: Vec<String>,
    /// Accepted for compatibility; dom0's event channel is found by itself.
    #[arg(short = 'e', long, value_name = "PORT")]
    pub event: Option<u32>,
    /// Refused: state is not taken over from another daemon yet.
    #[arg(short = 'U', long)]
    pub live_update: bool,
    /// Do not serve dom0's own ring.
    #[arg(short = 'D', long)]
    pub no_domain_init: bool,
    /// Directory of the sockets.
    #[arg(long, env = "XENSTORED_RUNDIR", default_value = "/run/xenstored")]
    pub rundir: PathBuf,
    /// Which hypervisor there is; found out if left out.
    #[arg(long, env = "PPVMM_PROFILE")]
    pub profile: Option<ProfileArg>,
    /// The stand-in's socket; default RUNDIR/ppvmm-hv.sock.
    #[arg(long)]
    pub hv_socket: Option<PathBuf>,
    /// Number of replicas.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub replicas: u32,
    /// What keeps the log.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Let `ppvmm inject` work.
    #[arg(long)]
    pub enable_injection: bool,
    /// Start the warden, which this process is, again when it dies, from a tiny parent process; what runs is adopted then.
    #[arg(long)]
    pub respawn: bool,
    /// The part that this process is; the warden sets it.
    #[arg(long, hide = true)]
    pub role: Option<Role>,
}

/// A flag that does not make sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArgsError {
    /// Not of the form `what=number`.
    #[error("{0:?} is not of the form WHAT=NUMBER")]
    NotAnAssignment(String),
    /// No such quota or time-out.
    #[error("there is no {0:?} to set; there are {1}")]
    Unknown(String, String),
    /// Not built.
    #[error("--live-update: taking over another daemon's state is not supported yet")]
    LiveUpdate,
    /// About the engine.
    #[error("{0}")]
    Engine(String),
}

impl Args {
    /// The store's configuration that the flags ask for.
    pub fn config(&self) -> Result<Config, ArgsError> {
        if self.live_update {
            return Err(ArgsError::LiveUpdate);
        }
        let mut config = Config {
            keep_orphans: self.keep_orphans,
            store_domid: DomId(self.master_domid),
            privileged_domid: DomId(self.priv_domid),
            ..Config::default()
        };
        let path_max = self.path_max.map(|chars| chars.min(u32::try_from(REL_PATH_MAX).unwrap_or(u32::MAX)));
        let plain = [
            (Quota::Nodes, self.entry_nb),
            (Quota::NodeSize, self.entry_size),
            (Quota::Watches, self.watch_nb),
            (Quota::Transactions, self.transaction),
            (Quota::NodePermissions, self.perm_nb),
            (Quota::PathMax, path_max),
        ];
        for (quota, value) in plain {
            if let Some(value) = value {
                config.quotas.set(quota, value);
            }
        }
        for assignment in &self.quota {
            let (what, value) = parse_assignment(assignment)?;
            // `path-length` is how stock help names it.
            let name = if what == "path-length" { "path-max" } else { what };
            let quota = Quota::from_name(name.as_bytes()).ok_or_else(|| unknown(what))?;
            config.quotas.set(quota, value);
        }
        for assignment in &self.quota_soft {
            match parse_assignment(assignment)? {
                ("memory", value) => config.quotas.soft_memory_bytes = value,
                (what, _) => return Err(ArgsError::Unknown(what.into(), "memory".into())),
            }
        }
        self.watch_event_timeout_s()?;
        self.engine.validate().map_err(ArgsError::Engine)?;
        Ok(config)
    }

    /// How long an unread watch event to a guest is kept, in seconds; 0 is for ever.
    pub fn watch_event_timeout_s(&self) -> Result<u32, ArgsError> {
        let mut seconds = 20;
        for assignment in &self.timeout {
            match parse_assignment(assignment)? {
                ("watch-event", value) => seconds = value,
                (what, _) => return Err(ArgsError::Unknown(what.into(), "watch-event".into())),
            }
        }
        Ok(seconds)
    }

    /// The hypervisor that the flags or the machine name.
    pub fn host(&self) -> hypervisor::HostSpec {
        let explicit = self.profile.map(|profile| match profile {
            ProfileArg::Xen => hypervisor::Profile::Xen,
            ProfileArg::Local => hypervisor::Profile::Local,
        });
        let mut spec = hypervisor::HostSpec::detect(explicit, &self.rundir);
        if let Some(socket) = &self.hv_socket {
            spec.local_socket.clone_from(socket);
        }
        spec
    }

    /// The store's socket.
    pub fn socket_path(&self) -> PathBuf {
        std::env::var_os("XENSTORED_PATH").map_or_else(|| self.rundir.join("socket"), PathBuf::from)
    }
}

fn parse_assignment(text: &str) -> Result<(&str, u32), ArgsError> {
    let refuse = || ArgsError::NotAnAssignment(text.into());
    let (what, value) = text.split_once('=').ok_or_else(refuse)?;
    Ok((what, value.parse().map_err(|_| refuse())?))
}

fn unknown(what: &str) -> ArgsError {
    let names: Vec<&str> = Quota::ALL.into_iter().map(Quota::name).collect();
    ArgsError::Unknown(what.into(), names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Args {
        Args::try_parse_from(std::iter::once(&"xs_uk").chain(args)).unwrap()
    }

    #[test]
    fn stock_flags_set_the_quotas() {
        let args =
            parse(&["-N", "-E", "7", "-Q", "outstanding=3", "-q", "memory=9", "-W5", "--path-max", "9000"]);
        let config = args.config().unwrap();
        assert_eq!(config.quotas.get(Quota::Nodes), 7);
        assert_eq!(config.quotas.get(Quota::Outstanding), 3);
        assert_eq!(config.quotas.get(Quota::Watches), 5);
        assert_eq!(config.quotas.get(Quota::PathMax), 2048);
        assert_eq!(config.quotas.soft_memory_bytes, 9);
    }

    #[test]
    fn the_command_lines_of_stock_launchers_are_understood() {
        parse(&["--pid-file", "/run/xen/xenstored.pid", "-N"]);
        parse(&["--pid-file", "/run/xen/xenstored.pid", "-T", "/var/log/xen/xenstored-trace.log"]);
        parse(&["--trace-control=-io", "-K", "--event", "7", "-m", "1", "-p", "0"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(parse(&["-Q", "nodes"]).config().unwrap_err(), ArgsError::NotAnAssignment("nodes".into()));
        assert!(matches!(parse(&["-Q", "nods=1"]).config(), Err(ArgsError::Unknown(..))));
        assert!(matches!(parse(&["-w", "x=1"]).config(), Err(ArgsError::Unknown(..))));
        assert_eq!(parse(&["-U"]).config().unwrap_err(), ArgsError::LiveUpdate);
        assert!(Args::try_parse_from(["xs_uk", "--replicas", "0"]).is_err());
        let slow = parse(&["--engine", "etcd", "--etcd-heartbeat-ms", "500"]).config();
        assert!(matches!(slow, Err(ArgsError::Engine(_))));
    }
}
