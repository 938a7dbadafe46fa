//! Connecting and disconnecting guests' interfaces.

use std::collections::BTreeSet;

use hypervisor::{DomId, EventChannels, Port};
use netif::features::{Events, FrontendConfig, QueueConfig};

use super::uplink::FIRST_QUEUE_SOURCE;
use super::xenbus::DeviceKey;
use super::{Shadow, Wants};
use crate::error::Error;
use crate::fate::Step;
use crate::limits::SOURCES;
use crate::state::{QueueRecord, VifRecord};

impl Shadow {
    pub(super) fn connect(
        &mut self,
        key: DeviceKey,
        config: &FrontendConfig,
        mac: [u8; 6],
    ) -> Result<(), Error> {
        if self.devices.contains_key(&key) {
            return Ok(());
        }
        let place = self.state.free_place().ok_or(Error::Full { what: "interface" })?;
        self.state.prepare(place, config.queues.len())?;
        let flags = wants(config).bits();
        let mut record = VifRecord { domid: key.domid.0, handle: key.handle, flags, mac, queues: vec![] };
        if let Err(error) = self.bind_queues(&mut record, config) {
            if !self.close_strays() {
                return Err(error);
            }
            self.bind_queues(&mut record, config)?;
        }
        self.fabric.fate.done(Step::Bound);
        // Recorded first: a successor that finds it can only take over what is bound.
        self.state.commit(place, &record);
        let attached = self.attach(place, &record, false);
        if attached.is_err() {
            self.unbind(&record);
            self.state.free(place)?;
        }
        attached
    }

    /// Binds event channels for all queues, or for none.
    fn bind_queues(&mut self, record: &mut VifRecord, config: &FrontendConfig) -> Result<(), Error> {
        for queue in &config.queues {
            match self.bind(DomId(record.domid), queue) {
                Ok(queue) => record.queues.push(queue),
                Err(error) => {
                    self.unbind(record);
                    record.queues.clear();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Closes ports of the handle that no record names: a former shadow died between binding and recording. Then the guest's
    /// ports can be bound to again. True if there were any. Looked for once, for there can be no more of them later, and a
    /// guest that names ports that are none is not to cost more.
    fn close_strays(&mut self) -> bool {
        if std::mem::replace(&mut self.strays_closed, true) {
            return false;
        }
        let mut known = BTreeSet::new();
        for (_, record) in self.state.connected() {
            known.extend(record.queues.iter().flat_map(|queue| [queue.tx_port, queue.rx_port]));
        }
        let ports = (1..hypervisor::limits::PORTS_MAX).filter(|port| !known.contains(port));
        let closed = ports.filter(|port| self.fabric.events.unbind(Port(*port)).is_ok()).count();
        if closed > 0 {
            self.note("ports_closed", format!("{closed} that a former shadow had bound and not recorded"));
        }
        closed > 0
    }

    fn bind(&mut self, domid: DomId, queue: &QueueConfig) -> Result<QueueRecord, Error> {
        let (tx_port, rx_port) = bind(self.fabric.events.as_mut(), domid, queue.events)?;
        let source = self.next_source;
        self.next_source = if source + 1 < SOURCES { source + 1 } else { FIRST_QUEUE_SOURCE };
        let (tx_gref, rx_gref) = (queue.tx_ring.0, queue.rx_ring.0);
        Ok(QueueRecord { tx_gref, rx_gref, tx_port: tx_port.0, rx_port: rx_port.0, source })
    }

    fn unbind(&mut self, record: &VifRecord) {
        let ports: BTreeSet<u32> =
            record.queues.iter().flat_map(|queue| [queue.tx_port, queue.rx_port]).collect();
        for port in ports {
            self.ports.remove(&port);
            if let Err(error) = self.fabric.events.unbind(Port(port)) {
                tracing::debug!(port, %error, "unbind");
            }
        }
    }

    pub(super) fn disconnect(&mut self, key: DeviceKey) {
        let Some(id) = self.devices.remove(&key) else { return };
        if let Some(vif) = self.fabric.vifs.remove(&id) {
            self.fabric.sides.remove(&vif.port);
            self.fabric.uplinks.iter_mut().for_each(|uplink| uplink.waiters.leave_all(id));
            let _ = self.fabric.switch.remove_port(vif.port);
        }
        let place = id.place();
        if let Some(record) = self.state.record(place) {
            self.unbind(&record);
        }
        if let Err(error) = self.state.free(place) {
            tracing::warn!(%error, "memory of an interface stays");
        }
    }
}

/// Binds both ports of a queue, or none.
pub(super) fn bind(
    channels: &mut dyn EventChannels,
    domid: DomId,
    events: Events,
) -> Result<(Port, Port), Error> {
    match events {
        Events::Shared(port) => {
            let port = channels.bind_interdomain(domid, port)?;
            Ok((port, port))
        }
        Events::Split { tx, rx } => {
            let tx = channels.bind_interdomain(domid, tx)?;
            match channels.bind_interdomain(domid, rx) {
                Ok(rx) => Ok((tx, rx)),
                Err(error) => {
                    let _ = channels.unbind(tx);
                    Err(error.into())
                }
            }
        }
    }
}

fn wants(config: &FrontendConfig) -> Wants {
    Wants {
        sg: config.scatter_gather,
        gso_v4: config.gso_tcpv4,
        gso_v6: config.gso_tcpv6,
        csum_v4: config.ipv4_checksum,
        csum_v6: config.ipv6_checksum,
        rx_notify: config.rx_notify,
        multicast_control: config.multicast_control,
    }
}
