//! Byte streams from a guest and from a tool, in chunks.

use xs_protocol::{HEADER_BYTES, Header, MessageType, PAYLOAD_MAX, message};
use xs_store::{ConnId, Entry, Peer};

use crate::bytes::Bytes;
use crate::limits::STEPS_MAX;
use crate::shell::{GUEST, GUEST_DOMID, Shell, TOOLS};

/// A client's connection and what came of its stream.
struct Stream {
    conn: ConnId,
    received: Vec<u8>,
}

/// Chunks of two clients' streams. An even first byte of a step: raw bytes; an odd one: a message with a good header.
pub fn wire(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut shell = Shell::new();
    let mut streams = [GUEST, TOOLS].map(|conn| Stream { conn, received: Vec::new() });
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() {
            break;
        }
        let choice = bytes.byte();
        let stream = &mut streams[usize::from(choice >> 1 & 1)];
        if choice & 1 == 0 {
            let length = usize::from(choice >> 2) * 4;
            stream.received.extend_from_slice(bytes.slice(length));
        } else {
            push_message(&mut stream.received, choice, &mut bytes);
        }
        take_messages(&mut shell, stream);
    }
    shell.check();
    shell.check_snapshot();
}

fn push_message(received: &mut Vec<u8>, choice: u8, bytes: &mut Bytes<'_>) {
    let kind = MessageType(u32::from(bytes.byte() % 28));
    let (tx_id, length) = (u32::from(bytes.byte() % 4), usize::from(bytes.byte()));
    // Some payloads are long.
    let payload = match choice >> 6 {
        3 => bytes.slice(length).repeat(1 + usize::from(choice >> 2 & 15)),
        _ => bytes.slice(length).to_vec(),
    };
    let payload = &payload[..payload.len().min(PAYLOAD_MAX)];
    let header = Header { kind, req_id: u32::from(choice), tx_id, len: 0 };
    message::push_reply(received, &header, payload);
}

/// What is whole is served; what breaks the protocol ends the connection, and another one comes.
fn take_messages(shell: &mut Shell, stream: &mut Stream) {
    while let Some(header) = Header::parse(&stream.received) {
        let Ok(length) = header.payload_len() else {
            return begin_again(shell, stream);
        };
        if stream.received.len() < HEADER_BYTES + length {
            return;
        }
        let message: Vec<u8> = stream.received.drain(..HEADER_BYTES + length).collect();
        shell.serve(stream.conn, header, &message[HEADER_BYTES..]);
        if !shell.store.is_connected(stream.conn) {
            return begin_again(shell, stream);
        }
    }
}

fn begin_again(shell: &mut Shell, stream: &mut Stream) {
    stream.received.clear();
    if stream.conn == TOOLS || shell.store.is_connected(stream.conn) {
        shell.apply(&Entry::Disconnect { conn: stream.conn });
    }
    match stream.conn {
        TOOLS => shell.apply(&Entry::Connect { conn: TOOLS, peer: Peer::Socket }),
        conn if shell.store.is_connected(conn) => shell.apply(&Entry::Reset { conn }),
        conn => shell.apply(&Entry::Connect { conn, peer: Peer::Domain(GUEST_DOMID) }),
    }
}
