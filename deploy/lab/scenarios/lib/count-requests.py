#!/usr/bin/env python3
"""Counts the xenstore requests that a traced program sent, by type, and the EAGAIN answers that it got.

Reads `strace -f -xx -s 4200 -yy -e trace=read,write,...` output on stdin. It follows each connection's byte stream in both
directions, so it does not matter how the client cuts its messages into system calls. Prints one JSON object.
"""

import collections
import json
import re
import struct
import sys

CALL = re.compile(r'^(?:\d+\s+)?(read|write|recvfrom|sendto)\((\d+)<UNIX[^>]*xenstored/socket[^>]*>, "((?:\\x[0-9a-f]{2})*)"(?:, \d+)?.*\) = (\d+)')
SENT = ("write", "sendto")
HEADER = struct.Struct("<4I")
ERROR = 16
NAMES = {
    1: "directory", 2: "read", 3: "get_perms", 4: "watch", 5: "unwatch", 6: "transaction_start", 7: "transaction_end",
    8: "introduce", 9: "release", 10: "get_domain_path", 11: "write", 12: "mkdir", 13: "rm", 14: "set_perms",
    18: "is_domain_introduced", 19: "resume", 20: "set_target",
}


def messages(stream):
    """Takes the whole messages off the front of the stream."""
    while len(stream) >= HEADER.size:
        kind, _, _, length = HEADER.unpack_from(stream)
        if len(stream) < HEADER.size + length:
            return
        yield kind, bytes(stream[HEADER.size : HEADER.size + length])
        del stream[: HEADER.size + length]


def main():
    streams = collections.defaultdict(bytearray)
    sent = collections.Counter()
    eagain = 0
    for line in sys.stdin:
        call = CALL.match(line)
        if not call:
            continue
        data = bytes.fromhex(call[3].replace("\\x", ""))[: int(call[4])]
        outwards = call[1] in SENT
        stream = streams[call[2], outwards]
        stream += data
        for kind, body in messages(stream):
            if outwards:
                sent[NAMES.get(kind, str(kind))] += 1
            elif kind == ERROR and body.startswith(b"EAGAIN"):
                eagain += 1
    print(json.dumps({"requests": sum(sent.values()), "eagain": eagain, "by_type": dict(sorted(sent.items()))}))


main()
