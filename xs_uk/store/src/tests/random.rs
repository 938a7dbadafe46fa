//! Random bytes in every request: an answer, never a panic, and the accounts hold.

use proptest::prelude::*;

use super::*;

fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        "[a-z0-9/@_-]{0,12}".prop_map(String::into_bytes),
        proptest::sample::select(vec![
            "/",
            "/a",
            "x",
            "@releaseDomain",
            "@introduceDomain",
            "3",
            "0",
            "65535",
            "-1",
            "n3",
            "b0",
            "r32757",
            "T",
            "F",
            "check",
            "quota",
            "set",
            "max",
            "-r",
            "nodes",
            "log",
            "on",
            "/local/domain/",
            "/local/domain/3/x"
        ])
        .prop_map(|word| word.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..20),
        Just(vec![b'p'; 2100]),
        Just("/a".repeat(1536).into_bytes()),
    ];
    (proptest::collection::vec(word, 0..5), any::<bool>()).prop_map(|(words, terminated)| {
        let mut payload = words.join(&0);
        if terminated {
            payload.push(0);
        }
        payload.truncate(4096);
        payload
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics(
        requests in proptest::collection::vec((0usize..3, 0u32..30, 0u32..4, any_payload(), any::<bool>()), 1..60),
    ) {
        let mut rig = Rig::new();
        let kernel = ConnId(50);
        rig.apply(Entry::Connect { conn: kernel, peer: Peer::Domain(DomId(0)) });
        let guest = rig.guest_with_home(3);
        for (client, kind, tx_id, payload, logged) in requests {
            let conn = [TOOLS, kernel, guest][client];
            if rig.store.connections().all(|(other, _)| other != conn) {
                continue;
            }
            let kind = if kind < 27 { MessageType(kind) } else { T::TRANSACTION_START };
            let _ = if logged {
                rig.log_request(conn, kind, tx_id, &payload)
            } else {
                rig.tx(conn, kind, tx_id, &payload)
            };
        }
        prop_assert_eq!(rig.store.check(), Vec::<String>::new());
    }

    #[test]
    fn broken_snapshots_are_refused(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut rig = Rig::new();
        let guest = rig.guest_with_home(3);
        rig.watch(guest, "x", "t").unwrap();
        let t = rig.start(guest);
        rig.tx(guest, T::WRITE, t, "x\0v").unwrap();
        let mut bytes = rig.store.snapshot(rig.index).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Store::from_snapshot(&bytes);
        let _ = Store::from_snapshot(&bytes[..cut.index(bytes.len())]);
    }
}
