//! Names of the keys.
//!
//! ```text
//!   PREFIX leader                  who leads (see `leader`)
//!   PREFIX log/<last index>        a batch, named by its last entry
//!   PREFIX snap/<index>/<chunk>    a piece of a snapshot
//!   PREFIX snap/latest             which snapshots are whole
//! ```
//!
//! Indices are 16 hexadecimal digits, so keys sort as their entries do. A batch bears its *last* index, so that the
//! first key at or after `log/<i>` is the batch that holds entry `i`.

/// The names under one prefix.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Names that begin with `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Who leads.
    pub fn leader(&self) -> Vec<u8> {
        self.name("leader")
    }

    /// The batch whose last entry is `last`.
    pub fn log(&self, last: u64) -> Vec<u8> {
        self.name(&format!("log/{last:016x}"))
    }

    /// Behind all batches.
    pub fn log_end(&self) -> Vec<u8> {
        self.name("log0")
    }

    /// The last entry of the batch with this key.
    pub fn log_index(&self, key: &[u8]) -> Option<u64> {
        let digits = key.strip_prefix(self.name("log/").as_slice())?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok()
    }

    /// Which snapshots are whole.
    pub fn latest(&self) -> Vec<u8> {
        self.name("snap/latest")
    }

    /// A piece of the snapshot at `index`.
    pub fn chunk(&self, index: u64, chunk: usize) -> Vec<u8> {
        self.name(&format!("snap/{index:016x}/{chunk:08x}"))
    }

    /// Before all pieces of the snapshot at `index`.
    pub fn snapshot(&self, index: u64) -> Vec<u8> {
        self.name(&format!("snap/{index:016x}/"))
    }

    /// Behind them.
    pub fn snapshot_end(&self, index: u64) -> Vec<u8> {
        self.name(&format!("snap/{index:016x}0"))
    }

    /// Behind all that belongs to snapshots.
    pub fn snapshots_end(&self) -> Vec<u8> {
        self.name("snap0")
    }

    /// Before all pieces of all snapshots.
    pub fn snapshots(&self) -> Vec<u8> {
        self.name("snap/")
    }

    fn name(&self, rest: &str) -> Vec<u8> {
        format!("{}{rest}", self.prefix).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_what_they_name() {
        let keys = Keys::new("/p/");
        assert!(keys.log(9) < keys.log(10) && keys.log(u64::MAX) < keys.log_end());
        assert!(keys.snapshots() <= keys.snapshot(0) && keys.snapshot(7) < keys.chunk(7, 0));
        assert!(
            keys.chunk(7, usize::MAX >> 32) < keys.snapshot_end(7) && keys.snapshot_end(7) < keys.snapshot(8)
        );
        assert!(keys.snapshot_end(u64::MAX) < keys.latest());
        assert!(keys.leader() < keys.log(0) && keys.log_end() < keys.snapshots());
    }

    #[test]
    fn only_batches_have_an_index() {
        let keys = Keys::new("/p/");
        assert_eq!(keys.log_index(&keys.log(0xabc)), Some(0xabc));
        for other in [keys.leader(), keys.latest(), b"/q/log/0000000000000001".to_vec(), b"/p/log/1".to_vec()]
        {
            assert_eq!(keys.log_index(&other), None);
        }
    }
}
