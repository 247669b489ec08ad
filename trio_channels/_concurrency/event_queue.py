"""The client's events that have been read and not yet taken."""

from __future__ import annotations

from collections import deque

from .._asgi.protocol import Message
from .wakeup import Bell


class EventQueue:
    """A bounded first-in, first-out queue between the one task that reads a connection and those that use it.

    Args:
        capacity: how many events may wait; from then on the reader does.
        bell: rung for every event that comes in.
    """

    __slots__ = ("_bell", "_capacity", "_closed", "_dealt_with", "_events", "_room")

    def __init__(self, capacity: int, bell: Bell) -> None:
        self._capacity = capacity
        self._bell = bell
        self._events: deque[Message] = deque()
        self._room = Bell()
        self._dealt_with = Bell()
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
        """The next event, or None where none waits."""
        if not self._events:
            return None
        event = self._events.popleft()
        self._room.ring()
        return event

    def add(self, event: Message) -> None:
        """Add an event at once, though there may be no room for it."""
        self._events.append(event)
        self._bell.ring()

    async def put(self, event: Message) -> None:
        """Add an event as soon as there is room for it; one that comes after :meth:`close` is forgotten.

        Cancellation: only while there is no room, and the event is lost. Where there is room there is no checkpoint.
        """
        while len(self._events) >= self._capacity and not self._closed:
            await self._room.wait()
        if not self._closed:
            self.add(event)

    def close(self) -> None:
        """Forget what waits and what comes: nobody takes anything any more."""
        self._closed = True
        self._events.clear()
        self._room.ring()

    def dealt_with(self) -> None:
        """Say that an event has been not only taken, but handled."""
        self._dealt_with.ring()

    async def until_dealt_with(self) -> None:
        """Wait for :meth:`dealt_with`. Cancellation: at any time, and nothing is lost."""
        await self._dealt_with.wait()
