"""``trio_channels.client`` as the table's steps want it."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from trio_channels.client import ClientSocket, ClientTopic, Message, Rejoined, connect
from trio_channels.exceptions import JoinFailed, PushFailed, ReplyLost, ReplyTimeout, SocketEnded, TopicClientError

PROTOCOL = ("phx_", "presence_")


def at_once(attempt: int, code: int | None) -> float:
    """A back-off for tests."""
    return 0.005


async def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a socket has no event for it
        await trio.sleep(0.002)


class Queue(deque[Any]):
    def __init__(self) -> None:
        super().__init__()
        self._more = trio.Event()

    def put(self, item: Any) -> None:
        self.append(item)
        self._more.set()
        self._more = trio.Event()

    async def take(self) -> Any:
        while not self:
            await self._more.wait()
        return self.popleft()


class TrioChannel:
    """A task that has joined, and reads."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.answers, self.events, self.presences = Queue(), Queue(), Queue()
        self.leaving, self.closed = trio.Event(), trio.Event()
        self.ended: SocketEnded | None = None
        self.room: ClientTopic

    async def run(self, socket: ClientSocket, topic: str, params: Any, options: dict[str, float]) -> None:
        try:
            async with socket.join(topic, params, **options) as self.room, trio.open_nursery() as nursery:  # type: ignore[arg-type]
                self.answers.put(["ok", self.room.response])
                nursery.start_soon(self.read, nursery.cancel_scope)
                await self.leaving.wait()
                nursery.cancel_scope.cancel()
        except JoinFailed as error:
            self.answers.put(["error", error.response])
        except ReplyTimeout:
            self.answers.put(["timeout", None])
        finally:
            self.closed.set()

    async def read(self, over: trio.CancelScope) -> None:
        try:
            async for message in self.room:
                self.take(message)
        except SocketEnded as error:
            self.ended = error
        over.cancel()

    def take(self, message: Message) -> None:
        if isinstance(message, Rejoined):
            self.answers.put(["ok", message.payload])
        elif not message.event.startswith(PROTOCOL):
            self.events.put([message.event, message.payload])
        self.presences.put(dict(self.room.presence))

    async def next_answer(self) -> list[Any]:
        answer: list[Any] = await self.answers.take()
        return answer

    async def next_event(self) -> list[Any]:
        event: list[Any] = await self.events.take()
        return event

    async def wait_presence(self, fits: Callable[[dict[str, list[dict[str, Any]]]], bool]) -> None:
        while not fits(self.room.presence):
            await self.presences.take()

    async def push(self, event: str, payload: Any, timeout: float | None) -> list[Any]:
        try:
            return ["ok", await self.room.push(event, payload, timeout=timeout)]
        except PushFailed as error:
            return ["error", error.response]
        except ReplyTimeout:
            return ["timeout", None]

    async def push_soon(self, event: str, payload: Any) -> None:
        async def push() -> None:
            try:
                await self.room.push(event, payload, timeout=10.0)
            except (ReplyLost, ReplyTimeout, TopicClientError):
                pass

        self.nursery.start_soon(push)

    async def stream(self, event: str, payload: Any) -> list[list[Any]]:
        async with self.room.stream(event, payload) as replies:
            return [*[["ok", value] async for value in replies], ["end", {}]]

    async def leave(self) -> list[Any]:
        self.leaving.set()
        await self.closed.wait()
        return ["ok", {}]  # the block has ended without an exception

    async def wait_closed(self) -> None:
        await self.closed.wait()

    def left_over(self) -> list[Any]:
        return list(self.events)


class TrioSocket:
    """A task that is connected."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.over, self.gone = trio.Event(), trio.Event()
        self.channels: list[TrioChannel] = []
        self.socket: ClientSocket

    async def run(self, address: str, options: dict[str, Any], task_status: trio.TaskStatus[None]) -> None:
        async with connect(address, back_off=at_once, **options) as self.socket:
            task_status.started()
            await self.over.wait()
        self.gone.set()

    async def join(self, topic: str, params: Any, timeout: float | None) -> TrioChannel:
        channel = TrioChannel(self.nursery)
        self.channels.append(channel)
        options = {} if timeout is None else {"timeout": timeout}
        self.nursery.start_soon(channel.run, self.socket, topic, params, options)
        return channel

    async def beats(self, count: int) -> None:
        await wait_until(lambda: self.socket.statistics().heartbeats >= count)

    async def away(self) -> None:
        await wait_until(lambda: not self.socket.statistics().connected or self.socket.statistics().connections > 1)

    async def disconnect(self) -> None:
        self.over.set()
        await self.gone.wait()

    async def ended(self) -> int | None:
        (channel,) = self.channels
        await channel.closed.wait()
        assert channel.ended is not None
        return channel.ended.code


class TrioClient:
    """The client of one case."""

    def __init__(self, nursery: trio.Nursery, address: str) -> None:
        self.nursery = nursery
        self.address = address

    async def connect(self, *, params: dict[str, str], token: str | None, heartbeat: float | None) -> TrioSocket:
        options = {"params": params, "token": token, **({} if heartbeat is None else {"heartbeat": heartbeat})}
        socket = TrioSocket(self.nursery)
        await self.nursery.start(socket.run, self.address, options)
        return socket

    async def gather(self, calls: list[Callable[[], Awaitable[Any]]]) -> list[Any]:
        results: list[Any] = [None] * len(calls)

        async def call(place: int) -> None:
            results[place] = await calls[place]()

        async with trio.open_nursery() as nursery:
            for place in range(len(calls)):
                nursery.start_soon(call, place)
                await trio.lowlevel.checkpoint()  # Trio starts a batch of tasks in any order
        return results
