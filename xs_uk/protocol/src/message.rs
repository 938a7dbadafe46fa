//! Builders of wire-ready messages from the daemon to a client.

use zerocopy::IntoBytes;

use crate::{HEADER_BYTES, Header, MessageType, XsError, limits::PAYLOAD_MAX};

/// Appends a reply to `request`. A payload over [`PAYLOAD_MAX`] becomes an `E2BIG` error.
pub fn push_reply(out: &mut Vec<u8>, request: &Header, payload: &[u8]) {
    if payload.len() > PAYLOAD_MAX {
        return push_error(out, request, XsError::E2BIG);
    }
    push(out, request.kind, request.req_id, request.tx_id, &[payload]);
}

/// Appends a reply whose payload `fill` writes in place. A payload over [`PAYLOAD_MAX`] becomes an `E2BIG` error.
pub fn push_reply_with(out: &mut Vec<u8>, request: &Header, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(request.as_bytes());
    fill(out);
    let len = out.len().saturating_sub(start + HEADER_BYTES);
    match u32::try_from(len) {
        Ok(len) if len as usize <= PAYLOAD_MAX => {
            out[start + HEADER_BYTES - 4..start + HEADER_BYTES].copy_from_slice(&len.to_ne_bytes());
        }
        _ => {
            out.truncate(start);
            push_error(out, request, XsError::E2BIG);
        }
    }
}

/// Appends the reply `OK` to `request`.
pub fn push_ack(out: &mut Vec<u8>, request: &Header) {
    push(out, request.kind, request.req_id, request.tx_id, &[b"OK\0"]);
}

/// Appends an ERROR reply to `request`.
pub fn push_error(out: &mut Vec<u8>, request: &Header, error: XsError) {
    push(out, MessageType::ERROR, request.req_id, request.tx_id, &[error.name().as_bytes(), b"\0"]);
}

/// Appends a watch event. Returns false, and appends nothing, if it would be over [`PAYLOAD_MAX`] (XSA-324).
pub fn push_event(out: &mut Vec<u8>, path: &[u8], token: &[u8]) -> bool {
    if path.len() + token.len() + 2 > PAYLOAD_MAX {
        return false;
    }
    push(out, MessageType::WATCH_EVENT, 0, 0, &[path, b"\0", token, b"\0"]);
    true
}

/// A reply to `request`, wire-ready; see [`push_reply`].
pub fn reply(request: &Header, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
    push_reply(&mut out, request, payload);
    out
}

/// An ERROR reply to `request`, wire-ready.
pub fn error_reply(request: &Header, error: XsError) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + 10);
    push_error(&mut out, request, error);
    out
}

/// A watch event, wire-ready; `None` if it would be over [`PAYLOAD_MAX`].
pub fn event(path: &[u8], token: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(HEADER_BYTES + path.len() + token.len() + 2);
    push_event(&mut out, path, token).then_some(out)
}

fn push(out: &mut Vec<u8>, kind: MessageType, req_id: u32, tx_id: u32, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    debug_assert!(len <= PAYLOAD_MAX);
    #[allow(clippy::cast_possible_truncation, reason = "every caller keeps to PAYLOAD_MAX")]
    let header = Header { kind, req_id, tx_id, len: len as u32 };
    out.reserve(HEADER_BYTES + len);
    out.extend_from_slice(header.as_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Header = Header { kind: MessageType::READ, req_id: 7, tx_id: 9, len: 3 };

    fn split(message: &[u8]) -> (Header, &[u8]) {
        let header = Header::parse(message).unwrap();
        assert_eq!(header.payload_len().unwrap(), message.len() - HEADER_BYTES);
        (header, &message[HEADER_BYTES..])
    }

    #[test]
    fn replies_copy_the_ids() {
        let message = reply(&REQUEST, b"abc");
        assert_eq!(split(&message), (Header { len: 3, ..REQUEST }, &b"abc"[..]));
        let message = error_reply(&REQUEST, XsError::ENOENT);
        assert_eq!(
            split(&message),
            (Header { kind: MessageType::ERROR, len: 7, ..REQUEST }, &b"ENOENT\0"[..])
        );
    }

    #[test]
    fn long_replies_become_e2big() {
        let message = reply(&REQUEST, &[b'x'; PAYLOAD_MAX]);
        assert_eq!(split(&message).1.len(), PAYLOAD_MAX);
        let message = reply(&REQUEST, &[b'x'; PAYLOAD_MAX + 1]);
        assert_eq!(split(&message).1, b"E2BIG\0");
        let mut out = b"before".to_vec();
        push_reply_with(&mut out, &REQUEST, |out| out.resize(out.len() + PAYLOAD_MAX + 1, 0));
        assert_eq!(split(&out[6..]).1, b"E2BIG\0");
        out.clear();
        push_reply_with(&mut out, &REQUEST, |out| out.extend_from_slice(b"xy"));
        assert_eq!(split(&out).1, b"xy");
    }

    #[test]
    fn events_over_the_limit_are_dropped() {
        let message = event(b"/a", b"tok").unwrap();
        assert_eq!(split(&message).1, b"/a\0tok\0");
        assert_eq!(split(&message).0, Header { kind: MessageType::WATCH_EVENT, req_id: 0, tx_id: 0, len: 7 });
        assert!(event(&[b'a'; 4000], &[b'b'; 94]).is_some());
        assert!(event(&[b'a'; 4000], &[b'b'; 95]).is_none());
    }
}
