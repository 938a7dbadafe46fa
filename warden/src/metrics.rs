//! Metrics in OpenMetrics text: each event is counted as it is recorded, and what the status and the board show is read
//! when somebody asks. Counters begin anew with each warden, as the format expects.
//!
//! Labels have few values: the services of one group, the kinds of event, and what ends processes.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use api::v1;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use xs_shm::ReplicaStatus;

use crate::limits::METRIC_KINDS_MAX;

type Labels = Vec<(&'static str, String)>;

/// Upper bounds of the buckets for times of detection and recovery, in seconds.
const TIME_BUCKETS: [f64; 14] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// What is counted as it happens.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    events: Family<Labels, Counter>,
    deaths: Family<Labels, Counter>,
    takeovers: Counter,
    detection: Family<Labels, Histogram, fn() -> Histogram>,
    recovery: Histogram,
    takeover: Histogram,
    /// Names of events that services have told of.
    kinds: Mutex<BTreeSet<String>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ppvmm");
        let metrics = Self {
            events: Family::default(),
            deaths: Family::default(),
            takeovers: Counter::default(),
            detection: Family::new_with_constructor(times),
            recovery: times(),
            takeover: times(),
            kinds: Mutex::default(),
            registry: Registry::default(),
        };
        registry.register("events", "Events by kind and service", metrics.events.clone());
        registry.register("deaths", "Ended processes by service and cause", metrics.deaths.clone());
        registry.register("takeovers", "Leaders that began to serve", metrics.takeovers.clone());
        let detection = metrics.detection.clone();
        let help = "From an injected fault to its detection, by the event that told of it";
        registry.register_with_unit("detection", help, Unit::Seconds, detection);
        let mut time = |name, help, metric: &Histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        };
        time("recovery", "From the detection to the next leader's service", &metrics.recovery);
        time("takeover", "From the order to lead to service", &metrics.takeover);
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// Counts an event.
    pub fn observe(&self, event: &v1::Event) {
        let service = ("service", event.service.clone());
        self.events.get_or_create(&vec![("kind", self.kind(&event.kind)), service.clone()]).inc();
        match event.kind.as_str() {
            "service_died" => {
                self.deaths.get_or_create(&vec![service, ("cause", cause(&event.cause))]).inc();
            }
            "leader_serving" => {
                self.takeovers.inc();
            }
            _ => {}
        }
        if let Some(time_us) = event.detect_us {
            self.detection.get_or_create(&vec![("kind", self.kind(&event.kind))]).observe(seconds(time_us));
        }
        let times = [(event.recover_us, &self.recovery), (event.takeover_us, &self.takeover)];
        for (time_us, histogram) in times {
            if let Some(time_us) = time_us {
                histogram.observe(seconds(time_us));
            }
        }
    }

    /// Names of events are ours, but services tell some of them.
    fn kind(&self, name: &str) -> String {
        // The set is valid at each step.
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if !kinds.contains(name) && kinds.len() >= METRIC_KINDS_MAX {
            return "other".to_owned();
        }
        kinds.insert(name.to_owned());
        name.to_owned()
    }

    /// All metrics with what the status and the replicas' rows of the board show at this moment.
    ///
    /// # Errors
    /// None that is known: text in memory takes everything.
    pub fn text(
        &self,
        status: &v1::StatusResponse,
        rows: &[(String, ReplicaStatus)],
    ) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        let mut now = Registry::with_prefix("ppvmm");
        add_group(&mut now, status);
        add_clients(&mut now, status);
        add_services(&mut now, status);
        add_rows(&mut now, rows);
        encode_registry(&mut text, &now)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

fn times() -> Histogram {
    Histogram::new(TIME_BUCKETS)
}

fn seconds(us: u64) -> f64 {
    std::time::Duration::from_micros(us).as_secs_f64()
}

/// The cause of a death without what differs each time.
fn cause(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    match words.as_slice() {
        ["signal", number, ..] => format!("signal {number}"),
        ["exit", "status", status] => format!("exit {status}"),
        ["not", "started:", ..] => "not started".to_owned(),
        _ => "unknown".to_owned(),
    }
}

fn add_group(registry: &mut Registry, status: &v1::StatusResponse) {
    let mut gauge = |name, help, value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(signed(value));
        registry.register(name, help, gauge);
    };
    gauge("serving", "1 if clients are served", status.serving.into());
    gauge("epoch", "Epoch of the newest leader", status.epoch);
    gauge("handed_over", "1 if leader, gateway and warden have all clients", status.handed_over.into());
    if let Some(lag) = status.engine.as_ref().and_then(|engine| engine.lag_entries) {
        gauge("engine_lag_entries", "Acknowledged entries that the engine does not have yet", lag);
    }
    gauge("snapshot_index", "Last log index in the newest kept snapshot", status.snapshot_index);
}

/// Who holds copies of clients, so that no death loses one.
fn add_clients(registry: &mut Registry, status: &v1::StatusResponse) {
    let clients = Family::<Labels, Gauge>::default();
    for (holder, count) in [("gateway", status.gateway_clients), ("warden", status.warden_clients)] {
        clients.get_or_create(&vec![("holder", holder.to_owned())]).set(count.into());
    }
    registry.register("clients", "Clients of which each holds a copy", clients);
}

fn add_services(registry: &mut Registry, status: &v1::StatusResponse) {
    let of = |service: &v1::ServiceStatus| vec![("service", service.name.clone())];
    let states = Family::<Labels, Gauge>::default();
    let restarts = Family::<Labels, Counter>::default();
    let memory = Family::<Labels, Gauge>::default();
    for service in &status.services {
        let mut labels = of(service);
        labels.push(("role", short(service.role().as_str_name())));
        labels.push(("state", short(service.state().as_str_name())));
        states.get_or_create(&labels).set(1);
        restarts.get_or_create(&of(service)).inc_by(service.restarts);
        memory.get_or_create(&of(service)).set(signed(service.rss_bytes));
    }
    memory.get_or_create(&vec![("service", "warden".to_owned())]).set(signed(status.warden_rss_bytes));
    registry.register("service_state", "1 for the state and role that each service has", states);
    registry.register("service_restarts", "Starts after a death", restarts);
    registry.register_with_unit("service_resident_memory", "Resident memory", Unit::Bytes, memory);
}

/// `STATE_TAKING_OVER` becomes `taking_over`.
fn short(name: &str) -> String {
    name.split_once('_').map_or(name, |(_, rest)| rest).to_lowercase()
}

type Column = (&'static str, &'static str, fn(&ReplicaStatus) -> u64);

const GAUGES: &[Column] = &[
    ("replica_applied", "Last applied log index", |row| row.applied),
    ("replica_epoch", "Epoch that the replica leads or follows", |row| row.epoch),
    ("replica_connections", "Client sockets that it serves", |row| row.connections),
    ("replica_rings", "Guest rings that it serves", |row| row.rings),
    ("replica_domains", "Introduced domains", |row| row.domains),
    ("replica_nodes", "Nodes in the store", |row| row.nodes),
    ("replica_log_used_bytes", "Bytes of the log in use", |row| row.log_bytes),
];

const COUNTERS: &[Column] = &[
    ("replica_requests", "Requests answered", |row| row.requests),
    ("replica_reads", "Requests answered without the log", |row| row.reads),
    ("replica_quota_hits", "Requests refused because of a quota", |row| row.quota_hits),
    ("replica_protocol_errors", "Messages and rings that broke the protocol", |row| row.protocol_errors),
    ("replica_refused", "Requests refused because the log committed nothing", |row| row.refused),
    ("replica_damages", "Damage found in its own state", |row| row.damages),
    ("replica_mended", "Damaged nodes put right in place", |row| row.mended),
    ("replica_scrubbed_nodes", "Nodes that the scrubber verified", |row| row.scrubbed),
];

fn add_rows(registry: &mut Registry, rows: &[(String, ReplicaStatus)]) {
    let labels = |name: &String| vec![("service", name.clone())];
    for (name, help, read) in GAUGES {
        let family = Family::<Labels, Gauge>::default();
        for (service, row) in rows {
            family.get_or_create(&labels(service)).set(signed(read(row)));
        }
        registry.register(*name, *help, family);
    }
    for (name, help, read) in COUNTERS {
        let family = Family::<Labels, Counter>::default();
        for (service, row) in rows {
            family.get_or_create(&labels(service)).inc_by(read(row));
        }
        registry.register(*name, *help, family);
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, cause: &str) -> v1::Event {
        let (kind, cause) = (kind.to_owned(), cause.to_owned());
        v1::Event { kind, cause, service: "replica/1".into(), ..v1::Event::default() }
    }

    fn text(metrics: &Metrics) -> String {
        let service = v1::ServiceStatus {
            name: "replica/1".into(),
            role: v1::Role::Leader.into(),
            state: v1::State::TakingOver.into(),
            restarts: 2,
            ..v1::ServiceStatus::default()
        };
        let status = v1::StatusResponse { epoch: 7, services: vec![service], ..Default::default() };
        let row = ReplicaStatus { requests: 9, nodes: 5, ..ReplicaStatus::default() };
        metrics.text(&status, &[("replica/1".into(), row)]).unwrap()
    }

    #[test]
    fn events_are_counted_and_timed() {
        let metrics = Metrics::default();
        metrics.observe(&v1::Event { detect_us: Some(300), ..event("service_died", "signal 9 (SIGKILL)") });
        metrics.observe(&v1::Event {
            detect_us: Some(300),
            recover_us: Some(1_500),
            takeover_us: Some(900),
            ..event("leader_serving", "")
        });
        let text = text(&metrics);
        for line in [
            "ppvmm_events_total{kind=\"service_died\",service=\"replica/1\"} 1",
            "ppvmm_deaths_total{service=\"replica/1\",cause=\"signal 9\"} 1",
            "ppvmm_takeovers_total 1",
            "ppvmm_detection_seconds_count{kind=\"service_died\"} 1",
            "ppvmm_detection_seconds_bucket{le=\"0.0005\",kind=\"service_died\"} 1",
            "ppvmm_recovery_seconds_bucket{le=\"0.001\"} 0",
            "ppvmm_recovery_seconds_bucket{le=\"0.002\"} 1",
            "ppvmm_takeover_seconds_count 1",
            "ppvmm_epoch 7",
            "ppvmm_serving 0",
            "ppvmm_clients{holder=\"gateway\"} 0",
            "ppvmm_service_state{service=\"replica/1\",role=\"leader\",state=\"taking_over\"} 1",
            "ppvmm_service_restarts_total{service=\"replica/1\"} 2",
            "ppvmm_replica_requests_total{service=\"replica/1\"} 9",
            "ppvmm_replica_nodes{service=\"replica/1\"} 5",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn causes_and_kinds_are_few() {
        assert_eq!(cause("exit status 3"), "exit 3");
        assert_eq!(cause("not started: No such file (os error 2)"), "not started");
        assert_eq!(cause("not known: an earlier warden started it"), "unknown");
        let metrics = Metrics::default();
        for number in 0..METRIC_KINDS_MAX + 10 {
            metrics.observe(&event(&format!("kind_{number}"), ""));
        }
        metrics.observe(&event("kind_0", ""));
        let text = text(&metrics);
        assert!(text.contains("ppvmm_events_total{kind=\"other\",service=\"replica/1\"} 10"));
        assert!(text.contains("ppvmm_events_total{kind=\"kind_0\",service=\"replica/1\"} 2"));
    }
}
