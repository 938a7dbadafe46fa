//! What services report, and what the planner, the keeper and the journal learn of it.

use std::sync::atomic::Ordering;

use control::{FromService, Packet, from_service::Report, notes};

use super::{Warden, open_board};
use crate::event::{Event, Kind, Severity, cut};
use crate::ids::ServiceId;
use crate::journal::unix_ms;
use crate::keeper::{Greeting, Heard, News};
use crate::planner::Input;

impl Warden {
    pub(super) fn hear(&mut self, news: News) {
        let News { service, incarnation, heard } = news;
        match heard {
            Heard::Report(packet) => self.take_report(service, incarnation, packet),
            Heard::LinkLost(control::LinkError::Closed) => {
                self.step(Input::LinkClosed { service, incarnation });
            }
            Heard::LinkLost(error) => {
                self.step(Input::Unresponsive { service, incarnation, why: format!("bad report: {error}") });
            }
            Heard::Hello(greeting) => self.take_hello(service, *greeting),
            Heard::Died(cause) => {
                let mut inputs = self.progress();
                inputs.push(Input::Died { service, incarnation, cause });
                self.keeper.forget(service, incarnation);
                self.step_all(inputs);
            }
        }
    }

    fn take_hello(&mut self, service: ServiceId, greeting: Greeting) {
        let promise = greeting.hello.ready.map(|ready| ready.heartbeat_ms);
        let incarnation = greeting.hello.kept.as_ref().map_or(0, |begin| begin.incarnation);
        match self.keeper.greet(greeting) {
            Ok(inputs) => {
                if let Err(error) = open_board(&self.keeper, &self.board) {
                    tracing::error!(%error, "board");
                }
                if let (Some(replica), Some(promise)) = (service.replica(), promise) {
                    self.pulses.promise(self.now(), replica, incarnation, promise);
                }
                let mut all = self.progress();
                all.extend(inputs);
                self.step_all(all);
            }
            Err(detail) => self.note_about(None, Severity::Warning, Kind::HelloRefused, detail),
        }
    }

    fn take_report(&mut self, service: ServiceId, incarnation: u64, packet: Packet<FromService>) {
        let mut descriptors = packet.descriptors;
        match packet.message.report {
            Some(Report::Ready(ready)) => {
                if let Some(replica) = service.replica() {
                    self.pulses.promise(self.now(), replica, incarnation, ready.heartbeat_ms);
                }
                let aimed = match ready.pid {
                    0 => None,
                    pid => self.keeper.aim_faults(service, incarnation, pid),
                };
                let ready = Input::Ready { service, incarnation, applied: ready.applied };
                self.step_all(aimed.into_iter().chain([ready]));
            }
            Some(Report::Leading(leading)) => {
                let control::Leading { epoch, applied, takeover_us, connections, rings } = leading;
                let detail = format!("{connections} connections, {rings} rings");
                self.step(Input::Leading { service, incarnation, epoch, applied, takeover_us, detail });
            }
            Some(Report::SnapshotTaken(taken)) if descriptors.len() == 1 => {
                let control::SnapshotTaken { index, length_bytes, .. } = taken;
                self.keeper.offer_snapshot(descriptors.pop().map(|descriptor| (taken, descriptor)));
                self.step(Input::SnapshotTaken { service, incarnation, index, length_bytes });
                self.keeper.offer_snapshot(None);
            }
            Some(Report::SnapshotWanted(_)) => self.step(Input::SnapshotWanted { service, incarnation }),
            Some(Report::Keep(keep)) => {
                if let Err(error) = self.keeper.keep(&keep.names, descriptors) {
                    self.note(service, Severity::Error, Kind::ReportIgnored, error.to_string());
                }
            }
            Some(Report::Noted(noted)) => {
                let (index, kind) = (noted.index, noted.kind.clone());
                self.pass_on(service, noted);
                match kind.as_str() {
                    notes::SNAPSHOT_DAMAGED => {
                        self.step(Input::SnapshotDamaged { service, incarnation, index });
                    }
                    notes::ENGINE_WAITS => self.step(Input::EngineWaits { service, incarnation }),
                    notes::LOG_DAMAGED if service.replica().is_some() => {
                        self.step(Input::LogDamaged { service, incarnation, index });
                    }
                    _ => {}
                }
            }
            Some(Report::Mistrust(control::Mistrust { replica, index, why })) => {
                self.step(Input::Mistrust { service, incarnation, replica, index, why: cut(why) });
            }
            Some(Report::Damaged(control::Damaged { index, why })) => {
                self.step(Input::Damaged { service, incarnation, index, why: cut(why) });
            }
            Some(Report::Located(located)) => {
                if let Some(what) = self.flips.located(service, located) {
                    self.note(service, Severity::Warning, Kind::Injected, what);
                }
            }
            // A former leader's view is of no interest.
            Some(Report::Engine(engine)) => {
                if service.replica().is_some() && service.replica() == self.planner.leader() {
                    self.take_engine(service, engine);
                }
            }
            Some(Report::Clients(clients)) if service == ServiceId::Gateway => {
                self.keeper.clients().keep(&clients.ids, descriptors);
                self.count_clients();
            }
            Some(Report::Clients(clients)) if service.replica().is_some() => {
                self.keeper.take_from_leader(&clients.ids, descriptors);
                self.count_clients();
            }
            Some(Report::ClientsClosed(clients)) if service == ServiceId::Gateway => {
                self.keeper.clients().close(&clients.ids);
                self.count_clients();
            }
            Some(
                Report::SnapshotTaken(_) | Report::Hello(_) | Report::Clients(_) | Report::ClientsClosed(_),
            )
            | None => {
                let detail = "a report of an unknown kind, or without its descriptor".to_owned();
                self.note(service, Severity::Warning, Kind::ReportIgnored, detail);
            }
        }
    }

    fn count_clients(&mut self) {
        let count = u64::try_from(self.keeper.clients().count()).unwrap_or(u64::MAX);
        self.api.status.clients.store(count, Ordering::Relaxed);
    }

    fn take_engine(&mut self, service: ServiceId, engine: control::Engine) {
        let mut event = None;
        self.engine.send_modify(|view| event = view.take(engine, unix_ms()));
        if let Some((severity, detail)) = event {
            self.note(service, severity, Kind::EngineChanged, detail);
        }
    }

    fn pass_on(&mut self, service: ServiceId, noted: control::Noted) {
        let severity = noted.severity();
        self.note(service, severity, Kind::Noted(cut(noted.kind)), cut(noted.detail));
    }

    fn note(&mut self, service: ServiceId, severity: Severity, kind: Kind, detail: String) {
        self.note_about(Some(service), severity, kind, detail);
    }

    /// Tells of something that a service reported, as long as it does not report too much.
    pub(super) fn note_about(
        &mut self,
        service: Option<ServiceId>,
        severity: Severity,
        kind: Kind,
        detail: String,
    ) {
        let now = self.now();
        let Some(left_out) = self.noted.take(now, service) else { return };
        let mut event = Event { service, detail, ..Event::new(severity, kind) };
        if left_out > 0 {
            event.detail.push_str(&format!(" ({left_out} earlier reports were left out)"));
        }
        self.journal.record(now, &event);
        self.record();
    }
}
