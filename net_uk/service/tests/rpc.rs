//! gRPC of a running service.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::time::Instant;

use api::v1::net_client::NetClient;
use api::v1::net_events_response::Item;
use api::v1::{NetEventsRequest, NetInjectRequest, NetState, NetStatusRequest};
use common::{PATIENCE, Service, keeper, rundir};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

fn start(dir: &Path) -> Service {
    let mut command = keeper(dir);
    command.arg("--enable-injection");
    Service::start_by(command)
}

/// Waits until somebody serves there.
async fn connect(dir: &Path) -> Channel {
    let path: PathBuf = dir.join(api::NET_SOCKET_NAME);
    let began = Instant::now();
    loop {
        let path = path.clone();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        let connected = Endpoint::from_static("http://localhost").connect_with_connector(connector).await;
        match connected {
            Ok(channel) => return channel,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

fn inject(target: &str, fault: &str) -> NetInjectRequest {
    NetInjectRequest { target: target.to_owned(), fault: fault.to_owned() }
}

async fn health(channel: &Channel, service: &str) -> Result<String, Code> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(channel.clone()).check(request).await;
    answer.map(|answer| answer.into_inner().status().as_str_name().to_owned()).map_err(|status| status.code())
}

#[tokio::test]
async fn status_health_and_metrics_show_what_runs() {
    let dir = rundir();
    let service = start(dir.path());
    let channel = connect(dir.path()).await;
    let mut client = NetClient::new(channel.clone());
    let began = Instant::now();
    let status = loop {
        let status = client.status(NetStatusRequest {}).await.unwrap().into_inner();
        if status.serving {
            break status;
        }
        assert!(began.elapsed() < PATIENCE, "{status:?}");
    };
    let names: Vec<_> = status.processes.iter().map(|process| process.name.as_str()).collect();
    assert_eq!(names, ["shadow", "keeper", "vault.0", "vault.1"]);
    for process in &status.processes {
        assert_eq!((process.pid, process.state()), (service.pid(&process.name), NetState::Running));
        assert!(process.rss_bytes > 0);
    }
    assert_eq!((status.profile.as_str(), status.keeper_number, status.injection_enabled), ("local", 1, true));
    assert_eq!(health(&channel, "").await.unwrap(), "SERVING");
    assert_eq!(health(&channel, "net_uk").await.unwrap(), "SERVING");
    assert_eq!(health(&channel, "net_uk.nic.0").await, Err(Code::NotFound));
    let text = client.metrics(api::v1::NetMetricsRequest {}).await.unwrap().into_inner().text;
    assert!(text.lines().any(|line| line == "ppvmm_net_serving 1"), "{text}");
}

#[tokio::test]
async fn events_come_again_and_go_on_over_a_keepers_death() {
    let dir = rundir();
    let service = start(dir.path());
    let mut client = NetClient::new(connect(dir.path()).await);
    let hit = client.inject(inject("shadow", "kill")).await.unwrap().into_inner();
    assert_eq!(hit.pid, service.pid("shadow"));
    let request = NetEventsRequest { replay_last: u32::MAX, follow: true };
    let mut stream = client.events(request).await.unwrap().into_inner();
    let mut last = 0;
    let mut seen = vec![];
    while !seen.ends_with(&[("shadow".to_owned(), "ready".to_owned())])
        || !seen.contains(&("shadow".to_owned(), "ended".to_owned()))
    {
        let Some(Item::Event(event)) = stream.message().await.unwrap().unwrap().item else {
            panic!("{seen:?}")
        };
        assert_eq!(event.number, last + 1);
        last = event.number;
        seen.push((event.part, event.kind));
    }
    // Whether it can still answer is not known.
    let _ = client.inject(inject("keeper", "kill")).await;
    let began = Instant::now();
    loop {
        let mut client = NetClient::new(connect(dir.path()).await);
        let status = client.status(NetStatusRequest {}).await;
        assert!(began.elapsed() < PATIENCE, "{status:?}");
        let Ok(status) = status else { continue };
        let status = status.into_inner();
        let shadow = &status.processes[0];
        if status.keeper_number == 2 && status.serving {
            assert_eq!((shadow.restarts, shadow.last_death.as_str()), (1, "Signal(9)"));
            let request = NetEventsRequest { replay_last: u32::MAX, follow: false };
            let mut stream = client.events(request).await.unwrap().into_inner();
            let Some(Item::Event(first)) = stream.message().await.unwrap().unwrap().item else { panic!() };
            assert_eq!((first.number, first.kind.as_str()), (1, "started"), "the first keeper's");
            return;
        }
    }
}

#[tokio::test]
async fn nonsense_and_what_was_not_allowed_is_refused() {
    let dir = rundir();
    let service = start(dir.path());
    let mut client = NetClient::new(connect(dir.path()).await);
    let refused = client.inject(inject("driver.0", "fly")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = client.inject(inject("driver.0", "kill")).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    drop(service);
    let other = rundir();
    let _service = Service::start(other.path());
    let refused = NetClient::new(connect(other.path()).await).inject(inject("shadow", "kill")).await;
    assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition);
}
