//! A guest that sends everything back.

use std::collections::VecDeque;

use serde::Serialize;

use super::netfront::{Netfront, Sent};
use super::tx::TxFrame;
use crate::Result;
use crate::limits::ECHO_FRAMES_MAX;

/// What was sent back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct EchoReport {
    /// Frames that went back.
    pub frames: u64,
    /// Frames that did not: too many waited, or the interface took none.
    pub dropped: u64,
}

/// Frames on their way back.
#[derive(Debug, Default)]
pub(super) struct Echo {
    waiting: VecDeque<(usize, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    report: EchoReport,
}

impl Echo {
    /// Takes a frame that came on a queue: it goes back on the same one, from whom it was to.
    pub(super) fn take(&mut self, queue: usize, bytes: &[u8]) {
        if bytes.len() < 12 || self.waiting.len() >= ECHO_FRAMES_MAX {
            self.report.dropped += 1;
            return;
        }
        let mut frame = self.spare.pop().unwrap_or_default();
        frame.clear();
        frame.extend_from_slice(bytes);
        let (to, from) = frame[..12].split_at_mut(6);
        to.swap_with_slice(from);
        self.waiting.push_back((queue, frame));
    }

    /// Sends what there is room for.
    ///
    /// # Errors
    /// As [`Netfront::send`].
    pub(super) fn send(&mut self, front: &mut Netfront) -> Result<()> {
        while let Some((queue, frame)) = self.waiting.front() {
            match front.send(*queue, &TxFrame::plain(frame))? {
                Sent::Full => return Ok(()),
                Sent::Queued => self.report.frames += 1,
                Sent::Dropped => self.report.dropped += 1,
            }
            self.spare.extend(self.waiting.pop_front().map(|(_, frame)| frame));
        }
        Ok(())
    }

    pub(super) fn report(&self) -> EchoReport {
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_on_waiting_frames_is_reached_and_kept() {
        let mut echo = Echo::default();
        for _ in 0..=ECHO_FRAMES_MAX {
            echo.take(0, b"to....from..and more");
        }
        echo.take(0, b"too short");
        assert_eq!(echo.waiting.len(), ECHO_FRAMES_MAX);
        assert_eq!(echo.report, EchoReport { frames: 0, dropped: 2 });
        assert_eq!(echo.waiting[0].1, b"from..to....and more");
    }
}
