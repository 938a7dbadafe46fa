//! A warden of fakes in this process, and a gRPC client of it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::v1::{
    self, Event, Fault, ServiceStatus, StatusResponse, events_response::Item, ppvmm_client::PpvmmClient,
};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use warden::{Error, Handle, RunDir, ServiceSpec, Warden, WardenSpec, store_group};

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
    /// Ends with none if it was killed.
    warden: std::thread::JoinHandle<Option<Result<(), Error>>>,
    kill: Option<oneshot::Sender<()>>,
}

/// A warden with a runtime of its own: when that one is dropped, nothing of the warden is left but its children, as after
/// a SIGKILL.
fn run_warden(
    spec: WardenSpec,
    begun: oneshot::Sender<Handle>,
    killed: oneshot::Receiver<()>,
) -> Option<Result<(), Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let warden = Warden::new(spec).unwrap();
        begun.send(warden.handle()).unwrap();
        tokio::select! {
            result = warden.run() => Some(result),
            _ = killed => None,
        }
    })
}

/// A group of fakes in a directory that is left to the system's cleaning: the sockets in it outlive the value.
pub fn spec(replicas: u32, env: &[(&str, &str)]) -> WardenSpec {
    spec_in(&tempfile::tempdir().unwrap().keep(), replicas, env)
}

/// As [`spec`], in a directory where a group may run already.
pub fn spec_in(dir: &Path, replicas: u32, env: &[(&str, &str)]) -> WardenSpec {
    let rundir = take(dir);
    let program = std::env::current_exe().unwrap();
    let mut group = store_group(dir, &program, &[], replicas, 0, &dir.join("socket"));
    let service = |role: &str| ServiceSpec {
        program: program.clone(),
        args: ["fake_service", "--exact", "--nocapture", "--test-threads=1"].map(Into::into).to_vec(),
        env: env
            .iter()
            .copied()
            .chain([("FAKE_ROLE", role), ("PPVMM_TEST_RUNDIR", dir.to_str().unwrap())])
            .map(|(k, v)| (k.into(), v.into()))
            .collect(),
    };
    group.gateway = service("gateway");
    group.replicas = (0..replicas).map(|_| service("replica")).collect();
    WardenSpec {
        rundir,
        group,
        profile: "local".into(),
        injection: true,
        grpc_listen: None,
        metrics_listen: None,
    }
}

/// The lock goes with the last copy of its descriptor, and what another test of this process just starts has one until it
/// executes: long, on a loaded machine.
fn take(dir: &Path) -> RunDir {
    let began = std::time::Instant::now();
    loop {
        match RunDir::take(dir) {
            Err(Error::AlreadyRunning { .. }) if began.elapsed() < PATIENCE => {}
            other => return other.unwrap(),
        }
    }
}

/// With members of an engine's own cluster.
pub fn with_members(mut spec: WardenSpec, members: usize) -> WardenSpec {
    let mut member = spec.group.replicas[0].clone();
    for (name, value) in &mut member.env {
        if name == "FAKE_ROLE" {
            *value = "member".into();
        }
    }
    spec.group.members = vec![member; members];
    spec
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
        let mut rig = Self::begin(spec).await;
        assert!(tokio::time::timeout(PATIENCE, rig.handle.wait_serving()).await.unwrap());
        rig
    }

    /// As [`Rig::run`], without waiting for a leader.
    pub async fn begin(spec: WardenSpec) -> Self {
        let rundir = spec.rundir.path().to_owned();
        let (begun, begins) = oneshot::channel();
        let (kill, killed) = oneshot::channel();
        let warden = std::thread::spawn(move || run_warden(spec, begun, killed));
        let handle = begins.await.unwrap();
        let path = rundir.join(api::SOCKET_NAME);
        let connect = tower::service_fn(move |_| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        let channel =
            Endpoint::from_static("http://localhost").connect_with_connector(connect).await.unwrap();
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
            kill: Some(kill),
        }
    }

    /// Kills the warden alone. The services live on.
    pub fn kill_warden(self) -> PathBuf {
        let Self { kill, warden, rundir, .. } = self;
        kill.unwrap().send(()).unwrap();
        assert!(warden.join().unwrap().is_none(), "it was killed while it ran");
        rundir
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

    pub async fn metrics(&mut self) -> String {
        self.client.metrics(v1::MetricsRequest {}).await.unwrap().into_inner().text
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
        let request = v1::InjectRequest { target: target.into(), fault: fault.into(), flip: None };
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
        let end = tokio::time::Instant::now() + PATIENCE;
        while !self.warden.is_finished() {
            assert!(tokio::time::Instant::now() < end, "the warden does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
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

/// A warden that was killed reaped nobody.
pub fn is_zombie(pid: u32) -> bool {
    control::proc::Stat::of(pid).is_none()
}

/// Waits until nobody else is left of this group. Who was started just before its warden died, and is known to nobody,
/// ends by itself.
pub async fn alone(rundir: &Path, known: &[u32]) {
    let mut known = known.to_vec();
    known.sort_unstable();
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let left = processes_of(rundir);
        if left == known {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "{left:?} are left, {known:?} are known");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The live services with this run directory in their environment, by pid.
fn processes_of(rundir: &Path) -> Vec<u32> {
    let wanted = [b"PPVMM_TEST_RUNDIR=", rundir.as_os_str().as_encoded_bytes(), b"\0"].concat();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.retain(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.windows(wanted.len()).any(|part| part == wanted) && !is_zombie(*pid)
    });
    pids.sort_unstable();
    pids
}
