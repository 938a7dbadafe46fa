use super::*;
use proptest::prelude::*;

/// A machine with a guest, a handle of domain 0 and one of the guest.
fn pair() -> (Machine, DomId, HandleId, HandleId) {
    let mut machine = Machine::new();
    let domid = machine.create(None, [1; 16]).unwrap();
    let ours = machine.open(DomId::DOM0).unwrap();
    let theirs = machine.open(domid).unwrap();
    (machine, domid, ours, theirs)
}

#[test]
fn a_store_port_is_bound_once_and_again_after_the_peer_closed() {
    let (mut machine, domid, ours, theirs) = pair();
    machine.claim(theirs, STORE_PORT).unwrap();
    machine.take_effects();
    let port = machine.bind_interdomain(ours, domid, STORE_PORT).unwrap();
    assert_eq!(
        machine.take_effects(),
        [
            Effect::Route(ours, port, Some((theirs, STORE_PORT))),
            Effect::Route(theirs, STORE_PORT, Some((ours, port))),
            Effect::Raise(ours, port),
        ]
    );
    assert_eq!(machine.bind_interdomain(ours, domid, STORE_PORT), Err(Refusal::PortState));
    machine.close(ours);
    assert_eq!(machine.take_effects(), [Effect::Close(ours, port), Effect::Route(theirs, STORE_PORT, None)]);
    let again = machine.open(DomId::DOM0).unwrap();
    assert!(machine.bind_interdomain(again, domid, STORE_PORT).is_ok());
}

#[test]
fn a_guest_that_restarts_finds_its_store_port_still_bound() {
    let (mut machine, domid, ours, theirs) = pair();
    machine.claim(theirs, STORE_PORT).unwrap();
    let port = machine.bind_interdomain(ours, domid, STORE_PORT).unwrap();
    machine.close(theirs);
    machine.take_effects();
    let again = machine.open(domid).unwrap();
    machine.claim(again, STORE_PORT).unwrap();
    assert_eq!(
        machine.take_effects(),
        [
            Effect::Route(again, STORE_PORT, Some((ours, port))),
            Effect::Route(ours, port, Some((again, STORE_PORT))),
            Effect::Raise(again, STORE_PORT),
        ]
    );
}

#[test]
fn only_the_domain_that_a_port_waits_for_binds_to_it() {
    let (mut machine, domid, _, theirs) = pair();
    let other = machine.create(None, [2; 16]).unwrap();
    let stranger = machine.open(other).unwrap();
    assert_eq!(machine.bind_interdomain(stranger, domid, STORE_PORT), Err(Refusal::PortState));
    assert_eq!(machine.bind_interdomain(stranger, domid, Port(9)), Err(Refusal::NoPort));
    let port = machine.bind_unbound(theirs, other).unwrap();
    assert!(machine.bind_interdomain(stranger, domid, port).is_ok());
}

#[test]
fn a_port_has_one_owner() {
    let (mut machine, domid, _, theirs) = pair();
    machine.claim(theirs, STORE_PORT).unwrap();
    let second = machine.open(domid).unwrap();
    assert_eq!(machine.claim(second, STORE_PORT), Err(Refusal::Taken));
    assert_eq!(machine.unbind(second, STORE_PORT), Err(Refusal::NoPort));
}

#[test]
fn the_virq_is_raised_by_every_change_and_is_of_one_handle_of_domain_0() {
    let (mut machine, domid, ours, theirs) = pair();
    assert_eq!(machine.bind_virq(theirs, Virq::DomExc), Err(Refusal::Denied));
    let port = machine.bind_virq(ours, Virq::DomExc).unwrap();
    assert_eq!(machine.bind_virq(ours, Virq::DomExc), Err(Refusal::Taken));
    for life in [Life::Shutdown(2), Life::Resume, Life::Dying, Life::Gone] {
        machine.take_effects();
        machine.change(domid, life).unwrap();
        assert_eq!(machine.take_effects().last(), Some(&Effect::Raise(ours, port)), "{life:?}");
    }
    assert_eq!(machine.change(domid, Life::Gone), Err(Refusal::NoDomain));
    assert_eq!(machine.change(DomId::DOM0, Life::Gone), Err(Refusal::Denied));
}

#[test]
fn a_dying_domain_has_no_ports_and_its_peers_wait() {
    let (mut machine, domid, ours, _) = pair();
    let port = machine.bind_interdomain(ours, domid, STORE_PORT).unwrap();
    machine.take_effects();
    machine.change(domid, Life::Dying).unwrap();
    assert_eq!(machine.take_effects(), [Effect::Route(ours, port, None)]);
    assert_eq!(machine.bind_interdomain(ours, domid, STORE_PORT), Err(Refusal::NoDomain));
    assert!(machine.get(domid).unwrap().dying);
}

#[test]
fn domids_go_up_and_round_and_are_not_used_twice() {
    let mut machine = Machine::new();
    let last = DomId(DOMID_FIRST_RESERVED - 1);
    machine.next_domid = last.0;
    assert_eq!(machine.create(None, [0; 16]), Ok(last));
    assert_eq!(machine.create(None, [0; 16]), Ok(DomId(1)));
    assert_eq!(machine.create(Some(DomId(1)), [0; 16]), Err(Refusal::BadDomid));
    assert_eq!(machine.create(Some(DomId(0)), [0; 16]), Err(Refusal::BadDomid));
    assert_eq!(machine.create(Some(DomId(DOMID_FIRST_RESERVED)), [0; 16]), Err(Refusal::BadDomid));
    machine.change(DomId(1), Life::Gone).unwrap();
    assert_eq!(machine.create(None, [0; 16]), Ok(DomId(2)));
}

#[test]
fn the_bound_on_domains_is_reached_and_kept() {
    let mut machine = Machine::new();
    for _ in 1..DOMAINS_MAX {
        machine.create(None, [0; 16]).unwrap();
    }
    assert_eq!(machine.list().len(), DOMAINS_MAX);
    assert_eq!(machine.create(None, [0; 16]), Err(Refusal::Limit));
}

#[test]
fn the_bound_on_ports_is_reached_and_kept() {
    let (mut machine, domid, ours, _) = pair();
    for _ in 2..PORTS_MAX {
        machine.bind_unbound(ours, domid).unwrap();
    }
    assert_eq!(machine.bind_unbound(ours, domid), Err(Refusal::Limit));
    machine.unbind(ours, Port(77)).unwrap();
    assert_eq!(machine.bind_unbound(ours, domid), Ok(Port(77)));
}

#[test]
fn the_bound_on_handles_is_reached_and_kept() {
    let mut machine = Machine::new();
    let first = machine.open(DomId::DOM0).unwrap();
    for _ in 1..HANDLES_MAX {
        machine.open(DomId::DOM0).unwrap();
    }
    assert_eq!(machine.open(DomId::DOM0), Err(Refusal::Limit));
    machine.close(first);
    assert!(machine.open(DomId::DOM0).is_ok());
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Create,
    Open(u16),
    Close(u64),
    Bind(u64, u16, u32),
    Offer(u64, u16),
    Claim(u64, u32),
    Unbind(u64, u32),
    Change(u16, Life),
}

fn step() -> impl Strategy<Value = Step> {
    let (domid, handle, port) = (0..4u16, 1..6u64, 1..6u32);
    let life = prop_oneof![Just(Life::Shutdown(0)), Just(Life::Resume), Just(Life::Dying), Just(Life::Gone)];
    prop_oneof![
        Just(Step::Create),
        domid.clone().prop_map(Step::Open),
        handle.clone().prop_map(Step::Close),
        (handle.clone(), domid.clone(), port.clone()).prop_map(|(h, d, p)| Step::Bind(h, d, p)),
        (handle.clone(), domid.clone()).prop_map(|(h, d)| Step::Offer(h, d)),
        (handle.clone(), port.clone()).prop_map(|(h, p)| Step::Claim(h, p)),
        (handle, port).prop_map(|(h, p)| Step::Unbind(h, p)),
        (domid, life).prop_map(|(d, l)| Step::Change(d, l)),
    ]
}

fn run(machine: &mut Machine, step: Step) {
    // Refusals are part of the game.
    match step {
        Step::Create => machine.create(None, [0; 16]).map(drop),
        Step::Open(domid) => machine.open(DomId(domid)).map(drop),
        Step::Close(handle) => {
            machine.close(HandleId(handle));
            Ok(())
        }
        Step::Bind(handle, domid, port) => {
            machine.bind_interdomain(HandleId(handle), DomId(domid), Port(port)).map(drop)
        }
        Step::Offer(handle, domid) => machine.bind_unbound(HandleId(handle), DomId(domid)).map(drop),
        Step::Claim(handle, port) => machine.claim(HandleId(handle), Port(port)),
        Step::Unbind(handle, port) => machine.unbind(HandleId(handle), Port(port)),
        Step::Change(domid, life) => machine.change(DomId(domid), life),
    }
    .ok();
}

/// The routes that the whole state calls for.
fn expected_routes(machine: &Machine) -> BTreeMap<(HandleId, Port), Option<(HandleId, Port)>> {
    let mut routes = BTreeMap::new();
    for (domid, domain) in &machine.domains {
        for (port, channel) in &domain.ports {
            let Some(owner) = channel.owner else { continue };
            let to = match channel.binding {
                Binding::Interdomain { remote, port } => {
                    machine.domains[&remote].ports[&port].owner.map(|handle| (handle, port))
                }
                Binding::Unbound { .. } | Binding::Virq(_) => None,
            };
            assert_eq!(machine.handles[&owner], *domid, "a port's owner is a handle of its domain");
            routes.insert((owner, *port), to);
        }
    }
    routes
}

proptest! {
    #[test]
    fn bindings_are_mutual_and_effects_amount_to_the_state(
        steps in proptest::collection::vec(step(), 0..80)
    ) {
        let mut machine = Machine::new();
        let mut routes = BTreeMap::new();
        for step in steps {
            run(&mut machine, step);
            for effect in machine.take_effects() {
                match effect {
                    Effect::Route(handle, port, to) => { routes.insert((handle, port), to); }
                    Effect::Close(handle, port) => { routes.remove(&(handle, port)); }
                    Effect::Raise(handle, port) => prop_assert!(routes.contains_key(&(handle, port))),
                }
            }
            prop_assert_eq!(&routes, &expected_routes(&machine));
            for (domid, domain) in &machine.domains {
                for (port, channel) in &domain.ports {
                    if let Binding::Interdomain { remote, port: peer } = channel.binding {
                        let back = machine.domains[&remote].ports[&peer].binding;
                        prop_assert_eq!(back, Binding::Interdomain { remote: *domid, port: *port });
                    }
                }
            }
        }
    }
}
