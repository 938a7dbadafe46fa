//! An entry as it lies in memory.
//!
//! ```text
//!   magic u32, length u32, index u64, epoch u64, hash [32], payload, zeros up to a multiple of 8
//! ```

use crate::limits::ENTRY_BYTES_MAX;
use crate::{Cursor, Epoch, Index, chain};

const MAGIC: u32 = 0x5855_4b4c;

/// Bytes in front of the payload.
pub(super) const HEADER_BYTES: usize = 56;

/// Bytes that an entry takes.
pub(super) fn size_bytes(payload: usize) -> usize {
    (HEADER_BYTES + payload).next_multiple_of(8)
}

/// Writes the image of the entry behind `before` into `image`, and gives the place behind it.
pub(super) fn build(image: &mut Vec<u8>, before: &Cursor, epoch: Epoch, entry: &[u8]) -> Cursor {
    let index = Index(before.index.0 + 1);
    let hash = chain::link(&before.hash, index, epoch, entry);
    let length = u32::try_from(entry.len()).expect("bounded by ENTRY_BYTES_MAX");
    image.clear();
    image.extend_from_slice(&MAGIC.to_le_bytes());
    image.extend_from_slice(&length.to_le_bytes());
    image.extend_from_slice(&index.0.to_le_bytes());
    image.extend_from_slice(&epoch.0.to_le_bytes());
    image.extend_from_slice(&hash);
    image.extend_from_slice(entry);
    image.resize(size_bytes(entry.len()), 0);
    Cursor { index, position: before.position + image.len() as u64, hash }
}

/// The payload's length that a header tells, if it can be true.
pub(super) fn length(header: &[u8; HEADER_BYTES]) -> Result<usize, &'static str> {
    let (magic, rest) = header.split_first_chunk::<4>().ok_or("magic")?;
    let length = rest.first_chunk::<4>().ok_or("length")?;
    if u32::from_le_bytes(*magic) != MAGIC {
        return Err("magic");
    }
    let length = u32::from_le_bytes(*length) as usize;
    if length > ENTRY_BYTES_MAX { Err("length") } else { Ok(length) }
}

/// Who appended a verified image.
pub(super) fn epoch(image: &[u8]) -> Epoch {
    let epoch = image.get(16..).and_then(|rest| rest.first_chunk());
    Epoch(epoch.map_or(0, |epoch| u64::from_le_bytes(*epoch)))
}

/// Checks a whole image of `length` payload bytes against the place before it; gives the place behind it.
pub(super) fn verify(image: &[u8], length: usize, before: &Cursor) -> Result<Cursor, &'static str> {
    let index = before.index.0 + 1;
    let (told, rest) = image[8..].split_first_chunk::<8>().ok_or("index")?;
    let (epoch, rest) = rest.split_first_chunk::<8>().ok_or("epoch")?;
    let (told_hash, rest) = rest.split_first_chunk::<32>().ok_or("hash")?;
    let (payload, padding) = rest.split_at(length);
    let hash = chain::link(&before.hash, Index(index), Epoch(u64::from_le_bytes(*epoch)), payload);
    if u64::from_le_bytes(*told) != index || hash != *told_hash {
        return Err("hash chain");
    }
    if padding.iter().any(|byte| *byte != 0) {
        return Err("padding");
    }
    Ok(Cursor { index: Index(index), position: before.position + image.len() as u64, hash })
}
