"""P13: topics, beside the consumer that one would write without them; in memory, without sockets.

- ``push``: a client pushes to its topic and gets the reply. Beside it: a JSON consumer that answers each message.
- ``broadcast``: a message to the 100 clients of a topic. Beside it: a ``group_broadcast`` to 100 JSON consumers.
- ``join``: a client of an open socket joins a topic and leaves it. Beside it: a WebSocket that is opened and closed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from . import _django
from .harness import Comparison, Side, Stopwatch, Timing, Workload, main
from .p2_echo import DEADLINE, QUEUE, SCOPE, warm_up

CLIENTS = 100
PAYLOAD = {"user": "Ada", "text": "hello, everybody in the room"}
TOPIC = "room:lobby"


class Client:
    """A client of an ASGI application: frames of JSON."""

    def __init__(self) -> None:
        import trio

        self.to_application, self.receive = trio.open_memory_channel[dict[str, Any]](QUEUE)
        self.send, self.answers = trio.open_memory_channel[dict[str, Any]](QUEUE)

    async def open(self) -> None:
        await self.to_application.send({"type": "websocket.connect"})
        if (await self.answers.receive())["type"] != "websocket.accept":
            raise RuntimeError("the application did not accept")

    async def close(self) -> None:
        await self.to_application.send({"type": "websocket.disconnect", "code": 1000})

    async def tell(self, frame: Any) -> None:
        await self.to_application.send({"type": "websocket.receive", "text": json.dumps(frame)})

    async def heard(self) -> Any:
        return json.loads((await self.answers.receive())["text"])

    async def ask(self, *frame: Any) -> None:
        """Send a frame of topics, and take its reply."""
        await self.tell(frame)
        reply = await self.heard()
        if reply[3] != "phx_reply" or reply[4]["status"] != "ok":
            raise RuntimeError(f"expected the reply to {frame}; got {reply}")


def applications() -> tuple[Any, Any]:
    """The socket of topics, and the consumer."""
    from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer
    from trio_channels.topics import Topic, TopicSocket, event

    class Room(Topic):
        pattern = "room:<slug:room>"

        @event("say")
        async def say(self, payload: Any) -> Any:
            return payload

    class Consumer(AsyncJsonWebsocketConsumer):
        groups = ("room",)

        async def receive_json(self, content: Any, **kwargs: Any) -> None:
            await self.send_json(content)

    return TopicSocket.as_asgi(topics=[Room]), Consumer.as_asgi()


async def open_topic(client: Client) -> None:
    await client.open()
    await client.ask("1", "1", TOPIC, "phx_join", {})


async def push(client: Client) -> None:
    await client.ask("1", "2", TOPIC, "say", PAYLOAD)


async def answer(client: Client) -> None:
    await client.tell(PAYLOAD)
    if await client.heard() != PAYLOAD:
        raise RuntimeError("the answer is another one")


async def join(client: Client) -> None:
    await client.ask("3", "3", "room:other", "phx_join", {})
    await client.ask("3", "4", "room:other", "phx_leave", {})
    if (await client.heard())[3] != "phx_close":
        raise RuntimeError("the topic was not closed")


async def broadcast_to_topic(_client: Client) -> None:
    from trio_channels.topics import broadcast

    await broadcast(TOPIC, "said", PAYLOAD)


async def broadcast_to_group(_client: Client) -> None:
    from trio_channels.layers import get_channel_layer

    layer = get_channel_layer()
    if layer is None:
        raise RuntimeError("there is no channel layer")
    await layer.group_broadcast("room", json=PAYLOAD)


def run(
    which: int,
    opened: Callable[[Client], Awaitable[None]],
    work: Callable[[Client], Awaitable[None]],
    clients: int,
    heard: int,
    count: int,
) -> Timing:
    """Open the clients; then so often have the first one work, and every client take so many frames."""
    _django.set_up(_django.OURS)
    import trio

    application = applications()[which]

    async def program() -> Timing:
        everybody = [Client() for _ in range(clients)]

        async def repeat(times: int) -> None:
            for _ in range(times):
                await work(everybody[0])
                for client in everybody if heard else ():
                    await client.answers.receive()

        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                for client in everybody:
                    nursery.start_soon(application, dict(SCOPE), client.receive.receive, client.send.send)
                    await opened(client)
                await repeat(warm_up(count))
                with Stopwatch() as watch:
                    await repeat(count)
                for client in everybody:
                    await client.close()
        return watch.timing(count)

    return trio.run(program)


def visits(count: int) -> Timing:
    """WebSockets that are opened and closed, one after the other."""
    _django.set_up(_django.OURS)
    import trio

    application = applications()[1]

    async def visit() -> None:
        client = Client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(application, dict(SCOPE), client.receive.receive, client.send.send)
            await client.open()
            await client.close()

    async def program() -> Timing:
        with trio.fail_after(DEADLINE):
            for _ in range(warm_up(count)):
                await visit()
            with Stopwatch() as watch:
                for _ in range(count):
                    await visit()
        return watch.timing(count)

    return trio.run(program)


WORKLOAD = Workload(
    name="p13_topics",
    title="Topics",
    unit="message, broadcast or join",
    sides={
        "topics-push": Side(partial(run, 0, open_topic, push, 1, 0), 10_000),
        "consumer-answer": Side(partial(run, 1, Client.open, answer, 1, 0), 10_000),
        "topics-broadcast": Side(partial(run, 0, open_topic, broadcast_to_topic, CLIENTS, 1), 300),
        "consumer-broadcast": Side(partial(run, 1, Client.open, broadcast_to_group, CLIENTS, 1), 300),
        "topics-join": Side(partial(run, 0, open_topic, join, 1, 0), 3_000),
        "consumer-visit": Side(visits, 3_000),
    },
    comparisons=(
        Comparison("a push with its reply, beside a message with its answer", "topics-push", "consumer-answer"),
        Comparison("a broadcast to 100 clients", "topics-broadcast", "consumer-broadcast"),
        Comparison("a topic joined and left, beside a WebSocket", "topics-join", "consumer-visit"),
    ),
)

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))
