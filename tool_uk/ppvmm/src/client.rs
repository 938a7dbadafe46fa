//! The warden over its Unix socket.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::v1::{self, ppvmm_client::PpvmmClient};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::exit::Failure;
use crate::limits::{ANSWER_MS, CONNECT_MS};

/// A connection to a running warden.
pub struct Warden {
    client: PpvmmClient<Channel>,
    health: HealthClient<Channel>,
}

impl Warden {
    /// Connects.
    ///
    /// # Errors
    /// [`Failure::NotRunning`].
    pub async fn connect(rundir: &Path) -> anyhow::Result<Self> {
        let path = rundir.join(api::SOCKET_NAME);
        let channel = channel(path).await;
        let channel = channel.map_err(|why| Failure::NotRunning { rundir: rundir.to_owned(), why })?;
        Ok(Self { client: PpvmmClient::new(channel.clone()), health: HealthClient::new(channel) })
    }

    /// The services as they are now.
    pub async fn status(&mut self) -> anyhow::Result<v1::StatusResponse> {
        let answer = self.client.status(bounded(v1::StatusRequest {})).await;
        Ok(answer.map_err(|status| failure(&status))?.into_inner())
    }

    /// The metrics, as OpenMetrics text.
    pub async fn metrics(&mut self) -> anyhow::Result<String> {
        let answer = self.client.metrics(bounded(v1::MetricsRequest {})).await;
        Ok(answer.map_err(|status| failure(&status))?.into_inner().text)
    }

    /// Whether a service serves, as its gRPC name.
    pub async fn health(&mut self, service: &str) -> anyhow::Result<String> {
        health(&mut self.health, service).await
    }

    /// The stream of events.
    pub async fn events(
        &mut self,
        replay_last: u32,
        follow: bool,
    ) -> anyhow::Result<tonic::Streaming<v1::EventsResponse>> {
        let answer = self.client.events(v1::EventsRequest { replay_last, follow }).await;
        Ok(answer.map_err(|status| failure(&status))?.into_inner())
    }

    /// Harms a service. None if it was the warden itself, which cannot answer then.
    pub async fn inject(
        &mut self,
        target: &str,
        fault: v1::Fault,
        flip: Option<v1::Flip>,
    ) -> anyhow::Result<Option<v1::InjectResponse>> {
        let request = v1::InjectRequest { target: target.to_owned(), fault: fault.into(), flip };
        match self.client.inject(bounded(request)).await {
            Ok(answer) => Ok(Some(answer.into_inner())),
            Err(status) if target == "warden" && !is_refusal(status.code()) => Ok(None),
            Err(status) => Err(failure(&status)),
        }
    }

    /// Begins to stop everything.
    pub async fn down(&mut self) -> anyhow::Result<()> {
        self.client.down(bounded(v1::DownRequest {})).await.map_err(|status| failure(&status))?;
        Ok(())
    }
}

/// Whether a service serves, as its gRPC name.
pub async fn health(client: &mut HealthClient<Channel>, service: &str) -> anyhow::Result<String> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = client.check(bounded(request)).await.map_err(|status| failure(&status))?;
    Ok(answer.into_inner().status().as_str_name().to_owned())
}

/// A connection to a socket in the file system; if there is none, why.
pub async fn channel(path: PathBuf) -> Result<Channel, String> {
    check_owner(&path).map_err(|error| error.to_string())?;
    // The channel's own error would hide what the system says.
    UnixStream::connect(&path).await.map_err(|error| error.to_string())?;
    Endpoint::from_static("http://localhost")
        .connect_timeout(Duration::from_millis(CONNECT_MS))
        .connect_with_connector(connector(path))
        .await
        .map_err(|error| error.to_string())
}

/// A socket of another user, other than root, is a trap.
fn check_owner(path: &Path) -> std::io::Result<()> {
    let owner = std::fs::symlink_metadata(path)?.uid();
    if owner == 0 || owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(std::io::Error::new(
        std::io::ErrorKind::PermissionDenied,
        format!("its socket belongs to user {owner}"),
    ))
}

fn connector(
    path: PathBuf,
) -> impl tower::Service<
    tonic::transport::Uri,
    Response = TokioIo<UnixStream>,
    Error = std::io::Error,
    Future = impl Future<Output = std::io::Result<TokioIo<UnixStream>>> + Send,
> + Send
+ 'static {
    tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok(TokioIo::new(UnixStream::connect(path).await?)) }
    })
}

/// A request that has to be answered in time.
pub fn bounded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_millis(ANSWER_MS));
    request
}

/// Whether the request came to nothing, where else it may have been done although nobody answered.
pub fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::NotFound
            | Code::Unimplemented
            | Code::ResourceExhausted
    )
}

/// What a refusal means.
pub fn failure(status: &Status) -> anyhow::Error {
    match status.code() {
        Code::InvalidArgument => Failure::Usage(status.message().to_owned()).into(),
        _ => anyhow::anyhow!("{} ({:?})", status.message(), status.code()),
    }
}
