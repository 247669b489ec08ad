"""A storm: many connections at once, of every kind, each cancelled at a moment that a seeded random generator chose.

Each connection of a kind does the same: it joins groups, starts background tasks, talks to its neighbours. Its record
notes each entry and each exit of a block that must be left.
"""

from __future__ import annotations

import contextvars
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from trio_channels._asgi.protocol import ASGIApplication, Message
from trio_channels._limits import Limits
from trio_channels._threads.thread import in_pool_thread
from trio_channels.generic.http import AsyncHttpConsumer
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.base import ChannelLayer
from trio_channels.sync import async_to_sync, sync_to_async
from trio_channels.websocket import WebSocket, websocket

#: How many connections share a room. Few: a storm is about ways out, not about fan-out.
NEIGHBOURS = 4

#: Where a connection may be cancelled: at a scheduler step of one of its tasks, in a call to its server, from outside.
MOMENTS = ("step", "call", "tick", "never")
WEIGHTS = (60, 15, 15, 10)

#: The last moment of each sort: about the most that a connection reaches if nobody cancels it.
LAST = {"step": 50, "call": 12, "tick": 60, "never": 0}

#: Long limits: a thousand connections that end at once wait for worker threads, and a busy machine is slow.
LIMITS = Limits(disconnect_timeout=100, close_timeout=100)

#: Messages for everybody during a storm.
ANNOUNCEMENTS = 3

record_of_task: contextvars.ContextVar[Record | None] = contextvars.ContextVar("record", default=None)


class Record:
    """The events of one connection, in order."""

    def __init__(self, number: int, kind: str) -> None:
        self.number = number
        self.kind = kind
        self.room = f"room.{number // NEIGHBOURS}"
        self.log: list[str] = []
        self.steps = 0
        self.calls = 0
        self.tasks = 0
        self.begun = False
        self.moment = "never"
        self.at = 0
        self.scope = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<Record {self.number} {self.kind}, cancelled at {self.moment} {self.at}: {' '.join(self.log)}>"

    @contextmanager
    def block(self, name: str) -> Iterator[None]:
        """A block that must be left. No two blocks of a connection have the same name at a time."""
        self.log.append(f"+{name}")
        try:
            yield
        finally:
            self.log.append(f"-{name}")

    def called(self) -> None:
        """Count a call to the server. Cancel the connection in the chosen call."""
        self.calls += 1
        if self.moment == "call" and self.calls == self.at:
            self.scope.cancel()

    def faults(self) -> list[str]:
        """The faults of the connection's end: blocks not left, a disconnect not run once, tasks left."""
        seen = Counter(self.log)
        faults = [
            f"{name[1:]} was entered {count} times, left {seen['-' + name[1:]]} times"
            for name, count in seen.items()
            if name[0] == "+" and count != seen["-" + name[1:]]
        ]
        if self.kind != "endpoint" and self.begun and not seen["+disconnect"] == seen["goodbye"] == 1:
            faults.append(f"disconnect began {seen['+disconnect']} times, was run to its end {seen['goodbye']} times")
        if self.tasks:
            faults.append(f"{self.tasks} tasks are left")
        return faults


class Steps(trio.abc.Instrument):
    """Counts the scheduler steps and the tasks of each connection, and cancels at a step."""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        record = task.context.get(record_of_task)
        if record is not None:
            record.steps += 1
            if record.moment == "step" and record.steps == record.at:
                record.scope.cancel()

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        record = task.context.get(record_of_task)
        if record is not None:
            record.tasks += 1

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        record = task.context.get(record_of_task)
        if record is not None:
            record.tasks -= 1


class Server:
    """The server's side: a short conversation; then the client leaves or stays. A close is confirmed."""

    def __init__(self, record: Record, *, leaves: bool) -> None:
        http = record.kind == "request"
        self._record = record
        self._closing = trio.Event()
        self._gone: Message = {"type": "http.disconnect"} if http else {"type": "websocket.disconnect", "code": 1001}
        self.scope: dict[str, Any] = {"type": "http" if http else "websocket", "path": f"/{record.number}/"}
        self.scope |= {"headers": [], "method": "POST", "record": record}
        self.scope["asgi"] = {"version": "3.0", "spec_version": "2.3" if record.number % 4 < 2 else "2.4"}
        if http:
            self._events: list[Message] = [
                {"type": "http.request", "body": b"one", "more_body": True},
                {"type": "http.request", "body": b"two"},
            ]
        else:
            self._events = [
                {"type": "websocket.connect"},
                {"type": "websocket.receive", "text": "one"},
                {"type": "websocket.receive", "bytes": b"two"},
            ]
        if leaves:
            self._closing.set()

    async def receive(self) -> Message:
        self._record.begun = True
        self._record.called()
        await trio.lowlevel.checkpoint()
        if self._events:
            return self._events.pop(0)
        await self._closing.wait()
        await trio.lowlevel.checkpoint()
        return self._gone

    async def send(self, message: Message) -> None:
        self._record.called()
        if self._record.number % 2:  # some servers' send is a checkpoint, some are not
            await trio.lowlevel.checkpoint()
        if message["type"] == "websocket.close":
            self._closing.set()


def applications(layer: ChannelLayer) -> dict[str, ASGIApplication]:
    """Kind -> application."""

    async def publish(record: Record, what: str) -> None:
        await layer.group_send(record.room, {"type": "room.message", "text": what})

    async def tick(record: Record) -> None:
        with record.block("background"):
            await publish(record, "tick")
            await trio.sleep_forever()

    class Consumer(AsyncWebsocketConsumer):
        channel_layer = layer
        limits = LIMITS
        groups = ("everybody",)
        record: Record

        async def connect(self) -> None:
            self.record = self.scope["record"]
            with self.record.block("connect"):
                await layer.group_add(self.record.room, self.channel_name)
                self.start_soon(tick, self.record)
                await self.work()
                await self.accept()

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            with self.record.block("receive"):
                await publish(self.record, text_data or "bytes")
                await self.work()
                await self.send(text_data, bytes_data)

        async def room_message(self, event: Message) -> None:
            with self.record.block("handler"):
                await self.send(event["text"])

        async def disconnect(self, code: int) -> None:
            self.record = self.scope["record"]
            with self.record.block("disconnect"):
                await layer.group_discard(self.record.room, self.channel_name)
                await publish(self.record, "left")
                await self.work()
                self.record.log.append("goodbye")

        async def work(self) -> None:
            await trio.lowlevel.checkpoint()

    class Borrower(Consumer):
        async def work(self) -> None:
            await sync_to_async(in_pool_thread)()

    class Sync(WebsocketConsumer):
        channel_layer = layer
        limits = LIMITS
        groups = ("everybody",)
        record: Record

        def connect(self) -> None:
            self.record = self.scope["record"]
            with self.record.block("connect"):
                async_to_sync(layer.group_add)(self.record.room, self.channel_name)
                self.start_soon(self.background)
                self.accept()

        def background(self) -> None:
            with self.record.block("background"):
                async_to_sync(publish)(self.record, "tick")

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            with self.record.block("receive"):
                async_to_sync(publish)(self.record, text_data or "bytes")
                self.send(text_data, bytes_data)

        def room_message(self, event: Message) -> None:
            with self.record.block("handler"):
                self.send(event["text"])

        def disconnect(self, code: int) -> None:
            self.record = self.scope["record"]
            with self.record.block("disconnect"):
                async_to_sync(publish)(self.record, "left")
                self.record.log.append("goodbye")

    @websocket(limits=LIMITS)
    async def endpoint(ws: WebSocket) -> None:
        record: Record = ws.scope["record"]
        with record.block("endpoint"):
            async with layer.subscribe("everybody", record.room) as events:
                ws.start_soon(tick, record)
                await ws.accept()
                ws.start_soon(relay, ws, record, events)
                async for message in ws:
                    await publish(record, "said")
                    await ws.send(message)

    async def relay(ws: WebSocket, record: Record, events: Any) -> None:
        with record.block("relay"):
            async for event in events:
                await ws.send(event["text"])

    class Request(AsyncHttpConsumer):
        channel_layer = layer
        limits = LIMITS
        record: Record

        async def handle(self, body: bytes) -> None:
            self.record = self.scope["record"]
            with self.record.block("connect"):
                await self.send_headers()
                await self.send_body(body, more_body=True)
                self.start_soon(tick, self.record)
                await layer.group_add(self.record.room, self.channel_name)  # from here on a neighbour may end it

        async def room_message(self, event: Message) -> None:
            with self.record.block("handler"):
                await self.send_body(event["text"].encode(), more_body=event["text"] != "left")

        async def disconnect(self) -> None:
            self.record = self.scope["record"]
            with self.record.block("disconnect"):
                await publish(self.record, "left")
                self.record.log.append("goodbye")

    return {
        "consumer": Consumer.as_asgi(),
        "borrower": Borrower.as_asgi(),
        "sync": Sync.as_asgi(),
        "endpoint": endpoint,
        "request": Request.as_asgi(),
    }


async def storm(
    rng: random.Random,
    kinds: dict[str, int],
    *,
    moments: tuple[int, ...] = WEIGHTS,
    some_stay: bool = True,
) -> tuple[list[Record], InMemoryChannelLayer]:
    """Run a storm to its end.

    Args:
        rng: the source of every choice.
        kinds: kind -> how many.
        moments: the weights of :data:`MOMENTS`.
        some_stay: whether three clients in ten stay until they are cancelled, at the latest when all tasks wait.

    Returns:
        The records of the connections, and their layer.
    """
    layer = InMemoryChannelLayer()
    table = applications(layer)
    shuffled = rng.sample([*kinds], counts=kinds.values(), k=sum(kinds.values()))
    records = [Record(number, kind) for number, kind in enumerate(shuffled)]
    at_tick: dict[int, list[Record]] = {}
    for record in records:
        record.moment = rng.choices(MOMENTS, moments)[0]
        record.at = rng.randint(0 if record.moment == "tick" else 1, LAST[record.moment] or 1)
        if record.moment == "tick":
            at_tick.setdefault(record.at, []).append(record)
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    try:
        async with trio.open_nursery() as nursery:
            for record in records:
                server = Server(record, leaves=not some_stay or rng.random() < 0.7)
                token = record_of_task.set(record)
                nursery.start_soon(_run, record, table[record.kind], server)
                record_of_task.reset(token)
            for now in range(LAST["tick"] + 1):
                for record in at_tick.get(now, ()):
                    record.scope.cancel()
                if now % (LAST["tick"] // ANNOUNCEMENTS) == 0:
                    await layer.group_send("everybody", {"type": "room.message", "text": "hear, hear"})
                await trio.lowlevel.checkpoint()
            if some_stay:
                await wait_all_tasks_blocked()
                for record in records:
                    record.scope.cancel()
    finally:
        trio.lowlevel.remove_instrument(steps)
    return records, layer


async def _run(record: Record, application: ASGIApplication, server: Server) -> None:
    with record.scope:
        await application(server.scope, server.receive, server.send)
