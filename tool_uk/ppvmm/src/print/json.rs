//! The JSON shapes. They are an interface: `schema` tells their version.

use api::v1::{self, EngineStatus, ServiceStatus, StatusResponse, events_response::Item};
use serde::Serialize;

use super::{engine_health, short, some};

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
