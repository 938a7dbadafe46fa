//! The loop that joins planner, keeper and gRPC.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::{FromService, Packet, from_service::Report, names};
use rustix::process::Signal as Sent;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use xs_shm::Board;

use crate::error::Error;
use crate::event::{Event, Kind, Severity};
use crate::ids::{ServiceId, Target, TimeUs};
use crate::journal::{Journal, unix_ms};
use crate::keeper::{Heard, Keeper, News};
use crate::limits::{BOARD_PERIOD_MS, DETAIL_BYTES_MAX, NOTED_PER_SECOND_MAX, QUEUE_MAX, REPLICAS_MAX};
use crate::planner::{Action, Fault, Input, Planner, ServiceView};
use crate::pulse::Pulses;
use crate::rate::Rate;
use crate::rundir::RunDir;
use crate::server::{self, Api, Ask, Sockets};
use crate::spec::WardenSpec;
use crate::status::{StatusSource, View};

/// A warden that is set up; [`Warden::run`] starts the services.
pub struct Warden {
    planner: Planner,
    keeper: Keeper,
    board: Option<Board>,
    pulses: Pulses,
    noted: Rate,
    journal: Arc<Journal>,
    view: watch::Sender<View>,
    serving: watch::Sender<bool>,
    news: mpsc::Receiver<News>,
    asks: mpsc::Receiver<Ask>,
    asker: mpsc::Sender<Ask>,
    sockets: Option<Sockets>,
    api: Api,
    signals: Signals,
    started: Instant,
    outcome: Option<Option<ServiceId>>,
    rundir: RunDir,
    recorded: Vec<u32>,
}

struct Signals {
    child: Signal,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What the process that runs a warden may want of it.
#[derive(Clone, Debug)]
pub struct Handle {
    serving: watch::Receiver<bool>,
    asks: mpsc::Sender<Ask>,
}

impl Handle {
    /// Waits until a leader serves. False if the warden ended before.
    pub async fn wait_serving(&mut self) -> bool {
        self.serving.wait_for(|serving| *serving).await.is_ok()
    }

    /// Whether a leader serves, and its changes.
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.serving.clone()
    }

    /// Stops everything in order; [`Warden::run`] returns when that is done.
    pub async fn stop(&self) {
        // A warden that is gone has stopped.
        let _ = self.asks.send(Ask::Down).await;
    }
}

impl Warden {
    /// Makes the shared memory and binds the gRPC sockets. Needs a tokio runtime with I/O
    /// and time.
    ///
    /// # Errors
    /// What could not be made.
    pub fn new(spec: WardenSpec) -> Result<Self, Error> {
        let count = spec.group.replicas.len();
        let replicas = u32::try_from(count).unwrap_or(u32::MAX);
        if !(1..=REPLICAS_MAX).contains(&replicas) {
            return Err(Error::Replicas { count, max: REPLICAS_MAX });
        }
        let sockets = Sockets::bind(&spec.rundir.path().join(api::SOCKET_NAME), spec.grpc_listen)?;
        let (heard, news) = mpsc::channel(QUEUE_MAX);
        let (asker, asks) = mpsc::channel(QUEUE_MAX);
        let keeper = Keeper::new(spec.group, heard)?;
        let board = open_board(&keeper)?;
        let planner = Planner::new(replicas, TimeUs(0));
        let view = watch::Sender::new(View::from(&planner));
        let journal = Arc::new(Journal::default());
        let status = Arc::new(StatusSource {
            view: view.subscribe(),
            board: board.clone(),
            profile: spec.profile,
            injection: spec.injection,
            started_unix_ms: unix_ms(),
        });
        let api = Api { status, journal: journal.clone(), asks: asker.clone(), may_change: true };
        Ok(Self {
            planner,
            keeper,
            board,
            pulses: Pulses::default(),
            noted: Rate::new(NOTED_PER_SECOND_MAX),
            journal,
            view,
            serving: watch::Sender::new(false),
            news,
            asks,
            asker,
            sockets: Some(sockets),
            api,
            signals: Signals::new()?,
            started: Instant::now(),
            outcome: None,
            rundir: spec.rundir,
            recorded: Vec::new(),
        })
    }

    /// For whoever runs it.
    pub fn handle(&self) -> Handle {
        Handle { serving: self.serving.subscribe(), asks: self.asker.clone() }
    }

    /// Starts the services and keeps them alive until SIGTERM, SIGINT, `Down` or [`Handle::stop`].
    ///
    /// # Errors
    /// [`Error::GaveUp`] if the group could not be kept alive; everything was stopped then.
    pub async fn run(mut self) -> Result<(), Error> {
        let (stop_grpc, grpc_stopped) = watch::channel(false);
        let grpc = self.sockets.take().map(|sockets| {
            tokio::spawn(server::serve(sockets, self.api.clone(), self.serving.subscribe(), grpc_stopped))
        });
        self.step(Input::Tick);
        let mut board = tokio::time::interval(Duration::from_millis(BOARD_PERIOD_MS));
        board.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let outcome = loop {
            if let Some(outcome) = self.outcome.take() {
                break outcome;
            }
            self.turn(&mut board).await;
        };
        self.journal.close();
        stop_grpc.send_replace(true);
        if let Some(grpc) = grpc
            && let Ok(Err(error)) = grpc.await
        {
            tracing::error!(%error, "gRPC was not served");
        }
        match outcome {
            Some(service) => Err(Error::GaveUp(service)),
            None => Ok(()),
        }
    }

    /// Waits for one thing and does it. The processes come first.
    async fn turn(&mut self, board: &mut tokio::time::Interval) {
        let due = self.planner.next_deadline().map(|due| self.started + due.as_duration());
        let tick = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(news) = self.news.recv() => self.hear(news),
            Some(()) = self.signals.child.recv() => {
                for input in self.keeper.halted() {
                    self.step(input);
                }
            }
            () = tick => self.step(Input::Tick),
            Some(ask) = self.asks.recv() => self.answer(ask),
            Some(()) = self.signals.terminate.recv() => self.step(Input::StopRequested),
            Some(()) = self.signals.interrupt.recv() => self.step(Input::StopRequested),
            Some(()) = self.signals.hangup.recv() => self.keeper.signal_all(Sent::HUP),
            at = board.tick() => self.read_board(at.elapsed()),
        }
    }

    fn now(&self) -> TimeUs {
        TimeUs(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Plans, acts, and only then tells the world: telling must not delay a recovery.
    fn step(&mut self, input: Input) {
        self.step_all([input]);
    }

    fn step_all(&mut self, inputs: impl IntoIterator<Item = Input>) {
        let mut events = Vec::new();
        let mut inputs: VecDeque<_> = inputs.into_iter().collect();
        while let Some(input) = inputs.pop_front() {
            let now = self.now();
            for action in self.planner.step(now, input) {
                match action {
                    Action::Emit(event) => events.push((now, event)),
                    Action::Finished { failed } => self.outcome = Some(failed),
                    action => inputs.extend(self.keeper.act(&action)),
                }
            }
        }
        for (at, event) in events {
            self.journal.record(at, &event);
        }
        let view = View::from(&self.planner);
        self.record_pids(&view);
        let serving = view.serving;
        self.view.send_replace(view);
        self.serving.send_if_modified(|was| std::mem::replace(was, serving) != serving);
    }

    fn record_pids(&mut self, view: &View) {
        let pids: Vec<_> = view.services.iter().filter_map(|service| service.pid).collect();
        if pids == self.recorded {
            return;
        }
        if let Err(error) = self.rundir.record(&pids) {
            tracing::error!(%error, "the services' pids are not written down");
        }
        self.recorded = pids;
    }

    fn hear(&mut self, news: News) {
        let News { service, incarnation, heard } = news;
        match heard {
            Heard::Report(packet) => self.take_report(service, incarnation, packet),
            Heard::LinkLost(control::LinkError::Closed) => {
                self.step(Input::LinkClosed { service, incarnation });
            }
            Heard::LinkLost(error) => {
                self.step(Input::Unresponsive { service, incarnation, why: format!("bad report: {error}") });
            }
            Heard::Died(cause) => {
                let mut inputs = self.progress();
                inputs.push(Input::Died { service, incarnation, cause });
                self.keeper.forget(service, incarnation);
                self.step_all(inputs);
            }
        }
    }

    fn take_report(&mut self, service: ServiceId, incarnation: u64, packet: Packet<FromService>) {
        let mut descriptors = packet.descriptors;
        match packet.message.report {
            Some(Report::Ready(ready)) => {
                if let Some(replica) = service.replica() {
                    self.pulses.promise(self.now(), replica, incarnation, ready.heartbeat_ms);
                }
                self.step(Input::Ready { service, incarnation, applied: ready.applied });
            }
            Some(Report::Leading(leading)) => {
                let control::Leading { epoch, applied, takeover_us, connections, rings } = leading;
                let detail = format!("{connections} connections, {rings} rings");
                self.step(Input::Leading { service, incarnation, epoch, applied, takeover_us, detail });
            }
            Some(Report::SnapshotTaken(taken)) if descriptors.len() == 1 => {
                let control::SnapshotTaken { index, length_bytes, .. } = taken;
                self.keeper.offer_snapshot(descriptors.pop().map(|descriptor| (taken, descriptor)));
                self.step(Input::SnapshotTaken { service, incarnation, index, length_bytes });
                self.keeper.offer_snapshot(None);
            }
            Some(Report::SnapshotWanted(_)) => self.step(Input::SnapshotWanted { service, incarnation }),
            Some(Report::Keep(keep)) => {
                if let Err(error) = self.keeper.keep(&keep.names, descriptors) {
                    self.note(service, Severity::Error, Kind::ReportIgnored, error.to_string());
                }
            }
            Some(Report::Noted(noted)) => self.pass_on(service, noted),
            Some(Report::SnapshotTaken(_)) | None => {
                let detail = "a report of an unknown kind, or without its descriptor".to_owned();
                self.note(service, Severity::Warning, Kind::ReportIgnored, detail);
            }
        }
    }

    fn pass_on(&mut self, service: ServiceId, noted: control::Noted) {
        let severity = noted.severity();
        let cut = |text: String| -> String {
            match text.char_indices().nth(DETAIL_BYTES_MAX) {
                None => text,
                Some((at, _)) => text[..at].to_owned(),
            }
        };
        self.note(service, severity, Kind::Noted(cut(noted.kind)), cut(noted.detail));
    }

    /// Tells of something that a service reported, as long as it does not report too much.
    fn note(&mut self, service: ServiceId, severity: Severity, kind: Kind, detail: String) {
        let now = self.now();
        let Some(left_out) = self.noted.take(now, service) else { return };
        let mut event = Event { service: Some(service), detail, ..Event::new(severity, kind) };
        if left_out > 0 {
            event.detail.push_str(&format!(" ({left_out} earlier reports were left out)"));
        }
        self.journal.record(now, &event);
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Down => self.step(Input::StopRequested),
            Ask::Inject { target: Target::Warden, fault, .. } => inject_into_self(fault),
            Ask::Inject { target, fault, answer } => {
                let hit = self.planner.resolve(target);
                if let Some((service, _)) = hit {
                    self.step(Input::Inject { service, fault });
                }
                // Whoever asked may be gone.
                let _ = answer.send(hit);
            }
        }
    }

    /// How far the replicas are decides who is promoted, so it is read before a death is planned for.
    fn progress(&self) -> Vec<Input> {
        let Some(board) = &self.board else { return Vec::new() };
        let read = |view: ServiceView| {
            let replica = view.service.replica().filter(|_| view.pid.is_some())?;
            let applied = board.replica(replica).applied.max(view.applied);
            Some(Input::Progress { replica, incarnation: view.incarnation, applied })
        };
        self.planner.view().into_iter().filter_map(read).collect()
    }

    fn read_board(&mut self, late: Duration) {
        let Some(board) = self.board.clone() else { return };
        if late > Duration::from_millis(2 * BOARD_PERIOD_MS) {
            self.pulses.forgive(self.now());
        }
        let leader = self.planner.leader();
        for view in self.planner.view() {
            let Some(replica) = view.service.replica().filter(|_| view.pid.is_some()) else { continue };
            let (row, incarnation) = (board.replica(replica), view.incarnation);
            let silent =
                self.pulses.observe(self.now(), replica, incarnation, row.heartbeat, leader == Some(replica));
            if let Some(silent_ms) = silent {
                let why = format!("no heartbeat for {silent_ms} ms");
                self.step(Input::Unresponsive { service: view.service, incarnation, why });
            }
        }
    }
}

/// Dies or stops like any other service would; the caller of the RPC gets no answer.
fn inject_into_self(fault: Fault) {
    let signal = match fault {
        Fault::Kill => Sent::KILL,
        Fault::Stop => Sent::STOP,
        Fault::Cont => Sent::CONT,
    };
    if let Err(error) = rustix::process::kill_process(rustix::process::getpid(), signal) {
        tracing::error!(%error, "fault not injected");
    }
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let on = |kind| signal(kind).map_err(Error::system("sigaction"));
        Ok(Self {
            child: on(SignalKind::child())?,
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }
}

fn open_board(keeper: &Keeper) -> Result<Option<Board>, Error> {
    let Some(board) = keeper.kept().get(names::BOARD) else { return Ok(None) };
    let board = board.try_clone_to_owned().map_err(Error::system("dup"))?;
    Ok(Some(Board::open(board)?))
}
