"""Bounded queues of a connection's events: the server's, and the application's, whose reader has other sources, too."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from .._asgi.protocol import Message
from .wakeup import Wakeup


class EventQueue:
    """A bounded queue between the task that reads a connection, which waits while it is full, and its users."""

    __slots__ = ("_capacity", "_closed", "_dealt_with", "_events", "_room", "_waits_for_room", "_wakeup")

    def __init__(self, capacity: int, wakeup: Wakeup) -> None:
        self._capacity = capacity
        self._wakeup = wakeup
        self._events: deque[Message] = deque()
        self._room = Wakeup()
        self._waits_for_room = False
        self._dealt_with = Wakeup()
        self._closed = False

    def __len__(self) -> int:
        return len(self._events)

    def __repr__(self) -> str:
        return f"<EventQueue {len(self)} of {self._capacity}{', closed' if self._closed else ''}>"

    @property
    def unread(self) -> bool:
        """Whether an event waits that must be taken: an endpoint need not take the handshake's, which comes first."""
        return any(event["type"] != "websocket.connect" for event in self._events)

    def take(self) -> Message | None:
        """The next event; None if the queue is empty."""
        if not self._events:
            return None
        event = self._events.popleft()
        if self._waits_for_room:
            self._room.set()
        return event

    def add(self, event: Message) -> None:
        """Add an event at once, even to a full queue."""
        self._events.append(event)
        self._wakeup.set()

    async def put(self, event: Message) -> None:
        """Add an event when there is room; after :meth:`close`, or if cancelled while the queue is full, drop it."""
        while len(self._events) >= self._capacity and not self._closed:
            self._waits_for_room = True
            try:
                await self._room.wait()
            finally:
                self._waits_for_room = False
        if not self._closed:
            self._events.append(event)
            self._wakeup.set()

    def close(self) -> None:
        """Drop the events that wait, and every later one."""
        self._closed = True
        self._events.clear()
        self._room.set()

    def dealt_with(self) -> None:
        """Say that an event has been handled, not only taken."""
        self._dealt_with.set()

    async def until_dealt_with(self) -> None:
        """Wait for :meth:`dealt_with`. Cancellation: at any time; nothing is lost."""
        await self._dealt_with.wait()


class Inbox:
    """A bounded queue of one request's or WebSocket's events, from the server to the application.

    While it is full, the server does not read the connection, so that TCP slows a client that floods. The last event,
    the disconnect, needs no room and cannot be lost. It costs less than hypercorn's memory channel.
    """

    __slots__ = ("_awaited", "_capacity", "_events", "_last", "_readers", "_writers")

    def __init__(self, capacity: int) -> None:
        self._awaited: Callable[[], Awaitable[None]] | None = None
        self._capacity = capacity
        self._events: deque[Any] = deque()  # hypercorn has classes of its own for events
        self._last: Any = None
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()

    @property
    def full(self) -> bool:
        """Whether an event has to wait for room."""
        return len(self._events) >= self._capacity and self._last is None

    async def room(self) -> None:
        """Wait until there is room, or the last event has been added."""
        while self.full:
            await self._writers.park()

    async def __call__(self, event: Any) -> None:
        """Add an event when there is room; after the last event drop it. hypercorn calls the queue to add one."""
        await self.room()
        if self._last is None:
            self._events.append(event)
            self._readers.unpark()

    def when_awaited(self, call: Callable[[], Awaitable[None]]) -> None:
        """Call a function once, when the reader has to wait for an event."""
        self._awaited = call

    def end(self, event: Any) -> None:
        """Add the last event, unless there is one, and wake every task that waits."""
        # Not async: a disconnect is mostly added while a cancellation is under way, and a checkpoint would lose it.
        if self._last is None:
            self._last = event
        self._writers.unpark_all()
        self._readers.unpark_all()

    async def receive(self) -> Any:
        """The next event; after the last one, that again. A cancellation loses none."""
        while not self._events:
            if self._last is not None:
                await trio.lowlevel.checkpoint()
                return self._last
            if self._awaited is not None:
                call, self._awaited = self._awaited, None
                await call()
            else:
                await self._readers.park()
        await trio.lowlevel.checkpoint_if_cancelled()
        event = self._events.popleft()
        self._writers.unpark()
        return event
