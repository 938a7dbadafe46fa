//! The value of the leader key: format version, epoch, nonce; readable with etcdctl.

use xs_consensus::Epoch;

/// Who leads. The nonce tells two processes that were given the same epoch apart, and a process its own claim
/// whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its random number.
    pub nonce: u64,
}

impl Leader {
    /// Text such as `1 0000000000000007 89abcdef01234567`.
    pub fn encode(&self) -> Vec<u8> {
        format!("1 {:016x} {:016x}", self.epoch.0, self.nonce).into_bytes()
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(bytes).ok()?.split(' ');
        if words.next()? != "1" {
            return None;
        }
        let mut number = || words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
        let (epoch, nonce) = (Epoch(number()?), number()?);
        words.next().is_none().then_some(Self { epoch, nonce })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codec_round_trip_and_garbage() {
        let leader = Leader { epoch: Epoch(7), nonce: u64::MAX };
        assert_eq!(Leader::decode(&leader.encode()), Some(leader));
        for garbage in [b"".as_slice(), b"2 1 1", b"1 1", b"1 1 1 1", b"1 x 1", b"\xff"] {
            assert_eq!(Leader::decode(garbage), None);
        }
    }
}
