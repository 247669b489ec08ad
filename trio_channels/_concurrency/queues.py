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

    __slots__ = ("_capacity", "_closed", "_dealt_with", "_events", "_room", "_wakeup")

    def __init__(self, capacity: int, wakeup: Wakeup) -> None:
        self._capacity = capacity
        self._wakeup = wakeup
        self._events: list[Message] = []  # short, and an empty deque takes 600 bytes
        self._room: Wakeup | None = None  # while a task waits for room
        self._dealt_with: Wakeup | None = None  # made for its first use: most connections have none
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
        event = self._events.pop(0)
        if self._room is not None:
            self._room.set()
        return event

    def add(self, event: Message) -> None:
        """Add an event at once, even to a full queue."""
        self._events.append(event)
        self._wakeup.set()

    def offer(self, event: Message) -> bool:
        """Add an event if there is room, and return whether there was; after :meth:`close` drop it."""
        if self._closed:
            return True
        if len(self._events) >= self._capacity:
            return False
        self._events.append(event)
        self._wakeup.set()
        return True

    @property
    def full(self) -> bool:
        """Whether an event has to wait for room."""
        return len(self._events) >= self._capacity and not self._closed

    async def until_read(self) -> None:
        """Wait until an event may have been taken, or for :meth:`release`. Cancellation: nothing is lost."""
        self._room = Wakeup()
        try:
            await self._room.wait()
        finally:
            self._room = None

    def release(self) -> None:
        """Wake the task that waits for room, whether there is room or not."""
        if self._room is not None:
            self._room.set()

    async def put(self, event: Message) -> None:
        """Add an event when there is room; after :meth:`close`, or if cancelled while the queue is full, drop it."""
        while not self.offer(event):
            await self.until_read()

    def close(self) -> None:
        """Drop the events that wait, and every later one that is offered. (:meth:`add` still adds one.)"""
        self._closed = True
        self._events.clear()
        self.release()

    def dealt_with(self) -> None:
        """Say that an event has been handled, not only taken."""
        self._when_dealt_with().set()

    async def until_dealt_with(self) -> None:
        """Wait for :meth:`dealt_with`. Cancellation: at any time; nothing is lost."""
        await self._when_dealt_with().wait()

    def _when_dealt_with(self) -> Wakeup:
        if self._dealt_with is None:
            self._dealt_with = Wakeup()
        return self._dealt_with


def _drop(_event: Any) -> bool:
    """The ``offer`` of an inbox after its last event."""
    return True


#: The events of an inbox that is attached to another queue.
_NO_EVENTS: deque[Any] = deque(maxlen=0)


class Inbox:
    """A bounded queue of one request's or WebSocket's events, from the server to the application.

    While it is full, the server does not read the connection, so that TCP slows a client that floods. The last event,
    the disconnect, needs no room and cannot be lost. It costs less than hypercorn's memory channel.

    A WebSocket application of this package has a queue of its own, whose reader waits for other things, too. It may
    take the place of this queue (:meth:`attach`): the server then puts each event straight into it. Django's handler
    takes the event of a request without a body at once (:meth:`take_if`), and has no task that waits for the last event
    (:meth:`when_over`).
    """

    __slots__ = ("_attached", "_awaited", "_capacity", "_changed", "_events", "_last", "_on_last", "offer")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._events: deque[Any] = deque()  # hypercorn has classes of its own for events
        self._last: Any = None
        self._changed: trio.lowlevel.ParkingLot | None = None  # readers wait here, and writers; made for the first
        self._attached: EventQueue | None = None
        self._on_last: tuple[Callable[[Any], object], ...] = ()
        self._awaited: Callable[[], object] | None = None
        #: Adds an event if there is room, and returns whether there was; drops it after the last event.
        self.offer: Callable[[Any], bool] = self._offer

    def attach(self, queue: EventQueue, on_last: Callable[[Any], object]) -> None:
        """Have another queue take the events, those that wait here first, and a function take the last one."""
        self._attached = queue
        self._on_last = (on_last,)
        for event in self._events:
            queue.add(event)
        self._events = _NO_EVENTS
        if self._changed is not None:
            self._changed.unpark_all()
        if self._last is not None:
            on_last(self._last)
        else:
            self.offer = queue.offer

    def detach(self) -> None:
        """Let go of the function that takes the last event: nobody wants it any more."""
        self._on_last = ()

    def take_if(self, expected: Message) -> bool:
        """Take the next event, if it has come and is equal to another; returns whether it was."""
        if not self._events or self._events[0] != expected:
            return False
        self._events.popleft()
        if self._changed:
            self._changed.unpark_all()
        return True

    def when_over(self, call: Callable[[Any], object]) -> None:
        """Have a function called with the last event: now, if it has been added."""
        if self._last is not None:
            call(self._last)
        else:
            self._on_last += (call,)

    def no_longer(self, call: Callable[[Any], object]) -> None:
        """Have a function of :meth:`when_over` not called any more."""
        self._on_last = tuple(other for other in self._on_last if other is not call)

    def when_awaited(self, call: Callable[[], object]) -> None:
        """Call a function once, when a reader first has to wait for an event."""
        self._awaited = call

    def _offer(self, event: Any) -> bool:
        if len(self._events) >= self._capacity:
            return False
        self._events.append(event)
        if self._changed:
            self._changed.unpark_all()
        return True

    @property
    def full(self) -> bool:
        """Whether an event has to wait for room."""
        if self._last is not None:
            return False
        return self._attached.full if self._attached is not None else len(self._events) >= self._capacity

    async def room(self) -> None:
        """Wait until there is room, or the last event has been added. Cancellation: nothing is lost."""
        while self.full:
            if self._attached is not None:
                await self._attached.until_read()
            else:
                await self._change()

    def _change(self) -> Awaitable[object]:
        if self._changed is None:
            self._changed = trio.lowlevel.ParkingLot()
        return self._changed.park()

    async def __call__(self, event: Any) -> None:
        """Add an event when there is room; after the last event drop it. hypercorn calls the queue to add one."""
        while not self.offer(event):
            await self.room()

    def end(self, event: Any) -> None:
        """Add the last event, unless there is one, and wake every task that waits."""
        # Not async: a disconnect is mostly added while a cancellation is under way, and a checkpoint would lose it.
        if self._last is None:
            self._last = event
            self.offer = _drop
            if self._attached is not None:
                self._attached.release()
            for call in self._on_last:
                call(event)
        if self._changed:
            self._changed.unpark_all()

    async def receive(self) -> Any:
        """The next event; after the last one, that again. A cancellation loses none."""
        while not self._events:
            if self._last is not None:
                await trio.lowlevel.checkpoint()
                return self._last
            if self._awaited is not None:
                call, self._awaited = self._awaited, None
                call()
            await self._change()
        await trio.lowlevel.checkpoint_if_cancelled()
        event = self._events.popleft()
        if self._changed:
            self._changed.unpark_all()
        return event
