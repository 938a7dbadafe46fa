//! What gateway and replicas have in common: their first words with the warden.

use std::os::fd::OwnedFd;

use control::{Begin, Noted, Ready, Role, Severity, Tether, from_service};

use crate::error::Error;

/// A role's process after the warden's first order.
pub struct Service {
    /// The link to the warden, and to each that comes after it; does not block.
    pub warden: Tether,
    /// Who we are.
    pub begin: Begin,
    /// Copies of what the warden keeps for us; the tether holds others, for the next warden.
    pub kept: Vec<(String, OwnedFd)>,
}

impl Service {
    /// Takes the link that the warden left as our standard input, and waits for its first order.
    pub fn start(role: Role) -> Result<Self, Error> {
        ignore_hangup()?;
        let warden = Tether::start(role)?;
        Ok(Self { begin: warden.first_order().clone(), kept: warden.copies()?, warden })
    }

    /// Says that orders can come.
    pub fn ready(&self, applied: u64, heartbeat_ms: u32) -> Result<(), Error> {
        report(&self.warden, from_service::Report::Ready(Ready { applied, heartbeat_ms, pid: 0 }))
    }
}

/// Sends a report to the warden. A warden that is gone or too busy to read is not waited for: service goes on.
pub fn report(warden: &Tether, report: from_service::Report) -> Result<(), Error> {
    report_with(warden, report, &[])
}

/// As [`report`], with descriptors.
pub fn report_with(
    warden: &Tether,
    report: from_service::Report,
    descriptors: &[std::os::fd::BorrowedFd<'_>],
) -> Result<(), Error> {
    match warden.report(report, descriptors) {
        Err(control::LinkError::WouldBlock | control::LinkError::Closed) => {
            tracing::warn!("the warden takes no reports");
            Ok(())
        }
        result => Ok(result?),
    }
}

/// Puts something into the warden's event stream.
pub fn note(warden: &Tether, severity: Severity, kind: &str, detail: String) -> Result<(), Error> {
    note_at(warden, severity, kind, 0, detail)
}

/// As [`note`], about a log entry or a snapshot.
pub fn note_at(
    warden: &Tether,
    severity: Severity,
    kind: &str,
    index: u64,
    detail: String,
) -> Result<(), Error> {
    let noted = Noted { severity: severity.into(), kind: kind.into(), detail, index };
    report(warden, from_service::Report::Noted(noted))
}

/// A hangup means "open the log files again" for a store daemon; it must not end a role's process.
fn ignore_hangup() -> Result<(), Error> {
    let flag = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGHUP, flag).map(drop).map_err(|error| Error::System {
        call: "sigaction",
        source: rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::INVAL),
    })
}
