"""P8: idle connections. The cost of each: memory, processor time in silence, and its share of a broadcast to all.

Both sides have the same consumer, with all clients in one room of the in-memory layer. Ours serves it with
``trio_channels.server``, which pings each client every twenty seconds; hypercorn does not ping. The clients are in
another process (``_idle_client``). There are two thousand; ``--scale 5`` makes ten thousand, which need 10,100 open
files (``ulimit -Hn``).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from . import _django
from ._clients import wait_for_line
from ._idle_client import allow_descriptors
from .harness import ROOT, Comparison, Side, Stopwatch, Timing, Workload, main

#: Seconds for the whole side.
DEADLINE = 280

#: Seconds of silence for each thousand connections.
QUIET = 2


def room() -> Any:
    """A consumer that sends each message to all clients."""
    from trio_channels.generic.websocket import AsyncWebsocketConsumer
    from trio_channels.routing import ProtocolTypeRouter

    class Room(AsyncWebsocketConsumer):
        groups = ("room",)

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.channel_layer.group_send("room", {"type": "said", "text": text_data})

        async def said(self, message: dict[str, Any]) -> None:
            await self.send(text_data=message["text"])

    return ProtocolTypeRouter({"websocket": Room.as_asgi()})


def memory() -> int:
    """The resident memory of this process, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def drive(serve: Callable[..., Any], application: Any, count: int) -> Timing:
    """Serve the room in this process, to the process of the clients."""
    import trio
    from hypercorn.config import Config

    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.loglevel = "ERROR"
    config.backlog = 1000
    allow_descriptors(count)
    quiet = QUIET * count / 1000

    async def run() -> Timing:
        stop = trio.Event()
        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                (bind,) = await nursery.start(partial(serve, application, config, shutdown_trigger=stop.wait))
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}

                async def connected(number: int) -> trio.Process:
                    command = [sys.executable, "-m", "benchmarks._idle_client", bind.rsplit(":", 1)[1], str(number)]
                    clients: trio.Process = await nursery.start(partial(trio.run_process, command, cwd=ROOT, **pipes))
                    await wait_for_line(clients.stdout, b"connected\n")
                    return clients

                few = await connected(10)
                before = memory()
                clients = await connected(count)
                kib = (memory() - before) / count
                cpu = time.process_time()
                await trio.sleep(quiet)
                idle = (time.process_time() - cpu) / quiet / count
                with Stopwatch() as watch:
                    await clients.stdin.send_all(b"\n")  # type: ignore[union-attr]
                    await wait_for_line(clients.stdout, b"done\n")
                await few.stdin.aclose()  # type: ignore[union-attr]
                await clients.stdin.aclose()  # type: ignore[union-attr]
                stop.set()
        timing = watch.timing(count)
        return replace(timing, more={"kib": kib, "idle_us": idle * 1e6})

    return trio.run(run)


def ours(count: int) -> Timing:
    """The room on our server."""
    _django.set_up(_django.OURS)
    from trio_channels.server import serve

    return drive(serve, room(), count)


def hypercorn(count: int) -> Timing:
    """The room on hypercorn."""
    _django.set_up(_django.OURS)
    application = room()  # before the import: made after it, the application would harden hypercorn
    from hypercorn.trio import serve

    return drive(serve, application, count)


WORKLOAD = Workload(
    name="p8_idle",
    title="idle connections",
    unit="connection",
    sides={"ours": Side(ours, 2_000), "hypercorn": Side(hypercorn, 2_000)},
    comparisons=[
        Comparison("KiB of memory / hypercorn-trio", "ours", "hypercorn", of="kib"),
        Comparison("CPU in a second of silence, with pings / without", "ours", "hypercorn", of="idle_us"),
        Comparison("broadcast to all / hypercorn-trio", "ours", "hypercorn"),
    ],
)

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))
