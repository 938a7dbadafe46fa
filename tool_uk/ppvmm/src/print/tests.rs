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
        warnings: vec![v1::EngineWarning { kind: "failing".into(), detail: "calls fail: timeout".into() }],
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
    assert_eq!([age(-5), age(59_999), age(3_599_000), age(90_061_000)], ["0s", "59s", "59m59s", "25h01m"]);
}
