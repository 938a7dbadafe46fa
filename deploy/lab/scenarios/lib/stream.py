#!/usr/bin/env python3
"""One TCP connection to an echo service: sends a stream that a seed determines for some seconds, and compares what comes
back. Prints a JSON object: bytes each way, both checksums, the longest time without an arrival, retransmissions, and how
it ended. Exit status 0: ended in order, and all that was sent came back."""
import argparse
import hashlib
import json
import random
import socket
import struct
import sys
import threading
import time

CHUNK_BYTES = 16 * 1024
TCP_INFO_TOTAL_RETRANS = 100  # offset in struct tcp_info


class Sender(threading.Thread):
    """Sends at most at a rate, until the time is over."""

    def __init__(self, connection, options):
        super().__init__(daemon=True)
        self.connection, self.options = connection, options
        self.sum, self.bytes, self.error = hashlib.sha256(), 0, None

    def run(self):
        source = random.Random(self.options.seed)
        start = time.monotonic()
        try:
            while (elapsed := time.monotonic() - start) < self.options.seconds:
                if self.options.kib_per_s:
                    time.sleep(max(0.0, self.bytes / (self.options.kib_per_s * 1024) - elapsed))
                chunk = source.randbytes(CHUNK_BYTES)
                self.connection.sendall(chunk)
                self.sum.update(chunk)
                self.bytes += len(chunk)
            self.connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.error = str(error)


def receive(connection, options):
    """Takes what comes back until the end. Returns what is known of it."""
    total, received, error = hashlib.sha256(), 0, None
    longest_s, last = 0.0, time.monotonic()
    connection.settimeout(options.patience)
    try:
        while data := connection.recv(1 << 16):
            longest_s, last = max(longest_s, time.monotonic() - last), time.monotonic()
            total.update(data)
            received += len(data)
    except OSError as failed:
        error = str(failed)
    return total, received, error, max(longest_s, time.monotonic() - last)


def retransmissions(connection):
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    return struct.unpack_from("I", info, TCP_INFO_TOTAL_RETRANS)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("--port", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--kib-per-s", type=int, default=0, help="0: as fast as it goes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patience", type=float, default=60, help="seconds without an arrival after which it gives up")
    options = parser.parse_args()
    began = time.monotonic()
    connection = socket.create_connection((options.host, options.port), timeout=options.patience)
    sender = Sender(connection, options)
    sender.start()
    total, received, error, longest_s = receive(connection, options)
    sender.join(timeout=options.patience)
    result = {
        "sent_bytes": sender.bytes,
        "received_bytes": received,
        "seconds": round(time.monotonic() - began, 3),
        "sha256_sent": sender.sum.hexdigest(),
        "sha256_received": total.hexdigest(),
        "longest_pause_s": round(longest_s, 3),
        "retransmissions": retransmissions(connection),
        "error": sender.error or error,
    }
    print(json.dumps(result))
    whole = result["sha256_sent"] == result["sha256_received"] and sender.bytes > 0
    sys.exit(0 if whole and not result["error"] else 1)


if __name__ == "__main__":
    main()
