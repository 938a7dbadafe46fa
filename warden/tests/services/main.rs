//! The warden with real processes: this test's own binary, started again, is the service.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod adoption;
mod fake;
mod rig;

use std::time::Duration;

use api::v1::{self, Fault, Role, State};
use rig::Rig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;
use warden::limits::{HTTP_CALLERS_MAX, HTTP_HEAD_BYTES_MAX};
use warden::{Error, RunDir, ServiceSpec, Warden};

/// The entry of the child processes; passes at once when it is run as a test.
#[test]
fn fake_service() {
    if std::env::var_os(control::LINK_ENV).is_some() {
        fake::serve();
    }
}

#[tokio::test]
async fn a_killed_leader_is_replaced_and_comes_back() {
    let mut rig = Rig::start(3).await;
    let before = rig.status().await;
    let leader = Rig::leader(&before);
    assert_eq!((before.epoch, before.serving), (1, true));
    let hit = rig.inject("leader", Fault::Kill).await.unwrap();
    assert_eq!((&hit.service, hit.pid), (&leader.name, leader.pid));

    let died = rig.event("service_died").await;
    assert_eq!((died.service.as_str(), died.cause.as_str()), (leader.name.as_str(), "signal 9 (SIGKILL)"));
    let serving = rig.event("leader_serving").await;
    assert_eq!(serving.epoch, Some(2));
    assert_ne!(serving.service, leader.name);
    let (detect_us, recover_us) = (serving.detect_us.unwrap(), serving.recover_us.unwrap());
    assert_eq!(died.detect_us, Some(detect_us));
    println!("detect {detect_us} us, recover {recover_us} us");
    assert!(recover_us > 0 && detect_us > 0 && detect_us + recover_us < 5_000_000);

    let back = rig.event_of("service_ready", &leader.name).await;
    assert_eq!(back.incarnation, Some(2));
    let after = rig.status().await;
    assert_eq!((after.epoch, after.serving), (2, true));
    let restarted = after.services.iter().find(|service| service.name == leader.name).unwrap();
    assert_eq!((restarted.role(), restarted.restarts), (Role::Follower, 1));
    assert_eq!(restarted.last_death, "signal 9 (SIGKILL)");
    assert!(restarted.rss_bytes > 0 && restarted.pid != leader.pid);
    rig.down().await;
}

#[tokio::test]
async fn a_kill_from_outside_is_noticed_too() {
    let mut rig = Rig::start(3).await;
    let leader = Rig::leader(&rig.status().await);
    rig::send(leader.pid, rustix::process::Signal::KILL);
    let serving = rig.event("leader_serving").await;
    assert_eq!((serving.epoch, serving.detect_us), (Some(2), None), "nobody knows when the kill was sent");
    assert!(serving.recover_us.is_some());
    rig.down().await;
}

#[tokio::test]
async fn a_stopped_leader_is_fenced_and_replaced() {
    let mut rig = Rig::start(2).await;
    let leader = Rig::leader(&rig.status().await);
    rig.inject("leader", Fault::Stop).await.unwrap();
    let killed = rig.event("service_killed").await;
    assert_eq!(
        (killed.service.as_str(), killed.detail.as_str()),
        (leader.name.as_str(), "stopped by a signal")
    );
    assert!(killed.detect_us.is_some());
    assert_eq!(rig.event("leader_serving").await.epoch, Some(2));
    rig.down().await;
}

#[tokio::test]
async fn a_leader_that_does_not_take_over_is_replaced() {
    let mut rig = Rig::start_with(3, &[("FAKE_DEAF_REPLICA", "1")]).await;
    rig.inject("replica/0", Fault::Kill).await.unwrap();
    // The deaf replica is the first choice while all are equally far.
    assert_eq!(rig.event_of("leader_promoted", "replica/1").await.epoch, Some(2));
    assert_eq!(rig.event_of("service_killed", "replica/1").await.detail, "did not take over in time");
    assert_eq!(rig.event("leader_serving").await.epoch, Some(3));
    rig.down().await;
}

#[tokio::test]
async fn a_follower_that_is_further_is_preferred() {
    let mut rig = Rig::start_with(3, &[("FAKE_AHEAD_REPLICA", "2")]).await;
    rig.inject("replica/0", Fault::Kill).await.unwrap();
    assert_eq!(rig.event("leader_promoted").await.service, "replica/2");
    rig.down().await;
}

#[tokio::test]
async fn a_replica_that_breaks_its_promise_of_a_heartbeat_is_killed() {
    for way in ["FAKE_STUCK_REPLICA", "FAKE_LOOPING_REPLICA"] {
        let mut rig = Rig::start_with(2, &[(way, "0")]).await;
        let killed = rig.event("service_killed").await;
        assert!(
            killed.service == "replica/0" && killed.detail.starts_with("no heartbeat"),
            "{way} {killed:?}"
        );
        assert_eq!(rig.event("leader_serving").await.service, "replica/1");
        rig.down().await;
    }
}

#[tokio::test]
async fn a_new_gateway_is_linked_to_the_present_leader() {
    let mut rig = Rig::start(2).await;
    assert_eq!(rig.event("linked").await.detail, "epoch 1, the leader says hello");
    rig.inject("gateway", Fault::Kill).await.unwrap();
    assert_eq!(rig.event("gateway_rejoined").await.epoch, Some(1));
    assert_eq!(rig.event("linked").await.detail, "epoch 1, the leader says hello");
    assert!(rig.status().await.serving);
    rig.down().await;
}

#[tokio::test]
async fn snapshots_and_kept_descriptors_reach_the_next_incarnation() {
    let mut rig = Rig::start_with(2, &[("FAKE_WANT_SNAPSHOT", "1")]).await;
    assert_eq!(rig.event("snapshot_asked").await.service, "replica/1", "a follower");
    rig.event("snapshot_taken").await;
    let told = rig.event("told_snapshot").await;
    assert_eq!(
        (told.service.as_str(), told.detail.as_str()),
        ("replica/0", "newest 7, older 0, cursor at 7")
    );
    rig.event_of("begun", "replica/1").await;
    rig.inject("replica/1", Fault::Kill).await.unwrap();
    let begun = rig.event_of("begun", "replica/1").await;
    assert_eq!(
        begun.detail,
        "board,conns,consult,evtchn.0,kick,listener,log,roots,snapshot; snapshot 7 holds state at 7"
    );
    assert_eq!(rig.status().await.snapshot_index, 7);
    rig.down().await;
}

#[tokio::test]
async fn kills_without_end_use_up_no_budget() {
    let mut rig = Rig::start(3).await;
    for round in 0..40 {
        let target = ["leader", "follower", "gateway", "leader"][round % 4];
        match rig.inject(target, Fault::Kill).await {
            Ok(_) => {}
            // Between a death and the next promotion there may be none.
            Err(status) => assert_eq!(status.code(), Code::NotFound),
        }
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    let status = rig.settled().await;
    assert!(status.services.iter().map(|service| service.restarts).sum::<u64>() >= 10, "{status:?}");
    assert!(status.epoch > 1);
    assert_eq!(status.services.iter().filter(|service| service.role() == Role::Leader).count(), 1);
    rig.down().await;
}

#[tokio::test]
async fn everything_killed_at_once_comes_back() {
    let mut rig = Rig::start(3).await;
    for service in rig.status().await.services {
        rig::send(service.pid, rustix::process::Signal::KILL);
    }
    let serving = rig.event("leader_serving").await;
    println!("all killed: recover {:?} us", serving.recover_us);
    let status = rig.settled().await;
    assert!(status.services.iter().all(|service| service.restarts == 1), "{status:?}");
    rig.down().await;
}

#[tokio::test]
async fn health_follows_the_service_and_the_stream_ends_with_the_stop() {
    let mut rig = Rig::start_with(1, &[("FAKE_SLOW_START_MS", "300")]).await;
    assert_eq!(rig.health("xs_uk").await, "SERVING");
    rig.inject("leader", Fault::Kill).await.unwrap();
    rig.event("service_died").await;
    assert_eq!(
        (rig.health("xs_uk").await, rig.health("").await),
        ("NOT_SERVING".into(), "NOT_SERVING".into())
    );
    assert_eq!(rig.health("warden").await, "SERVING");
    rig.event("leader_serving").await;
    rig.settled().await;
    assert_eq!(rig.health("").await, "SERVING");
    let pids: Vec<_> = rig.status().await.services.iter().map(|service| service.pid).collect();
    rig.down().await;
    assert!(pids.iter().all(|pid| !rig::lives(*pid)), "children are left");
    assert!(!rig.rundir.join("ppvmm.state").exists());
}

#[tokio::test]
async fn events_are_replayed_from_the_newest() {
    let mut rig = Rig::start(1).await;
    let all = rig.replay(u32::MAX).await;
    assert_eq!(
        all.iter().map(|event| event.id).collect::<Vec<_>>(),
        (1..=all.len() as u64).collect::<Vec<_>>()
    );
    assert!(all.windows(2).all(|pair| pair[0].monotonic_us <= pair[1].monotonic_us));
    let two = rig.replay(2).await;
    assert_eq!(two[..], all[all.len() - 2..]);
    rig.down().await;
}

#[tokio::test]
async fn injection_is_refused_unless_it_is_enabled_and_understood() {
    let mut rig = Rig::start(1).await;
    for (target, code) in
        [("nobody", Code::InvalidArgument), ("replica/9", Code::NotFound), ("follower", Code::NotFound)]
    {
        assert_eq!(rig.inject(target, Fault::Kill).await.unwrap_err().code(), code, "{target}");
    }
    assert_eq!(rig.inject("leader", Fault::Unspecified).await.unwrap_err().code(), Code::InvalidArgument);
    rig.down().await;

    let mut spec = rig::spec(1, &[]);
    spec.injection = false;
    let mut rig = Rig::run(spec).await;
    let refused = rig.inject("leader", Fault::Kill).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    rig.down().await;
}

#[tokio::test]
async fn a_tcp_port_is_for_looking_only_and_on_loopback_only() {
    let mut spec = rig::spec(1, &[]);
    spec.grpc_listen = Some("0.0.0.0:0".parse().unwrap());
    assert!(matches!(Warden::new(spec), Err(Error::NotLoopback(_))));

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut spec = rig::spec(1, &[]);
    spec.grpc_listen = Some(free);
    let mut rig = Rig::run(spec).await;
    let mut remote = v1::ppvmm_client::PpvmmClient::connect(format!("http://{free}")).await.unwrap();
    assert!(remote.status(v1::StatusRequest {}).await.unwrap().into_inner().serving);
    let inject = v1::InjectRequest { target: "leader".into(), fault: Fault::Kill.into(), flip: None };
    assert_eq!(remote.inject(inject).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(remote.down(v1::DownRequest {}).await.unwrap_err().code(), Code::PermissionDenied);
    rig.down().await;
}

#[tokio::test]
async fn metrics_are_given_over_grpc_and_http() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut spec = rig::spec(3, &[]);
    spec.metrics_listen = Some(free);
    let mut rig = Rig::run(spec).await;
    let leader = Rig::leader(&rig.settled().await).name;
    rig.inject("leader", Fault::Kill).await.unwrap();
    // The first one may not have been told yet.
    while rig.event("leader_serving").await.epoch != Some(2) {}
    rig.event_of("service_ready", &leader).await;
    rig.settled().await;
    let text = rig.metrics().await;
    for line in [
        "ppvmm_serving 1".to_owned(),
        "ppvmm_epoch 2".to_owned(),
        "ppvmm_takeovers_total 2".to_owned(),
        "ppvmm_detection_seconds_count{kind=\"service_died\"} 1".to_owned(),
        "ppvmm_recovery_seconds_count 1".to_owned(),
        format!("ppvmm_deaths_total{{service=\"{leader}\",cause=\"signal 9\"}} 1"),
        format!("ppvmm_service_restarts_total{{service=\"{leader}\"}} 1"),
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
    }
    let (head, body) = http(free, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(body.contains("ppvmm_takeovers_total 2\n") && body.ends_with("# EOF\n"));
    let long = format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(HTTP_HEAD_BYTES_MAX));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
        ("nonsense\r\n\r\n", "400"),
        (&long, "400"),
    ] {
        assert!(http(free, request).await.0.starts_with(&format!("HTTP/1.1 {status}")), "{status}");
    }
    // Callers that say nothing keep others waiting no longer than they may stay.
    let silent = HTTP_CALLERS_MAX + 1;
    let _silent: Vec<_> = (0..silent).map(|_| std::net::TcpStream::connect(free).unwrap()).collect();
    assert!(http(free, "GET /metrics HTTP/1.1\r\n\r\n").await.0.starts_with("HTTP/1.1 200"));
    rig.down().await;
}

/// Head and body of an answer.
async fn http(address: std::net::SocketAddr, request: &str) -> (String, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // What was not read of a request that is too long may reset the connection behind the answer.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn two_wardens_do_not_share_a_run_directory() {
    let mut rig = Rig::start(1).await;
    assert!(matches!(RunDir::take(&rig.rundir), Err(Error::AlreadyRunning { .. })));
    rig.down().await;
}

#[tokio::test]
async fn a_service_that_cannot_be_started_ends_the_group() {
    let mut spec = rig::spec(1, &[]);
    spec.group.gateway = ServiceSpec { program: "/nonexistent".into(), ..ServiceSpec::default() };
    let ended =
        tokio::time::timeout(Duration::from_secs(60), Warden::new(spec).unwrap().run()).await.unwrap();
    assert!(matches!(ended, Err(Error::GaveUp(warden::ids::ServiceId::Gateway))), "{ended:?}");
}

#[tokio::test]
async fn the_state_of_each_service_is_told() {
    let mut rig = Rig::start(2).await;
    let status = rig.settled().await;
    let told: Vec<_> =
        status.services.iter().map(|s| (s.name.as_str(), s.role(), s.state(), s.incarnation)).collect();
    assert_eq!(
        told,
        [
            ("gateway", Role::Gateway, State::Ready, 1),
            ("replica/0", Role::Leader, State::Serving, 1),
            ("replica/1", Role::Follower, State::Ready, 1),
        ]
    );
    let leader = Rig::leader(&status);
    assert_eq!((leader.connections, leader.requests, leader.epoch), (3, 5, 1), "from the board");
    rig.down().await;
}
