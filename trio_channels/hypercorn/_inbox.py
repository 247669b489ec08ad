"""The events of one request or WebSocket on their way to the application.

As hypercorn's memory channel, at less cost, and with a last event that always has room.
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

    async def put(self, event: Message) -> None:
        """Add an event; waits for room unless it is a disconnect, which frees whoever waits.

        Cancellation: the event is not added.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if event["type"].endswith(".disconnect"):
            if self._last is None:
                self._last = event
            self._writers.unpark_all()
            self._readers.unpark_all()
        else:
            while len(self._events) >= self._capacity and self._last is None:
                await self._writers.park()
            if self._last is not None:
                return
            self._events.append(event)
            self._readers.unpark()

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
