//! The loop that joins planner, keeper and gRPC.

mod looks;
mod reports;

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use control::{ADOPT_SOCKET_NAME, names};
use rustix::process::Signal as Sent;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use xs_shm::Board;

use crate::engine::EngineView;
use crate::error::Error;
use crate::flip::Flips;
use crate::ids::{ServiceId, Target, TimeUs};
use crate::journal::{Journal, unix_ms};
use crate::keeper::{Keeper, News, welcome};
use crate::limits::{
    ASLEEP_MS, BOARD_PERIOD_MS, GLANCE_PERIOD_MS, MEMBERS_MAX, NOTED_PER_SECOND_MAX, QUEUE_MAX, REPLICAS_MAX,
};
use crate::planner::{Action, Fault, Found, Input, Planner, Recorded, ServiceView};
use crate::pulse::Pulses;
use crate::rate::Rate;
use crate::rundir::RunDir;
use crate::server::{self, Api, Ask, Sockets, Watched};
use crate::spec::{GroupSpec, WardenSpec};
use crate::state::{ServiceState, State};
use crate::status::{StatusSource, View};

/// A warden that is set up; [`Warden::run`] starts the services.
pub struct Warden {
    planner: Planner,
    keeper: Keeper,
    board: Arc<OnceLock<Board>>,
    pulses: Pulses,
    noted: Rate,
    journal: Arc<Journal>,
    view: watch::Sender<View>,
    serving: watch::Sender<bool>,
    engine: watch::Sender<EngineView>,
    news: mpsc::Receiver<News>,
    asks: mpsc::Receiver<Ask>,
    asker: mpsc::Sender<Ask>,
    sockets: Option<Sockets>,
    api: Api,
    signals: Signals,
    started: Instant,
    outcome: Option<Option<ServiceId>>,
    rundir: RunDir,
    recorded: State,
    log: String,
    last_turn: Instant,
    flips: Flips,
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
        let (started, started_us) = (Instant::now(), api::clock_us());
        let (replicas, members) = shape(&spec.group)?;
        let sockets =
            Sockets::bind(&spec.rundir.path().join(api::SOCKET_NAME), spec.grpc_listen, spec.metrics_listen)?;
        let (heard, news) = mpsc::channel(QUEUE_MAX);
        let (asker, asks) = mpsc::channel(QUEUE_MAX);
        let adopt_path = spec.rundir.path().join(ADOPT_SOCKET_NAME);
        let log = spec.group.log.clone();
        let mut keeper = Keeper::new(spec.group, adopt_path.to_string_lossy().into_owned(), heard.clone());
        let found = spec.rundir.found().cloned();
        let planner = match &found {
            Some(found) => adopt(found, &mut keeper, replicas, members, &log)?,
            None => {
                keeper.make_memory()?;
                Planner::with_members(replicas, members, TimeUs(0))
            }
        };
        welcome(&adopt_path, heard)?;
        let board = Arc::new(OnceLock::new());
        open_board(&keeper, &board)?;
        let view = watch::Sender::new(View::from(&planner));
        let journal = Arc::new(Journal::after(found.map_or(0, |found| found.last_event_id), started_us));
        let engine = watch::Sender::new(EngineView::default());
        let status = Arc::new(StatusSource {
            view: view.subscribe(),
            engine: engine.subscribe(),
            board: board.clone(),
            profile: spec.profile,
            injection: spec.injection,
            started_unix_ms: unix_ms(),
            clients: AtomicU64::new(0),
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
            engine,
            news,
            asks,
            asker,
            sockets: Some(sockets),
            api,
            signals: Signals::new()?,
            started,
            outcome: None,
            rundir: spec.rundir,
            recorded: State::default(),
            log,
            flips: Flips::default(),
            last_turn: Instant::now(),
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
            let watched = Watched { serving: self.serving.subscribe(), engine: self.engine.subscribe() };
            tokio::spawn(server::serve(sockets, self.api.clone(), watched, grpc_stopped))
        });
        self.step(Input::Tick);
        let mut clocks = Clocks::new();
        let outcome = loop {
            if let Some(outcome) = self.outcome.take() {
                break outcome;
            }
            self.turn(&mut clocks).await;
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
    async fn turn(&mut self, clocks: &mut Clocks) {
        let woke = self.wait(clocks).await;
        self.notice_sleep();
        match woke {
            Woke::News(news) => self.hear(*news),
            Woke::Child => {
                let inputs = self.keeper.halted();
                self.step_all(inputs);
            }
            Woke::Due => self.step(Input::Tick),
            Woke::Ask(ask) => self.answer(ask),
            Woke::Stop => self.step(Input::StopRequested),
            Woke::Hangup => self.keeper.signal_all(Sent::HUP),
            Woke::Glance => {
                let inputs = self.keeper.halted_adopted();
                self.step_all(inputs);
            }
            Woke::Board => self.read_board(),
        }
    }

    async fn wait(&mut self, clocks: &mut Clocks) -> Woke {
        let adopted = self.keeper.has_adopted();
        let due = self.planner.next_deadline().map(|due| self.started + due.as_duration());
        let tick = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(news) = self.news.recv() => Woke::News(Box::new(news)),
            Some(()) = self.signals.child.recv() => Woke::Child,
            () = tick => Woke::Due,
            Some(ask) = self.asks.recv() => Woke::Ask(ask),
            Some(()) = self.signals.terminate.recv() => Woke::Stop,
            Some(()) = self.signals.interrupt.recv() => Woke::Stop,
            Some(()) = self.signals.hangup.recv() => Woke::Hangup,
            _ = clocks.glance.tick(), if adopted => Woke::Glance,
            _ = clocks.board.tick() => Woke::Board,
        }
    }

    /// The board wakes the loop often, so a long pause means that this process was stopped or starved: what seems late
    /// waits in the links, and nobody is to blame.
    fn notice_sleep(&mut self) {
        let pause = std::mem::replace(&mut self.last_turn, Instant::now()).elapsed();
        if pause > Duration::from_millis(ASLEEP_MS) {
            tracing::warn!(pause_ms = pause.as_millis(), "the warden was not run");
            self.pulses.forgive(self.now());
            self.step(Input::Asleep { us: u64::try_from(pause.as_micros()).unwrap_or(u64::MAX) });
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
            let actions = self.planner.step(now, input);
            if actions.iter().any(Action::is_to_be_recorded) {
                self.record();
            }
            for action in actions {
                match action {
                    Action::Emit(event) => events.push((now, event)),
                    Action::Finished { failed } => self.outcome = Some(failed),
                    action => {
                        inputs.extend(self.keeper.act(&action));
                        if action == Action::MakeMemory
                            && let Err(error) = open_board(&self.keeper, &self.board)
                        {
                            tracing::error!(%error, "board");
                        }
                    }
                }
            }
        }
        for (at, event) in events {
            self.journal.record(at, &event);
        }
        let view = View::from(&self.planner);
        self.record();
        let serving = view.serving;
        self.view.send_replace(view);
        self.serving.send_if_modified(|was| std::mem::replace(was, serving) != serving);
    }

    /// Writes down for the next warden what has changed.
    fn record(&mut self) {
        if self.outcome.is_some() {
            return self.rundir.state().remove();
        }
        let service = |view: ServiceView| ServiceState {
            role: view.service.role().into(),
            number: view.service.number(),
            incarnation: view.incarnation,
            pid: view.pid.unwrap_or(0),
            start_ticks: view.pid.map_or(0, |_| self.keeper.start_ticks(view.service)),
            ready: view.was_ready,
        };
        let state = State {
            replicas: self.planner.replicas(),
            members: self.planner.members(),
            epoch: self.planner.epoch(),
            leader: self.planner.leader(),
            services: self.planner.view().into_iter().map(service).collect(),
            last_event_id: self.journal.last_id(),
            log: self.log.clone(),
            ..State::default()
        };
        if state == self.recorded {
            return;
        }
        if let Err(error) = self.rundir.state().write(state.clone()) {
            tracing::error!(%error, "the next warden will not find what runs");
        }
        self.recorded = state;
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
            Ask::Flip { target, spec, answer } => match self.planner.resolve(target) {
                Some((service, pid)) if service.replica().is_some() => {
                    if let Some(question) = self.flips.begin(service, pid, spec, answer) {
                        self.keeper.locate(service, question);
                    }
                }
                // Whoever asked may be gone.
                _ => drop(answer.send(Err("no such replica lives".to_owned()))),
            },
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

enum Woke {
    News(Box<News>),
    Child,
    Due,
    Ask(Ask),
    Stop,
    Hangup,
    Glance,
    Board,
}

/// When the warden looks by itself.
struct Clocks {
    board: tokio::time::Interval,
    /// At services that it adopted.
    glance: tokio::time::Interval,
}

impl Clocks {
    fn new() -> Self {
        let every = |ms| {
            let mut clock = tokio::time::interval(Duration::from_millis(ms));
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
            clock
        };
        Self { board: every(BOARD_PERIOD_MS), glance: every(GLANCE_PERIOD_MS) }
    }
}

/// Replicas and members that are asked for.
fn shape(group: &GroupSpec) -> Result<(u32, u32), Error> {
    let (count, members) = (group.replicas.len(), group.members.len());
    let replicas = u32::try_from(count).unwrap_or(u32::MAX);
    if !(1..=REPLICAS_MAX).contains(&replicas) {
        return Err(Error::Replicas { count, max: REPLICAS_MAX });
    }
    let members = u32::try_from(members).unwrap_or(u32::MAX);
    if members > MEMBERS_MAX {
        return Err(Error::Members { count: group.members.len(), max: MEMBERS_MAX });
    }
    Ok((replicas, members))
}

/// Watches what lives of an earlier warden's services; gives the plan that goes on with them.
fn adopt(
    found: &State,
    keeper: &mut Keeper,
    replicas: u32,
    members: u32,
    log: &str,
) -> Result<Planner, Error> {
    // Replicas of two logs would each serve another store.
    if (found.replicas, found.members, found.log.as_str()) != (replicas, members, log) {
        let tell =
            |replicas, members, log| format!("{replicas} replicas and {members} members, log: {log:?}");
        return Err(Error::Shape {
            found: tell(found.replicas, found.members, found.log.as_str()),
            asked: tell(replicas, members, log),
        });
    }
    let mut services = Vec::new();
    for recorded in &found.services {
        let service = ServiceId::of(recorded.role(), recorded.number);
        let lives = recorded.pid != 0 && keeper.adopt(service, recorded)?;
        services.push(Found {
            service,
            incarnation: recorded.incarnation,
            pid: lives.then_some(recorded.pid),
            ready: recorded.ready,
        });
    }
    let recorded = Recorded { epoch: found.epoch, leader: found.leader, services };
    Ok(Planner::adopted(replicas, members, &recorded, TimeUs(0)))
}

/// Opens the board as soon as it is kept.
fn open_board(keeper: &Keeper, board: &OnceLock<Board>) -> Result<(), Error> {
    if board.get().is_none()
        && let Some(kept) = keeper.kept().get(names::BOARD)
    {
        let kept = kept.try_clone_to_owned().map_err(Error::system("dup"))?;
        // Only this loop opens it.
        let _ = board.set(Board::open(kept)?);
    }
    Ok(())
}
