//! What gateway and replicas have in common: their first words with the warden.

use std::os::fd::OwnedFd;

use control::{Begin, FromService, Link, Noted, Ready, Severity, ToService, from_service, to_service};

use crate::error::Error;

/// A role's process after the warden's first order.
pub struct Service {
    /// The link to the warden; does not block.
    pub warden: Link,
    /// Who we are.
    pub begin: Begin,
    /// What the warden keeps for us.
    pub kept: Vec<(String, OwnedFd)>,
}

impl Service {
    /// Takes the link that the warden left as our standard input, and waits for its first order.
    pub fn start() -> Result<Self, Error> {
        ignore_hangup()?;
        if std::env::var_os(control::LINK_ENV).is_none_or(|number| number != "0") {
            return Err(Error::NoWarden);
        }
        let stdin = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).map_err(Error::system("dup"))?;
        let warden = Link::from_fd(stdin);
        let packet = warden.receive::<ToService>()?;
        let Some(to_service::Order::Begin(begin)) = packet.message.order else { return Err(Error::NoBegin) };
        let kept = begin.names.iter().cloned().zip(packet.descriptors).collect();
        warden.set_nonblocking(true)?;
        Ok(Self { warden, begin, kept })
    }

    /// Says that orders can come.
    pub fn ready(&self, applied: u64, heartbeat_ms: u32) -> Result<(), Error> {
        report(&self.warden, from_service::Report::Ready(Ready { applied, heartbeat_ms }))
    }
}

/// Sends a report to the warden. A warden that is gone or too busy to read is not waited for: service goes on.
pub fn report(warden: &Link, report: from_service::Report) -> Result<(), Error> {
    report_with(warden, report, &[])
}

/// As [`report`], with descriptors.
pub fn report_with(
    warden: &Link,
    report: from_service::Report,
    descriptors: &[std::os::fd::BorrowedFd<'_>],
) -> Result<(), Error> {
    match warden.send(&FromService { report: Some(report) }, descriptors) {
        Err(control::LinkError::WouldBlock | control::LinkError::Closed) => {
            tracing::warn!("the warden takes no reports");
            Ok(())
        }
        result => Ok(result?),
    }
}

/// Puts something into the warden's event stream.
pub fn note(warden: &Link, severity: Severity, kind: &str, detail: String) -> Result<(), Error> {
    let noted = Noted { severity: severity.into(), kind: kind.into(), detail };
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
