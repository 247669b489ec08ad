"""One topic of one socket: its joins, one after another."""

from __future__ import annotations

from collections.abc import Callable

from .._asgi.protocol import Message
from .membership import Membership


class Slot:
    """The joins of one topic by one client. A new join ends the one before it, and waits for its end."""

    __slots__ = ("_next", "_on_end", "current", "topic")

    def __init__(self, topic: str, on_end: Callable[[Slot], None]) -> None:
        self.topic = topic
        self.current: Membership | None = None
        self._next: Membership | None = None
        self._on_end = on_end

    @property
    def newest(self) -> Membership | None:
        """The membership that the client has asked for last."""
        return self._next or self.current

    def join(self, membership: Membership) -> Message | None:
        """Have a membership follow the current one; returns what to tell the client of one that has not begun."""
        replaced, self._next = self._next, membership
        if replaced is not None:
            return replaced.give_up()
        if self.current is not None:
            self.current.replace()
        return None

    def end(self, *, at_once: bool) -> None:
        """End the membership: the client has gone. Its pushes are handled first, unless `at_once`."""
        self._next = None
        if self.current is not None:
            if at_once:
                self.current.replace()
            self.current.leave(None)

    async def run(self) -> None:
        """Serve one membership after another. Cancellation: ends the current one, and begins no other."""
        try:
            while self._next is not None:
                self.current, self._next = self._next, None
                await self.current.serve()
        finally:
            self._on_end(self)
