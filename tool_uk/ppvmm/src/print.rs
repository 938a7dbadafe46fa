//! What is shown, for people and for programs. The JSON shapes are an interface: `schema` tells their version.

use std::fmt::Write;

use api::v1::{self, EngineStatus, Event, ServiceStatus, StatusResponse, events_response::Item};
use serde::Serialize;

/// Version of the JSON shapes. Members may be added without a new one.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct StatusJson<'a> {
    schema: u32,
    serving: bool,
    profile: &'a str,
    version: &'a str,
    epoch: u64,
    since_ms: i64,
    injection_enabled: bool,
    snapshot_index: u64,
    gateway_clients: u32,
    warden_clients: u32,
    handed_over: bool,
    warden: WardenJson,
    engine: Option<EngineJson<'a>>,
    services: Vec<ServiceJson<'a>>,
}

#[derive(Serialize)]
struct EngineJson<'a> {
    name: &'a str,
    health: String,
    waited_ms: u64,
    since_ms: i64,
    latency_us: Option<u64>,
    lag_entries: Option<u64>,
    lag_ms: Option<u64>,
    version: Option<&'a str>,
    leader_changes: u64,
    members: Vec<MemberJson<'a>>,
    warnings: Vec<EngineWarningJson<'a>>,
}

#[derive(Serialize)]
struct MemberJson<'a> {
    endpoint: &'a str,
    reachable: bool,
    version: Option<&'a str>,
    leads: bool,
    db_bytes: u64,
    db_used_bytes: u64,
}

#[derive(Serialize)]
struct EngineWarningJson<'a> {
    kind: &'a str,
    detail: &'a str,
}

#[derive(Serialize)]
struct WardenJson {
    pid: u32,
    rss_bytes: u64,
}

#[derive(Serialize)]
struct ServiceJson<'a> {
    name: &'a str,
    role: String,
    replica: Option<u32>,
    pid: u32,
    state: String,
    epoch: u64,
    applied: u64,
    incarnation: u64,
    restarts: u64,
    since_ms: i64,
    last_death: Option<&'a str>,
    rss_bytes: u64,
    requests: u64,
    connections: u32,
    rings: u32,
    domains: u32,
}

#[derive(Serialize)]
struct EventJson<'a> {
    schema: u32,
    id: u64,
    time_ms: i64,
    monotonic_us: u64,
    clock_us: u64,
    severity: String,
    kind: &'a str,
    service: &'a str,
    replica: Option<u32>,
    pid: Option<u32>,
    incarnation: Option<u64>,
    cause: Option<&'a str>,
    epoch: Option<u64>,
    detect_us: Option<u64>,
    recover_us: Option<u64>,
    takeover_us: Option<u64>,
    detail: &'a str,
}

#[derive(Serialize)]
struct LaggedJson {
    schema: u32,
    lagged: u64,
}

/// The status as one JSON object.
pub fn status_json(status: &StatusResponse) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&StatusJson {
        schema: SCHEMA,
        serving: status.serving,
        profile: &status.profile,
        version: &status.version,
        epoch: status.epoch,
        since_ms: status.since_ms,
        injection_enabled: status.injection_enabled,
        snapshot_index: status.snapshot_index,
        gateway_clients: status.gateway_clients,
        warden_clients: status.warden_clients,
        handed_over: status.handed_over,
        warden: WardenJson { pid: status.warden_pid, rss_bytes: status.warden_rss_bytes },
        engine: status.engine.as_ref().map(engine_json),
        services: status.services.iter().map(service_json).collect(),
    })
}

fn engine_json(engine: &EngineStatus) -> EngineJson<'_> {
    let warnings = engine.warnings.iter();
    EngineJson {
        name: &engine.name,
        health: engine_health(engine),
        waited_ms: engine.waited_ms,
        since_ms: engine.since_ms,
        latency_us: engine.latency_us,
        lag_entries: engine.lag_entries,
        lag_ms: engine.lag_ms,
        version: some(&engine.version),
        leader_changes: engine.leader_changes,
        members: engine.members.iter().map(member_json).collect(),
        warnings: warnings.map(|one| EngineWarningJson { kind: &one.kind, detail: &one.detail }).collect(),
    }
}

fn member_json(member: &v1::EngineMember) -> MemberJson<'_> {
    MemberJson {
        endpoint: &member.endpoint,
        reachable: member.reachable,
        version: some(&member.version),
        leads: member.leads,
        db_bytes: member.db_bytes,
        db_used_bytes: member.db_used_bytes,
    }
}

/// `ENGINE_HEALTH_NO_QUORUM` as `no_quorum`.
fn engine_health(engine: &EngineStatus) -> String {
    engine.health().as_str_name().trim_start_matches("ENGINE_HEALTH_").to_lowercase()
}

fn service_json(service: &ServiceStatus) -> ServiceJson<'_> {
    ServiceJson {
        name: &service.name,
        role: short(service.role().as_str_name()),
        replica: service.replica,
        pid: service.pid,
        state: short(service.state().as_str_name()),
        epoch: service.epoch,
        applied: service.applied,
        incarnation: service.incarnation,
        restarts: service.restarts,
        since_ms: service.since_ms,
        last_death: some(&service.last_death),
        rss_bytes: service.rss_bytes,
        requests: service.requests,
        connections: service.connections,
        rings: service.rings,
        domains: service.domains,
    }
}

/// The status as a table. `now_ms` is the Unix time.
pub fn status_table(status: &StatusResponse, now_ms: i64) -> String {
    let mut text = String::new();
    let serving = if status.serving { "serving" } else { "NOT SERVING" };
    let up = age(now_ms - status.since_ms);
    let injection = if status.injection_enabled { ", fault injection enabled" } else { "" };
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{serving}, epoch {}, profile {}, up {up}, warden {} (pid {}, {}){injection}",
        status.epoch,
        status.profile,
        status.version,
        status.warden_pid,
        mib(status.warden_rss_bytes),
    );
    if let Some(engine) = &status.engine {
        let _ = writeln!(text, "{}", engine_line(engine));
        for warning in &engine.warnings {
            let _ = writeln!(text, "  warning: {}", warning.detail);
        }
    }
    let head = [
        "NAME",
        "ROLE",
        "STATE",
        "SINCE",
        "PID",
        "RESTARTS",
        "APPLIED",
        "REQUESTS",
        "CLIENTS",
        "RINGS",
        "MEMORY",
        "LAST DEATH",
    ];
    let rows = status.services.iter().map(|service| row(service, now_ms));
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            format!("{cell:width$}")
        });
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

fn engine_line(engine: &EngineStatus) -> String {
    let version = some(&engine.version).map(|version| format!(" {version}")).unwrap_or_default();
    let reachable = engine.members.iter().filter(|member| member.reachable).count();
    let leader = engine.members.iter().find(|member| member.leads);
    let parts = [
        Some(format!("engine {}{version}: {}", engine.name, engine_health(engine).replace('_', " "))),
        (engine.waited_ms > 0).then(|| format!("for {} ms", engine.waited_ms)),
        (!engine.members.is_empty())
            .then(|| format!("{reachable} of {} members reachable", engine.members.len())),
        leader.filter(|_| engine.members.len() > 1).map(|member| format!("led by {}", member.endpoint)),
        (engine.leader_changes > 0).then(|| format!("{} changes of leader", engine.leader_changes)),
        engine.latency_us.map(|us| format!("last append {us} µs")),
        engine.lag_entries.filter(|lag| *lag > 0).map(|lag| format!("lacks {lag} entries")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn row(service: &ServiceStatus, now_ms: i64) -> [String; 12] {
    [
        service.name.clone(),
        short(service.role().as_str_name()),
        short(service.state().as_str_name()).replace('_', " "),
        age(now_ms - service.since_ms),
        if service.pid == 0 { "-".to_owned() } else { service.pid.to_string() },
        service.restarts.to_string(),
        service.applied.to_string(),
        service.requests.to_string(),
        service.connections.to_string(),
        service.rings.to_string(),
        mib(service.rss_bytes),
        some(&service.last_death).unwrap_or("-").to_owned(),
    ]
}

/// One item of the stream as one line of JSON.
pub fn event_json(item: &Item) -> serde_json::Result<String> {
    match item {
        Item::Lagged(lagged) => serde_json::to_string(&LaggedJson { schema: SCHEMA, lagged: *lagged }),
        Item::Event(event) => serde_json::to_string(&EventJson {
            schema: SCHEMA,
            id: event.id,
            time_ms: event.time_ms,
            monotonic_us: event.monotonic_us,
            clock_us: event.clock_us,
            severity: short(event.severity().as_str_name()),
            kind: &event.kind,
            service: &event.service,
            replica: event.replica,
            pid: event.pid,
            incarnation: event.incarnation,
            cause: some(&event.cause),
            epoch: event.epoch,
            detect_us: event.detect_us,
            recover_us: event.recover_us,
            takeover_us: event.takeover_us,
            detail: &event.detail,
        }),
    }
}

/// One item of the stream as one line for people. Times count from the warden's start.
pub fn event_line(item: &Item) -> String {
    let event = match item {
        Item::Lagged(count) => return format!("… {count} events were missed"),
        Item::Event(event) => event,
    };
    let sign = match event.severity() {
        v1::Severity::Info => ' ',
        v1::Severity::Warning => '!',
        v1::Severity::Error => 'E',
    };
    let seconds = format!("{}.{:06}", event.monotonic_us / 1_000_000, event.monotonic_us % 1_000_000);
    let particulars = particulars(event);
    let line = format!("{seconds:>13} {sign} {:<10} {:<18} {particulars}", event.service, event.kind);
    line.trim_end().to_owned()
}

fn particulars(event: &Event) -> String {
    let number = |name: &str, value: Option<u64>| value.map(|value| format!("{name} {value}"));
    let duration = |name: &str, value: Option<u64>| value.map(|us| format!("{name} {us} µs"));
    let parts = [
        number("epoch", event.epoch),
        number("pid", event.pid.map(u64::from)),
        some(&event.cause).map(str::to_owned),
        duration("detected after", event.detect_us),
        duration("recovered after", event.recover_us),
        duration("takeover", event.takeover_us),
        some(&event.detail).map(str::to_owned),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// `ROLE_LEADER` as `leader`: the last part of a generated name, after its type's.
fn short(name: &str) -> String {
    name.split_once('_').map_or(name, |(_, short)| short).to_lowercase()
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn mib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / (1024 * 1024);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn age(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> StatusResponse {
        let leader = ServiceStatus {
            name: "replica/1".into(),
            role: v1::Role::Leader.into(),
            replica: Some(1),
            pid: 4243,
            state: v1::State::TakingOver.into(),
            epoch: 7,
            applied: 1234,
            incarnation: 3,
            restarts: 2,
            since_ms: 1_000_000,
            last_death: "signal 9 (SIGKILL)".into(),
            rss_bytes: 5 * 1024 * 1024 + 600 * 1024,
            requests: 99,
            connections: 4,
            rings: 2,
            domains: 3,
        };
        let gateway = ServiceStatus {
            name: "gateway".into(),
            role: v1::Role::Gateway.into(),
            state: v1::State::Down.into(),
            since_ms: 900_000,
            ..ServiceStatus::default()
        };
        StatusResponse {
            profile: "local".into(),
            version: "0.1.0".into(),
            warden_pid: 42,
            gateway_clients: 7,
            warden_clients: 6,
            handed_over: false,
            serving: false,
            epoch: 7,
            since_ms: 0,
            injection_enabled: true,
            services: vec![gateway, leader],
            snapshot_index: 1000,
            warden_rss_bytes: 1024 * 1024,
            engine: Some(engine()),
        }
    }

    fn engine() -> EngineStatus {
        let member = |number: u32| v1::EngineMember {
            endpoint: format!("http://m{number}"),
            reachable: number == 1,
            version: "3.4.23".into(),
            leads: number == 1,
            db_bytes: 8192,
            db_used_bytes: 4096,
        };
        EngineStatus {
            name: "etcd".into(),
            health: v1::EngineHealth::NoQuorum.into(),
            waited_ms: 2100,
            since_ms: 1_000_000,
            latency_us: Some(150),
            version: "3.4.23".into(),
            members: vec![member(0), member(1)],
            warnings: vec![v1::EngineWarning {
                kind: "failing".into(),
                detail: "calls fail: timeout".into(),
            }],
            leader_changes: 1,
            lag_entries: Some(17),
            lag_ms: Some(40),
        }
    }

    fn event() -> Item {
        Item::Event(Event {
            id: 12,
            time_ms: 1_700_000_000_123,
            monotonic_us: 2_000_345,
            clock_us: 7_000_345,
            severity: v1::Severity::Error.into(),
            kind: "service_died".into(),
            service: "replica/0".into(),
            replica: Some(0),
            pid: Some(77),
            cause: "signal 9 (SIGKILL)".into(),
            epoch: Some(1),
            detect_us: Some(210),
            incarnation: Some(1),
            detail: "led".into(),
            ..Event::default()
        })
    }

    #[test]
    fn the_status_table_is_golden() {
        let golden = "\
NOT SERVING, epoch 7, profile local, up 16m45s, warden 0.1.0 (pid 42, 1.0 MiB), fault injection enabled
engine etcd 3.4.23: no quorum, for 2100 ms, 1 of 2 members reachable, led by http://m1, 1 changes of leader, last append 150 µs, lacks 17 entries
  warning: calls fail: timeout
NAME       ROLE     STATE        SINCE  PID   RESTARTS  APPLIED  REQUESTS  CLIENTS  RINGS  MEMORY   LAST DEATH
gateway    gateway  down         1m45s  -     0         0        0         0        0      0.0 MiB  -
replica/1  leader   taking over  5s     4243  2         1234     99        4        2      5.5 MiB  signal 9 (SIGKILL)
";
        assert_eq!(status_table(&status(), 1_005_000), golden);
    }

    #[test]
    fn the_status_as_json_is_golden() {
        let golden = serde_json::json!({
            "schema": 1, "serving": false, "profile": "local", "version": "0.1.0", "epoch": 7, "since_ms": 0,
            "injection_enabled": true, "snapshot_index": 1000,
            "gateway_clients": 7, "warden_clients": 6, "handed_over": false,
            "warden": {"pid": 42, "rss_bytes": 1_048_576},
            "engine": {"name": "etcd", "health": "no_quorum", "waited_ms": 2100, "since_ms": 1_000_000,
                "latency_us": 150, "lag_entries": 17, "lag_ms": 40, "version": "3.4.23", "leader_changes": 1,
                "members": [
                    {"endpoint": "http://m0", "reachable": false, "version": "3.4.23", "leads": false,
                     "db_bytes": 8192, "db_used_bytes": 4096},
                    {"endpoint": "http://m1", "reachable": true, "version": "3.4.23", "leads": true,
                     "db_bytes": 8192, "db_used_bytes": 4096}],
                "warnings": [{"kind": "failing", "detail": "calls fail: timeout"}]},
            "services": [
                {"name": "gateway", "role": "gateway", "replica": null, "pid": 0, "state": "down", "epoch": 0,
                 "applied": 0, "incarnation": 0, "restarts": 0, "since_ms": 900_000, "last_death": null,
                 "rss_bytes": 0, "requests": 0, "connections": 0, "rings": 0, "domains": 0},
                {"name": "replica/1", "role": "leader", "replica": 1, "pid": 4243, "state": "taking_over", "epoch": 7,
                 "applied": 1234, "incarnation": 3, "restarts": 2, "since_ms": 1_000_000,
                 "last_death": "signal 9 (SIGKILL)", "rss_bytes": 5_857_280, "requests": 99, "connections": 4,
                 "rings": 2, "domains": 3},
            ],
        });
        let json: serde_json::Value = serde_json::from_str(&status_json(&status()).unwrap()).unwrap();
        assert_eq!(json, golden);
    }

    #[test]
    fn an_event_as_json_is_golden() {
        let golden = concat!(
            r#"{"schema":1,"id":12,"time_ms":1700000000123,"monotonic_us":2000345,"clock_us":7000345,"severity":"error","#,
            r#""kind":"service_died","service":"replica/0","replica":0,"pid":77,"incarnation":1,"#,
            r#""cause":"signal 9 (SIGKILL)","epoch":1,"detect_us":210,"recover_us":null,"takeover_us":null,"#,
            r#""detail":"led"}"#
        );
        assert_eq!(event_json(&event()).unwrap(), golden);
        assert_eq!(event_json(&Item::Lagged(3)).unwrap(), r#"{"schema":1,"lagged":3}"#);
    }

    #[test]
    fn an_event_for_people_is_golden() {
        let golden = "     2.000345 E replica/0  service_died       epoch 1, pid 77, signal 9 (SIGKILL), detected after 210 µs, led";
        assert_eq!(event_line(&event()), golden);
        assert_eq!(event_line(&Item::Lagged(3)), "… 3 events were missed");
    }

    #[test]
    fn ages_are_short() {
        assert_eq!(
            [age(-5), age(59_999), age(3_599_000), age(90_061_000)],
            ["0s", "59s", "59m59s", "25h01m"]
        );
    }
}
