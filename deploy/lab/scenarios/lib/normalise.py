#!/usr/bin/env python3
"""Reads `xenstore-ls -f -p` on stdin and prints it so that the dumps of two like runs compare as text.

Arguments: the guests' names, in the order of their creation. Replaced are domids (by the guest's name), UUIDs, and the
values that differ from one creation to the next by their nature; each value keeps its path, so a node that is missing,
surplus, or has other permissions shows.
"""

import re
import sys

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LINE = re.compile(r'^(?P<path>/\S*) = "(?P<value>.*)"\s+\((?P<perms>[^)]*)\)$')
# Nodes whose values are times, ports, grant references, terminals, or counters.
VOLATILE = re.compile(
    r"/(start_time|port|ring-ref|event-channel|event-channel-[a-z]+|tty|mac|beat|guest-up|dm-version|pid|image/device-model-pid)$"
)
# What a guest writes when it has booted far enough says nothing of the store once it is there or not there yet.
UNTIMED = re.compile(r"^/local/domain/[^/]+/(control/(feature-[a-z-]+|sysrq|shutdown)|data/beat)$")


def domids(lines, names):
    """Maps domid to name, from the guests' own /local/domain/N/name."""
    found = {"0": "Domain-0"}
    for line in lines:
        name = re.match(r'^/local/domain/(\d+)/name = "([^"]*)"', line)
        if name and name[2] in names:
            found[name[1]] = name[2]
    return found


def main():
    names = sys.argv[1:]
    lines = sys.stdin.read().splitlines()
    known = domids(lines, names)
    uuids = {}

    def name_of(domid):
        return known.get(domid, "domid?" + domid)

    def plain(text):
        text = re.sub(
            r"(/local/domain/|/libxl/|/backend/[a-z]+/|/backend-id/)(\d+)(?=/|$)",
            lambda m: m[1] + name_of(m[2]),
            text,
        )
        return UUID.sub(lambda m: uuids.setdefault(m[0], "uuid"), text)

    out = []
    for line in lines:
        entry = LINE.match(line)
        if not entry:
            out.append("unreadable: " + line)
            continue
        path, value = plain(entry["path"]), plain(entry["value"])
        # /vm/UUID is told apart by the guest's name within it, so the paths are sorted, not numbered.
        if UNTIMED.match(path):
            continue
        if VOLATILE.search(path):
            value = "volatile"
        elif path.endswith("/domid") or path.endswith("/frontend-id") or path.endswith("/backend-id"):
            value = name_of(value)
        perms = re.sub(r"([nrwb])(\d+)", lambda m: m[1] + name_of(m[2]), entry["perms"])
        out.append(f'{path} = "{value}" ({perms})')
    print("\n".join(sorted(out)))


main()
