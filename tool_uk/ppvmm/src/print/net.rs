//! What is shown of the network backend.

use api::v1::{NetCard, NetInterface, NetProcess, NetStatusResponse, net_events_response::Item};
use serde_json::{Value, json};

use super::{age, mib, some, table};

/// Version of the JSON shapes. Members may be added without a new one.
const SCHEMA: u32 = 1;

/// `NET_STATE_GIVEN_UP` as `given_up`.
fn state(process: &NetProcess) -> String {
    process.state().as_str_name().trim_start_matches("NET_STATE_").to_lowercase()
}

/// The status as tables. `now_ms` is the Unix time.
pub fn status_table(status: &NetStatusResponse, now_ms: i64) -> String {
    let serving = if status.serving { "serving" } else { "NOT SERVING" };
    let injection = if status.injection_enabled { ", fault injection enabled" } else { "" };
    let head = format!(
        "{serving}, profile {}, keeper {} (the {}., up {}){injection}\n",
        status.profile,
        status.version,
        status.keeper_number,
        age(now_ms - status.since_ms),
    );
    let processes = rows(
        ["NAME", "STATE", "SINCE", "PID", "RESTARTS", "STRIKES", "MEMORY", "LAST DEATH"],
        status.processes.iter().map(|process| row(process, now_ms)),
    );
    let cards = rows(
        ["NIC", "SPEC", "DEVICE", "TX FRAMES", "RX FRAMES", "TX WAITING", "RX WAITING"],
        status.cards.iter().map(card),
    );
    let queues = rows(
        ["VIF", "MAC", "QUEUE", "TX FRAMES", "RX FRAMES", "ERRORS", "OVERFLOW", "BACKLOG"],
        status.interfaces.iter().flat_map(queues),
    );
    [head, table(&processes), table(&cards), table(&queues)].concat()
}

fn rows<const COLUMNS: usize>(
    head: [&str; COLUMNS],
    rows: impl Iterator<Item = [String; COLUMNS]>,
) -> Vec<[String; COLUMNS]> {
    std::iter::once(head.map(str::to_owned)).chain(rows).collect()
}

fn row(process: &NetProcess, now_ms: i64) -> [String; 8] {
    [
        process.name.clone(),
        state(process).replace('_', " "),
        if process.since_ms == 0 { "-".to_owned() } else { age(now_ms - process.since_ms) },
        if process.pid == 0 { "-".to_owned() } else { process.pid.to_string() },
        process.restarts.to_string(),
        process.strikes.to_string(),
        mib(process.rss_bytes),
        some(&process.last_death).unwrap_or("-").to_owned(),
    ]
}

fn card(card: &NetCard) -> [String; 7] {
    [
        card.number.to_string(),
        card.spec.clone(),
        card.device.clone(),
        card.tx_frames.to_string(),
        card.rx_frames.to_string(),
        card.tx_waiting_slots.to_string(),
        card.rx_waiting_slots.to_string(),
    ]
}

fn queues(interface: &NetInterface) -> impl Iterator<Item = [String; 8]> + '_ {
    interface.queues.iter().map(|queue| {
        [
            format!("vif{}.{}", interface.domid, interface.handle),
            interface.mac.clone(),
            queue.number.to_string(),
            queue.tx_frames.to_string(),
            queue.rx_frames.to_string(),
            (queue.tx_errors + queue.rx_errors).to_string(),
            queue.rx_overflow.to_string(),
            queue.backlog_slots.to_string(),
        ]
    })
}

/// The status as a JSON object.
///
/// # Errors
/// None that is known.
pub fn status_json(status: &NetStatusResponse) -> serde_json::Result<String> {
    let process = |process: &NetProcess| {
        json!({
            "name": process.name, "pid": (process.pid != 0).then_some(process.pid), "state": state(process),
            "incarnation": process.incarnation, "restarts": process.restarts, "strikes": process.strikes,
            "last_death": some(&process.last_death), "since_ms": (process.since_ms != 0).then_some(process.since_ms),
            "rss_bytes": process.rss_bytes,
        })
    };
    let card = |card: &NetCard| {
        json!({
            "number": card.number, "spec": card.spec, "device": card.device,
            "tx_frames": card.tx_frames, "tx_bytes": card.tx_bytes, "rx_frames": card.rx_frames,
            "rx_bytes": card.rx_bytes, "tx_waiting_slots": card.tx_waiting_slots,
            "rx_waiting_slots": card.rx_waiting_slots,
            "tx_damaged": card.tx_damaged, "rx_damaged": card.rx_damaged,
            "rx_dropped": card.rx_dropped, "tx_refused": card.tx_refused, "rx_refused": card.rx_refused,
        })
    };
    serde_json::to_string(&json!({
        "schema": SCHEMA, "serving": status.serving, "profile": status.profile, "version": status.version,
        "keeper_number": status.keeper_number, "since_ms": status.since_ms,
        "injection_enabled": status.injection_enabled, "last_event": status.last_event,
        "processes": status.processes.iter().map(process).collect::<Vec<_>>(),
        "cards": status.cards.iter().map(card).collect::<Vec<_>>(),
        "interfaces": status.interfaces.iter().map(interface_json).collect::<Vec<_>>(),
    }))
}

fn interface_json(interface: &NetInterface) -> Value {
    let queue = |queue: &api::v1::NetQueue| {
        json!({
            "number": queue.number, "tx_frames": queue.tx_frames, "tx_bytes": queue.tx_bytes,
            "tx_errors": queue.tx_errors, "rx_frames": queue.rx_frames, "rx_bytes": queue.rx_bytes,
            "rx_errors": queue.rx_errors, "rx_overflow": queue.rx_overflow, "backlog_slots": queue.backlog_slots,
        })
    };
    json!({
        "domid": interface.domid, "handle": interface.handle, "mac": interface.mac,
        "queues": interface.queues.iter().map(queue).collect::<Vec<_>>(),
    })
}

/// One item of the stream as a JSON object.
///
/// # Errors
/// None that is known.
pub fn event_json(item: &Item) -> serde_json::Result<String> {
    serde_json::to_string(&match item {
        Item::Lagged(count) => json!({ "schema": SCHEMA, "lagged": count }),
        Item::Event(event) => json!({
            "schema": SCHEMA, "number": event.number, "at_us": event.at_us, "clock_ns": event.clock_ns,
            "part": event.part, "kind": event.kind, "detail": some(&event.detail), "pid": event.pid,
        }),
    })
}

/// One item of the stream as one line for people. Times are those of the monotonic clock.
pub fn event_line(item: &Item) -> String {
    let event = match item {
        Item::Lagged(count) => return format!("… {count} events were missed"),
        Item::Event(event) => event,
    };
    let seconds = format!("{}.{:06}", event.clock_ns / 1_000_000_000, event.clock_ns / 1000 % 1_000_000);
    let pid = event.pid.map(|pid| format!("pid {pid}"));
    let particulars = [pid, some(&event.detail).map(str::to_owned)].into_iter().flatten();
    let particulars = particulars.collect::<Vec<_>>().join(", ");
    format!("{seconds:>16} {:<10} {:<14} {particulars}", event.part, event.kind).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use api::v1::{NetEvent, NetQueue, NetState};

    use super::*;

    fn status() -> NetStatusResponse {
        let process = NetProcess {
            name: "driver.0".into(),
            pid: 71,
            state: NetState::GivenUp.into(),
            incarnation: 3,
            restarts: 2,
            last_death: "Signal(9)".into(),
            since_ms: 1_000,
            ..Default::default()
        };
        let queue =
            NetQueue { tx_frames: 5, rx_errors: 1, tx_errors: 2, backlog_slots: 4, ..Default::default() };
        let interface =
            NetInterface { domid: 7, handle: 1, mac: "00:16:3e:00:00:01".into(), queues: vec![queue] };
        NetStatusResponse {
            profile: "local".into(),
            keeper_number: 4,
            processes: vec![process],
            cards: vec![NetCard { spec: "packet:eth0".into(), device: "fine".into(), ..Default::default() }],
            interfaces: vec![interface],
            ..Default::default()
        }
    }

    #[test]
    fn tables_show_processes_cards_and_queues() {
        let text = status_table(&status(), 6_000);
        assert!(text.starts_with("NOT SERVING, profile local, keeper"), "{text}");
        for line in [
            "driver.0  given up  5s     71   2         0        0.0 MiB  Signal(9)",
            "0    packet:eth0  fine    0          0          0           0",
            "vif7.1  00:16:3e:00:00:01  0      5          0          3       0         4",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn json_has_a_schema_and_names() {
        let value: Value = serde_json::from_str(&status_json(&status()).unwrap()).unwrap();
        assert_eq!((&value["schema"], &value["processes"][0]["state"]), (&json!(1), &json!("given_up")));
        assert_eq!(value["interfaces"][0]["queues"][0]["backlog_slots"], json!(4));
        let event = NetEvent { number: 9, part: "shadow".into(), kind: "ready".into(), ..Default::default() };
        let value: Value = serde_json::from_str(&event_json(&Item::Event(event.clone())).unwrap()).unwrap();
        assert_eq!((&value["number"], &value["pid"]), (&json!(9), &Value::Null));
        assert_eq!(event_line(&Item::Event(event)), "        0.000000 shadow     ready");
        assert_eq!(event_json(&Item::Lagged(3)).unwrap(), r#"{"lagged":3,"schema":1}"#);
    }
}
