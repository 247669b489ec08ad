"""P10: a WebSocket connects, is accepted, and closes; with routing, origin check and one group, over real sockets.

The measure is the processor time of the server. Once without and once with a session and its user, from SQLite.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from .harness import Comparison, Timing, Workload, main
from .sockets.driver import Running, side

CHANNELS = ("channels-uvicorn", "channels-granian", "channels-daphne")
MARKS = ("websockets-uvloop", "ws-node", "floor")


def visit(server: Running, clients: Callable[..., Any], count: int, path: str = "/room/") -> Timing:
    """Visit so often, after a fifth of that to warm up."""
    clients("visit", server.port, path, max(1, count // 5), server.cookie)
    return server.measure(count, lambda: clients("visit", server.port, path, count, server.cookie))


def compared(suffix: str, peers: tuple[str, ...]) -> list[Comparison]:
    """Ours with each peer; the target is that of Channels on uvicorn."""
    targets = {"channels-uvicorn": 0.8}
    return [
        Comparison(
            f"{'with a user' if suffix else 'without'} / {peer}",
            *(f"ours{suffix}", f"{peer}{suffix}"),
            slower=targets.get(peer),
            of="cpu_us",
        )
        for peer in peers
    ]


WORKLOAD = Workload(
    name="p10_visit",
    title="connect, accept, close",
    unit="connection",
    sides={
        **{name: side(name, visit, 1_000) for name in ("ours", *CHANNELS, *MARKS)},
        **{f"{name}-user": side(name, partial(visit, path="/member/"), 500) for name in ("ours", *CHANNELS)},
    },
    comparisons=[*compared("", (*CHANNELS, *MARKS)), *compared("-user", CHANNELS)],
)

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))
