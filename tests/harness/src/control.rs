//! The warden, seen from the harness: who runs, and what happened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::v1::{self, ppvmm_client::PpvmmClient};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint};

use crate::timing::{Heard, Injected};

/// How long one call may take.
const CALL_WAIT: Duration = Duration::from_millis(500);
/// Pause before the next attempt at a warden that is gone.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// Events by warden and number, as far as they were heard.
type Events = BTreeMap<(u32, u64), v1::Event>;

/// A connection that outlives wardens.
pub struct Control {
    runtime: Runtime,
    socket: PathBuf,
    client: Option<PpvmmClient<Channel>>,
    heard: Arc<Mutex<Events>>,
}

impl Control {
    /// Follows the events of whatever warden runs there.
    pub fn start(rundir: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let socket = rundir.join(api::SOCKET_NAME);
        let heard: Arc<Mutex<Events>> = Arc::default();
        runtime.spawn(follow(socket.clone(), Arc::clone(&heard)));
        Ok(Self { runtime, socket, client: None, heard })
    }

    /// The services, if a warden answers.
    pub fn status(&mut self) -> Option<v1::StatusResponse> {
        let (socket, client) = (self.socket.clone(), self.client.take());
        let answered = self.runtime.block_on(async move {
            tokio::time::timeout(CALL_WAIT, async move {
                let mut client = match client {
                    Some(client) => client,
                    None => connect(socket).await.ok()?,
                };
                let status = client.status(v1::StatusRequest {}).await.ok()?.into_inner();
                Some((client, status))
            })
            .await
            .ok()
            .flatten()
        });
        let (client, status) = answered?;
        self.client = Some(client);
        Some(status)
    }

    /// Flips a bit; gives the service that was hit. None if the replica or the part is not there.
    pub fn flip(&mut self, target: &str, flip: v1::Flip) -> Option<String> {
        let (socket, target) = (self.socket.clone(), target.to_owned());
        self.runtime.block_on(async move {
            let request = v1::InjectRequest { target, fault: v1::Fault::Flip.into(), flip: Some(flip) };
            let asked =
                async move { connect(socket).await?.inject(request).await.map_err(anyhow::Error::from) };
            let answer = tokio::time::timeout(CALL_WAIT, asked).await.ok()?.ok()?;
            Some(answer.into_inner().service)
        })
    }

    /// Whether a fault was noticed so far.
    pub fn has_noticed(&self, injected: &Injected) -> bool {
        let is_sign =
            |((warden, _), event): (&(u32, u64), &v1::Event)| injected.is_noticed_by(*warden, event);
        self.heard.lock().is_ok_and(|heard| heard.iter().any(is_sign))
    }

    /// What happened so far.
    pub fn events(&self) -> Vec<Heard> {
        let tell =
            |((warden, _), event): (&(u32, u64), &v1::Event)| Heard { warden: *warden, event: event.clone() };
        self.heard.lock().map(|heard| heard.iter().map(tell).collect()).unwrap_or_default()
    }
}

async fn connect(socket: PathBuf) -> anyhow::Result<PpvmmClient<Channel>> {
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let socket = socket.clone();
        async move { std::io::Result::Ok(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await?;
    Ok(PpvmmClient::new(channel))
}

async fn follow(socket: PathBuf, heard: Arc<Mutex<Events>>) {
    loop {
        // A warden that dies ends the stream; its successor has another process id.
        let _ = follow_one(socket.clone(), &heard).await;
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn follow_one(socket: PathBuf, heard: &Mutex<Events>) -> anyhow::Result<()> {
    let mut client = connect(socket).await?;
    let warden = client.status(v1::StatusRequest {}).await?.into_inner().warden_pid;
    let request = v1::EventsRequest { replay_last: u32::MAX, follow: true };
    let mut stream = client.events(request).await?.into_inner();
    while let Some(item) = stream.next().await {
        if let Some(v1::events_response::Item::Event(event)) = item?.item
            && let Ok(mut heard) = heard.lock()
        {
            heard.insert((warden, event.id), event);
        }
    }
    Ok(())
}
