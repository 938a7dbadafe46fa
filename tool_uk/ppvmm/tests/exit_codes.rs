//! The command against a warden that is only a gRPC server.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::process::{Command, Output};

use api::v1::{self, net_server, ppvmm_server};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;

struct Fake;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ppvmm_server::Ppvmm for Fake {
    type EventsStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::EventsResponse, Status>>>;

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        Ok(Response::new(v1::StatusResponse { serving: true, profile: "local".into(), ..Default::default() }))
    }

    async fn events(&self, request: Request<v1::EventsRequest>) -> Answer<Self::EventsStream> {
        let last = request.into_inner().replay_last.min(5);
        let event = |id: u32| v1::Event { id: id.into(), kind: "stopping".into(), ..Default::default() };
        let item = |id| v1::EventsResponse { item: Some(v1::events_response::Item::Event(event(id))) };
        // One of a kind that this binary does not know.
        let unknown = v1::EventsResponse { item: None };
        let items: Vec<_> = (5 - last..5).map(item).chain([unknown]).map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(items)))
    }

    async fn metrics(&self, _: Request<v1::MetricsRequest>) -> Answer<v1::MetricsResponse> {
        Ok(Response::new(v1::MetricsResponse { text: "# EOF\n".into() }))
    }

    async fn inject(&self, request: Request<v1::InjectRequest>) -> Answer<v1::InjectResponse> {
        match request.get_ref().target.as_str() {
            "leader" => Ok(Response::new(v1::InjectResponse { service: "replica/2".into(), pid: 7 })),
            "follower" => Err(Status::not_found("no such service lives")),
            "gateway" => Err(Status::failed_precondition("fault injection is off")),
            "warden" => Err(Status::unavailable("gone")),
            _ => Err(Status::invalid_argument("not a target")),
        }
    }

    async fn down(&self, _: Request<v1::DownRequest>) -> Answer<v1::DownResponse> {
        Err(Status::unavailable("the warden stops"))
    }
}

#[tonic::async_trait]
impl net_server::Net for Fake {
    type EventsStream = tokio_stream::Empty<Result<v1::NetEventsResponse, Status>>;

    async fn status(&self, _: Request<v1::NetStatusRequest>) -> Answer<v1::NetStatusResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn events(&self, _: Request<v1::NetEventsRequest>) -> Answer<Self::EventsStream> {
        Ok(Response::new(tokio_stream::empty()))
    }

    async fn metrics(&self, _: Request<v1::NetMetricsRequest>) -> Answer<v1::NetMetricsResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn inject(&self, request: Request<v1::NetInjectRequest>) -> Answer<v1::NetInjectResponse> {
        let v1::NetInjectRequest { target, fault } = request.into_inner();
        match (target.as_str(), fault.as_str()) {
            ("keeper", "cont") => Err(Status::failed_precondition("fault injection is off")),
            ("keeper", "stop") => Err(Status::resource_exhausted("too many requests wait")),
            _ => Err(Status::unavailable("gone")),
        }
    }
}

fn serve_net(socket: &Path) {
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    let serve = async move {
        let incoming = UnixListenerStream::new(UnixListener::from_std(listener).unwrap());
        let server = tonic::transport::Server::builder().add_service(net_server::NetServer::new(Fake));
        server.serve_with_incoming(incoming).await.unwrap();
    };
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(serve);
    });
}

fn serve(rundir: &Path) {
    let listener = std::os::unix::net::UnixListener::bind(rundir.join(api::SOCKET_NAME)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let serve = async move {
        let (health, service) = tonic_health::server::health_reporter();
        health.set_service_status("", ServingStatus::Serving).await;
        health.set_service_status("xs_uk", ServingStatus::NotServing).await;
        let incoming = UnixListenerStream::new(UnixListener::from_std(listener).unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(ppvmm_server::PpvmmServer::new(Fake))
            .add_service(service);
        server.serve_with_incoming(incoming).await.unwrap();
    };
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(serve);
    });
}

fn ppvmm(rundir: &Path, line: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_ppvmm"));
    Command::new(program).arg("--rundir").arg(rundir).args(line.split(' ')).output().unwrap()
}

fn code(rundir: &Path, line: &str) -> i32 {
    ppvmm(rundir, line).status.code().unwrap()
}

#[test]
fn exit_codes_mean_what_the_help_says() {
    let dir = tempfile::tempdir().unwrap();
    for line in ["status", "events", "metrics", "inject kill leader", "health", "down"] {
        assert_eq!(code(dir.path(), line), 3, "{line} without a warden");
    }
    serve(dir.path());
    let expected = [
        ("status", 0),
        ("status -o json", 0),
        ("status -o xml", 2),
        ("metrics", 0),
        ("nonsense", 2),
        ("inject kill leader", 0),
        ("inject kill follower", 1),
        ("inject kill gateway", 1),
        ("inject kill warden", 0),
        ("inject kill nobody", 2),
        ("health", 0),
        ("health xs_uk", 4),
        ("health nobody", 1),
        ("down", 1),
    ];
    for (line, expected) in expected {
        assert_eq!(code(dir.path(), line), expected, "{line}");
    }
    let help = String::from_utf8(ppvmm(dir.path(), "status --help").stdout).unwrap();
    assert!(help.contains("EXIT STATUS") && help.contains("3  the warden is not running"), "{help}");
}

/// The keeper that is to die is the one that would answer.
#[test]
fn a_keeper_that_answers_no_more_was_harmed_unless_it_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(code(dir.path(), "net inject kill keeper"), 3, "without a backend");
    serve_net(&dir.path().join(api::NET_SOCKET_NAME));
    for (line, expected) in [("kill keeper", 0), ("stop keeper", 1), ("cont keeper", 1), ("kill shadow", 1)] {
        assert_eq!(code(dir.path(), &format!("net inject {line}")), expected, "{line}");
    }
}

#[test]
fn events_are_lines_and_unknown_ones_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    serve(dir.path());
    let out = String::from_utf8(ppvmm(dir.path(), "events -n 2 -o json").stdout).unwrap();
    let ids: Vec<_> = out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, [3, 4]);
}

#[test]
fn up_says_why_it_could_not() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let warden = bin.join("warden");
    std::fs::write(&warden, "#!/bin/sh\necho the reason >&2\nexit 9\n").unwrap();
    std::fs::set_permissions(&warden, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let line = format!("up --profile dom0 --bindir {}", bin.display());
    let out = ppvmm(&dir.path().join("run"), &line);
    let told = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{told}");
    assert!(told.contains("exit status: 9") && told.contains("the reason"), "{told}");

    std::fs::write(&warden, "#!/bin/sh\nsleep 3\n").unwrap();
    let out = ppvmm(&dir.path().join("run"), &format!("{line} --timeout-s 1"));
    assert_eq!(out.status.code(), Some(4));
}
