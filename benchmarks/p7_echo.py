"""P7: echo over real sockets: fifty WebSockets, each with one message of 100 bytes on its way.

The measure is the processor time of the server. Ours serves its consumer, as the peers serve Channels'; beside them are
programs without any framework, as marks: the packages ``ws`` and ``websockets``, and the least that Trio can do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .harness import Comparison, Timing, Workload, main
from .sockets.driver import Running, side

CLIENTS = 50
PEERS = ("channels-uvicorn", "channels-granian", "channels-daphne", "channels-hypercorn", "ours-hypercorn")


def echo(server: Running, clients: Callable[..., Any], count: int) -> Timing:
    """Echo so many messages, after a tenth of them to warm up."""
    clients("open", server.port, "/echo/", CLIENTS)
    clients("echo", max(CLIENTS, count // 10))
    return server.measure(count, lambda: clients("echo", count))


WORKLOAD = Workload(
    name="p7_echo",
    title="echo over sockets",
    unit="echo",
    sides={
        **{name: side(name, echo, 20_000) for name in ("ours", *PEERS)},
        **{name: side(name, echo, 60_000) for name in ("floor", "ws-node", "websockets-uvloop")},
    },
    comparisons=[
        Comparison("Channels on uvicorn", "ours", "channels-uvicorn", slower=0.34, of="cpu_us"),
        *(Comparison(title, "ours", name, slower=1.0, of="cpu_us") for title, name in (
            ("Channels on granian", "channels-granian"),
            ("Channels on daphne", "channels-daphne"),
            ("Channels on hypercorn", "channels-hypercorn"),
        )),
        Comparison("the same on bare hypercorn", "ours", "ours-hypercorn", slower=0.5, of="cpu_us"),
        Comparison("websockets on uvloop", "ours", "websockets-uvloop", slower=1.3, of="cpu_us"),
        Comparison("ws on Node", "ours", "ws-node", of="cpu_us"),
        Comparison("the floor on Trio", "ours", "floor", slower=1.7, of="cpu_us"),
    ],
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))
