//! Shortens a sequence as far as it stays a finding.

use std::time::Instant;

use crate::limits::SHRINK_WAIT;
use crate::op::Op;

/// Leaves out whatever `still_fails` does not need: first halves, then ever smaller parts, for at most
/// [`SHRINK_WAIT`].
pub fn shrink(ops: &[Op], mut still_fails: impl FnMut(&[Op]) -> bool) -> Vec<Op> {
    let began = Instant::now();
    let mut ops = ops.to_vec();
    let mut part = ops.len() / 2;
    while part > 0 && began.elapsed() < SHRINK_WAIT {
        let mut start = 0;
        let mut shorter = false;
        while start < ops.len() && began.elapsed() < SHRINK_WAIT {
            let mut fewer = ops.clone();
            fewer.drain(start..(start + part).min(ops.len()));
            if still_fails(&fewer) {
                ops = fewer;
                shorter = true;
            } else {
                start += part;
            }
        }
        if !shorter || part > 1 {
            part /= 2;
        }
    }
    ops
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate;

    #[test]
    fn what_is_not_needed_is_left_out() {
        let ops = generate(3, 100);
        let needed = [ops[17].clone(), ops[63].clone()];
        let shrunk = shrink(&ops, |ops| needed.iter().all(|op| ops.contains(op)));
        assert!(shrunk.len() <= 2 && needed.iter().all(|op| shrunk.contains(op)), "{shrunk:?}");
    }
}
