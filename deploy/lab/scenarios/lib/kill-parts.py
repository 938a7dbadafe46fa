#!/usr/bin/env python3
"""Kills net_uk's processes (SIGKILL) at fixed intervals, each one only once it told that it serves, and tells how long the
keeper took to find each death and to have a successor serve. Reads the keeper's events (JSON lines) as they come."""
import argparse
import json
import os
import signal
import statistics
import sys
import time

LOOK_S = 0.005


class Part:
    """One of the keeper's processes, the present one."""

    def __init__(self, interval_s, start):
        self.interval_s, self.due = interval_s, start + interval_s
        self.pid, self.serves, self.kills = None, False, []

    def kill_if_due(self, now):
        if self.interval_s == 0 or now < self.due or not self.serves:
            return
        self.kills.append({"pid": self.pid, "at_ns": time.monotonic_ns()})
        self.serves = False
        os.kill(self.pid, signal.SIGKILL)
        self.due = max(self.due + self.interval_s, now)

    def take(self, event, surprises):
        last = self.kills[-1] if self.kills else {}
        if event["kind"] == "started":
            self.pid, self.serves = event["pid"], False
        elif event["kind"] == "ready":
            self.serves = True
            if "found_ns" in last:
                last.setdefault("serves_ns", event["at_monotonic_ns"])
        elif event["kind"] == "ended" and event["pid"] == last.get("pid"):
            last["found_ns"] = event["at_monotonic_ns"]
        elif event["kind"] in ("ended", "condemned", "not_started", "vif_lost", "vif_broken", "vif_refused", "gave_up"):
            surprises.append({key: event[key] for key in ("part", "kind", "detail")})


def figures(part):
    """Times in milliseconds."""
    answer = {"kills": len(part.kills)}
    for name, key in (("found_ms", "found_ns"), ("serves_ms", "serves_ns")):
        times = [(kill[key] - kill["at_ns"]) / 1e6 for kill in part.kills if key in kill]
        if times:
            answer[name] = {"median": round(statistics.median(times), 2), "most": round(max(times), 2)}
    return answer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--kill", action="append", default=[], metavar="PART=SECONDS", help="one each SECONDS; 0: never")
    parser.add_argument("--settle", type=float, default=20, help="seconds that the last successors may take")
    options = parser.parse_args()
    start = time.monotonic()
    parts = {}
    for kill in options.kill:
        name, interval = kill.split("=")
        parts[name] = Part(float(interval), start)
    surprises = []
    with open(options.events, encoding="utf-8") as events:
        follow(events, parts, [])  # What was before.
        while (now := time.monotonic()) - start < options.seconds + options.settle:
            follow(events, parts, surprises)
            if now - start < options.seconds:
                for part in parts.values():
                    part.kill_if_due(now)
            elif all(part.serves for part in parts.values()):
                break
            time.sleep(LOOK_S)
    answer = {name: figures(part) for name, part in parts.items()}
    answer["all_serve"] = all(part.serves for part in parts.values())
    answer["surprises"] = surprises
    print(json.dumps(answer))
    sys.exit(0 if answer["all_serve"] else 1)


def follow(events, parts, surprises):
    """Takes the lines that arrived whole."""
    while True:
        place = events.tell()
        line = events.readline()
        if not line.endswith("\n"):
            events.seek(place)
            return
        event = json.loads(line)
        if event["part"] in parts:
            parts[event["part"]].take(event, surprises)


if __name__ == "__main__":
    main()
