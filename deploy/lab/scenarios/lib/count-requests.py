#!/usr/bin/env python3
"""Counts the xenstore requests that a traced program sent, by type, whichever daemon serves it.

Arguments: the files of `strace -ff -xx -s 4200 -e trace=connect,close,write,sendto`. It follows the byte stream of each
connection to the store's socket, so it does not matter how the client cuts its messages into system calls. A transaction
that had to be tried again shows as more requests. Prints one JSON object.
"""

import collections
import json
import re
import struct
import sys

CALL = re.compile(r"^(connect|close|write|sendto)\((\d+)(.*)\) += (-?\d+)")
DATA = re.compile(r'^, "((?:\\x[0-9a-f]{2})*)"')
SOCKET = b"/xenstored/socket".hex()
HEADER = struct.Struct("<4I")
NAMES = {
    1: "directory", 2: "read", 3: "get_perms", 4: "watch", 5: "unwatch", 6: "transaction_start", 7: "transaction_end",
    8: "introduce", 9: "release", 10: "get_domain_path", 11: "write", 12: "mkdir", 13: "rm", 14: "set_perms",
    18: "is_domain_introduced", 19: "resume", 20: "set_target", 22: "reset_watches", 23: "directory_part",
}


def requests(stream):
    """Takes the whole requests off the front of the stream and yields their types."""
    while len(stream) >= HEADER.size:
        kind, _, _, length = HEADER.unpack_from(stream)
        if len(stream) < HEADER.size + length:
            return
        yield kind
        del stream[: HEADER.size + length]


def calls(file):
    """Yields the name, descriptor, arguments and result of each call in a trace."""
    with open(file, encoding="ascii", errors="replace") as trace:
        for line in trace:
            call = CALL.match(line)
            if call:
                yield call[1], int(call[2]), call[3], int(call[4])


def main():
    sent = collections.Counter()
    connections = 0
    for file in sys.argv[1:]:
        streams = {}
        for name, descriptor, arguments, result in calls(file):
            if name == "connect" and result == 0 and SOCKET in arguments.replace("\\x", ""):
                streams[descriptor] = bytearray()
                connections += 1
            elif name == "close":
                streams.pop(descriptor, None)
            elif descriptor in streams and result > 0:
                data = DATA.match(arguments)
                streams[descriptor] += bytes.fromhex(data[1].replace("\\x", ""))[:result] if data else b""
                sent.update(requests(streams[descriptor]))
    by_type = {NAMES.get(kind, str(kind)): count for kind, count in sorted(sent.items())}
    print(json.dumps({"requests": sum(sent.values()), "connections": connections, "by_type": by_type}))


main()
