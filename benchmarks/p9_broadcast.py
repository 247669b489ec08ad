"""P9: messages to a group of WebSockets over real sockets, through each consumer's handler and by ``group_broadcast``.

One unit is one message of 100 bytes to one client; the measure is the processor time of the server. One of the clients
asks for the messages. ``floor``, ``ws`` and ``websockets.broadcast`` build the frame once, as ``group_broadcast`` does.

Channels takes no part with 5,000: for each delivery its layer in memory looks through all channels for expired
messages. One message to 5,000 takes it some twenty seconds, and a message that waits for a minute is dropped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from .harness import Comparison, Side, Timing, Workload, main
from .sockets.driver import Running, side

SIZES = (50, 500, 5_000)
#: The largest group for Channels.
LARGEST_FOR_CHANNELS = 500


def publish(server: Running, clients: Callable[..., Any], count: int, path: str, size: int) -> Timing:
    """Send messages to so many clients, `count` in all, after a fifth of them to warm up."""
    clients("open", server.port, path, size)
    times = max(1, count // size)
    clients("publish", max(1, times // 5))
    return server.measure(times * size, lambda: clients("publish", times))


def sides(size: int) -> dict[str, Side]:
    """The sides with a group of this size."""

    def one(name: str, path: str = "/room/", count: int = 300_000) -> Side:
        trial = partial(publish, path=path, size=min(size, 100))
        return side(name, partial(publish, path=path, size=size), count, trial=trial)

    marks = ("floor", "ws-node", "websockets-uvloop")
    channels = ("channels-uvicorn", "channels-granian") if size <= LARGEST_FOR_CHANNELS else ()
    return {
        f"handlers-{size}": one("ours"),
        f"broadcast-{size}": one("ours", "/broadcast/"),
        **{f"{name}-{size}": one(name) for name in marks},
        **{f"{name}-{size}": one(name, count=20_000) for name in channels},
    }


def comparisons(size: int) -> list[Comparison]:
    """Their comparisons."""
    compared = (
        ("handlers", "channels-uvicorn", 0.2),
        ("handlers", "channels-granian", 0.2),
        ("handlers", "floor", 2.5),
        ("broadcast", "floor", 1.4),
        ("broadcast", "websockets-uvloop", 1.0),
        ("broadcast", "ws-node", 1.0),
    )
    return [
        Comparison(
            f"{size:,}: {ours} / {peer}",
            f"{ours}-{size}",
            f"{peer}-{size}",
            slower=slower,
            of="cpu_us",
            large=size > 1_000,
        )
        for ours, peer, slower in compared
        if not peer.startswith("channels") or size <= LARGEST_FOR_CHANNELS
    ]


WORKLOAD = Workload(
    name="p9_broadcast",
    title="messages to a group",
    unit="message to a client",
    sides={name: found for size in SIZES for name, found in sides(size).items()},
    comparisons=[comparison for size in SIZES for comparison in comparisons(size)],
)

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))
