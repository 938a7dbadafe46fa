//! A guest that writes anything into its page, against the slot's state machine and a leader that is replaced at any step.

use std::cell::OnceCell;

use xs_protocol::ring::{self, RING_BYTES};
use xs_shm::limits::TABLE_BYTES;
use xs_shm::{Record, Region, Slot, SlotId, Table};

use crate::bytes::Bytes;
use crate::limits::STEPS_MAX;

thread_local! {
    static TABLE: OnceCell<Table> = const { OnceCell::new() };
}

/// The page as far as it counts: the guest can write all of it at any time.
struct Page {
    req: [u8; RING_BYTES as usize],
    rsp: [u8; RING_BYTES as usize],
    req_prod: u32,
    rsp_cons: u32,
}

/// What must come out: the bytes that were taken, and those that were queued.
#[derive(Default)]
struct Model {
    received: Vec<u8>,
    queued: Vec<u8>,
    delivered: usize,
}

/// Steps of a hostile guest and of leaders.
pub fn ring(data: &[u8]) {
    TABLE.with(|cell| {
        let table =
            cell.get_or_init(|| Table::open(Region::create("fuzz", TABLE_BYTES).expect("shared memory")));
        let id = table.allocate_ring(3, 1, 2, 3).expect("a free slot");
        run(table, id, &mut Bytes(data));
        table.free(id);
    });
}

fn run(table: &Table, id: SlotId, bytes: &mut Bytes<'_>) {
    let mut page = Page { req: [0; 1024], rsp: [0; 1024], req_prod: bytes.word(), rsp_cons: bytes.word() };
    let mut slot = table.slot(id);
    slot.reset_ring(page.req_prod, page.rsp_cons);
    let mut model = Model::default();
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() {
            break;
        }
        match bytes.below(12) {
            0 => page.req_prod = bytes.word(),
            1 => page.rsp_cons = bytes.word(),
            2 | 3 => produce(&mut page, bytes),
            4 => page.rsp_cons = page.rsp_cons.wrapping_add(u32::from(bytes.byte())),
            5 | 6 => receive(&mut slot, &page, &mut model),
            7 => consume(&mut slot, bytes, &mut model),
            8 => queue(&mut slot, bytes, &mut model),
            9 => send(&mut slot, &mut page, &mut model),
            10 => take_over(table, id, &mut slot),
            _ => reset(&mut slot, &mut page, &mut model),
        }
        assert_eq!(slot.readable_bytes(), model.received.len());
        assert_eq!(slot.sendable_bytes(), model.queued.len() - model.delivered);
    }
}

/// An honest step of the guest: bytes, then the index.
fn produce(page: &mut Page, bytes: &mut Bytes<'_>) {
    let length = usize::from(bytes.byte()) * 4;
    for byte in bytes.slice(length) {
        page.req[(page.req_prod % RING_BYTES) as usize] = *byte;
        page.req_prod = page.req_prod.wrapping_add(1);
    }
}

fn receive(slot: &mut Slot, page: &Page, model: &mut Model) {
    let req_cons = slot.record().req_cons;
    let Ok(readable) = ring::readable(req_cons, page.req_prod) else { return };
    let mut taken = Vec::new();
    for chunk in readable.limit(slot.receivable_bytes()).iter() {
        taken.extend_from_slice(&page.req[chunk.offset..chunk.offset + chunk.len]);
    }
    let next = req_cons.wrapping_add(u32::try_from(taken.len()).expect("at most a ring"));
    slot.commit_ring_receive(&taken, next);
    model.received.extend_from_slice(&taken);
}

fn consume(slot: &mut Slot, bytes: &mut Bytes<'_>, model: &mut Model) {
    let count = (usize::from(bytes.byte()) * 8).min(slot.readable_bytes());
    let mut consumed = vec![0; count];
    slot.peek(0, &mut consumed);
    assert_eq!(consumed, model.received[..count], "the bytes that came are those that are read");
    slot.commit(count, 1, None);
    model.received.drain(..count);
}

fn queue(slot: &mut Slot, bytes: &mut Bytes<'_>, model: &mut Model) {
    let length = usize::from(bytes.byte()) * 16;
    let message = bytes.slice(length).repeat(1 + bytes.below(8));
    if message.len() <= slot.stageable_bytes() {
        slot.stage(&message);
        slot.commit(0, 0, Some(slot.record().delivered + 1));
        model.queued.extend_from_slice(&message);
    }
}

fn send(slot: &mut Slot, page: &mut Page, model: &mut Model) {
    let rsp_prod = slot.record().rsp_prod;
    let Ok(writable) = ring::writable(rsp_prod, page.rsp_cons) else { return };
    let mut bytes = [0; RING_BYTES as usize];
    let count = slot.peek_sendable(&mut bytes[..writable.len()]);
    assert_eq!(bytes[..count], model.queued[model.delivered..model.delivered + count]);
    let mut done = 0;
    for chunk in writable.limit(count).iter() {
        page.rsp[chunk.offset..chunk.offset + chunk.len].copy_from_slice(&bytes[done..done + chunk.len]);
        done += chunk.len;
    }
    slot.commit_ring_send(count, rsp_prod.wrapping_add(u32::try_from(count).expect("at most a ring")));
    model.delivered += count;
}

/// The leader dies, half-staged bytes with it; the successor finds the committed state.
fn take_over(table: &Table, id: SlotId, slot: &mut Slot) {
    let before: Record = slot.record();
    if slot.stageable_bytes() > 0 {
        slot.stage(b"x");
    }
    *slot = table.slot(id);
    assert_eq!(slot.record(), before);
}

fn reset(slot: &mut Slot, page: &mut Page, model: &mut Model) {
    slot.reset_ring(0, 0);
    (page.req_prod, page.rsp_cons) = (0, 0);
    *model = Model::default();
}
