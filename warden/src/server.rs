//! gRPC: `ppvmm.v1`, `grpc.health.v1` and reflection.

use std::net::SocketAddr;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::v1::{self, ppvmm_server};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::wrappers::{BroadcastStream, TcpListenerStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::engine::EngineView;
use crate::error::Error;
use crate::flip::{FlipSpec, Flipped};
use crate::ids::{ServiceId, Target};
use crate::journal::Journal;
use crate::limits::{EVENTS_KEPT_MAX, FLIP_WAIT_MS, GRPC_DRAIN_MS, GRPC_REQUEST_BYTES_MAX};
use crate::planner::Fault;
use crate::spec::bind_listener;
use crate::status::StatusSource;

/// What the gRPC side asks of the warden's loop.
#[derive(Debug)]
pub enum Ask {
    /// Harm a service.
    Inject {
        /// What is meant.
        target: Target,
        /// What to do to it.
        fault: Fault,
        /// Whom it hit; none if no live service was meant.
        answer: oneshot::Sender<Option<(ServiceId, u32)>>,
    },
    /// Flip a bit in a replica's memory.
    Flip {
        /// What is meant.
        target: Target,
        /// Which bit.
        spec: FlipSpec,
        /// Whom it hit.
        answer: oneshot::Sender<Flipped>,
    },
    /// Stop everything.
    Down,
}

/// The implementation of `ppvmm.v1`.
#[derive(Clone)]
pub struct Api {
    /// Where the status comes from.
    pub status: Arc<StatusSource>,
    /// Where events come from.
    pub journal: Arc<Journal>,
    /// To the warden's loop.
    pub asks: mpsc::Sender<Ask>,
    /// Whether callers may change anything. A TCP port cannot tell who calls.
    pub may_change: bool,
}

type EventStream = Pin<Box<dyn Stream<Item = Result<v1::EventsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ppvmm_server::Ppvmm for Api {
    type EventsStream = EventStream;

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(self.status.now()))
    }

    async fn events(&self, request: Request<v1::EventsRequest>) -> Result<Response<EventStream>, Status> {
        let v1::EventsRequest { replay_last, follow } = request.into_inner();
        let replay = usize::try_from(replay_last).unwrap_or(usize::MAX).min(EVENTS_KEPT_MAX);
        let (replayed, readers) = self.journal.subscribe(replay);
        let replayed = tokio_stream::iter(replayed.into_iter().map(|event| Ok(event_item(event))));
        Ok(Response::new(match readers {
            Some(readers) if follow => Box::pin(replayed.chain(following(readers))),
            _ => Box::pin(replayed),
        }))
    }

    async fn metrics(&self, _: Request<v1::MetricsRequest>) -> Result<Response<v1::MetricsResponse>, Status> {
        let text = self.metrics_text().map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(v1::MetricsResponse { text }))
    }

    async fn inject(
        &self,
        request: Request<v1::InjectRequest>,
    ) -> Result<Response<v1::InjectResponse>, Status> {
        self.check_may_change()?;
        if !self.status.injection_enabled() {
            let why = "fault injection is off; start the warden with --enable-injection";
            return Err(Status::failed_precondition(why));
        }
        let request = request.into_inner();
        let target: Target =
            request.target.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
        let fault = match request.fault() {
            v1::Fault::Flip => return self.flip(target, request.flip).await,
            v1::Fault::Kill => Fault::Kill,
            v1::Fault::Stop => Fault::Stop,
            v1::Fault::Cont => Fault::Cont,
            v1::Fault::Unspecified => return Err(Status::invalid_argument("no fault that is known")),
        };
        let (answer, answered) = oneshot::channel();
        self.ask(Ask::Inject { target, fault, answer })?;
        let hit = answered.await.map_err(|_| Status::unavailable("the warden stops"))?;
        let (service, pid) = hit.ok_or_else(|| Status::not_found("no such service lives"))?;
        Ok(Response::new(v1::InjectResponse { service: service.to_string(), pid }))
    }

    async fn down(&self, _: Request<v1::DownRequest>) -> Result<Response<v1::DownResponse>, Status> {
        self.check_may_change()?;
        self.ask(Ask::Down)?;
        Ok(Response::new(v1::DownResponse {}))
    }
}

impl Api {
    /// The metrics at this moment, see [`crate::metrics`].
    ///
    /// # Errors
    /// None that is known.
    pub fn metrics_text(&self) -> Result<String, std::fmt::Error> {
        self.journal.metrics().text(&self.status.now(), &self.status.rows())
    }

    async fn flip(
        &self,
        target: Target,
        flip: Option<v1::Flip>,
    ) -> Result<Response<v1::InjectResponse>, Status> {
        let flip = flip.ok_or_else(|| Status::invalid_argument("which bit is to flip?"))?;
        let spec = FlipSpec { path: flip.path, part: flip.part, bit: flip.bit };
        let (answer, answered) = oneshot::channel();
        self.ask(Ask::Flip { target, spec, answer })?;
        let answered = tokio::time::timeout(Duration::from_millis(FLIP_WAIT_MS), answered).await;
        let answered = answered.map_err(|_| Status::unavailable("the replica does not answer"))?;
        let (service, pid) =
            answered.map_err(|_| Status::unavailable("the warden stops"))?.map_err(Status::not_found)?;
        Ok(Response::new(v1::InjectResponse { service: service.to_string(), pid }))
    }

    fn check_may_change(&self) -> Result<(), Status> {
        match self.may_change {
            true => Ok(()),
            false => Err(Status::permission_denied("only over the warden's Unix socket")),
        }
    }

    fn ask(&self, ask: Ask) -> Result<(), Status> {
        self.asks.try_send(ask).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Status::resource_exhausted("too many requests wait"),
            mpsc::error::TrySendError::Closed(_) => Status::unavailable("the warden stops"),
        })
    }
}

fn event_item(event: v1::Event) -> v1::EventsResponse {
    v1::EventsResponse { item: Some(v1::events_response::Item::Event(event)) }
}

fn following(
    readers: broadcast::Receiver<v1::Event>,
) -> impl Stream<Item = Result<v1::EventsResponse, Status>> {
    BroadcastStream::new(readers).map(|event| {
        Ok(match event {
            Ok(event) => event_item(event),
            Err(BroadcastStreamRecvError::Lagged(count)) => {
                v1::EventsResponse { item: Some(v1::events_response::Item::Lagged(count)) }
            }
        })
    })
}

/// The bound, not yet served sockets.
pub struct Sockets {
    unix: UnixListener,
    tcp: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

impl Sockets {
    /// Binds the Unix socket for its owner alone, and loopback addresses for gRPC and metrics if they are given.
    ///
    /// # Errors
    /// [`Error::NotLoopback`], [`Error::Path`], [`Error::System`].
    pub fn bind(path: &Path, tcp: Option<SocketAddr>, metrics: Option<SocketAddr>) -> Result<Self, Error> {
        let unix = StdUnixListener::from(bind_listener(path)?);
        unix.set_nonblocking(true).map_err(Error::system("ioctl"))?;
        let unix = UnixListener::from_std(unix).map_err(Error::system("epoll_ctl"))?;
        let [tcp, metrics] = [tcp, metrics].map(|address| address.map(bind_loopback).transpose());
        Ok(Self { unix, tcp: tcp?, metrics: metrics? })
    }
}

fn bind_loopback(address: SocketAddr) -> Result<TcpListener, Error> {
    if !address.ip().is_loopback() {
        return Err(Error::NotLoopback(address));
    }
    let listener = std::net::TcpListener::bind(address).map_err(Error::system("bind"))?;
    listener.set_nonblocking(true).map_err(Error::system("ioctl"))?;
    TcpListener::from_std(listener).map_err(Error::system("epoll_ctl"))
}

/// Serves until `stop` is true, then lets open calls end for a bounded time.
///
/// # Errors
/// [`Error::Reflection`].
pub async fn serve(
    sockets: Sockets,
    api: Api,
    watched: Watched,
    stop: watch::Receiver<bool>,
) -> Result<(), Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    watched.report(&health).await;
    tokio::spawn(follow_health(health, watched));
    let build = |api: Api| -> Result<_, Error> {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(api::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let ours = ppvmm_server::PpvmmServer::new(api).max_decoding_message_size(GRPC_REQUEST_BYTES_MAX);
        Ok(tonic::transport::Server::builder()
            .add_service(ours)
            .add_service(health_service.clone())
            .add_service(reflection))
    };
    let scraped = sockets.metrics.map(|listener| tokio::spawn(crate::http::serve(listener, api.clone())));
    let local = build(api.clone())?;
    let unix =
        local.serve_with_incoming_shutdown(UnixListenerStream::new(sockets.unix), stopped(stop.clone()));
    let tcp = match sockets.tcp {
        None => None,
        Some(tcp) => {
            let incoming = TcpListenerStream::new(tcp);
            let server = build(Api { may_change: false, ..api })?;
            Some(server.serve_with_incoming_shutdown(incoming, stopped(stop.clone())))
        }
    };
    let both = async {
        let tcp = async { if let Some(tcp) = tcp { tcp.await } else { Ok(()) } };
        for ended in <[_; 2]>::from(tokio::join!(unix, tcp)) {
            if let Err(error) = ended {
                tracing::error!(%error, "gRPC");
            }
        }
    };
    let drained = async {
        stopped(stop).await;
        tokio::time::sleep(Duration::from_millis(GRPC_DRAIN_MS)).await;
    };
    tokio::select! {
        () = both => {}
        () = drained => {}
    }
    if let Some(scraped) = scraped {
        scraped.abort();
    }
    Ok(())
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the warden's loop is gone, which is a stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// What `grpc.health.v1` tells of.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Whether a leader serves.
    pub serving: watch::Receiver<bool>,
    /// The engine that keeps its log.
    pub engine: watch::Receiver<EngineView>,
}

impl Watched {
    /// False once the warden's loop is gone.
    async fn changed(&mut self) -> bool {
        let changed = tokio::select! {
            changed = self.serving.changed() => changed,
            changed = self.engine.changed() => changed,
        };
        changed.is_ok()
    }

    async fn report(&self, health: &HealthReporter) {
        let (serving, engine) = (*self.serving.borrow(), self.engine.borrow().is_healthy());
        report(health, serving, engine).await;
    }
}

async fn follow_health(health: HealthReporter, mut watched: Watched) {
    while watched.changed().await {
        watched.report(&health).await;
    }
    report(&health, false, false).await;
    health.set_service_status("warden", ServingStatus::NotServing).await;
}

/// An engine that is not well does not end the service of the store as a whole: what needs no log goes on.
async fn report(health: &HealthReporter, serving: bool, engine: bool) {
    let status = |well: bool| if well { ServingStatus::Serving } else { ServingStatus::NotServing };
    health.set_service_status("", status(serving)).await;
    health.set_service_status("xs_uk", status(serving)).await;
    health.set_service_status("xs_uk.engine", status(engine)).await;
    health.set_service_status("warden", ServingStatus::Serving).await;
}
