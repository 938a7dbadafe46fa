//! What is shown, for people and for programs.

mod json;
pub mod net;

use std::fmt::Write;

use api::v1::{self, EngineStatus, Event, ServiceStatus, StatusResponse, events_response::Item};

pub use json::{event_json, status_json};

/// `ENGINE_HEALTH_NO_QUORUM` as `no_quorum`.
fn engine_health(engine: &EngineStatus) -> String {
    engine.health().as_str_name().trim_start_matches("ENGINE_HEALTH_").to_lowercase()
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
    text + &table(&rows)
}

/// Rows with columns of equal width.
fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:0$}", width(column)));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
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
mod tests;
