//! Does what the core says: calls and the watch, over channels to the members.
//!
//! Calls go to one member until one gets no answer; then that member's channel is made anew and the next
//! member is used. A connection that a partition killed silently so costs one time limit, not a TCP timeout.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    AlarmAction, AlarmOptions, AlarmType, Client, CompactionOptions, ConnectOptions, MaintenanceClient,
    ResponseHeader, WatchFilterType, WatchOptions, WatchResponseStream,
};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};
use tonic::transport::Endpoint;

use crate::call::{Answer, CallError, CallId, KeyValue, Output, Request};
use crate::channel::Connector;
use crate::convert;
use crate::core::WatchEvent;
use crate::engine::Shared;
use crate::limits::ANSWER_BYTES_MAX;

/// What the driver needs to make clients.
pub(crate) struct Reach {
    pub endpoints: Vec<Endpoint>,
    pub connector: Arc<dyn Connector>,
    pub credentials: Option<(String, String)>,
}

type Cell = Arc<OnceCell<Client>>;
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A call's name, whom it asked through which channel, and its outcome.
struct Ended {
    id: CallId,
    member: usize,
    cell: Cell,
    outcome: Result<Answer, CallError>,
}

/// An open watch: its requests' end must be kept for it to live.
struct Stream {
    _requests: etcd_client::WatchRequestSender,
    responses: WatchResponseStream,
    _client: Client,
}

struct Watch {
    id: u64,
    next: Boxed<Option<(Stream, Vec<KeyValue>)>>,
}

/// The asynchronous half of an engine.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    reach: Arc<Reach>,
    cells: Vec<Cell>,
    current: usize,
    calls: FuturesUnordered<Boxed<Ended>>,
    watch: Option<Watch>,
    origin: Instant,
}

impl Driver {
    pub fn new(shared: Arc<Shared>, reach: Reach) -> Self {
        Self {
            shared,
            cells: reach.endpoints.iter().map(|_| Cell::default()).collect(),
            reach: Arc::new(reach),
            current: 0,
            calls: FuturesUnordered::new(),
            watch: None,
            origin: Instant::now(),
        }
    }

    /// Runs until the engine is dropped.
    pub async fn run(mut self) {
        while !self.shared.is_stopped() {
            let deadline = self.do_outputs();
            let shared = self.shared.clone();
            tokio::select! {
                biased;
                () = shared.stirred() => {}
                Some(ended) = self.calls.next(), if !self.calls.is_empty() => self.hear(ended),
                (id, event) = watch_event(&mut self.watch), if self.watch.is_some() => {
                    let now = self.now();
                    self.shared.with(|core| core.hear_watch(now, id, event));
                }
                () = tokio::time::sleep_until(self.origin + deadline) => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Begins all that the core wants; gives when to ask again at the latest.
    fn do_outputs(&mut self) -> Duration {
        const LATEST: Duration = Duration::from_secs(60);
        let now = self.now();
        let (outputs, deadline) = self.shared.with(|core| {
            let outputs: Vec<_> = std::iter::from_fn(|| core.poll(now)).collect();
            (outputs, core.deadline())
        });
        for output in outputs {
            self.do_output(output);
        }
        deadline.unwrap_or(now + LATEST).min(now + LATEST)
    }

    fn do_output(&mut self, output: Output) {
        match output {
            Output::Call { id, request, timeout } => self.call(id, request, timeout),
            Output::Unwatch => self.watch = None,
            Output::Watch { id, key, end, revision, timeout } => {
                let options = WatchOptions::new()
                    .with_range(end)
                    .with_start_revision(revision)
                    .with_filters([WatchFilterType::NoDelete])
                    .with_fragment();
                let client = client(self.reach.clone(), self.current, self.cells[self.current].clone());
                self.watch = Some(Watch { id, next: Box::pin(open_watch(client, key, options, timeout)) });
            }
        }
    }

    fn call(&mut self, id: CallId, request: Request, limit: Duration) {
        let member = match request {
            Request::Status { endpoint } | Request::Defragment { endpoint } => endpoint,
            _ => self.current,
        };
        let cell = self.cells[member].clone();
        let client = client(self.reach.clone(), member, cell.clone());
        self.calls.push(Box::pin(async move {
            let late = |_| Err(CallError::Uncertain("timeout".to_owned()));
            let outcome = timeout(limit, perform(client, request)).await.unwrap_or_else(late);
            Ended { id, member, cell, outcome }
        }));
    }

    fn hear(&mut self, ended: Ended) {
        let Ended { id, member, cell, outcome } = ended;
        if let Err(error @ CallError::Uncertain(_)) = &outcome {
            tracing::debug!(?id, member, %error, "etcd gives no answer");
            // Unless another call has replaced the channel meanwhile.
            if Arc::ptr_eq(&cell, &self.cells[member]) {
                self.cells[member] = Cell::default();
                if self.current == member {
                    self.current = (member + 1) % self.cells.len();
                }
            }
        }
        let now = self.now();
        self.shared.with(|core| core.hear(now, id, outcome));
    }
}

async fn client(reach: Arc<Reach>, member: usize, cell: Cell) -> Result<Client, CallError> {
    let made = cell.get_or_try_init(async || {
        let channel = reach.connector.channel(&reach.endpoints[member]);
        let channel = channel.map_err(|error| CallError::Uncertain(error.to_string()))?;
        let mut options = ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
        if let Some((user, password)) = &reach.credentials {
            options = options.with_user(user, password);
        }
        let channel = etcd_client::Channel::Tonic(channel);
        Client::from_channel(channel, Some(options)).await.map_err(convert::error)
    });
    made.await.cloned()
}

async fn perform(
    client: impl Future<Output = Result<Client, CallError>>,
    request: Request,
) -> Result<Answer, CallError> {
    let client = client.await?;
    let mut kv = client.kv_client().max_decoding_message_size(ANSWER_BYTES_MAX);
    let mut maintenance = client.maintenance_client();
    match request {
        Request::Txn { compare, then, otherwise } => {
            let response = kv.txn(convert::txn(compare, then, otherwise)).await;
            convert::txn_answer(response.map_err(convert::error)?)
        }
        Request::Revision { key } => {
            let found = kv.get(key, None).await.map_err(convert::error)?;
            Ok(Answer::Revision(found.header().map_or(0, ResponseHeader::revision)))
        }
        Request::Compact { revision, physical } => {
            let options = physical.then(|| CompactionOptions::new().with_physical());
            kv.compact(revision, options).await.map_err(convert::error).map(|_| Answer::Done)
        }
        Request::Status { .. } => {
            let status = maintenance.status().await.map_err(convert::error)?;
            Ok(Answer::Status(convert::status(&status)))
        }
        Request::Defragment { .. } => {
            maintenance.defragment().await.map_err(convert::error).map(|_| Answer::Done)
        }
        Request::Disarm => disarm(&mut maintenance).await.map_err(convert::error),
    }
}

/// An alarm is of a member, and is ended for that member.
async fn disarm(maintenance: &mut MaintenanceClient) -> Result<Answer, etcd_client::Error> {
    let raised = maintenance.alarm(AlarmAction::Get, AlarmType::Nospace, None).await?;
    for alarm in raised.0.alarms.iter().filter(|alarm| alarm.alarm == AlarmType::Nospace as i32) {
        let mut of_member = AlarmOptions::new();
        of_member.with_member(alarm.member_id);
        maintenance.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(of_member)).await?;
    }
    Ok(Answer::Done)
}

async fn open_watch(
    client: impl Future<Output = Result<Client, CallError>>,
    key: Vec<u8>,
    options: WatchOptions,
    limit: Duration,
) -> Option<(Stream, Vec<KeyValue>)> {
    let open = async {
        let client = client.await.ok()?;
        let mut watch = client.watch_client().max_decoding_message_size(ANSWER_BYTES_MAX);
        let (requests, responses) = watch.watch(key, Some(options)).await.ok()?.split();
        Some((Stream { _requests: requests, responses, _client: client }, Vec::new()))
    };
    timeout(limit, open).await.ok().flatten()
}

async fn next_message(mut stream: Stream) -> Option<(Stream, Vec<KeyValue>)> {
    let response = stream.responses.message().await.ok().flatten()?;
    let puts = convert::watched(response.0)?;
    Some((stream, puts))
}

/// The watch's next report. May be dropped and called again: what is under way stays in `watch`.
async fn watch_event(watch: &mut Option<Watch>) -> (u64, WatchEvent) {
    let Some(open) = watch else { return std::future::pending().await };
    let id = open.id;
    if let Some((stream, puts)) = (&mut open.next).await {
        open.next = Box::pin(next_message(stream));
        (id, WatchEvent::Put(puts))
    } else {
        *watch = None;
        (id, WatchEvent::Ended)
    }
}
