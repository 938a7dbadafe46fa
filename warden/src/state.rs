//! What a warden writes down for its successor: which processes there are and who leads.
//!
//! The file is `"PPVMMST1"`, the SHA-256 of what follows, and a protobuf message; field numbers are never re-used. It is
//! replaced as a whole by a rename. A reader of a newer version's file refuses it.

use std::path::{Path, PathBuf};

use prost::Message;
use sha2::{Digest, Sha256};

use crate::error::Error;
use control::proc::{Stat, boot_id};

const NAME: &str = "ppvmm.state";
const MAGIC: &[u8; 8] = b"PPVMMST1";
const HASH_BYTES: usize = 32;
const VERSION: u32 = 1;

/// The state of a group.
#[derive(Clone, PartialEq, Message)]
pub struct State {
    /// Version of the meaning of the other fields.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Processes of before a restart of the machine are gone.
    #[prost(string, tag = "2")]
    pub boot_id: String,
    /// Replicas of the group.
    #[prost(uint32, tag = "3")]
    pub replicas: u32,
    /// Members of the engine's own cluster.
    #[prost(uint32, tag = "4")]
    pub members: u32,
    /// The newest epoch that a replica was told to lead.
    #[prost(uint64, tag = "5")]
    pub epoch: u64,
    /// The replica that was told to.
    #[prost(uint32, optional, tag = "6")]
    pub leader: Option<u32>,
    /// The services.
    #[prost(message, repeated, tag = "7")]
    pub services: Vec<ServiceState>,
    /// The newest event's number.
    #[prost(uint64, tag = "8")]
    pub last_event_id: u64,
    /// What keeps the log, in words; empty if that was not said.
    #[prost(string, tag = "9")]
    pub log: String,
}

/// One service.
#[derive(Clone, PartialEq, Message)]
pub struct ServiceState {
    /// What it is.
    #[prost(enumeration = "control::Role", tag = "1")]
    pub role: i32,
    /// Its number among those of its role.
    #[prost(uint32, tag = "2")]
    pub number: u32,
    /// Starts so far.
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
    /// Its process; 0 if none lives.
    #[prost(uint32, tag = "4")]
    pub pid: u32,
    /// When the process began, in clock ticks since boot.
    #[prost(uint64, tag = "5")]
    pub start_ticks: u64,
    /// Whether it took orders.
    #[prost(bool, tag = "6")]
    pub ready: bool,
}

impl ServiceState {
    /// Whether its process is the one that was written down, and lives.
    pub fn lives(&self) -> bool {
        self.pid != 0 && Stat::of(self.pid).is_some_and(|stat| stat.start_ticks == self.start_ticks)
    }
}

/// The file of one run directory.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    fresh: PathBuf,
    boot_id: String,
}

impl StateFile {
    /// In this run directory.
    pub fn in_directory(rundir: &Path) -> Self {
        Self { path: rundir.join(NAME), fresh: rundir.join(format!("{NAME}.new")), boot_id: boot_id() }
    }

    /// Writes it anew.
    ///
    /// # Errors
    /// [`Error::Path`].
    pub fn write(&self, state: State) -> Result<(), Error> {
        let state = State { version: VERSION, boot_id: self.boot_id.clone(), ..state };
        std::fs::write(&self.fresh, encode(&state)).map_err(Error::path(&self.fresh))?;
        std::fs::rename(&self.fresh, &self.path).map_err(Error::path(&self.path))
    }

    /// Nothing lives any more.
    pub fn remove(&self) {
        // One that is left names only dead processes.
        let _ = std::fs::remove_file(&self.path);
    }

    /// What the last warden wrote, if it was since the start of the machine.
    ///
    /// # Errors
    /// [`Error::State`] for a file that cannot be trusted, [`Error::Path`].
    pub fn read(&self) -> Result<Option<State>, Error> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::path(&self.path)(error)),
        };
        let state = decode(&bytes).map_err(|why| Error::State { path: self.path.clone(), why })?;
        Ok((state.boot_id == self.boot_id).then_some(state))
    }
}

fn encode(state: &State) -> Vec<u8> {
    let body = state.encode_to_vec();
    [MAGIC.as_slice(), Sha256::digest(&body).as_slice(), &body].concat()
}

fn decode(bytes: &[u8]) -> Result<State, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("it is no state of a warden")?;
    let (hash, body) = rest.split_at_checked(HASH_BYTES).ok_or("it is cut off")?;
    if Sha256::digest(body).as_slice() != hash {
        return Err("its checksum is wrong".into());
    }
    let state = State::decode(body).map_err(|error| error.to_string())?;
    match state.version {
        VERSION => Ok(state),
        other => Err(format!("version {other} is unknown")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let stat = Stat::of(std::process::id()).unwrap();
        let own = ServiceState {
            pid: std::process::id(),
            start_ticks: stat.start_ticks,
            incarnation: 3,
            ..ServiceState::default()
        };
        let other = ServiceState { start_ticks: stat.start_ticks + 1, ..own.clone() };
        State { epoch: 7, services: vec![own, other], ..State::default() }
    }

    #[test]
    fn what_is_written_is_read_and_processes_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::in_directory(dir.path());
        assert!(file.read().unwrap().is_none());
        file.write(state()).unwrap();
        let read = file.read().unwrap().unwrap();
        assert_eq!((read.epoch, read.services.len()), (7, 2));
        assert!(read.services[0].lives());
        assert!(!read.services[1].lives(), "another process that got the pid");
        file.remove();
        assert!(file.read().unwrap().is_none());
    }

    #[test]
    fn a_state_of_before_a_restart_of_the_machine_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile { boot_id: "another".into(), ..StateFile::in_directory(dir.path()) };
        file.write(state()).unwrap();
        assert!(StateFile::in_directory(dir.path()).read().unwrap().is_none());
    }

    #[test]
    fn a_damaged_or_newer_file_is_refused() {
        let good = encode(&State { version: VERSION, ..state() });
        decode(&good).unwrap();
        for at in 0..good.len() {
            assert!(decode(&good[..at]).is_err(), "cut at {at}");
            let mut flipped = good.clone();
            flipped[at] ^= 4;
            assert!(decode(&flipped).is_err(), "flipped at {at}");
        }
        assert_eq!(decode(&encode(&State { version: 2, ..state() })), Err("version 2 is unknown".into()));
    }
}
