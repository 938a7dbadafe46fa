//! The program that gives frames to sockets, and what it needs: `bpf(2)` without a library.

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::error::Result;
use crate::spec::XdpMode;
use crate::xdp::system::refused;

const MAP_CREATE: c_int = 0;
const MAP_UPDATE_ELEM: c_int = 2;
const PROG_LOAD: c_int = 5;
const LINK_CREATE: c_int = 28;

const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
const XDP_FLAGS_GENERIC: u32 = 1 << 1;
const XDP_FLAGS_NATIVE: u32 = 1 << 2;

/// What the program answers for a queue that has no socket: the frame goes to the host.
const XDP_PASS: i32 = 2;
const FUNCTION_REDIRECT_MAP: i32 = 51;
/// `rx_queue_index` in `struct xdp_md`.
const QUEUE_AT: i16 = 16;

/// Beginnings of `union bpf_attr`, as the kernel lays it out; the rest of it is zero.
#[repr(C)]
struct CreateMap {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
}

#[repr(C)]
struct UpdateElement {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct LoadProgram {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 4],
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

#[repr(C)]
struct CreateLink {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// One instruction: code, registers (target in the low four bits), offset, value.
#[repr(C)]
struct Instruction(u8, u8, i16, i32);

/// A map from queues to sockets.
pub(crate) fn create_map(entries: u32) -> Result<OwnedFd> {
    let attributes = CreateMap { kind: MAP_TYPE_XSKMAP, key_bytes: 4, value_bytes: 4, entries };
    // SAFETY: no pointers.
    let made = unsafe { bpf(MAP_CREATE, &attributes) }?;
    Ok(owned(made))
}

/// Gives the frames of a queue to a socket.
pub(crate) fn insert(map: impl AsFd, queue: u32, socket: impl AsFd) -> Result<()> {
    let value = number(&socket);
    let attributes = UpdateElement {
        map: number(&map),
        pad: 0,
        key: std::ptr::from_ref(&queue).addr() as u64,
        value: std::ptr::from_ref(&value).addr() as u64,
        flags: 0,
    };
    // SAFETY: both pointers are valid for the four bytes that the map was made with, until the call returns.
    unsafe { bpf(MAP_UPDATE_ELEM, &attributes) }.map(drop)
}

/// Loads the program.
pub(crate) fn load(map: impl AsFd) -> Result<OwnedFd> {
    let map = map.as_fd().as_raw_fd();
    let instructions = [
        // r2 = the queue
        Instruction(0x61, 0x12, QUEUE_AT, 0),
        // r1 = the map; it takes two
        Instruction(0x18, 0x11, 0, map),
        Instruction(0, 0, 0, 0),
        // r3 = what to answer without a socket
        Instruction(0xb7, 0x03, 0, XDP_PASS),
        Instruction(0x85, 0, 0, FUNCTION_REDIRECT_MAP),
        Instruction(0x95, 0, 0, 0),
    ];
    let license = c"GPL";
    let mut name = [0; 16];
    name[..8].copy_from_slice(b"ppvm_nic");
    let attributes = LoadProgram {
        kind: PROG_TYPE_XDP,
        instruction_count: 6,
        instructions: instructions.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        log: [0; 4],
        kernel_version: 0,
        flags: 0,
        name,
        ifindex: 0,
        attach_type: ATTACH_TYPE_XDP,
    };
    // SAFETY: the pointers are valid for six instructions and for a string that ends with 0, until the call returns.
    let loaded = unsafe { bpf(PROG_LOAD, &attributes) }?;
    Ok(owned(loaded))
}

/// Attaches the program, for as long as the link is open.
pub(crate) fn attach(program: impl AsFd, ifindex: u32, mode: XdpMode) -> Result<OwnedFd> {
    match mode {
        XdpMode::Native => link(program, ifindex, XDP_FLAGS_NATIVE),
        XdpMode::Generic => link(program, ifindex, XDP_FLAGS_GENERIC),
        XdpMode::Auto => match link(&program, ifindex, XDP_FLAGS_NATIVE) {
            Err(error) if !error.is_busy() => link(&program, ifindex, XDP_FLAGS_GENERIC),
            linked => linked,
        },
    }
}

fn link(program: impl AsFd, ifindex: u32, flags: u32) -> Result<OwnedFd> {
    let attributes = CreateLink { program: number(&program), ifindex, attach_type: ATTACH_TYPE_XDP, flags };
    // SAFETY: no pointers.
    let linked = unsafe { bpf(LINK_CREATE, &attributes) }?;
    Ok(owned(linked))
}

/// # Safety
/// `attributes` begins `union bpf_attr` for this command; the pointers in it are valid for what the command does with them.
unsafe fn bpf<T>(command: c_int, attributes: &T) -> Result<c_int> {
    let (pointer, length) = (std::ptr::from_ref(attributes), size_of::<T>());
    // SAFETY: the caller's promise; `attributes` is valid for its length.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, length) };
    let call = match command {
        MAP_CREATE => "bpf(BPF_MAP_CREATE)",
        MAP_UPDATE_ELEM => "bpf(BPF_MAP_UPDATE_ELEM)",
        PROG_LOAD => "bpf(BPF_PROG_LOAD)",
        _ => "bpf(BPF_LINK_CREATE)",
    };
    c_int::try_from(done).ok().filter(|done| *done >= 0).ok_or_else(|| refused(call))
}

fn owned(fd: c_int) -> OwnedFd {
    // SAFETY: a new descriptor that nobody else knows.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn number(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}
