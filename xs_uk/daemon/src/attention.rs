//! Looking for the next request for a moment before sleeping.
//!
//! ```text
//!             a sleep shorter than NEAR
//!   sleeps ------------------------------> looks for up to WINDOW, then sleeps
//!      ^                                        |
//!      +---- looked in vain MISSES_MAX times ---+
//! ```
//!
//! To wake up an idle processor takes longer than to answer a request. A client that asks again as soon as it is answered
//! is not to wait for that each time. Who looks does not yield in between: the time is short, and a thread that yields again and
//! again loses its place to everybody else for longer than it gave away.

use std::time::{Duration, Instant};

use crate::limits::{ATTENTION_MISSES_MAX, ATTENTION_NEAR, ATTENTION_WINDOW};
use crate::poller::Poller;

/// Whether it is worth looking.
pub struct Attention {
    judge: Judge,
}

impl Attention {
    pub fn new() -> Self {
        // On a single processor the client waits for the one who looks.
        let alone = std::thread::available_parallelism().map_or(true, |processors| processors.get() == 1);
        Self { judge: Judge { alone, ..Judge::default() } }
    }

    /// As [`Poller::wait`].
    pub fn wait(
        &mut self,
        poller: &mut Poller,
        timeout: Duration,
        words: &mut Vec<u64>,
    ) -> rustix::io::Result<()> {
        if timeout.is_zero() {
            return poller.wait(timeout, words);
        }
        let began = Instant::now();
        let mut elapsed = Duration::ZERO;
        while elapsed < self.judge.window().min(timeout) {
            poller.wait(Duration::ZERO, words)?;
            if !words.is_empty() {
                self.judge.found();
                return Ok(());
            }
            elapsed = began.elapsed();
        }
        poller.wait(timeout.saturating_sub(elapsed), words)?;
        self.judge.slept(began.elapsed());
        Ok(())
    }
}

/// What was learnt. No clock.
#[derive(Debug, Default)]
struct Judge {
    alone: bool,
    hopeful: bool,
    misses: u32,
}

impl Judge {
    fn window(&self) -> Duration {
        if self.hopeful && !self.alone { ATTENTION_WINDOW } else { Duration::ZERO }
    }

    fn found(&mut self) {
        self.misses = 0;
    }

    /// It slept, and waited so long altogether.
    fn slept(&mut self, waited: Duration) {
        if waited < ATTENTION_NEAR {
            (self.hopeful, self.misses) = (true, 0);
            return;
        }
        self.misses += 1;
        self.hopeful &= self.misses < ATTENTION_MISSES_MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(5);

    #[test]
    fn who_asks_again_at_once_is_waited_for() {
        let mut judge = Judge::default();
        assert_eq!(judge.window(), Duration::ZERO, "nothing is known");
        judge.slept(ATTENTION_NEAR / 2);
        assert_eq!(judge.window(), ATTENTION_WINDOW);
        judge.found();
        assert_eq!(judge.window(), ATTENTION_WINDOW);
    }

    #[test]
    fn looking_in_vain_ends() {
        let mut judge = Judge::default();
        judge.slept(ATTENTION_NEAR / 2);
        for _ in 1..ATTENTION_MISSES_MAX {
            judge.slept(LONG);
            assert_eq!(judge.window(), ATTENTION_WINDOW);
        }
        judge.slept(LONG);
        assert_eq!(judge.window(), Duration::ZERO);
        (0..10).for_each(|_| judge.slept(LONG));
        assert_eq!(judge.window(), Duration::ZERO);
    }

    #[test]
    fn a_single_processor_is_left_to_the_client() {
        let mut judge = Judge { alone: true, ..Judge::default() };
        judge.slept(ATTENTION_NEAR / 2);
        assert_eq!(judge.window(), Duration::ZERO);
    }

    #[test]
    fn what_is_ready_is_told_with_and_without_hope() {
        let mut poller = Poller::new().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        poller.add(&reader, 7, crate::poller::Interest::READ).unwrap();
        for hopeful in [false, true] {
            let mut attention = Attention { judge: Judge { hopeful, ..Judge::default() } };
            let mut words = vec![];
            attention.wait(&mut poller, Duration::from_millis(2), &mut words).unwrap();
            assert!(words.is_empty(), "it waited and found nothing");
            rustix::io::write(&writer, b"x").unwrap();
            attention.wait(&mut poller, LONG, &mut words).unwrap();
            assert_eq!(words, [7]);
            rustix::io::read(&reader, &mut [0; 1]).unwrap();
        }
    }
}
