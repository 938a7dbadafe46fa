//! The hash chain: each entry's hash covers its predecessor's, its index, its epoch and its bytes.

use sha2::{Digest, Sha256};

use crate::{Epoch, Index};

/// The chain's value behind an entry.
pub fn link(previous: &[u8; 32], index: Index, epoch: Epoch, entry: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    hasher.update(index.0.to_le_bytes());
    hasher.update(epoch.0.to_le_bytes());
    hasher.update(entry);
    hasher.finalize().into()
}
