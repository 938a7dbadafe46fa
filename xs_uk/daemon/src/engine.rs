//! Which engine keeps the log, and how it is reached.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

use crate::limits::{MEMBER_QUOTA_BYTES, REQUEST_WAIT_MS};
use crate::member::MemberOptions;

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// Shared memory that outlives every process of the store.
    Embedded,
    /// etcd, the store's own or a given one.
    Etcd,
}

/// The flags about the engine.
#[derive(Clone, Debug, clap::Args)]
pub struct EngineArgs {
    /// What keeps the log.
    #[arg(long, env = "PPVMM_ENGINE", default_value = "embedded")]
    pub engine: EngineKind,
    /// How long a request may wait for an engine that commits nothing before it is answered with EIO.
    #[arg(long, value_name = "MS", default_value_t = REQUEST_WAIT_MS)]
    pub request_wait_ms: u64,
    /// Members of the store's own etcd, which is started if --etcd-endpoints names none.
    #[arg(long, value_name = "NB", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=5))]
    pub etcd_members: u32,
    /// Where the store's own etcd keeps its data; default RUNDIR/etcd, which is in memory on most hosts.
    #[arg(long, value_name = "DIR")]
    pub etcd_data: Option<PathBuf>,
    /// The etcd that is started.
    #[arg(long, value_name = "FILE", default_value = "etcd")]
    pub etcd_program: PathBuf,
}

impl EngineArgs {
    /// How long a request may wait for the engine.
    pub fn request_wait(&self) -> Duration {
        Duration::from_millis(self.request_wait_ms)
    }

    /// How many members of an own etcd are to be started.
    pub fn own_members(&self) -> u32 {
        if self.engine == EngineKind::Etcd { self.etcd_members } else { 0 }
    }

    /// What a member must know.
    pub fn member(&self, rundir: &Path) -> MemberOptions {
        let directory = rundir.join("etcd");
        MemberOptions {
            program: self.etcd_program.clone(),
            data: self.etcd_data.clone().unwrap_or_else(|| directory.clone()),
            directory,
            members: self.etcd_members,
            quota_bytes: MEMBER_QUOTA_BYTES,
        }
    }

    /// The same flags for a child.
    pub fn to_args(&self) -> Vec<OsString> {
        let engine = self.engine.to_possible_value().map(|value| value.get_name().to_owned());
        let mut list: Vec<OsString> = vec![
            "--engine".into(),
            engine.unwrap_or_default().into(),
            "--request-wait-ms".into(),
            self.request_wait_ms.to_string().into(),
            "--etcd-members".into(),
            self.etcd_members.to_string().into(),
            "--etcd-program".into(),
            self.etcd_program.clone().into(),
        ];
        if let Some(data) = &self.etcd_data {
            list.extend(["--etcd-data".into(), data.into()]);
        }
        list
    }
}
