"""P7: echo over real sockets. Fifty WebSockets, each with one message on its way, served by hypercorn's Trio worker.

Both sides have the same application; ours serves it with ``trio_channels.server``. The clients are in another process
(``_echo_client``), so that the side's processor time is only the server's.

Applications: a plain ASGI loop, which shows the server alone; and our consumer, which shows a user's gain.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from . import _django
from ._clients import wait_for_line
from .harness import ROOT, Comparison, Side, Stopwatch, Timing, Workload, main

CLIENTS = 50

#: Seconds for the whole side. Without it, a lost answer would be waited for for ever.
DEADLINE = 200


async def plain(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """The smallest ASGI application that echoes."""
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


def consumer() -> Any:
    """Our ``AsyncWebsocketConsumer``, routed."""
    from trio_channels.generic.websocket import AsyncWebsocketConsumer
    from trio_channels.routing import ProtocolTypeRouter

    class Echo(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=text_data, bytes_data=bytes_data)

    return ProtocolTypeRouter({"websocket": Echo.as_asgi()})


def drive(serve: Callable[..., Any], application: Any, count: int) -> Timing:
    """Serve the application in this process, to the process of the clients."""
    import trio
    from hypercorn.config import Config

    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.loglevel = "ERROR"

    async def echo(clients: trio.Process, times: int) -> None:
        if clients.stdin is None:
            raise RuntimeError("expected the clients' stdin to be a pipe; got None")
        await clients.stdin.send_all(b"%d\n" % times)
        await wait_for_line(clients.stdout, b"done\n")

    async def run() -> Timing:
        stop = trio.Event()
        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                (bind,) = await nursery.start(partial(serve, application, config, shutdown_trigger=stop.wait))
                command = [sys.executable, "-m", "benchmarks._echo_client", bind.rsplit(":", 1)[1], str(CLIENTS)]
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
                clients: trio.Process = await nursery.start(partial(trio.run_process, command, cwd=ROOT, **pipes))
                await echo(clients, max(CLIENTS, count // 5))
                with Stopwatch() as watch:
                    await echo(clients, count)
                if clients.stdin is not None:
                    await clients.stdin.aclose()
                stop.set()
        return watch.timing(count)

    return trio.run(run)


def ours(count: int) -> Timing:
    """The plain application on our server."""
    _django.set_up(_django.OURS)
    from trio_channels.server import serve

    return drive(serve, plain, count)


def ours_consumer(count: int) -> Timing:
    """The consumer on our server."""
    _django.set_up(_django.OURS)
    from trio_channels.server import serve

    return drive(serve, consumer(), count)


def hypercorn(count: int) -> Timing:
    """The plain application on hypercorn."""
    from hypercorn.trio import serve

    return drive(serve, plain, count)


def hypercorn_consumer(count: int) -> Timing:
    """The consumer on hypercorn."""
    _django.set_up(_django.OURS)
    application = consumer()  # before the import: made after it, the application would harden hypercorn
    from hypercorn.trio import serve

    return drive(serve, application, count)


WORKLOAD = Workload(
    name="p7_serving",
    title="echo over sockets",
    unit="echo",
    sides={
        "ours": Side(ours, 20_000),
        "hypercorn": Side(hypercorn, 20_000),
        "ours-consumer": Side(ours_consumer, 20_000),
        "hypercorn-consumer": Side(hypercorn_consumer, 20_000),
    },
    comparisons=[
        Comparison("plain ASGI / hypercorn-trio", "ours", "hypercorn", faster=1.5),
        Comparison("plain ASGI / hypercorn-trio, CPU", "ours", "hypercorn", faster=1.5, of="cpu_us"),
        Comparison("consumer / hypercorn-trio", "ours-consumer", "hypercorn-consumer", faster=1.5),
        Comparison("consumer / hypercorn-trio, CPU", "ours-consumer", "hypercorn-consumer", faster=1.5, of="cpu_us"),
    ],
)

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))
