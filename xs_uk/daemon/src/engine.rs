//! Which engine keeps the log, and how it is reached.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use xs_consensus::{Consensus, Cursor, Embedded};
use xs_etcd::{CopiedLog, CopyOptions, EtcdLog, EtcdOptions};
use xs_shm::Region;

use crate::error::Error;
use crate::limits::{
    COPY_LINGER_MS, COPY_LINGER_MS_MAX, MEMBER_ELECTION_MS, MEMBER_ELECTION_MS_MAX, MEMBER_HEARTBEAT_MS,
    MEMBER_HEARTBEAT_MS_MAX, MEMBER_HEARTBEATS_MIN, MEMBER_QUOTA_BYTES, REQUEST_WAIT_MS,
};
use crate::member::{MemberOptions, client_socket};

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// Shared memory that outlives every process of the store.
    Embedded,
    /// etcd, the store's own or a given one.
    Etcd,
}

/// What a request waits for with etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Acknowledge {
    /// The log in shared memory, which outlives every process of the store; etcd follows within bounds.
    Memory,
    /// etcd has it.
    Etcd,
}

/// The flags about the engine.
#[derive(Clone, Debug, clap::Args)]
pub struct EngineArgs {
    /// What keeps the log.
    #[arg(long, env = "PPVMM_ENGINE", default_value = "embedded")]
    pub engine: EngineKind,
    /// How long a request may wait for an engine that commits nothing before it is answered with EIO. Where memory
    /// acknowledges: how long etcd may commit nothing before requests are.
    #[arg(long, value_name = "MS", default_value_t = REQUEST_WAIT_MS)]
    pub request_wait_ms: u64,
    /// What acknowledges a request: memory that outlives every process of the store, with etcd a moment behind, or etcd.
    #[arg(long, value_name = "WHO", default_value = "memory")]
    pub etcd_ack: Acknowledge,
    /// How long an entry may wait for others to go to etcd with it, where memory acknowledges.
    #[arg(long, value_name = "MS", default_value_t = COPY_LINGER_MS,
        value_parser = clap::value_parser!(u64).range(..=COPY_LINGER_MS_MAX))]
    pub etcd_linger_ms: u64,
    /// Members of the store's own etcd, which is started if --etcd-endpoints names none.
    #[arg(long, value_name = "NB", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=5))]
    pub etcd_members: u32,
    /// Where the store's own etcd keeps its data; default RUNDIR/etcd, which is in memory on most hosts.
    #[arg(long, value_name = "DIR")]
    pub etcd_data: Option<PathBuf>,
    /// Pause between heartbeats of the store's own etcd. Slow machines need more.
    #[arg(long, value_name = "MS", default_value_t = MEMBER_HEARTBEAT_MS,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MEMBER_HEARTBEAT_MS_MAX)))]
    pub etcd_heartbeat_ms: u32,
    /// Without a heartbeat for so long the members of the store's own etcd elect another leader: at least 5 heartbeats.
    #[arg(long, value_name = "MS", default_value_t = MEMBER_ELECTION_MS,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MEMBER_ELECTION_MS_MAX)))]
    pub etcd_election_ms: u32,
    /// The etcd that is started.
    #[arg(long, value_name = "FILE", default_value = "etcd")]
    pub etcd_program: PathBuf,
    /// etcd, if a given one is used.
    #[command(flatten)]
    pub etcd: EtcdOptions,
    /// Names this group of replicas in etcd; made at its first start.
    #[arg(long, hide = true, default_value = "")]
    pub group_id: String,
}

impl EngineArgs {
    /// Checks what can be checked without asking anybody.
    ///
    /// # Errors
    /// What makes no sense, in words.
    pub fn validate(&self) -> Result<(), String> {
        if self.engine == EngineKind::Embedded {
            return Ok(());
        }
        let (heartbeat_ms, election_ms) = (self.etcd_heartbeat_ms, self.etcd_election_ms);
        if election_ms < heartbeat_ms * MEMBER_HEARTBEATS_MIN {
            return Err(format!(
                "--etcd-election-ms {election_ms} is less than {MEMBER_HEARTBEATS_MIN} heartbeats of {heartbeat_ms} ms"
            ));
        }
        let copied = self.etcd_ack == Acknowledge::Memory;
        if copied && self.etcd_linger_ms >= self.request_wait_ms {
            return Err(format!(
                "--etcd-linger-ms {} is not less than --request-wait-ms {}",
                self.etcd_linger_ms, self.request_wait_ms
            ));
        }
        // Where sockets of an own etcd are does not matter here.
        self.etcd_options(Path::new("/")).validate().map_err(|error| error.to_string())
    }

    /// Which engine it is.
    pub fn name(&self) -> String {
        value_name(&self.engine)
    }

    /// What keeps the log and where: replicas for which that differs have nothing in common.
    pub fn log_name(&self) -> String {
        match self.engine {
            EngineKind::Embedded => self.name(),
            EngineKind::Etcd => {
                let (ack, prefix) = (value_name(&self.etcd_ack), &self.etcd.prefix);
                let whose = if self.own_members() > 0 { "own" } else { "given" };
                format!("{whose} etcd below {prefix}, acknowledged by {ack}")
            }
        }
    }

    /// How long a request may wait for the engine.
    pub fn request_wait(&self) -> Duration {
        Duration::from_millis(self.request_wait_ms)
    }

    /// How many members of an own etcd are to be started.
    pub fn own_members(&self) -> u32 {
        if self.engine == EngineKind::Etcd && self.etcd.endpoints.is_empty() { self.etcd_members } else { 0 }
    }

    /// What a member must know.
    pub fn member(&self, rundir: &Path) -> MemberOptions {
        let directory = rundir.join("etcd");
        let data = self.etcd_data.as_ref().unwrap_or(&directory);
        MemberOptions {
            program: self.etcd_program.clone(),
            data: data.join(format!("group-{}", self.group_id)),
            directory,
            members: self.etcd_members,
            quota_bytes: MEMBER_QUOTA_BYTES,
            heartbeat: Duration::from_millis(self.etcd_heartbeat_ms.into()),
            election: Duration::from_millis(self.etcd_election_ms.into()),
        }
    }

    /// The engine, read on from a place in its log.
    ///
    /// # Errors
    /// What the engine cannot be started for.
    pub fn open(&self, rundir: &Path, log: Region, from: Cursor) -> Result<Box<dyn Consensus>, Error> {
        let failed = |error: xs_etcd::EtcdError| Error::Engine(error.to_string());
        let etcd = || self.etcd_options(rundir);
        match (self.engine, self.etcd_ack) {
            (EngineKind::Embedded, _) => Ok(Box::new(Embedded::attach(log, from)?)),
            (EngineKind::Etcd, Acknowledge::Etcd) => {
                Ok(Box::new(EtcdLog::start(&etcd(), from).map_err(failed)?))
            }
            (EngineKind::Etcd, Acknowledge::Memory) => {
                let options =
                    CopyOptions { etcd: etcd(), linger: Duration::from_millis(self.etcd_linger_ms) };
                Ok(Box::new(CopiedLog::new(Embedded::attach(log, from)?, options).map_err(failed)?))
            }
        }
    }

    /// What a group writes is its own: a later one begins anew, as a store does whose daemon starts anew.
    fn etcd_options(&self, rundir: &Path) -> EtcdOptions {
        let mut options = self.etcd.clone();
        if options.endpoints.is_empty() {
            let directory = rundir.join("etcd");
            options.endpoints = (0..self.etcd_members)
                .map(|number| format!("unix://{}", client_socket(&directory, number).display()))
                .collect();
        }
        options.prefix = format!("{}{}/", options.prefix, self.group_id);
        options.unavailable_after_ms = self.request_wait_ms;
        // The leader kicks its followers.
        options.watch = false;
        options
    }

    /// The same flags for a child.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut list: Vec<OsString> = vec![
            "--engine".into(),
            self.name().into(),
            "--request-wait-ms".into(),
            self.request_wait_ms.to_string().into(),
            "--etcd-ack".into(),
            value_name(&self.etcd_ack).into(),
            "--etcd-linger-ms".into(),
            self.etcd_linger_ms.to_string().into(),
            "--etcd-members".into(),
            self.etcd_members.to_string().into(),
            "--etcd-heartbeat-ms".into(),
            self.etcd_heartbeat_ms.to_string().into(),
            "--etcd-election-ms".into(),
            self.etcd_election_ms.to_string().into(),
            "--etcd-program".into(),
            self.etcd_program.clone().into(),
        ];
        if let Some(data) = &self.etcd_data {
            list.extend(["--etcd-data".into(), data.into()]);
        }
        list.extend(["--group-id".into(), self.group_id.clone().into()]);
        list.extend(self.etcd_args());
        list
    }

    fn etcd_args(&self) -> Vec<OsString> {
        let etcd = &self.etcd;
        let mut list: Vec<OsString> = vec!["--etcd-prefix".into(), etcd.prefix.clone().into()];
        if !etcd.endpoints.is_empty() {
            list.extend(["--etcd-endpoints".into(), etcd.endpoints.join(",").into()]);
        }
        let files = [
            ("--etcd-ca", &etcd.ca_file),
            ("--etcd-cert", &etcd.cert_file),
            ("--etcd-key", &etcd.key_file),
            ("--etcd-password-file", &etcd.password_file),
        ];
        for (flag, file) in files {
            if let Some(file) = file {
                list.extend([OsString::from(flag), file.into()]);
            }
        }
        if let Some(user) = &etcd.user {
            list.extend(["--etcd-user".into(), user.into()]);
        }
        let numbers = [
            ("--etcd-connect-timeout-ms", etcd.connect_timeout_ms),
            ("--etcd-call-timeout-ms", etcd.call_timeout_ms),
            ("--etcd-keep-alive-interval-ms", etcd.keep_alive_interval_ms),
            ("--etcd-keep-alive-timeout-ms", etcd.keep_alive_timeout_ms),
            ("--etcd-poll-interval-ms", etcd.poll_interval_ms),
            ("--etcd-status-interval-ms", etcd.status_interval_ms),
            ("--etcd-log-bytes-max", etcd.log_bytes_max),
        ];
        for (flag, value) in numbers {
            list.extend([OsString::from(flag), value.to_string().into()]);
        }
        list
    }
}

fn value_name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        engine: EngineArgs,
    }

    #[test]
    fn a_child_reaches_the_same_etcd() {
        let line = "x --engine etcd --etcd-endpoints https://a:1,https://b:2 --etcd-ca /ca --etcd-user u \
            --etcd-password-file /pw --etcd-call-timeout-ms 77 --group-id g7 --request-wait-ms 4 \
            --etcd-heartbeat-ms 500 --etcd-election-ms 5000 --etcd-ack etcd --etcd-linger-ms 9";
        let args = Line::parse_from(line.split_whitespace()).engine;
        let child = Line::parse_from(std::iter::once("x".into()).chain(args.to_args())).engine;
        assert_eq!(child.etcd_options(Path::new("/r")), args.etcd_options(Path::new("/r")));
        assert_eq!((child.etcd_ack, child.etcd_linger_ms), (Acknowledge::Etcd, 9));
        assert_eq!((child.own_members(), child.etcd.call_timeout_ms), (0, 77));
        assert_eq!((child.etcd_heartbeat_ms, child.etcd_election_ms), (500, 5000));
        assert_eq!(args.etcd_options(Path::new("/r")).prefix, "/ppvmm/default/g7/");
    }

    #[test]
    fn an_own_etcd_is_met_in_the_run_directory() {
        let args =
            Line::parse_from(["x", "--engine", "etcd", "--etcd-members", "3", "--group-id", "a"]).engine;
        let options = args.etcd_options(Path::new("/r"));
        assert_eq!(options.endpoints[2], "unix:///r/etcd/localhost:1002");
        assert_eq!(options.validate().map_err(|error| error.to_string()), Ok(()));
        assert_eq!(args.member(Path::new("/r")).data, Path::new("/r/etcd/group-a"));
        assert_eq!(args.own_members(), 3);
        assert_eq!(args.log_name(), "own etcd below /ppvmm/default/, acknowledged by memory");
    }

    #[test]
    fn times_that_etcd_would_refuse_are_refused_at_once() {
        let line = |more: &str| Line::try_parse_from(format!("x --engine etcd {more}").split_whitespace());
        for good in ["", "--etcd-election-ms 100", "--etcd-heartbeat-ms 10000 --etcd-election-ms 50000"] {
            assert_eq!(line(good).map(|line| line.engine.validate()).unwrap(), Ok(()), "{good}");
        }
        for bad in [
            "--etcd-linger-ms 30 --request-wait-ms 30",
            "--etcd-election-ms 99",
            "--etcd-heartbeat-ms 41",
            "--etcd-call-timeout-ms 0",
        ] {
            assert!(line(bad).is_ok_and(|line| line.engine.validate().is_err()), "{bad}");
        }
        for bad in ["--etcd-heartbeat-ms 10001", "--etcd-election-ms 50001", "--etcd-heartbeat-ms 0"] {
            assert!(line(bad).is_err(), "{bad}");
        }
    }
}
