//! A warden of fakes in this process, and a gRPC client of it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use api::v1::{
    self, Event, Fault, ServiceStatus, StatusResponse, events_response::Item, ppvmm_client::PpvmmClient,
};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use warden::{Error, Handle, RunDir, ServiceSpec, Warden, WardenSpec, bind_listener, store_group};

/// Nothing here takes nearly as long, on a loaded machine too.
const PATIENCE: Duration = Duration::from_secs(30);

const IN_EVERY_START: [&str; 4] = ["service_started", "service_ready", "leader_promoted", "leader_serving"];

pub struct Rig {
    pub rundir: PathBuf,
    client: PpvmmClient<Channel>,
    health: HealthClient<Channel>,
    events: tonic::Streaming<v1::EventsResponse>,
    seen: Vec<Event>,
    told: HashSet<u64>,
    handle: Handle,
    warden: JoinHandle<Result<(), Error>>,
}

/// A group of fakes in a directory that is left to the system's cleaning: the sockets in it outlive the value.
pub fn spec(replicas: u32, env: &[(&str, &str)]) -> WardenSpec {
    let dir = tempfile::tempdir().unwrap().keep();
    let rundir = RunDir::take(&dir).unwrap();
    let listener = bind_listener(&dir.join("socket")).unwrap();
    let program = std::env::current_exe().unwrap();
    let mut group = store_group(&dir, &program, &[], replicas, listener).unwrap();
    let service = |role: &str| ServiceSpec {
        program: program.clone(),
        args: ["fake_service", "--exact", "--nocapture", "--test-threads=1"].map(Into::into).to_vec(),
        env: env.iter().copied().chain([("FAKE_ROLE", role)]).map(|(k, v)| (k.into(), v.into())).collect(),
    };
    group.gateway = service("gateway");
    group.replicas = (0..replicas).map(|_| service("replica")).collect();
    WardenSpec { rundir, group, profile: "local".into(), injection: true, grpc_listen: None }
}

impl Rig {
    pub async fn start(replicas: u32) -> Self {
        Self::start_with(replicas, &[]).await
    }

    /// A serving group of fakes; all of them are ready.
    pub async fn start_with(replicas: u32, env: &[(&str, &str)]) -> Self {
        let mut rig = Self::run(spec(replicas, env)).await;
        rig.settled().await;
        // What happens in every start is of no interest.
        let start = rig.replay(u32::MAX).await;
        rig.told.extend(
            start.iter().filter(|event| IN_EVERY_START.contains(&event.kind.as_str())).map(|event| event.id),
        );
        rig
    }

    pub async fn run(spec: WardenSpec) -> Self {
        let rundir = spec.rundir.path().to_owned();
        let warden = Warden::new(spec).unwrap();
        let mut handle = warden.handle();
        let warden = tokio::spawn(warden.run());
        let path = rundir.join(api::SOCKET_NAME);
        let connect = tower::service_fn(move |_| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        let channel =
            Endpoint::from_static("http://localhost").connect_with_connector(connect).await.unwrap();
        assert!(tokio::time::timeout(PATIENCE, handle.wait_serving()).await.unwrap());
        let mut client = PpvmmClient::new(channel.clone());
        let request = v1::EventsRequest { replay_last: u32::MAX, follow: true };
        let events = client.events(request).await.unwrap().into_inner();
        Self {
            rundir,
            client,
            health: HealthClient::new(channel),
            events,
            seen: Vec::new(),
            told: HashSet::new(),
            handle,
            warden,
        }
    }

    /// The next event of this kind.
    pub async fn event(&mut self, kind: &str) -> Event {
        self.next(kind, |event| event.kind == kind).await
    }

    /// The next event of this kind about this service.
    pub async fn event_of(&mut self, kind: &str, service: &str) -> Event {
        self.next(kind, |event| event.kind == kind && event.service == service).await
    }

    /// The first event that fits and was not told yet. Events that do not fit may be asked for later.
    async fn next(&mut self, what: &str, fits: impl Fn(&Event) -> bool) -> Event {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let found = self.seen.iter().find(|event| fits(event) && !self.told.contains(&event.id));
            if let Some(event) = found.cloned() {
                self.told.insert(event.id);
                return event;
            }
            let message = tokio::time::timeout_at(end, self.events.message()).await;
            let message = message.unwrap_or_else(|_| panic!("no {what} in {:#?}", self.seen));
            match message.unwrap().unwrap_or_else(|| panic!("the stream ended without {what}")).item.unwrap()
            {
                Item::Event(event) => self.seen.push(event),
                Item::Lagged(count) => panic!("{count} events were missed"),
            }
        }
    }

    pub async fn replay(&mut self, replay_last: u32) -> Vec<Event> {
        let request = v1::EventsRequest { replay_last, follow: false };
        let mut stream = self.client.events(request).await.unwrap().into_inner();
        let mut events = Vec::new();
        while let Some(response) = stream.message().await.unwrap() {
            if let Some(Item::Event(event)) = response.item {
                events.push(event);
            }
        }
        events
    }

    pub async fn status(&mut self) -> StatusResponse {
        self.client.status(v1::StatusRequest {}).await.unwrap().into_inner()
    }

    /// The status when all services are ready and one leads.
    pub async fn settled(&mut self) -> StatusResponse {
        let settled = tokio::time::timeout(PATIENCE, async {
            loop {
                let status = self.status().await;
                let ready = |service: &ServiceStatus| {
                    matches!(service.state(), v1::State::Ready | v1::State::Serving)
                };
                if status.serving && status.services.iter().all(ready) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        settled.await.expect("the group settles")
    }

    pub fn leader(status: &StatusResponse) -> ServiceStatus {
        status.services.iter().find(|service| service.role() == v1::Role::Leader).unwrap().clone()
    }

    pub async fn inject(&mut self, target: &str, fault: Fault) -> Result<v1::InjectResponse, tonic::Status> {
        let request = v1::InjectRequest { target: target.into(), fault: fault.into() };
        Ok(self.client.inject(request).await?.into_inner())
    }

    pub async fn health(&mut self, service: &str) -> String {
        let request = HealthCheckRequest { service: service.into() };
        let status = self.health.check(request).await.unwrap().into_inner().status();
        status.as_str_name().to_owned()
    }

    /// Stops the group over gRPC and sees the end of the stream and of the warden.
    pub async fn down(&mut self) {
        self.client.down(v1::DownRequest {}).await.unwrap();
        self.event("stopped").await;
        assert!(self.events.message().await.unwrap().is_none(), "nothing follows the end");
        tokio::time::timeout(PATIENCE, &mut self.warden).await.unwrap().unwrap().unwrap();
        assert!(!self.handle.wait_serving().await);
    }
}

pub fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

pub fn lives(pid: u32) -> bool {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::test_kill_process(pid).is_ok()
}
