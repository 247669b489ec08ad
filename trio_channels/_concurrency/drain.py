"""The end of a server, for responses that would go on for ever: a server puts its drain into each scope."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

#: The key of a server's :class:`Drain` in the extensions of a scope.
DRAIN = "trio_channels.drain"


class Drain:
    """Whether a server has begun to end.

    Attributes:
        begun: whether it has.
    """

    __slots__ = ("_waiting", "begun")

    def __init__(self) -> None:
        self.begun = False
        self._waiting: set[trio.CancelScope] = set()

    def begin(self) -> None:
        """Cancel the scopes of those that wait."""
        self.begun = True
        for scope in self._waiting:
            scope.cancel()

    @contextmanager
    def cutting(self, scope: trio.CancelScope) -> Iterator[None]:
        """In the block, the end of the server cancels a scope."""
        self._waiting.add(scope)
        try:
            yield
        finally:
            self._waiting.discard(scope)
