use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Store = BTreeMap<String, String>;

/// What Linux's netfront writes with one queue and split event channels.
fn netfront() -> Store {
    let keys = [
        ("request-rx-copy", "1"),
        ("feature-rx-notify", "1"),
        ("feature-sg", "1"),
        ("feature-gso-tcpv4", "1"),
        ("feature-gso-tcpv6", "1"),
        ("feature-ipv6-csum-offload", "1"),
        ("tx-ring-ref", "8"),
        ("rx-ring-ref", "9"),
        ("event-channel-tx", "11"),
        ("event-channel-rx", "12"),
        ("mac", "00:16:3e:01:02:03"),
    ];
    keys.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn with(changes: &[(&str, &str)]) -> Store {
    let mut store = netfront();
    for (key, value) in changes {
        store.insert((*key).to_owned(), (*value).to_owned());
    }
    store
}

fn without(keys: &[&str]) -> Store {
    let mut store = netfront();
    store.retain(|key, _| !keys.contains(&key.as_str()));
    store
}

fn parse(store: &Store, offer: &Offer) -> Result<FrontendConfig, Refusal> {
    parse_frontend(|key| store.get(key).map(|value| value.clone().into_bytes()), offer)
}

fn refused(key: &str, value: &str) -> Refusal {
    parse(&with(&[(key, value)]), &Offer::default()).unwrap_err()
}

#[test]
fn netfronts_keys_are_read() {
    let config = parse(&netfront(), &Offer::default()).unwrap();
    assert!(config.rx_notify && config.scatter_gather && config.ipv4_checksum && config.ipv6_checksum);
    assert!(config.accepts_gso(GsoKind::TcpV4) && config.accepts_gso(GsoKind::TcpV6));
    assert!(config.accepts_blank(IpVersion::V4) && config.accepts_blank(IpVersion::V6));
    assert!(!config.multicast_control);
    assert_eq!(config.mac, Some(MacAddr([0, 0x16, 0x3e, 1, 2, 3])));
    let events = Events::Split { tx: Port(11), rx: Port(12) };
    assert_eq!(config.queues, [QueueConfig { tx_ring: GrantRef(8), rx_ring: GrantRef(9), events }]);
}

#[test]
fn an_old_frontend_can_do_little() {
    let keys = [("request-rx-copy", "1"), ("tx-ring-ref", "8"), ("rx-ring-ref", "9"), ("event-channel", "5")];
    let store = keys.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let config = parse(&store, &Offer::default()).unwrap();
    assert!(!config.rx_notify && !config.scatter_gather && config.ipv4_checksum && !config.ipv6_checksum);
    assert!(!config.accepts_gso(GsoKind::TcpV4) && !config.accepts_blank(IpVersion::V6));
    assert_eq!((config.mac, config.queues[0].events), (None, Events::Shared(Port(5))));
}

#[test]
fn frames_to_be_cut_need_several_slots() {
    let config = parse(&with(&[("feature-sg", "0"), ("feature-no-csum-offload", "1")]), &Offer::default());
    let config = config.unwrap();
    assert!(!config.accepts_gso(GsoKind::TcpV4) && !config.accepts_gso(GsoKind::TcpV6));
    assert!(!config.accepts_blank(IpVersion::V4));
}

#[test]
fn copying_must_be_asked_for() {
    assert_eq!(parse(&without(&["request-rx-copy"]), &Offer::default()), Err(Refusal::NoRxCopy));
    assert_eq!(refused("request-rx-copy", "0"), Refusal::NoRxCopy);
    assert!(matches!(refused("request-rx-copy", "2"), Refusal::OutOfRange { .. }));
}

#[test]
fn what_is_needed_must_be_there() {
    for key in ["tx-ring-ref", "rx-ring-ref"] {
        assert_eq!(parse(&without(&[key]), &Offer::default()), Err(Refusal::Missing(key.to_owned())));
    }
    // Half of a pair of event channels is none.
    let refusal = Refusal::Missing("event-channel".to_owned());
    assert_eq!(parse(&without(&["event-channel-rx"]), &Offer::default()), Err(refusal));
}

#[test]
fn numbers_are_strict_and_in_range() {
    for value in ["", " 8", "8 ", "+8", "-1", "0x8", "8\0", "4294967296", "00000000008", "eight"] {
        assert!(matches!(refused("tx-ring-ref", value), Refusal::OutOfRange { .. }), "{value:?}");
    }
    assert!(parse(&with(&[("tx-ring-ref", "4294967295")]), &Offer::default()).is_ok());
    for value in ["0", "131072"] {
        assert!(matches!(refused("event-channel-tx", value), Refusal::OutOfRange { .. }), "{value}");
    }
    assert!(parse(&with(&[("event-channel-tx", "131071")]), &Offer::default()).is_ok());
    assert!(matches!(refused("feature-sg", "2"), Refusal::OutOfRange { .. }));
    for value in ["", "00:16:3e:01:02", "00:16:3e:01:02:03 "] {
        assert_eq!(refused("mac", value), Refusal::Mac);
    }
}

#[test]
fn several_queues_have_directories_of_their_own() {
    let offer = Offer { queues_max: 4, ..Offer::default() };
    let keys = [
        ("multi-queue-num-queues", "2"),
        ("queue-0/tx-ring-ref", "20"),
        ("queue-0/rx-ring-ref", "21"),
        ("queue-0/event-channel", "22"),
        ("queue-1/tx-ring-ref", "30"),
        ("queue-1/rx-ring-ref", "31"),
        ("queue-1/event-channel-tx", "32"),
        ("queue-1/event-channel-rx", "33"),
    ];
    let queues = parse(&with(&keys), &offer).unwrap().queues;
    let [a, b] = queues.try_into().unwrap();
    assert_eq!((a.tx_ring, a.rx_ring, a.events), (GrantRef(20), GrantRef(21), Events::Shared(Port(22))));
    assert_eq!((b.tx_ring, b.events), (GrantRef(30), Events::Split { tx: Port(32), rx: Port(33) }));

    let refusal = parse(&with(&keys[..6]), &offer).unwrap_err();
    assert_eq!(refusal, Refusal::Missing("queue-1/event-channel".to_owned()));
    // One queue that is asked for has its keys at the top.
    let one = parse(&with(&[("multi-queue-num-queues", "1")]), &offer).unwrap();
    assert_eq!(one.queues[0].tx_ring, GrantRef(8));
}

#[test]
fn cve_2026_45890_no_queue_at_all_is_refused() {
    let key = "multi-queue-num-queues";
    let refusal = Refusal::OutOfRange { key: key.to_owned(), least: 1, most: 1 };
    assert_eq!(refused(key, "0"), refusal);
    assert_eq!(refused(key, "2"), refusal);
    assert_eq!(refused(key, "4294967295"), refusal);
}

#[test]
fn queues_that_are_offered_are_bounded() {
    for (asked, offered) in [(0, 1), (1, 1), (8, 8), (9, 8), (u32::MAX, 8)] {
        assert_eq!(Offer { queues_max: asked, ..Offer::default() }.queues(), offered);
    }
}

#[test]
fn the_offer_has_what_netfront_needs() {
    let keys: BTreeMap<_, _> =
        Offer { gso_tcpv6: false, queues_max: 3, ..Offer::default() }.keys().into_iter().collect();
    for (key, value) in [
        ("feature-rx-copy", "1"),
        ("feature-rx-flip", "0"),
        ("feature-sg", "1"),
        ("feature-gso-tcpv4", "1"),
        ("feature-gso-tcpv6", "0"),
        ("feature-ipv6-csum-offload", "1"),
        ("feature-split-event-channels", "1"),
        ("multi-queue-max-queues", "3"),
    ] {
        assert_eq!(keys[key], value, "{key}");
    }
}

#[test]
fn a_multicast_list_must_have_been_offered() {
    let store = with(&[("request-multicast-control", "1")]);
    assert!(parse(&store, &Offer::default()).unwrap().multicast_control);
    let offer = Offer { multicast_control: false, ..Offer::default() };
    assert!(!parse(&store, &offer).unwrap().multicast_control);
}

proptest! {
    #[test]
    fn any_values_are_read_or_refused(
        values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 11),
        present: [bool; 11],
        queues in 0..20u32,
    ) {
        let store: Store = netfront();
        let lookup = |key: &str| match store.keys().position(|known| known == key) {
            Some(place) if present[place] => Some(values[place].clone()),
            Some(_) => Some(store[key].clone().into_bytes()),
            None if key == "multi-queue-num-queues" => Some(queues.to_string().into_bytes()),
            None => key.ends_with("ref").then(|| b"7".to_vec()),
        };
        let offer = Offer { queues_max: 8, ..Offer::default() };
        if let Ok(config) = parse_frontend(lookup, &offer) {
            prop_assert!((1..=8).contains(&config.queues.len()));
        }
    }
}
