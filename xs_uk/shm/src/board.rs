//! The status board: rows of counters that replicas and the gateway write for the warden to read. Nothing is decided
//! by it alone.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{BOARD_BYTES, BOARD_ROW_BYTES, REPLICAS_MAX};
use hypervisor::{Region, RegionError};

/// All rows.
#[derive(Clone, Debug)]
pub struct Board {
    region: Arc<Region>,
}

/// A replica's row as read at one moment. Counters only grow while the process lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Turns of its loop; stands still in a process that is stopped or stuck.
    pub heartbeat: u64,
    /// The epoch it leads or follows.
    pub epoch: u64,
    /// Its last applied log index.
    pub applied: u64,
    /// Requests it answered as the leader.
    pub requests: u64,
    /// Client sockets it serves.
    pub connections: u64,
    /// Guest rings it serves.
    pub rings: u64,
    /// Introduced domains in its store.
    pub domains: u64,
    /// Nodes in its store.
    pub nodes: u64,
    /// Bytes of log in use.
    pub log_bytes: u64,
    /// Requests refused because of a quota.
    pub quota_hits: u64,
    /// Messages and rings refused because they broke the protocol.
    pub protocol_errors: u64,
    /// Requests that this replica answered from the store without the log.
    pub reads: u64,
    /// Requests refused with EIO because the log committed nothing.
    pub refused: u64,
    /// Damage found in its own state.
    pub damages: u64,
    /// Damaged nodes that were put right in place.
    pub mended: u64,
    /// Nodes that the scrubber verified.
    pub scrubbed: u64,
}

/// The gateway's row: how far the copies of all clients are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewayStatus {
    /// Process that wrote the row; a gateway that died leaves its row behind.
    pub pid: u64,
    /// Epoch of the leader that has what the gateway held when it was greeted, and has given what the gateway lacked; 0
    /// for none.
    pub epoch: u64,
    /// Clients that leader or warden have still to be told of, as come or as gone.
    pub untold: u64,
    /// Clients that it holds.
    pub clients: u64,
}

/// The writing side of one row.
#[derive(Clone, Debug)]
pub struct ReplicaWords {
    region: Arc<Region>,
    base: usize,
}

const WORDS: usize = 16;

impl Board {
    /// Opens the board's memory, see [`BOARD_BYTES`].
    ///
    /// # Errors
    /// [`RegionError`].
    pub fn open(fd: OwnedFd) -> Result<Self, RegionError> {
        Ok(Self { region: Arc::new(Region::open(fd, BOARD_BYTES)?) })
    }

    /// The row of replica `number`; all zero for a number out of bounds.
    pub fn replica(&self, number: u32) -> ReplicaStatus {
        if number >= REPLICAS_MAX {
            return ReplicaStatus::default();
        }
        let base = number as usize * BOARD_ROW_BYTES;
        let w: [u64; WORDS] = std::array::from_fn(|i| self.region.u64(base + 8 * i).load(Ordering::Relaxed));
        ReplicaStatus {
            heartbeat: w[0],
            epoch: w[1],
            applied: w[2],
            requests: w[3],
            connections: w[4],
            rings: w[5],
            domains: w[6],
            nodes: w[7],
            log_bytes: w[8],
            quota_hits: w[9],
            protocol_errors: w[10],
            reads: w[11],
            refused: w[12],
            damages: w[13],
            mended: w[14],
            scrubbed: w[15],
        }
    }

    /// The gateway's row.
    pub fn gateway(&self) -> GatewayStatus {
        // Read first what is written last: a client that is seen was counted as untold before.
        let clients = self.gateway_word(3).load(Ordering::Acquire);
        let [pid, epoch, untold] = [0, 1, 2].map(|word| self.gateway_word(word).load(Ordering::Relaxed));
        GatewayStatus { pid, epoch, untold, clients }
    }

    /// Writes the gateway's row.
    pub fn publish_gateway(&self, status: &GatewayStatus) {
        for (word, value) in [status.pid, status.epoch, status.untold].into_iter().enumerate() {
            self.gateway_word(word).store(value, Ordering::Relaxed);
        }
        self.gateway_word(3).store(status.clients, Ordering::Release);
    }

    fn gateway_word(&self, word: usize) -> &AtomicU64 {
        self.region.u64(REPLICAS_MAX as usize * BOARD_ROW_BYTES + 8 * word)
    }

    /// The writing side of the row of replica `number`, which must be below [`REPLICAS_MAX`].
    pub fn words(&self, number: u32) -> ReplicaWords {
        assert!(number < REPLICAS_MAX, "replica {number} has no row");
        ReplicaWords { region: self.region.clone(), base: number as usize * BOARD_ROW_BYTES }
    }
}

impl ReplicaWords {
    /// Writes the whole row.
    pub fn publish(&self, status: &ReplicaStatus) {
        let s = status;
        let words: [u64; WORDS] = [
            s.heartbeat,
            s.epoch,
            s.applied,
            s.requests,
            s.connections,
            s.rings,
            s.domains,
            s.nodes,
            s.log_bytes,
            s.quota_hits,
            s.protocol_errors,
            s.reads,
            s.refused,
            s.damages,
            s.mended,
            s.scrubbed,
        ];
        for (i, word) in words.into_iter().enumerate() {
            self.word(i).store(word, Ordering::Relaxed);
        }
    }

    fn word(&self, i: usize) -> &AtomicU64 {
        self.region.u64(self.base + 8 * i)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_published() {
        let region = Region::create("board", BOARD_BYTES).unwrap();
        let board = Board::open(region.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let status = ReplicaStatus { heartbeat: 1, applied: 2, reads: 12, ..ReplicaStatus::default() };
        board.words(REPLICAS_MAX - 1).publish(&status);
        assert_eq!(board.replica(REPLICAS_MAX - 1), status);
        assert_eq!(board.replica(0), ReplicaStatus::default());
        assert_eq!(board.replica(REPLICAS_MAX), ReplicaStatus::default());
        let gateway = GatewayStatus { pid: 1, epoch: 2, untold: 3, clients: 4 };
        board.publish_gateway(&gateway);
        assert_eq!(board.gateway(), gateway);
        assert_eq!(board.replica(REPLICAS_MAX - 1), status);
    }
}
