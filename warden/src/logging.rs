//! Log lines on standard error that never make the warden wait: a full pipe loses lines, not time.

use std::io::IsTerminal;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::limits::LOG_LINES_WAITING_MAX;

/// Environment variable that says what is logged, such as `info` or `warden=debug`.
pub const LOG_ENV: &str = "PPVMM_LOG";

/// Starts logging: JSON lines if asked for or if standard error is no terminal. The guard writes out what waits when it
/// is dropped. Does nothing if the process logs already.
pub fn init(json: bool) -> WorkerGuard {
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(LOG_LINES_WAITING_MAX).finish(std::io::stderr());
    let filter = EnvFilter::try_from_env(LOG_ENV).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let started = if json || !std::io::stderr().is_terminal() {
        lines.json().flatten_event(true).try_init()
    } else {
        lines.with_target(false).try_init()
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
    guard
}
