"""P8: idle connections, each a member of one group: memory of each, and processor time in silence.

Ours pings each client every twenty seconds, as uvicorn and ``websockets`` do; ``ws`` and hypercorn do not. At last one
client after the other sends a message, and its echo is awaited: the first after the silence. ``--scale 4`` makes of
5,000 connections 20,000, which need 20,100 open files (``ulimit -Hn``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .harness import Comparison, Timing, Workload, main
from .sockets.driver import Running, side

#: Connections that are there before memory is measured: they make what all share.
FIRST = 10
#: Seconds of silence, and before the first message.
SILENCE, LONG_SILENCE = 5.0, 60.0
MANY = 5_000


def idle(server: Running, clients: Callable[..., Any], count: int) -> Timing:
    """Open so many connections, and be silent."""
    clients("open", server.port, "/room/", FIRST)
    before = server.memory()
    opening = server.measure(count, lambda: clients("open", server.port, "/room/", count))
    kib = (server.memory() - before) / count
    seconds = SILENCE * min(1, count / MANY)
    silence = server.measure(count, lambda: clients("idle", seconds))
    return Timing(count, opening.seconds, opening.cpu_seconds, {"kib": kib, "idle_us": silence.cpu_us / seconds})


def first(server: Running, clients: Callable[..., Any], count: int) -> Timing:
    """The first message of some of so many connections after a minute of silence; less with fewer than usual."""
    clients("open", server.port, "/echo/", count)
    clients("idle", LONG_SILENCE * min(1, count / MANY))
    cpu = server.cpu()
    latencies = sorted(clients("first", min(count, 1_000)))
    cpu = server.cpu() - cpu
    worst = latencies[int(len(latencies) * 0.99)]
    return Timing(len(latencies), sum(latencies), cpu, {"p99_us": worst * 1e6})


SERVERS = ("ours", "channels-uvicorn", "channels-granian", "channels-daphne", "ws-node", "websockets-uvloop", "floor")

WORKLOAD = Workload(
    name="p8_idle",
    title="idle connections",
    unit="connection",
    sides={
        **{f"{name}-{size}": side(name, idle, size) for name in SERVERS for size in (500, 5_000)},
        **{f"{name}-first": side(name, first, MANY) for name in ("ours", "websockets-uvloop")},
    },
    comparisons=[
        *(
            Comparison(f"{size:,}: KiB of memory / {peer}", f"ours-{size}", f"{peer}-{size}", of="kib", slower=slower)
            for size in (500, 5_000)
            for peer, slower in (("channels-uvicorn", 1.0), *((name, None) for name in SERVERS[2:]))
        ),
        Comparison("5,000: CPU in silence / channels-uvicorn", "ours-5000", "channels-uvicorn-5000", of="idle_us"),
        Comparison("first message / websockets-uvloop, p99", "ours-first", "websockets-uvloop-first", of="p99_us"),
    ],
)

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))
