//! The services.

use std::pin::Pin;
use std::sync::Arc;

use api::v1::{self, net_server};
use prost::Message;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::{Ask, Clerk, Metrics, Source, View};
use crate::desk::{Journal, Lookup};
use crate::error::Error;
use crate::events::Event;
use crate::limits::{
    JOURNAL_EVENTS, RPC_EVENTS_QUEUED, RPC_FOLLOWERS_MAX, RPC_INJECT_WAIT, RPC_REQUEST_BYTES_MAX,
};
use crate::shadow::uplink::signal;

type EventStream = Pin<Box<dyn Stream<Item = Result<v1::NetEventsResponse, Status>> + Send>>;

/// The implementation of `ppvmm.v1.Net`.
struct Net {
    source: Arc<Source>,
    metrics: Arc<Metrics>,
    clerk: Clerk,
    followers: Arc<Semaphore>,
}

/// Serves until the process ends.
pub async fn serve(
    listener: std::os::unix::net::UnixListener,
    source: Source,
    clerk: Clerk,
) -> Result<(), Error> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let (health, health_service) = tonic_health::server::health_reporter();
    let (source, metrics) = (Arc::new(source), Arc::<Metrics>::default());
    tokio::spawn(follow_health(health, clerk.view.clone()));
    tokio::spawn(count(source.journal.clone(), clerk.told.clone(), Arc::clone(&metrics)));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(api::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| Error::Rpc(error.to_string()))?;
    let net = Net { source, metrics, clerk, followers: Arc::new(Semaphore::new(RPC_FOLLOWERS_MAX)) };
    let net = net_server::NetServer::new(net).max_decoding_message_size(RPC_REQUEST_BYTES_MAX);
    tonic::transport::Server::builder()
        .add_service(net)
        .add_service(health_service)
        .add_service(reflection)
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
        .map_err(|error| Error::Rpc(error.to_string()))
}

#[tonic::async_trait]
impl net_server::Net for Net {
    type EventsStream = EventStream;

    async fn status(
        &self,
        _: Request<v1::NetStatusRequest>,
    ) -> Result<Response<v1::NetStatusResponse>, Status> {
        Ok(Response::new(self.now()))
    }

    async fn events(&self, request: Request<v1::NetEventsRequest>) -> Result<Response<EventStream>, Status> {
        let v1::NetEventsRequest { replay_last, follow } = request.into_inner();
        let follower = Arc::clone(&self.followers).try_acquire_owned();
        let follower = follower.map_err(|_| Status::resource_exhausted("too many read events"))?;
        let journal = self.source.journal.clone();
        let replay = u64::from(replay_last).min(JOURNAL_EVENTS as u64);
        let first = (journal.last() + 1).saturating_sub(replay).max(journal.oldest());
        let told = follow.then(|| self.clerk.told.clone());
        let (sender, events) = mpsc::channel(RPC_EVENTS_QUEUED);
        tokio::spawn(async move {
            read_on(&journal, first, told, sender).await;
            drop(follower);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }

    async fn metrics(
        &self,
        _: Request<v1::NetMetricsRequest>,
    ) -> Result<Response<v1::NetMetricsResponse>, Status> {
        let text = self.metrics.text(&self.now()).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(v1::NetMetricsResponse { text }))
    }

    async fn inject(
        &self,
        request: Request<v1::NetInjectRequest>,
    ) -> Result<Response<v1::NetInjectResponse>, Status> {
        if !self.source.injection {
            let why = "fault injection is off; start net_uk with --enable-injection";
            return Err(Status::failed_precondition(why));
        }
        let v1::NetInjectRequest { target, fault } = request.into_inner();
        if !crate::keeper::is_fault(&target, &fault) {
            return Err(Status::invalid_argument(format!("no such fault for {target}: {fault}")));
        }
        let (answer, answered) = oneshot::channel();
        let asked = self.clerk.asks.try_send(Ask { target, fault, answer });
        asked.map_err(|_| Status::resource_exhausted("too many requests wait"))?;
        signal(&self.clerk.wake);
        let hit = tokio::time::timeout(RPC_INJECT_WAIT, answered).await;
        let hit = hit.ok().and_then(Result::ok).ok_or_else(|| Status::unavailable("the keeper is busy"))?;
        let pid = hit.ok_or_else(|| Status::not_found("no such process lives"))?;
        Ok(Response::new(v1::NetInjectResponse { pid }))
    }
}

impl Net {
    fn now(&self) -> v1::NetStatusResponse {
        let view = self.clerk.view.borrow().clone();
        self.source.now(&view)
    }
}

/// Sends events from a number on; those that happen later too, if `told` says when. A reader that is slow is told how many it
/// missed: nothing is kept for it but the journal.
async fn read_on(
    journal: &Journal,
    first: u64,
    mut told: Option<watch::Receiver<u64>>,
    sender: mpsc::Sender<Result<v1::NetEventsResponse, Status>>,
) {
    let mut number = first;
    loop {
        let (item, next) = match journal.read(number) {
            Lookup::Found(bytes) => match Event::decode(&bytes[..]) {
                Ok(event) => (v1::net_events_response::Item::Event(wire(event)), number + 1),
                Err(_) => (v1::net_events_response::Item::Lagged(1), number + 1),
            },
            Lookup::Gone => {
                let next = journal.oldest().max(number + 1);
                (v1::net_events_response::Item::Lagged(next - number), next)
            }
            Lookup::NotYet => {
                let Some(told) = &mut told else { return };
                tokio::select! {
                    changed = told.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
                continue;
            }
        };
        if sender.send(Ok(v1::NetEventsResponse { item: Some(item) })).await.is_err() {
            return;
        }
        number = next;
    }
}

fn wire(event: Event) -> v1::NetEvent {
    v1::NetEvent {
        number: event.number,
        at_us: event.at_us,
        clock_ns: event.at_monotonic_ns,
        part: event.part,
        kind: event.kind,
        detail: event.detail,
        pid: event.pid,
    }
}

/// Counts all events that are kept and all that come.
async fn count(journal: Journal, mut told: watch::Receiver<u64>, metrics: Arc<Metrics>) {
    let mut number = journal.oldest();
    loop {
        match journal.read(number) {
            Lookup::Found(bytes) => {
                if let Ok(event) = Event::decode(&bytes[..]) {
                    metrics.observe(&event);
                }
                number += 1;
            }
            Lookup::Gone => number = journal.oldest().max(number + 1),
            Lookup::NotYet => {
                if told.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn follow_health(health: HealthReporter, mut view: watch::Receiver<View>) {
    loop {
        let seen = view.borrow_and_update().clone();
        let status = |well: bool| if well { ServingStatus::Serving } else { ServingStatus::NotServing };
        health.set_service_status("", status(seen.serving)).await;
        health.set_service_status("net_uk", status(seen.serving)).await;
        for process in &seen.processes {
            if let Some(number) = process.name.strip_prefix("driver.") {
                let works = process.state == net_watch::ladder::State::Running;
                health.set_service_status(format!("net_uk.nic.{number}"), status(works)).await;
            }
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}
