//! Log lines on standard error that never make a process wait, and of which one place in the code writes so many a second:
//! what a guest can cause again and again must neither fill a disk nor hold up frames.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Metadata, Subscriber};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::limits::{LOG_LINES_A_SECOND, LOG_LINES_WAITING};

/// Environment variable that says what is logged, such as `info` or `net_uk=debug`.
pub const LOG_ENV: &str = "PPVMM_LOG";

const SECOND: Duration = Duration::from_secs(1);

/// Starts logging, warnings and errors unless [`LOG_ENV`] says otherwise. The guard writes out what waits when it is dropped.
pub fn start() -> WorkerGuard {
    let builder = NonBlockingBuilder::default().buffered_lines_limit(LOG_LINES_WAITING);
    let (writer, guard) = builder.finish(std::io::stderr());
    let filter = EnvFilter::try_from_env(LOG_ENV).unwrap_or_else(|_| EnvFilter::new("warn"));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(writer.clone())
        .with_filter(Seldom { places: Mutex::default(), writer });
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_err() {
        tracing::debug!("logging was started before");
    }
    guard
}

/// Lets each place in the code write so many lines a second, and tells how many it kept back.
struct Seldom {
    places: Mutex<HashMap<Identifier, Budget>>,
    writer: NonBlocking,
}

impl<S: Subscriber> Filter<S> for Seldom {
    fn enabled(&self, _metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _context: &Context<'_, S>) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kept_back) = places.entry(event.metadata().callsite()).or_default().take(Instant::now())
        else {
            return false;
        };
        if kept_back > 0 {
            let line = format!("{kept_back} lines like the next one were left out\n");
            // Nobody is there to be told if this fails.
            let _ = self.writer.clone().write_all(line.as_bytes());
        }
        true
    }
}

/// What one place may still write in this second.
#[derive(Debug, Default)]
struct Budget {
    since: Option<Instant>,
    written: u32,
    kept_back: u64,
}

impl Budget {
    /// May it write a line? If so, how many were kept back before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= SECOND) {
            (self.since, self.written) = (Some(now), 0);
        }
        if self.written == LOG_LINES_A_SECOND {
            self.kept_back += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_writes_so_many_lines_a_second_and_tells_of_the_others() {
        let began = Instant::now();
        let mut budget = Budget::default();
        let mut written = 0;
        for _ in 0..LOG_LINES_A_SECOND + 5 {
            written += u32::from(budget.take(began) == Some(0));
        }
        assert_eq!(written, LOG_LINES_A_SECOND);
        assert_eq!(budget.take(began + SECOND / 2), None);
        assert_eq!(budget.take(began + SECOND), Some(6));
        assert_eq!(budget.take(began + SECOND), Some(0));
    }
}
