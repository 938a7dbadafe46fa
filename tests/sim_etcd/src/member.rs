//! One member's gRPC services.

use std::time::Duration;

use etcd_client::proto::{
    PbAlarmMember, PbAlarmRequest, PbAlarmResponse, PbCompactionRequest, PbCompactionResponse,
    PbDefragmentRequest, PbDefragmentResponse, PbDeleteRequest, PbDeleteResponse, PbDowngradeRequest,
    PbDowngradeResponse, PbHashKvRequest, PbHashKvResponse, PbHashRequest, PbHashResponse, PbKvServer,
    PbKvService, PbMaintenanceServer, PbMaintenanceService, PbMoveLeaderRequest, PbMoveLeaderResponse,
    PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse, PbRangeStreamResponse, PbResponseHeader,
    PbSnapshotRequest, PbSnapshotResponse, PbStatusRequest, PbStatusResponse, PbTxnRequest, PbTxnResponse,
    PbWatchRequest, PbWatchRequestUnion, PbWatchResponse, PbWatchServer, PbWatchService,
};
use etcd_client::{AlarmAction, AlarmType};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Empty, Stream, StreamExt};
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use crate::cluster::{Cluster, Proposed, Ticket};
use crate::error::EtcdError;
use crate::limits::{REQUEST_BYTES_MAX, WATCH_RESPONSES_MAX};
use crate::state::{Answer, Op};
use crate::watch::Wanted;

/// Says which cluster answers, in every header.
const CLUSTER_ID: u64 = 0x7070_766d_6d00_0001;
/// Above the largest request that etcd takes, so that it is etcd's error that a client sees.
const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + 512 * 1024;

type Reply<T> = Result<Response<T>, Status>;

/// A member of a [`Cluster`], to be served on some transport.
#[derive(Clone)]
pub struct Member {
    cluster: Cluster,
    id: usize,
}

impl Member {
    /// The member with this number, from 0.
    pub fn new(cluster: &Cluster, id: usize) -> Self {
        Self { cluster: cluster.clone(), id }
    }

    /// Serves connections until `incoming` ends.
    ///
    /// # Errors
    /// What the transport reports.
    pub async fn serve<I, C, E>(self, incoming: I) -> Result<(), tonic::transport::Error>
    where
        I: Stream<Item = Result<C, E>>,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        tonic::transport::Server::builder()
            .add_service(PbKvServer::new(self.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX))
            .add_service(PbWatchServer::new(self.clone()))
            .add_service(PbMaintenanceServer::new(self))
            .serve_with_incoming(incoming)
            .await
    }

    /// The id that headers and status show.
    fn member_id(&self, member: usize) -> u64 {
        0x1000 + member as u64
    }

    fn fill(&self, header: Option<PbResponseHeader>) -> PbResponseHeader {
        let inner = self.cluster.lock();
        PbResponseHeader {
            cluster_id: CLUSTER_ID,
            member_id: self.member_id(self.id),
            raft_term: inner.term,
            revision: header
                .map_or_else(|| inner.members[self.id].state.revision(), |header| header.revision),
        }
    }

    async fn submit(&self, op: Op) -> Result<Answer, EtcdError> {
        let half = Duration::from_micros(self.cluster.lock().options.commit_us / 2);
        pause(half).await;
        let proposed = self.cluster.lock().propose(self.id, op);
        let answer = match proposed {
            Proposed::Answered(answer) => answer,
            Proposed::Stranded(ticket) => self.wait(ticket).await,
        };
        pause(half).await;
        answer
    }

    async fn wait(&self, ticket: Ticket) -> Result<Answer, EtcdError> {
        let bound = Duration::from_millis(self.cluster.lock().options.request_timeout_ms);
        let deadline = Instant::now() + bound;
        loop {
            let settled = self.cluster.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if let Some(answer) = self.cluster.lock().take_settled(ticket) {
                return answer;
            }
            if tokio::time::timeout_at(deadline, settled).await.is_err() {
                return Err(EtcdError::Timeout);
            }
        }
    }
}

async fn pause(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

/// The answer to a request is of its kind.
macro_rules! answered {
    ($self:ident, $op:ident, $request:ident) => {{
        let Answer::$op(mut response) = $self.submit(Op::$op($request.into_inner())).await? else {
            unreachable!("the state answers in kind")
        };
        response.header = Some($self.fill(response.header.take()));
        Ok(Response::new(response))
    }};
}

#[tonic::async_trait]
impl PbKvService for Member {
    type RangeStreamStream = Empty<Result<PbRangeStreamResponse, Status>>;

    async fn range(&self, request: Request<PbRangeRequest>) -> Reply<PbRangeResponse> {
        if request.get_ref().serializable {
            let mut response = self.cluster.lock().members[self.id].state.read(request.get_ref())?;
            response.header = Some(self.fill(response.header.take()));
            return Ok(Response::new(response));
        }
        answered!(self, Range, request)
    }

    async fn range_stream(&self, _: Request<PbRangeRequest>) -> Reply<Self::RangeStreamStream> {
        Err(EtcdError::Unsupported("range streams").into())
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Reply<PbPutResponse> {
        answered!(self, Put, request)
    }

    async fn delete_range(&self, request: Request<PbDeleteRequest>) -> Reply<PbDeleteResponse> {
        answered!(self, Delete, request)
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Reply<PbTxnResponse> {
        answered!(self, Txn, request)
    }

    async fn compact(&self, request: Request<PbCompactionRequest>) -> Reply<PbCompactionResponse> {
        answered!(self, Compact, request)
    }
}

#[tonic::async_trait]
impl PbWatchService for Member {
    type WatchStream = ReceiverStream<Result<PbWatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<PbWatchRequest>>) -> Reply<Self::WatchStream> {
        let (sender, receiver) = mpsc::channel(WATCH_RESPONSES_MAX);
        let stream = self.cluster.lock().members[self.id].streams.open(sender.clone());
        let (member, mut requests) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            loop {
                let next =
                    tokio::select! { biased; () = sender.closed() => None, next = requests.next() => next };
                let Some(Ok(request)) = next else { break };
                member.hear(stream, request);
            }
            member.cluster.lock().members[member.id].streams.close(stream);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Member {
    fn hear(&self, stream: u64, request: PbWatchRequest) {
        let mut inner = self.cluster.lock();
        let member = &mut inner.members[self.id];
        let (streams, state) = (&mut member.streams, &member.state);
        match request.request_union {
            Some(PbWatchRequestUnion::CreateRequest(create)) => {
                let wanted = Wanted {
                    key: create.key,
                    range_end: create.range_end,
                    start_revision: create.start_revision,
                    filters: create.filters,
                    prev_kv: create.prev_kv,
                    watch_id: create.watch_id,
                };
                streams.create(stream, wanted, state);
            }
            Some(PbWatchRequestUnion::CancelRequest(cancel)) => {
                streams.cancel(stream, cancel.watch_id, state)
            }
            Some(PbWatchRequestUnion::ProgressRequest(_)) => streams.progress(stream, state),
            None => {}
        }
    }
}

#[tonic::async_trait]
impl PbMaintenanceService for Member {
    type SnapshotStream = Empty<Result<PbSnapshotResponse, Status>>;

    async fn alarm(&self, request: Request<PbAlarmRequest>) -> Reply<PbAlarmResponse> {
        let request = request.into_inner();
        let of_space = request.alarm == AlarmType::Nospace as i32;
        let was_raised = self.cluster.lock().members[self.id].state.has_no_space();
        if request.action == AlarmAction::Activate as i32 && of_space {
            self.submit(Op::NoSpace(true)).await?;
        } else if request.action == AlarmAction::Deactivate as i32 && of_space {
            self.submit(Op::NoSpace(false)).await?;
        }
        let raised = self.cluster.lock().members[self.id].state.has_no_space();
        let named = raised || (was_raised && request.action == AlarmAction::Deactivate as i32);
        let alarm = PbAlarmMember { member_id: self.member_id(self.id), alarm: AlarmType::Nospace as i32 };
        let alarms = if named { vec![alarm] } else { Vec::new() };
        Ok(Response::new(PbAlarmResponse { header: Some(self.fill(None)), alarms }))
    }

    async fn status(&self, _: Request<PbStatusRequest>) -> Reply<PbStatusResponse> {
        let header = self.fill(None);
        let inner = self.cluster.lock();
        let state = &inner.members[self.id].state;
        let bytes = i64::try_from(state.used_bytes()).unwrap_or(i64::MAX);
        let errors = if state.has_no_space() { vec!["alarm:NOSPACE ".to_owned()] } else { Vec::new() };
        Ok(Response::new(PbStatusResponse {
            header: Some(header),
            version: inner.options.version.clone(),
            db_size: bytes,
            db_size_in_use: bytes,
            leader: self.member_id(inner.leader),
            raft_term: inner.term,
            errors,
            ..PbStatusResponse::default()
        }))
    }

    async fn defragment(&self, _: Request<PbDefragmentRequest>) -> Reply<PbDefragmentResponse> {
        Ok(Response::new(PbDefragmentResponse { header: Some(self.fill(None)) }))
    }

    async fn hash(&self, _: Request<PbHashRequest>) -> Reply<PbHashResponse> {
        Err(EtcdError::Unsupported("hash").into())
    }

    async fn hash_kv(&self, _: Request<PbHashKvRequest>) -> Reply<PbHashKvResponse> {
        Err(EtcdError::Unsupported("hash of the key space").into())
    }

    async fn snapshot(&self, _: Request<PbSnapshotRequest>) -> Reply<Self::SnapshotStream> {
        Err(EtcdError::Unsupported("snapshots").into())
    }

    async fn move_leader(&self, _: Request<PbMoveLeaderRequest>) -> Reply<PbMoveLeaderResponse> {
        Err(EtcdError::Unsupported("moving the leader").into())
    }

    async fn downgrade(&self, _: Request<PbDowngradeRequest>) -> Reply<PbDowngradeResponse> {
        Err(EtcdError::Unsupported("downgrades").into())
    }
}
