"""P14: watched. The echo of P2 through a consumer: with metrics, and with tracing that is imported and not enabled.

The differences are smaller than those between two processes. So each side has two connections in one process, the first
of which was opened before, and they take turns. The figure ``times`` is the processor time of the second, divided by
that of the first. Of the side ``ours`` the two are alike.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from . import _django
from .harness import Comparison, Side, Timing, Workload, main
from .p2_echo import DEADLINE, QUEUE, SCOPE, verify

#: Echoes of one connection until the other has its turn.
TURN = 200


def in_turns(count: int, between: Callable[[], object]) -> Timing:
    """Echo so many times over each of two connections; `between` is called before the second one is opened."""
    _django.set_up(_django.OURS)
    import trio

    from trio_channels.generic.websocket import AsyncWebsocketConsumer

    class Echo(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=text_data, bytes_data=bytes_data)

    async def connect(nursery: trio.Nursery) -> Callable[[int], Any]:
        to_application, events = trio.open_memory_channel[dict[str, Any]](QUEUE)
        to_client, answers = trio.open_memory_channel[dict[str, Any]](QUEUE)

        async def echo(number: int) -> float:
            begun = time.process_time()
            for each in range(number):
                await to_application.send({"type": "websocket.receive", "text": f"message {each}"})
                verify(await answers.receive(), f"message {each}")
            return time.process_time() - begun

        nursery.start_soon(Echo.as_asgi(), dict(SCOPE), events.receive, to_client.send)
        await to_application.send({"type": "websocket.connect"})
        if (await answers.receive())["type"] != "websocket.accept":
            raise RuntimeError("the application did not accept")
        return echo

    async def run() -> Timing:
        spent = [0.0, 0.0]
        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                first = await connect(nursery)
                between()
                both = [first, await connect(nursery)]
                for echo in both:
                    await echo(min(count, 1_000))
                for turn in range(max(count // TURN, 1)):
                    for which in (0, 1) if turn % 2 else (1, 0):
                        spent[which] += await both[which](min(count, TURN))
                nursery.cancel_scope.cancel()
        done = max(count // TURN, 1) * min(count, TURN)
        return Timing(done, spent[1], spent[1], {"times": spent[1] / max(spent[0], 1e-9)})

    return trio.run(run)


def ours(count: int) -> Timing:
    """Two that are alike."""
    return in_turns(count, lambda: None)


def metrics(count: int) -> Timing:
    """As a MetricsApplication has it."""
    from trio_channels._metrics import recording

    return in_turns(count, recording.start)


def tracing_off(count: int) -> Timing:
    """Without ``enable()``."""
    return in_turns(count, lambda: __import__("trio_channels.tracing"))


WORKLOAD = Workload(
    name="p14_watched",
    title="echo, watched",
    unit="echo",
    sides={
        "ours": Side(ours, 20_000),
        "metrics": Side(metrics, 20_000),
        "tracing-off": Side(tracing_off, 20_000, needs=("opentelemetry",)),
    },
    comparisons=(
        Comparison("with metrics", "metrics", "ours", slower=1.03, of="times"),
        Comparison("with tracing that is not enabled", "tracing-off", "ours", slower=1.01, of="times"),
    ),
)

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))
