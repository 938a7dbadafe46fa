//! Metrics in OpenMetrics text. Events are counted as they come, and those that an earlier keeper left once more; what moved is
//! read when somebody asks. Counters of events begin anew with each keeper, as the format expects; those of frames do not.
//!
//! Labels have few values: parts, causes, interfaces and queues, all of which are bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use api::v1;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::events::Event;
use crate::limits::METRIC_KINDS_MAX;

type Labels = Vec<(&'static str, String)>;
type Times = Family<Labels, Histogram, fn() -> Histogram>;

/// Upper bounds of the buckets for times of detection and recovery, in seconds.
const TIME_BUCKETS: [f64; 14] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// What is counted as it happens.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    events: Family<Labels, Counter>,
    faults: Family<Labels, Counter>,
    detection: Times,
    recovery: Times,
    /// Names of events that were counted.
    kinds: Mutex<BTreeSet<String>>,
    deaths: Mutex<Deaths>,
}

/// What is known of parts that died.
#[derive(Debug, Default)]
struct Deaths {
    /// When each was found dead, by the monotonic clock, if no successor serves yet.
    since_ns: BTreeMap<String, u64>,
    /// Those whose process was condemned: its end is no fault of its own.
    condemned: BTreeSet<String>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ppvmm_net");
        let (events, faults) = (Family::<Labels, Counter>::default(), Family::<Labels, Counter>::default());
        let detection: Times = Family::new_with_constructor(times);
        let recovery: Times = Family::new_with_constructor(times);
        registry.register("events", "Events by kind and part", events.clone());
        registry.register("faults", "Processes that were found dead, by part and cause", faults.clone());
        let help = "How long what condemned a living process had lasted";
        registry.register_with_unit("detection", help, Unit::Seconds, detection.clone());
        let help = "From the first sign of a death until a successor serves";
        registry.register_with_unit("recovery", help, Unit::Seconds, recovery.clone());
        Self {
            registry,
            events,
            faults,
            detection,
            recovery,
            kinds: Mutex::default(),
            deaths: Mutex::default(),
        }
    }
}

impl Metrics {
    /// Counts an event.
    pub fn observe(&self, event: &Event) {
        let part = ("part", event.part.clone());
        self.events.get_or_create(&vec![("kind", self.kind(&event.kind)), part.clone()]).inc();
        // They are valid at each step.
        let mut deaths = self.deaths.lock().unwrap_or_else(PoisonError::into_inner);
        let Deaths { since_ns: dead, condemned: doomed } = &mut *deaths;
        match event.kind.as_str() {
            "condemned" => {
                let (cause, lasted_us) = condemned(&event.detail);
                self.faults.get_or_create(&vec![part, ("cause", cause.clone())]).inc();
                if let Some(us) = lasted_us {
                    self.detection.get_or_create(&vec![("cause", cause)]).observe(seconds(us * 1000));
                }
                dead.entry(event.part.clone()).or_insert(event.at_monotonic_ns);
                doomed.insert(event.part.clone());
            }
            "ended" if !doomed.remove(&event.part) => {
                self.faults.get_or_create(&vec![part, ("cause", ended(&event.detail))]).inc();
                dead.entry(event.part.clone()).or_insert(event.at_monotonic_ns);
            }
            // The end of a condemned keeper is not told.
            "started" => _ = doomed.remove(&event.part),
            "ready" => {
                if let Some(since_ns) = dead.remove(&event.part) {
                    let took_ns = event.at_monotonic_ns.saturating_sub(since_ns);
                    self.recovery.get_or_create(&vec![part]).observe(seconds(took_ns));
                }
            }
            _ => {}
        }
    }

    /// Most names of events are ours, but processes tell some of them.
    fn kind(&self, name: &str) -> String {
        // The set is valid at each step.
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if !kinds.contains(name) && kinds.len() >= METRIC_KINDS_MAX {
            return "other".to_owned();
        }
        kinds.insert(name.to_owned());
        name.to_owned()
    }

    /// All metrics with what the status shows at this moment.
    ///
    /// # Errors
    /// None that is known: text in memory takes everything.
    pub fn text(&self, status: &v1::NetStatusResponse) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        let mut now = Registry::with_prefix("ppvmm_net");
        add_processes(&mut now, status);
        add_cards(&mut now, status);
        add_interfaces(&mut now, status);
        encode_registry(&mut text, &now)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

fn times() -> Histogram {
    Histogram::new(TIME_BUCKETS)
}

fn seconds(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64()
}

/// `Hung after 25000 us`: the cause, and how long it had lasted.
fn condemned(detail: &str) -> (String, Option<u64>) {
    let (cause, lasted) = detail.split_once(" after ").unwrap_or((detail, ""));
    let cause = cause.split('(').next().unwrap_or_default().to_lowercase();
    (cause, lasted.strip_suffix(" us").and_then(|us| us.parse().ok()))
}

/// The cause of an end without what differs each time.
fn ended(detail: &str) -> String {
    let number = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    match detail {
        text if text.starts_with("Signal(") => format!("signal {}", number(text)),
        text if text.starts_with("Code(") || text.starts_with("exit status") => {
            format!("exit {}", number(text))
        }
        "killed" => "killed".to_owned(),
        _ => "unknown".to_owned(),
    }
}

fn add_processes(registry: &mut Registry, status: &v1::NetStatusResponse) {
    let serving = Gauge::<i64>::default();
    serving.set(status.serving.into());
    registry.register("serving", "1 if the shadow and all drivers work", serving);
    let (restarts, memory) = (Family::<Labels, Counter>::default(), Family::<Labels, Gauge>::default());
    for process in &status.processes {
        let labels = vec![("part", process.name.clone())];
        restarts.get_or_create(&labels).inc_by(process.restarts);
        memory.get_or_create(&labels).set(i64::try_from(process.rss_bytes).unwrap_or(i64::MAX));
    }
    registry.register("restarts", "Starts after a death, of all keepers' time", restarts);
    registry.register_with_unit("resident_memory", "Resident memory", Unit::Bytes, memory);
}

fn add_cards(registry: &mut Registry, status: &v1::NetStatusResponse) {
    let (frames, bytes) = (Family::<Labels, Counter>::default(), Family::<Labels, Counter>::default());
    let (damaged, refused) = (Family::<Labels, Counter>::default(), Family::<Labels, Counter>::default());
    let dropped = Family::<Labels, Counter>::default();
    for card in &status.cards {
        dropped.get_or_create(&vec![("nic", card.number.to_string())]).inc_by(card.rx_dropped);
        let tx = [card.tx_frames, card.tx_bytes, card.tx_damaged, card.tx_refused];
        let rx = [card.rx_frames, card.rx_bytes, card.rx_damaged, card.rx_refused];
        for (direction, counts) in [("tx", tx), ("rx", rx)] {
            let labels = vec![("nic", card.number.to_string()), ("direction", direction.to_owned())];
            for (family, count) in [&frames, &bytes, &damaged, &refused].into_iter().zip(counts) {
                family.get_or_create(&labels).inc_by(count);
            }
        }
    }
    registry.register("nic_frames", "Frames by network card; tx is towards the wire", frames);
    registry.register_with_unit("nic", "Bytes of them", Unit::Bytes, bytes);
    registry.register("nic_damaged", "Frames that were damaged in the lane, and passed over", damaged);
    registry.register("nic_refused", "Frames that could not be sent, or not be handed on", refused);
    registry.register("nic_dropped", "Frames from the wire that found no room in the kernel", dropped);
}

fn add_interfaces(registry: &mut Registry, status: &v1::NetStatusResponse) {
    let (frames, bytes) = (Family::<Labels, Counter>::default(), Family::<Labels, Counter>::default());
    let (drops, backlog) = (Family::<Labels, Counter>::default(), Family::<Labels, Gauge>::default());
    for interface in &status.interfaces {
        for queue in &interface.queues {
            let vif = format!("vif{}.{}", interface.domid, interface.handle);
            let labels = |name: &'static str, value: &str| {
                vec![("vif", vif.clone()), ("queue", queue.number.to_string()), (name, value.to_owned())]
            };
            for (direction, moved, moved_bytes) in
                [("tx", queue.tx_frames, queue.tx_bytes), ("rx", queue.rx_frames, queue.rx_bytes)]
            {
                frames.get_or_create(&labels("direction", direction)).inc_by(moved);
                bytes.get_or_create(&labels("direction", direction)).inc_by(moved_bytes);
            }
            for (cause, count) in [
                ("tx_error", queue.tx_errors),
                ("rx_error", queue.rx_errors),
                ("backlog_full", queue.rx_overflow),
            ] {
                drops.get_or_create(&labels("cause", cause)).inc_by(count);
            }
            let labels = vec![("vif", vif.clone()), ("queue", queue.number.to_string())];
            backlog.get_or_create(&labels).set(queue.backlog_slots.into());
        }
    }
    registry.register("vif_frames", "Frames by interface and queue; tx is from the guest", frames);
    registry.register_with_unit("vif", "Bytes of them", Unit::Bytes, bytes);
    registry.register("vif_drops", "Frames that came to nothing, by cause", drops);
    registry.register("vif_backlog_slots", "Slots of backlogs in use", backlog);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(part: &str, kind: &str, detail: &str, at_ms: u64) -> Event {
        Event { at_monotonic_ns: at_ms * 1_000_000, ..Event::about(part, kind, detail) }
    }

    fn status() -> v1::NetStatusResponse {
        let queue =
            v1::NetQueue { number: 1, tx_frames: 5, rx_overflow: 2, backlog_slots: 3, ..Default::default() };
        let interface = v1::NetInterface { domid: 7, handle: 0, queues: vec![queue], ..Default::default() };
        let card = v1::NetCard { number: 0, rx_frames: 9, rx_bytes: 540, ..Default::default() };
        let process = v1::NetProcess { name: "shadow".into(), restarts: 2, ..Default::default() };
        v1::NetStatusResponse {
            serving: true,
            processes: vec![process],
            cards: vec![card],
            interfaces: vec![interface],
            ..Default::default()
        }
    }

    #[test]
    fn deaths_are_counted_once_and_timed_until_a_successor_serves() {
        let metrics = Metrics::default();
        metrics.observe(&event("driver.0", "condemned", "Hung after 25000 us", 1_000));
        metrics.observe(&event("driver.0", "ended", "Signal(9)", 1_001));
        metrics.observe(&event("driver.0", "ready", "", 1_003));
        metrics.observe(&event("shadow", "ended", "Signal(11)", 2_000));
        metrics.observe(&event("shadow", "ready", "", 2_020));
        metrics.observe(&event("shadow", "ready", "", 2_999));
        let text = metrics.text(&status()).unwrap();
        for line in [
            "ppvmm_net_faults_total{part=\"driver.0\",cause=\"hung\"} 1",
            "ppvmm_net_faults_total{part=\"shadow\",cause=\"signal 11\"} 1",
            "ppvmm_net_detection_seconds_bucket{le=\"0.025\",cause=\"hung\"} 1",
            "ppvmm_net_recovery_seconds_bucket{le=\"0.005\",part=\"driver.0\"} 1",
            "ppvmm_net_recovery_seconds_count{part=\"shadow\"} 1",
            "ppvmm_net_serving 1",
            "ppvmm_net_restarts_total{part=\"shadow\"} 2",
            "ppvmm_net_nic_frames_total{nic=\"0\",direction=\"rx\"} 9",
            "ppvmm_net_nic_bytes_total{nic=\"0\",direction=\"rx\"} 540",
            "ppvmm_net_vif_frames_total{vif=\"vif7.0\",queue=\"1\",direction=\"tx\"} 5",
            "ppvmm_net_vif_drops_total{vif=\"vif7.0\",queue=\"1\",cause=\"backlog_full\"} 2",
            "ppvmm_net_vif_backlog_slots{vif=\"vif7.0\",queue=\"1\"} 3",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
        assert!(!text.contains("cause=\"signal 9\"") && text.ends_with("# EOF\n"));
    }

    #[test]
    fn each_end_is_a_fault_unless_its_process_was_condemned() {
        let metrics = Metrics::default();
        for (part, kind, detail, at_ms) in [
            ("shadow", "ended", "Signal(11)", 1_000),
            ("shadow", "started", "", 1_001),
            ("shadow", "ended", "Signal(11)", 1_002),
            ("shadow", "ready", "", 1_030),
            ("driver.0", "condemned", "Hung after 25000 us", 2_000),
            ("driver.0", "ended", "Signal(9)", 2_001),
            ("keeper", "condemned", "Stopped after 50000 us", 3_000),
            ("keeper", "started", "", 3_001),
            ("keeper", "ended", "killed", 4_000),
        ] {
            metrics.observe(&event(part, kind, detail, at_ms));
        }
        let text = metrics.text(&status()).unwrap();
        let mut faults: Vec<_> = text.lines().filter(|line| line.contains("faults_total")).collect();
        faults.sort_unstable();
        assert_eq!(
            faults,
            [
                "ppvmm_net_faults_total{part=\"driver.0\",cause=\"hung\"} 1",
                "ppvmm_net_faults_total{part=\"keeper\",cause=\"killed\"} 1",
                "ppvmm_net_faults_total{part=\"keeper\",cause=\"stopped\"} 1",
                "ppvmm_net_faults_total{part=\"shadow\",cause=\"signal 11\"} 2",
            ]
        );
        for line in [
            "ppvmm_net_recovery_seconds_count{part=\"shadow\"} 1",
            // From the first of the two.
            "ppvmm_net_recovery_seconds_sum{part=\"shadow\"} 0.03",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn kinds_are_bounded() {
        let metrics = Metrics::default();
        for number in 0..METRIC_KINDS_MAX + 10 {
            metrics.observe(&event("shadow", &format!("kind_{number}"), "", 1));
        }
        let text = metrics.text(&status()).unwrap();
        assert!(text.contains("ppvmm_net_events_total{kind=\"other\",part=\"shadow\"} 10"), "{text}");
    }

    #[test]
    fn causes_are_few() {
        assert_eq!(condemned("Lying(CounterWentBack) after 3 us"), ("lying".to_owned(), Some(3)));
        assert_eq!(condemned("nonsense"), ("nonsense".to_owned(), None));
        let causes = [
            ("Code(3)", "exit 3"),
            ("exit status 1", "exit 1"),
            ("killed", "killed"),
            ("Unknown", "unknown"),
        ];
        for (detail, cause) in causes {
            assert_eq!(ended(detail), cause);
        }
    }
}
