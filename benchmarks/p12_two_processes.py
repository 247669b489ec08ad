"""P12: two server processes and one Redis; 500 WebSockets on each; a client of the first sends to all of both.

One unit is one message to one client. Compared are the time in which so many messages reach all clients, the processor
time of both servers, and how long one message alone takes from the client that sends it to the last one that gets it.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from typing import Any

from examples.private_redis import private_redis

from .harness import Comparison, Side, Timing, Workload, main
from .sockets import project
from .sockets.driver import SERVERS, Running, running

SIZE = 500
ALONE = 50
LAYERS = {
    "ours": ("ours", "trio_channels.layers.redis.RedisStreamsChannelLayer"),
    "core": ("channels-uvicorn", "channels_redis.core.RedisChannelLayer"),
    "pubsub": ("channels-uvicorn", "channels_redis.pubsub.RedisPubSubChannelLayer"),
}


def work(servers: Running, clients: Callable[..., Any], count: int, size: int) -> Timing:
    for port in servers.ports:
        clients("open", port, "/room/", size)
    times = max(1, count // (2 * size))
    clients("publish", max(1, times // 5))
    timing = servers.measure(times * 2 * size, lambda: clients("publish", times))
    seconds = sorted(clients("latencies", ALONE))
    half, worst = statistics.median(seconds), seconds[int(ALONE * 0.99)]
    return Timing(timing.operations, timing.seconds, timing.cpu_seconds, {"p50_us": half * 1e6, "p99_us": worst * 1e6})


def layer(name: str, count: int) -> Side:
    server, backend = LAYERS[name]

    def run(times: int, size: int = SIZE) -> Timing:
        with (
            private_redis() as url,
            running(server, 2, **{project.REDIS: url, project.LAYER: backend}) as servers,
            servers.clients() as clients,
        ):
            return work(servers, clients, times, size)

    needs = () if name == "ours" else ("channels_redis",)
    return Side(run, count, needs, trial=lambda times: run(times, 5), missing=lambda: SERVERS[server].missing)


WORKLOAD = Workload(
    name="p12_two_processes",
    title="two processes and Redis",
    unit="message to a client",
    sides={"ours": layer("ours", 200_000), "core": layer("core", 20_000), "pubsub": layer("pubsub", 50_000)},
    comparisons=[
        comparison
        for peer in ("core", "pubsub")
        for comparison in (
            Comparison(f"messages / {peer}", "ours", peer, faster=5),
            Comparison(f"CPU / {peer}", "ours", peer, of="cpu_us"),
            Comparison(f"one message, p50 / {peer}", "ours", peer, of="p50_us"),
            Comparison(f"one message, p99 / {peer}", "ours", peer, slower=1 / 3, of="p99_us"),
        )
    ],
)

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))
