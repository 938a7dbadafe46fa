//! Nonsense from clients gives the protocol's error or a closed connection; others do not notice.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use tests::{RawClient, Stand, message};
use xs_protocol::{MessageType, PAYLOAD_MAX};

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| u8::try_from(self.next() % 256).unwrap()).collect()
    }
}

fn kinds() -> Vec<MessageType> {
    (0..=30).chain([0xffff, 0x8000_0000, u32::MAX]).map(MessageType).collect()
}

fn payloads(random: &mut Random) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> =
        ["", "\0", "\0\0\0", "x", "/", "/\0", "/a", "//\0", "/a/\0", "/a//b\0", "@\0", "/\0\0"]
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect();
    all.extend(
        [
            "/local/domain/\0",
            "0\0",
            "7\0",
            "65535\0",
            "99999999999\0",
            "-1\0",
            "7\x000\x000\0",
            "T\0",
            "F",
            "T",
        ]
        .map(|t| t.as_bytes().to_vec()),
    );
    all.extend(
        [
            "/a\0tok\0",
            "/a\0tok\0-1\0",
            "/a\0tok\x003\0",
            "@releaseDomain\0t\x009\0",
            "/a\0n0\0",
            "/a\0z0\0",
            "/a\0n\0",
            "/a\0n99999\0",
        ]
        .map(|t| t.as_bytes().to_vec()),
    );
    all.push(vec![b'a'; PAYLOAD_MAX]);
    all.push(vec![0; PAYLOAD_MAX]);
    all.push([b"/".as_slice(), &[b'a'; 3100], b"\0"].concat());
    all.push([b"/x".repeat(1400).as_slice(), b"\0"].concat());
    for size in [1, 3, 17, 100, 1000, PAYLOAD_MAX] {
        all.push(random.bytes(size));
    }
    all
}

/// The bystander must be served as if nothing had happened.
fn check(bystander: &mut RawClient, what: &str) {
    bystander.write("/bystander", what).unwrap_or_else(|error| panic!("after {what}: {error}"));
    assert_eq!(bystander.read("/bystander").unwrap(), what);
}

#[test]
fn every_type_with_every_payload_is_answered_or_closed() {
    let stand = Stand::start(&[]);
    let (mut bystander, mut random) = (stand.client(), Random(0x1234_5678_9abc_def1));
    for kind in kinds() {
        for payload in payloads(&mut random) {
            for tx_id in [0, 1, 77, u32::MAX] {
                let mut client = stand.client();
                client.send(kind, tx_id, &payload).unwrap();
                // An answer or a closed connection; silence is a failure.
                match client.answer() {
                    Ok(_) => {}
                    Err(error) => assert!(
                        matches!(
                            error.kind(),
                            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
                        ),
                        "type {} tx {tx_id} payload {payload:?}: {error}",
                        kind.0
                    ),
                }
            }
        }
        check(&mut bystander, &format!("type {}", kind.0));
    }
}

#[test]
fn a_header_that_lies_about_its_length_ends_the_connection() {
    let stand = Stand::start(&[]);
    let mut bystander = stand.client();
    for len in [4097, 65_536, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
        for kind in [MessageType::READ, MessageType::WRITE, MessageType::WATCH, MessageType(99)] {
            let mut client = stand.client();
            client.send_bytes(&message(kind, 1, 0, len, b"/\0")).unwrap();
            let error = client.receive().expect_err("the connection ends");
            assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "len {len}: {error}");
            check(&mut bystander, &format!("len {len}"));
        }
    }
}

#[test]
fn clients_that_leave_in_the_middle_harm_nobody() {
    let stand = Stand::start(&[]);
    let mut bystander = stand.client();
    let whole = message(MessageType::WRITE, 1, 0, 12, b"/left\0inside");
    for cut in 0..whole.len() {
        let mut client = stand.client();
        client.send_bytes(&whole[..cut]).unwrap();
        drop(client);
        check(&mut bystander, &format!("cut {cut}"));
    }
    assert_eq!(bystander.read("/left").unwrap_err().to_string(), "ENOENT");
}

#[test]
fn random_streams_harm_nobody() {
    let stand = Stand::start(&[]);
    let (mut bystander, mut random) = (stand.client(), Random(0x0dd0_1234_5678_9abc));
    for round in 0..300 {
        let mut client = stand.client();
        let size = usize::try_from(random.next() % 20_000).unwrap();
        let mut bytes = random.bytes(size);
        // Small types and lengths, so that not every stream ends at its first header.
        for header in bytes.chunks_mut(40).filter(|chunk| chunk.len() >= 16) {
            header[1..4].fill(0);
            header[0] %= 28;
            header[13..16].fill(0);
        }
        // The store may close at any point; then writing fails, which is fine.
        let _ = client.send_bytes(&bytes);
        check(&mut bystander, &format!("round {round}"));
    }
}

#[test]
fn a_client_that_never_reads_its_answers_blocks_only_itself() {
    let stand = Stand::start(&[]);
    let mut bystander = stand.client();
    bystander.write("/big", &"v".repeat(2000)).unwrap();
    let mut client = stand.client();
    client.set_write_timeout(std::time::Duration::from_millis(300)).unwrap();
    let mut sent = 0;
    while sent < 10_000 && client.send(MessageType::READ, 0, b"/big\0").is_ok() {
        sent += 1;
    }
    assert!(sent < 10_000, "the store reads on although nobody takes its answers");
    check(&mut bystander, "unread");
}
