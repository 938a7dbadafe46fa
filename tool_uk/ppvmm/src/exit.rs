//! Exit codes and the errors that have one.

use std::process::ExitCode;

/// What the exit codes mean, for `--help`.
pub const HELP: &str = "EXIT STATUS\n  0  ok\n  1  failed\n  2  usage\n  3  the warden is not running, or net_uk is not\n  \
4  not serving, or unhealthy\n\nENVIRONMENT\n  PPVMM_RUNDIR  the warden's run directory";

/// An error with an exit code of its own. All others mean 1.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// 2: the warden did not understand the request.
    #[error("{0}")]
    Usage(String),
    /// 3: no warden answers.
    #[error("no warden is running in {}: {why}", rundir.display())]
    NotRunning {
        /// Where it was looked for.
        rundir: std::path::PathBuf,
        /// What was found instead.
        why: String,
    },
    /// 3: no network backend answers.
    #[error("no net_uk answers at {}: {why}", socket.display())]
    NoNet {
        /// Where it was looked for.
        socket: std::path::PathBuf,
        /// What was found instead.
        why: String,
    },
    /// 4: it runs and does not serve.
    #[error("{0}")]
    NotServing(String),
}

/// The exit code of an error.
pub fn code_of(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(match error.downcast_ref::<Failure>() {
        None => 1,
        Some(Failure::Usage(_)) => 2,
        Some(Failure::NotRunning { .. } | Failure::NoNet { .. }) => 3,
        Some(Failure::NotServing(_)) => 4,
    })
}
