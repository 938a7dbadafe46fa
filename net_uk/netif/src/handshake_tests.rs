use super::XenbusState::{Closed, Closing, Connected, InitWait, Initialised, Initialising, Unknown};
use super::*;
use proptest::prelude::*;

/// A store, and a backend that can die.
#[derive(Debug)]
struct World {
    now: Situation,
    keys_are_good: bool,
    removed: bool,
}

impl World {
    fn new(hotplug: Hotplug) -> Self {
        let now = Situation {
            frontend: Some(Initialising),
            own: Some(Initialising),
            online: true,
            hotplug,
            link: Link::Down,
            life: Life::Fresh,
        };
        Self { now, keys_are_good: true, removed: false }
    }

    /// One action, unless there is none.
    fn step(&mut self) -> Option<Action> {
        let action = next(&self.now)?;
        check(&self.now, action);
        match action {
            Action::Offer => self.now.own = Some(InitWait),
            Action::Connect if self.keys_are_good => {
                (self.now.link, self.now.life) = (Link::Up, Life::Fresh);
            }
            Action::Connect => self.now.link = Link::Refused,
            Action::Switch(state) => self.now.own = Some(state),
            Action::Disconnect => self.now.link = Link::Down,
            Action::Abandon => self.now.life = Life::Fresh,
            Action::Remove => self.removed = true,
        }
        Some(action)
    }

    /// All actions until the answer is to wait.
    fn settle(&mut self) -> Vec<Action> {
        let mut done = Vec::new();
        while let Some(action) = (!self.removed).then(|| self.step()).flatten() {
            done.push(action);
            assert!(done.len() <= 5, "{done:?} does not end: {:?}", self.now);
        }
        done
    }

    fn die(&mut self) {
        (self.now.link, self.now.life) = (Link::Down, Life::Recovering);
    }

    /// What Linux's netfront does on seeing the backend's state.
    fn frontend_reacts(&mut self) {
        self.now.frontend = match (self.now.own, self.now.frontend) {
            (Some(InitWait), Some(Initialising)) => Some(Connected),
            (Some(Closing | Closed), _) => Some(Closed),
            (_, same) => same,
        };
    }
}

/// The rules that hold at every single action.
fn check(now: &Situation, action: Action) {
    let writes = matches!(action, Action::Offer | Action::Switch(_));
    if now.own == Some(Connected) && (now.life == Life::Recovering || now.frontend == Some(Connected)) {
        assert!(!writes, "{action:?} in {now:?}");
        assert!(matches!(action, Action::Connect | Action::Abandon), "{action:?} in {now:?}");
    }
    if now.own.is_none() {
        assert!(!writes, "{action:?} makes a removed directory again");
    }
    match action {
        Action::Connect => assert_eq!((now.frontend, now.link), (Some(Connected), Link::Down)),
        Action::Switch(Connected) => assert_eq!((now.frontend, now.link), (Some(Connected), Link::Up)),
        Action::Switch(state) => {
            assert!(matches!(state, Closing | Closed));
            assert_ne!(now.link, Link::Up, "disconnect first");
        }
        Action::Offer | Action::Remove => assert_eq!(now.link, Link::Down, "disconnect first"),
        Action::Disconnect => assert_ne!(now.link, Link::Down),
        Action::Abandon => assert_eq!((now.life, now.own), (Life::Recovering, Some(Connected))),
    }
}

#[test]
fn a_device_lives_and_ends() {
    let mut world = World::new(Hotplug::NotNeeded);
    assert_eq!(world.settle(), [Action::Offer]);
    world.frontend_reacts();
    assert_eq!(world.settle(), [Action::Connect, Action::Switch(Connected)]);
    // `xl network-detach`: the toolstack writes both.
    (world.now.online, world.now.own) = (false, Some(Closing));
    assert_eq!(world.settle(), []);
    world.frontend_reacts();
    assert_eq!(world.settle(), [Action::Disconnect, Action::Switch(Closed), Action::Remove]);
}

#[test]
fn a_frontend_begins_anew() {
    let mut world = connected();
    world.now.frontend = Some(Closing);
    assert_eq!(world.settle(), [Action::Disconnect, Action::Switch(Closing)]);
    world.now.frontend = Some(Closed);
    assert_eq!(world.settle(), [Action::Switch(Closed)]);
    world.now.frontend = Some(Initialising);
    assert_eq!(world.settle(), [Action::Offer]);
    world.frontend_reacts();
    assert_eq!(world.settle(), [Action::Connect, Action::Switch(Connected)]);
    // Without a goodbye: the guest crashed and booted again.
    world.now.frontend = Some(Initialising);
    assert_eq!(world.settle(), [Action::Disconnect, Action::Offer]);
}

fn connected() -> World {
    let mut world = World::new(Hotplug::NotNeeded);
    world.settle();
    world.frontend_reacts();
    world.settle();
    assert_eq!((world.now.own, world.now.link), (Some(Connected), Link::Up));
    world
}

#[test]
fn a_script_is_waited_for_before_connected_is_shown() {
    let mut world = World::new(Hotplug::Pending);
    world.settle();
    world.frontend_reacts();
    assert_eq!(world.settle(), [Action::Connect]);
    world.now.hotplug = Hotplug::Done;
    assert_eq!(world.settle(), [Action::Switch(Connected)]);
}

#[test]
fn refused_keys_close_a_new_device_and_never_a_connected_one() {
    let mut world = World::new(Hotplug::NotNeeded);
    world.keys_are_good = false;
    world.settle();
    world.frontend_reacts();
    assert_eq!(world.settle(), [Action::Connect, Action::Switch(Closing)]);
    world.frontend_reacts();
    assert_eq!(world.settle(), [Action::Disconnect, Action::Switch(Closed)]);

    let mut world = connected();
    world.die();
    world.keys_are_good = false;
    assert_eq!(world.settle(), [Action::Connect]);
    world.now.link = Link::Down;
    world.keys_are_good = true;
    assert_eq!(world.settle(), [Action::Connect]);
    assert_eq!(world.now.own, Some(Connected));
}

#[test]
fn a_ring_at_fault_disables_the_device_and_shows_nothing() {
    let mut world = connected();
    world.now.link = Link::Refused;
    assert_eq!(world.settle(), []);
    world.now.frontend = Some(Closing);
    assert_eq!(world.settle(), [Action::Disconnect, Action::Switch(Closing)]);
}

#[test]
fn a_death_at_any_action_is_made_good() {
    for dies_after in 0..3 {
        let mut world = World::new(Hotplug::NotNeeded);
        for number in 0..3 {
            world.step();
            if number == dies_after {
                world.die();
            }
            world.frontend_reacts();
        }
        world.settle();
        world.frontend_reacts();
        world.settle();
        let now = world.now;
        assert_eq!((now.frontend, now.own, now.link), (Some(Connected), Some(Connected), Link::Up));
    }
}

#[test]
fn a_guest_that_left_during_the_outage_is_let_go() {
    for left in [Some(Initialising), Some(Closing), Some(Closed), None] {
        let mut world = connected();
        world.die();
        world.now.frontend = left;
        let done = world.settle();
        assert_eq!(done[0], Action::Abandon);
        assert!(done.len() >= 2, "{done:?}");
    }
}

#[test]
fn a_state_that_cannot_be_read_changes_nothing() {
    let mut world = connected();
    world.die();
    world.now.frontend = Some(Unknown);
    assert_eq!(world.settle(), []);
}

#[test]
fn removed_directories_are_not_written() {
    let mut world = connected();
    world.now.own = None;
    assert_eq!(world.settle(), [Action::Disconnect, Action::Remove]);
    let mut world = connected();
    world.now.frontend = None;
    assert_eq!(world.settle(), [Action::Disconnect, Action::Switch(Closed), Action::Remove]);
}

#[test]
fn states_have_their_numbers() {
    for state in XenbusState::ALL {
        assert_eq!(XenbusState::parse(&[b'0' + state.number()]), state);
    }
    for text in [&b""[..], b"9", b"04", b"4 ", b"x"] {
        assert_eq!(XenbusState::parse(text), Unknown);
    }
    assert_eq!(Initialised.number(), 3);
}

/// All situations there are.
#[test]
fn the_rules_hold_and_all_ends_in_every_situation() {
    let states = || XenbusState::ALL.into_iter().map(Some).chain([None]);
    for (frontend, own) in states().flat_map(|front| states().map(move |own| (front, own))) {
        for bits in 0..0b1_0000u8 {
            let hotplug = if bits & 1 == 0 { Hotplug::Pending } else { Hotplug::Done };
            let life = if bits & 2 == 0 { Life::Fresh } else { Life::Recovering };
            for link in [Link::Down, Link::Up, Link::Refused] {
                let now = Situation { frontend, own, online: bits & 4 == 0, hotplug, link, life };
                World { now, keys_are_good: bits & 8 == 0, removed: false }.settle();
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Front(Option<XenbusState>),
    FrontReacts,
    Detach,
    Plugged,
    Steps(usize),
    Die,
    Fault,
    Retry,
    Keys(bool),
}

fn event() -> impl Strategy<Value = Event> {
    let state = (0..10usize).prop_map(|number| XenbusState::ALL.get(number).copied());
    prop_oneof![
        2 => state.prop_map(Event::Front),
        6 => Just(Event::FrontReacts),
        1 => Just(Event::Detach),
        2 => Just(Event::Plugged),
        6 => (1..4usize).prop_map(Event::Steps),
        4 => Just(Event::Die),
        1 => Just(Event::Fault),
        2 => Just(Event::Retry),
        1 => any::<bool>().prop_map(Event::Keys),
    ]
}

fn happen(world: &mut World, event: Event) {
    match event {
        Event::Front(state) => world.now.frontend = state,
        Event::FrontReacts => world.frontend_reacts(),
        Event::Detach => (world.now.online, world.now.own) = (false, Some(Closing)),
        Event::Plugged => world.now.hotplug = Hotplug::Done,
        Event::Steps(steps) => (0..steps).for_each(|_| {
            world.step();
        }),
        Event::Die => world.die(),
        Event::Fault if world.now.link == Link::Up => world.now.link = Link::Refused,
        Event::Retry if world.now.link == Link::Refused => world.now.link = Link::Down,
        Event::Keys(good) => world.keys_are_good = good,
        Event::Fault | Event::Retry => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The rules are those of `check`; and whatever happened, a guest that begins anew gets its network.
    #[test]
    fn any_sequence_keeps_the_rules_and_can_recover(events in proptest::collection::vec(event(), 0..60)) {
        let mut world = World::new(Hotplug::Pending);
        for event in events {
            happen(&mut world, event);
        }
        if world.now.online {
            world.keys_are_good = true;
            world.now.hotplug = Hotplug::Done;
            if world.now.link == Link::Refused {
                world.now.link = Link::Down;
            }
            world.removed = false;
            world.now.frontend = Some(Initialising);
            for _ in 0..3 {
                world.settle();
                world.frontend_reacts();
            }
            prop_assert_eq!((world.now.frontend, world.now.own), (Some(Connected), Some(Connected)));
            prop_assert_eq!(world.now.link, Link::Up);
        }
    }

    /// An honest guest that stays connected sees no change, whenever and however often its backend dies.
    #[test]
    fn deaths_are_not_seen(steps in proptest::collection::vec(0..3usize, 0..40), bad in proptest::collection::vec(any::<bool>(), 40)) {
        let mut world = connected();
        for (steps, bad) in steps.into_iter().zip(bad) {
            world.die();
            world.keys_are_good = !bad;
            (0..steps).for_each(|_| { world.step(); });
            prop_assert_eq!((world.now.frontend, world.now.own), (Some(Connected), Some(Connected)));
            world.frontend_reacts();
        }
    }
}
