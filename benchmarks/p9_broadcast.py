"""P9: messages to a group of WebSockets over real sockets, through each consumer's handler and by ``group_broadcast``.

The floor is the least that Python on Trio can do: a prebuilt frame, and a loop of non-blocking writes. The clients are
in another process (``_broadcast_client``), so that the processor time is only the server's. One unit is one message to
one client.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from . import _django
from ._broadcast_client import FRAME, TEXT
from ._clients import wait_for_line
from .harness import ROOT, Comparison, Side, Stopwatch, Timing, Workload, main

#: Seconds for the whole side. Without it, a lost message would be waited for for ever.
DEADLINE = 200

#: Messages to all that may be on their way: fewer than a mailbox holds.
AHEAD = 50

GROUP = "everybody"


@asynccontextmanager
async def clients(port: int, number: int) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """A process of clients, as an async function that waits until each has so many messages more."""
    import trio

    command = [sys.executable, "-m", "benchmarks._broadcast_client", str(port), str(number)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(partial(trio.run_process, command, cwd=ROOT, **pipes))
        stdin = process.stdin
        if stdin is None:
            raise RuntimeError("expected the clients' stdin to be a pipe; got None")
        await wait_for_line(process.stdout, b"open\n")

        async def expect(count: int) -> None:
            await stdin.send_all(b"%d\n" % count)
            await wait_for_line(process.stdout, b"done\n")

        yield expect
        await stdin.aclose()


async def send_all(send: Callable[[], Awaitable[object]], expect: Callable[[int], Awaitable[None]], times: int) -> None:
    """Send so many messages to all, and wait until all have come."""
    while times > 0:
        count = min(times, AHEAD)
        for _ in range(count):
            await send()
        await expect(count)
        times -= count


async def measure(send: Callable[[], Awaitable[object]], port: int, number: int, count: int) -> Timing:
    """Send `count` messages to `number` clients in all, after a tenth of them to warm up."""
    import trio

    times = max(1, count // number)
    with trio.fail_after(DEADLINE):
        async with clients(port, number) as expect:
            await trio.sleep(0.1)  # the last one joins
            await send_all(send, expect, max(1, times // 10))
            with Stopwatch() as watch:
                await send_all(send, expect, times)
    return watch.timing(times * number)


def ours(number: int, count: int, *, broadcast: bool) -> Timing:
    """Our consumer on our server, with the in-memory layer."""
    _django.set_up(_django.OURS)
    import trio
    from hypercorn.config import Config

    from trio_channels.generic.websocket import AsyncWebsocketConsumer
    from trio_channels.layers import InMemoryChannelLayer
    from trio_channels.routing import ProtocolTypeRouter
    from trio_channels.server import serve

    layer = InMemoryChannelLayer()

    class Member(AsyncWebsocketConsumer):
        channel_layer = layer
        groups = [GROUP]

        async def told(self, event: dict[str, Any]) -> None:
            await self.send(text_data=event["text"])

    application: Any = ProtocolTypeRouter({"websocket": Member.as_asgi()})
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.loglevel = "ERROR"

    async def send() -> None:
        if broadcast:
            await layer.group_broadcast(GROUP, text=TEXT)
        else:
            await layer.group_send(GROUP, {"type": "told", "text": TEXT})

    async def run() -> Timing:
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            (bind,) = await nursery.start(partial(serve, application, config, shutdown_trigger=stop.wait))
            timing = await measure(send, int(bind.rsplit(":", 1)[1]), number, count)
            stop.set()
        return timing

    return trio.run(run)


def floor(number: int, count: int) -> Timing:
    """One task per connection, and one frame for all; no protection, no protocol beyond the handshake."""
    import trio

    sockets: dict[Any, None] = {}

    async def connection(stream: trio.SocketStream) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await stream.receive_some()
        (key,) = (line[18:].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        await stream.send_all(
            b"HTTP/1.1 101 \r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n" % accept
        )
        raw = stream.socket._sock  # type: ignore[attr-defined]
        sockets[raw] = None
        while await stream.receive_some():
            pass
        del sockets[raw]

    async def send() -> None:
        for each in sockets:
            each.send(FRAME)
        await trio.lowlevel.checkpoint()

    async def run() -> Timing:
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, connection, 0, host="127.0.0.1"))
            timing = await measure(send, listener.socket.getsockname()[1], number, count)
            nursery.cancel_scope.cancel()
        return timing

    return trio.run(run)


def sides(number: int) -> dict[str, Side]:
    """The sides with a group of this size."""
    count = 100_000
    return {
        f"handlers-{number}": Side(partial(ours, number, broadcast=False), count),
        f"broadcast-{number}": Side(partial(ours, number, broadcast=True), count),
        f"floor-{number}": Side(partial(floor, number), count),
    }


def comparisons(number: int) -> list[Comparison]:
    """Their comparisons."""
    return [
        Comparison(
            f"{number}: handlers / floor, CPU", f"handlers-{number}", f"floor-{number}", slower=2.5, of="cpu_us"
        ),
        Comparison(
            f"{number}: broadcast / floor, CPU", f"broadcast-{number}", f"floor-{number}", slower=1.4, of="cpu_us"
        ),
    ]


WORKLOAD = Workload(
    name="p9_broadcast",
    title="messages to a group, over sockets",
    unit="message to a client",
    sides=sides(50) | sides(500),
    comparisons=[*comparisons(50), *comparisons(500)],
)

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))
