"""The events of one request or WebSocket on their way to the application.

As hypercorn's memory channel, at less cost, and with a last event that always has room and cannot be lost.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import trio

Message = Any


class Inbox:
    """A bounded queue with one reader; its last event, the disconnect, is delivered whatever it holds.

    Args:
        capacity: events that may wait. The connection is not read further while it is full, so that who floods meets
            TCP's back-pressure.
    """

    __slots__ = ("_capacity", "_events", "_last", "_readers", "_writers")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._events: deque[Message] = deque()
        self._last: Message | None = None
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()

    @property
    def full(self) -> bool:
        """Whether an event has to wait for room."""
        return len(self._events) >= self._capacity and self._last is None

    async def room(self) -> None:
        """Wait until there is room for an event, or no more to come. Cancellation: nothing has happened."""
        while self.full:
            await self._writers.park()

    async def __call__(self, event: Message) -> None:
        """Add an event; hypercorn calls what it is given for this. After the last one nothing is added.

        Cancellation: seen while there is no room, and then the event is not added.
        """
        await self.room()
        if self._last is None:
            self._events.append(event)
            self._readers.unpark()

    def end(self, event: Message) -> None:
        """Add the last event, which frees whoever waits; the first one given counts.

        Not async: a disconnect is mostly told while a cancellation is under way, and any checkpoint would lose it.
        """
        if self._last is None:
            self._last = event
        self._writers.unpark_all()
        self._readers.unpark_all()

    async def receive(self) -> Message:
        """The next event; after the last one, that again. Cancellation: nothing is lost."""
        while not self._events:
            if self._last is not None:
                await trio.lowlevel.checkpoint()
                return self._last
            await self._readers.park()
        await trio.lowlevel.checkpoint_if_cancelled()
        event = self._events.popleft()
        self._writers.unpark()
        return event
