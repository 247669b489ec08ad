"""P11: Django over HTTP and real sockets: sixteen clients that keep their connections, and large bodies.

The views are those of P4: trivial, one query (SQLite), async; two middleware classes. The peers are Django's own ASGI
handler on uvicorn, and WSGI on gunicorn with ten threads. The measure is the processor time of the server. A large
response is 100 MiB in parts of 64 KiB from a generator, and an upload as large is read by the view in such parts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from .harness import Comparison, Timing, Workload, main
from .sockets.driver import Running, side

CLIENTS = 16
SERVERS = ("ours", "django-uvicorn", "django-gunicorn")
#: The greatest ratio to uvicorn, and to gunicorn.
TARGETS = {"trivial": (0.4, 1.2), "query": (0.4, 1.0), "async": (0.4, 0.6), "stream": (1.0, 1.0), "upload": (1.0, 1.0)}


def get(server: Running, clients: Callable[..., Any], count: int, view: str) -> Timing:
    """Request the page so often, after a tenth of that to warm up."""
    clients("get", server.port, f"/{view}/", max(CLIENTS, count // 10), CLIENTS)
    return server.measure(count, lambda: clients("get", server.port, f"/{view}/", count, CLIENTS))


def transfer_once(server: Running, clients: Callable[..., Any], _count: int, view: str) -> Timing:
    """A body is large enough for the tests."""
    return transfer(server, clients, 1, view)


def transfer(server: Running, clients: Callable[..., Any], count: int, view: str) -> Timing:
    """Read or send the large body so often."""
    command = {"stream": "download", "upload": "upload"}[view]

    def work() -> None:
        for _ in range(count):
            clients(command, server.port, f"/{view}/")

    return server.measure(count, work)


PAGES, LARGE = ("trivial", "query", "async"), ("stream", "upload")

WORKLOAD = Workload(
    name="p11_http",
    title="Django over HTTP",
    unit="request",
    sides={
        f"{name}-{view}": side(
            name,
            partial(get if view in PAGES else transfer, view=view),
            3_000 if view in PAGES else 5,
            trial=partial(transfer_once, view=view) if view in LARGE else None,
        )
        for name in SERVERS
        for view in (*PAGES, *LARGE)
    },
    comparisons=[
        Comparison(f"{view} / {peer}", f"ours-{view}", f"{peer}-{view}", slower=TARGETS[view][place], of="cpu_us")
        for view in (*PAGES, *LARGE)
        for place, peer in enumerate(SERVERS[1:])
    ],
)

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))
